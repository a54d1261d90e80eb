"""Training speed on this CPU against named peers, on the same batches in one run.

    make bench NANOGPT=path NANODO=path        # peers' sources, never copied here; either may be left out

Each trainer is a process of its own (peers.py) that trains only while it is timed. A round is made of turns of about
half a second; in every other turn the trainers follow each other backwards, so that a drift of the machine falls on all
alike. Ratios are medians over rounds. Losses are compared after the same tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
from peers import DISPATCH, Size

SIZES = ("64,2,2,128,32,256", "128,4,4,256,16,256", "256,6,8,256,16,1024")  # width, depth, heads, S, B, V
KEEP = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=2147483647:glibc.malloc.arena_max=1"  # as allocator.py
MATMUL_SIDES = (512, 1024, 2048)
THREADS = 2
ROUNDS = 5
TURN_SECONDS = 0.5


@dataclass
class Trainer:
    """A process of peers.py and what it measured."""

    label: str
    name: str
    path: str
    kept: bool = False  # with the allocator settings that lmscale gives itself
    rates: list[float] = field(default_factory=list)  # tokens per second, a round each
    loss_nats: float = float("nan")
    process: subprocess.Popen[str] | None = None

    def start(self, size: str) -> bool:
        """False, and said, if it cannot run here (a package or a compiler is missing)."""
        env = dict(os.environ, OMP_NUM_THREADS=str(THREADS), TF_CPP_MIN_LOG_LEVEL="3")
        if self.kept:
            env["GLIBC_TUNABLES"] = KEEP
        script = Path(__file__).with_name("peers.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), self.name, size, self.path, str(THREADS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        try:
            self._answer()
            self.ask("train 8")  # compiles
        except EOFError:
            assert self.process.stderr is not None
            last = self.process.stderr.read().strip().splitlines()[-1:] or ["it said nothing"]
            print(f"  {self.label}: left out, {last[0][:150]}", flush=True)
            return False
        return True

    def ask(self, line: str) -> dict:
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise EOFError from None
        return self._answer()

    def _answer(self) -> dict:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # nanoGPT prints its parameter counts
                return json.loads(line)
        raise EOFError

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


def measure(text: str, trainers: list[Trainer], loss_steps: int, seconds: float) -> None:
    """Prints one size's table: tokens/s, the ratio of lmscale to each peer, and the losses."""
    size = Size.from_text(text)
    print(f"(width, depth, heads, sequence, batch, vocabulary) = ({text})", flush=True)
    running = [t for t in trainers if t.start(text)]
    try:
        ours, tokens = running[0], size.batch * size.sequence
        flops: list[float] = []
        steps = {}
        for trainer in running:  # the losses, which also say how many steps fill a round
            if not trainer.kept:  # the allocator changes no loss
                trainer.ask(f"train {loss_steps - 8 - 16}")
            tail = trainer.ask("train 16")
            trainer.loss_nats = float("nan") if trainer.kept else tail["loss_nats"]
            steps[trainer.label] = turn_steps(tail["seconds"] / 16)
        turns = max(2, 2 * round(seconds / TURN_SECONDS / 2))
        for _ in range(ROUNDS):
            spent = dict.fromkeys(steps, 0.0)
            for turn in range(turns):
                for trainer in running[:: 1 if turn % 2 == 0 else -1]:
                    spent[trainer.label] += trainer.ask(f"train {steps[trainer.label]}")["seconds"]
            for trainer in running:
                trainer.rates.append(turns * steps[trainer.label] * tokens / spent[trainer.label])
            flops.append(max(ours.ask(f"matmul {side}")["flops_per_second"] for side in MATMUL_SIDES))
        report(size, running, flops, loss_steps)
    finally:
        for trainer in trainers:
            trainer.stop()


def turn_steps(step_seconds: float) -> int:
    """Steps of a turn: whole calls of lmscale's program, unless a step alone is long."""
    steps = TURN_SECONDS / step_seconds
    return DISPATCH * round(steps / DISPATCH) if steps >= DISPATCH else max(1, round(steps))


def report(size: Size, running: list[Trainer], flops: list[float], loss_steps: int) -> None:
    ours = running[0]
    per_token = train_flops_per_token(size)
    print(f"  {'':34}{'tokens/s':>10}{'lmscale is':>12}{'loss at step ' + str(loss_steps):>20}")
    for trainer in running:
        ratio = np.median(np.array(ours.rates) / np.array(trainer.rates))
        rate, apart = np.median(trainer.rates), trainer.loss_nats / ours.loss_nats - 1
        loss = f"{'as above':>20}" if trainer.kept else f"{trainer.loss_nats:>11.4f} ({apart:+.1%})"
        print(f"  {trainer.label:<34}{rate:>10,.0f}{ratio:>10.2f} x{loss}")
    reached, peak = np.median(ours.rates) * per_token, np.median(flops)
    print(f"  {reached / 1e9:.0f} GFLOP/s of a float32 matmul's {peak / 1e9:.0f}: {reached / peak:.0%}\n", flush=True)


def train_flops_per_token(size: Size) -> float:
    from lmscale.shapes import Shape

    shape = Shape(
        width=size.width,
        depth=size.depth,
        heads=size.heads,
        head_size=size.width // size.heads,
        feedforward=4 * size.width,
        vocab=size.vocab,
    )
    return shape.train_flops(1, size.sequence)


def machine() -> str:
    """The processor's name, where Linux tells it, and how many of its cores there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def versions(*peers: str | None) -> str:
    """Of Python, the frameworks, and the peers' checkouts."""
    packages = [name for name in ("jax", "flax", "torch") if any(metadata.packages_distributions().get(name, ()))]
    found = [f"Python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in packages)]
    for path in filter(None, peers):
        told = subprocess.run(["git", "-C", path, "log", "-1", "--format=%h of %cs"], capture_output=True, text=True)
        found.append(f"{Path(path).name} {told.stdout.strip() or 'of an unknown commit'}")
    return ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", metavar="PATH", help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--nanodo", metavar="PATH", help="a checkout of google-deepmind/nanodo")
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--loss-steps", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each trainer in each round")
    args = parser.parse_args()
    print(f"{machine()}, {THREADS} threads, float32, {ROUNDS} rounds in both orders, {time.strftime('%Y-%m-%d')}")
    print(versions(args.nanogpt, args.nanodo))
    for size in args.sizes:
        trainers = [Trainer("lmscale", "lmscale", "-")]
        if args.nanogpt:
            trainers += [
                Trainer("nanoGPT, eager", "nanogpt", args.nanogpt),
                Trainer("nanoGPT, eager, same allocator", "nanogpt", args.nanogpt, kept=True),
                Trainer("nanoGPT, torch.compile", "nanogpt_compiled", args.nanogpt),
                Trainer("nanoGPT, compile, same allocator", "nanogpt_compiled", args.nanogpt, kept=True),
            ]
        if args.nanodo:
            trainers.append(Trainer("nanodo", "nanodo", args.nanodo))
            trainers.append(Trainer("nanodo, same allocator", "nanodo", args.nanodo, kept=True))
        trainers.append(Trainer("plain PyTorch", "plain_torch", "-"))
        measure(size, trainers, args.loss_steps, args.seconds)


if __name__ == "__main__":
    main()

"""Workers and sweeps as processes of their own on a small study, for tests that disturb them; what they made; sums."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmscale.records import Workspace

STUDY = """
from lmscale.config import Corpus, PowerRule, Recipe, Size, Study
STUDY = Study(
    name="small",
    sizes=(Size({size}),),
    tokens={tokens},
    corpus=Corpus(files=({text!r},), heldout=0.2, allow_repeats=True),
    recipe=Recipe(
        sequence=32, batch_tokens=PowerRule(value=256), learning_rate=PowerRule(value=5e-3), warmup_tokens=1024
    ),
    eval_tokens=2048,
    steps_per_dispatch=8,
    telemetry=(),
)
"""
STEPS = (1024, 2048)  # of the two runs


@dataclass
class Counts:
    """What a soak prints."""

    name: str
    seed: int
    done: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, count: int = 1) -> None:
        self.done[what] = self.done.get(what, 0) + count

    def __str__(self) -> str:
        said = ", ".join(f"{count:,} {what}" for what, count in self.done.items())
        return f"{self.name} (seed {self.seed}): {said}"


def environment(devices: int | None = None) -> dict[str, str]:
    """Of a process that makes so many CPU devices, or as many as its mesh asks for; otherwise as in the tests'."""
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    flags += [f"--xla_force_host_platform_device_count={devices}"] if devices else []
    return {**os.environ, "XLA_FLAGS": " ".join(flags)}


def make_study(folder: Path, steps: tuple[int, ...] = STEPS, size: str = "width=32, depth=1") -> Path:
    """A study over a text made here, with its shards prepared."""
    folder.mkdir(parents=True, exist_ok=True)
    text, path = folder / "text.txt", folder / "study.py"
    words = random.Random(0)
    text.write_text("\n\n".join("".join(words.choice("abcdefgh \n") for _ in range(400)) for _ in range(600)))
    path.write_text(STUDY.format(text=str(text), tokens=tuple(256 * s for s in steps), size=size))
    subprocess.run([sys.executable, "-m", "lmscale.cli", "prepare", str(path), "--out", str(folder)], check=True)
    return path


def command(study: Path, out: Path | str, *more: str) -> list[str]:
    return [sys.executable, "-m", "lmscale.cli", "run", str(study), "--out", str(out), "--events", *more]


def share_text(study: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "shards").exists():
        (out / "shards").symlink_to(study.parent / "shards")


class Worker:
    """`lmscale run` in a process group of its own, and what it said."""

    def __init__(self, arguments: list[str], env: dict[str, str] | None = None):
        self.process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | (env or {}),
        )
        self.events: list[dict] = []
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.events.append(json.JSONDecoder().raw_decode(line)[0])

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def wait_for(self, event: str, timeout: float = 120.0) -> bool:
        """Until it says `event`; False if it ends first."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if any(e["event"] == event for e in list(self.events)):
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        raise TimeoutError(f"no {event!r} within {timeout} s")

    def kill(self) -> None:
        """SIGKILL to the whole group, from outside."""
        os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> int:
        status = self.process.wait(timeout=600)
        for thread in self._threads:
            thread.join()
        return status

    @property
    def acknowledged(self) -> list[str]:
        """The runs of which it said that they are done."""
        return [e["run"] for e in self.events if e["event"] == "done"]


def digits(workspace: Workspace) -> dict[str, Any]:
    """Every number that must not depend on what happened on the way, exactly, by run; and the curves' bytes."""
    found = {}
    for record in workspace.records():
        row = record["row"]
        trunk = (workspace.trajectory(row["trajectory"]) / "trunk.jsonl").read_bytes()
        curve = (workspace.run(row["run_id"]) / "curve.jsonl").read_bytes()
        found[row["run_id"]] = (row["status"], row["loss_nats"].hex(), row["loss_stderr"].hex(), trunk, curve)
    return found


def uninterrupted(study: Path) -> dict[str, Any]:
    """The digits of the study, trained once without a fault; kept beside it."""
    out = study.parent / "uninterrupted"
    share_text(study, out)
    if not (out / "small" / "runs.csv").exists():
        worker = Worker(command(study, out))
        assert worker.end() == 0, worker.errors
        Workspace(out, "small").export()
    return digits(Workspace(out, "small"))


def goes_on(study: Path, out: Path, wanted: dict[str, Any]) -> None:
    """The same command, undisturbed, ends with what an uninterrupted one made."""
    again = Worker(command(study, out))
    assert again.end() == 0, again.errors
    assert digits(Workspace(out, "small")) == wanted


def start_sweep(study: Path, folder: Path) -> subprocess.Popen[str]:
    """A sweep with one worker."""
    arguments = [sys.executable, "-m", "lmscale.cli", "sweep", str(study), "--out", str(folder), "--workers", "1"]
    arguments += ["--allow-collinear", "true"]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_holder(workspace: Workspace) -> None:
    """SIGKILL to the group of the worker that has the one trajectory there is."""
    (lease,) = workspace.root.glob("trajectories/*/lease.json")
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.killpg(int(json.loads(lease.read_text())["owner"].rsplit(":", 3)[1]), signal.SIGKILL)

"""Training on a GPU: tokens/s and share of peak of three sizes, models trained together, the fused attention's loss.

    python tests/bench/gpu.py                      # or: make bench-gpu
    python tests/bench/gpu.py --only 1.3B --profile --set sequence=4096

A line a size: tokens/s, model FLOP/s (forward x 3, matrix products alone, attention over the whole S x S square:
Chowdhery et al. 2022, App. B), its share of the datasheet's peak and of what the largest matrix product here reached in
the same run; memory, and seconds to compile. Each size is a process of its own. Tokens are random: nothing is prepared,
and neither seqio nor TensorFlow is needed. Without a GPU it says so and exits 0.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a machine without an installation

VOCAB = 32_000
CALLS, CALL_STEPS = 5, 2
SQUARE, PRODUCTS = 8192, 20  # rows and columns of the matrix products that are taken as the card's rate


@dataclass(frozen=True, kw_only=True)
class Case:
    """A shape and how it is trained."""

    size: str
    sequence: int = 2048
    batch: int = 16  # sequences
    microbatches: int = 1
    remat: str = "none"
    moments: str = "float32"
    documents: str = "joined"  # apart: tokens are split into documents of 512 on average


CASES = {
    "125M": Case(size="768x12x12", batch=32),
    "1.3B": Case(size="2048x24x16", batch=16),
    "apart": Case(size="2048x24x16", batch=16, documents="apart"),  # the same, attention within documents
    "7B": Case(size="4096x32x32", batch=8, remat="products", moments="bfloat16"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"of {', '.join(CASES)}, with commas between; none: only the rest")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="changes of the cases")
    parser.add_argument("--profile", action="store_true", help="and where the time of a step goes, by kernel")
    parser.add_argument("--replicas", default="16", help="how many of 10 M parameters are trained together; or none")
    parser.add_argument("--json", help="append the results to this file, a line each")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=400.0, help="that a case may take")
    args = parser.parse_args()
    if args.case:
        return measure_card() if args.case == "card" else measure(Case(**json.loads(args.case)), args.profile)
    # this process leaves the GPU to the others
    card = _run("card", args.seconds)
    if card.returncode:
        print(f"no card could be measured: {_reason(card.stderr)}")
        return 1
    *said, last = card.stdout.splitlines()
    print("\n".join(said), flush=True)
    if not (known := json.loads(last)):
        return 0
    best, peak = known["matmul"], datasheet(known["device"])
    print(
        f"{'':>6} {'params':>15} {'tokens/s':>9} {'TFLOP/s':>8} {'of peak':>8} {'of matmul':>9} {'GiB':>6} "
        f"{'compiled':>9}"
    )
    names = [n for n in (args.only.split(",") if args.only else CASES) if n != "none"]
    changes = dict(item.split("=", 1) for item in args.set)
    kinds = get_type_hints(Case)
    for name in names:
        case = replace(CASES[name], **{field: kinds[field](value) for field, value in changes.items()})
        try:
            done = _run(json.dumps(asdict(case)), args.seconds, *["--profile"] * args.profile)
        except subprocess.TimeoutExpired:
            print(f"{name:>6} took longer than {args.seconds:.0f} s", flush=True)
            continue
        if done.returncode:
            print(f"{name:>6} failed: {_reason(done.stderr)}", flush=True)
            continue
        *profile, last = done.stdout.splitlines()
        found: dict[str, Any] = json.loads(last)
        rate = found["flops"]
        share = f"{rate / peak:>8.1%}" if peak else f"{'-':>8}"
        print(
            f"{name:>6} {found['params']:>15,} {found['tokens']:>9,.0f} {rate / 1e12:>8.0f} {share} "
            f"{rate / best:>9.1%} {found['bytes'] / 2**30:>6.1f} {found['compile']:>7.0f} s",
            flush=True,
        )
        print("\n".join(profile), end="\n" * bool(profile), flush=True)
        if args.json:
            line = {"name": name, "case": asdict(case), **found, **known}
            with open(args.json, "a") as file:
                file.write(json.dumps(line) + "\n")
    if args.replicas == "none":
        return 0
    print("models trained together:", flush=True)
    together = [sys.executable, str(Path(__file__).with_name("replicas.py")), "--replicas", args.replicas]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *sys.path])
    return subprocess.run(together, env={**os.environ, "PYTHONPATH": path}).returncode


def _run(case: str, seconds: float, *options: str) -> subprocess.CompletedProcess[str]:
    """A process that prints lines to read, and JSON in the last."""
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95", **os.environ}
    command = [sys.executable, __file__, "--case", case, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment)


def _reason(text: str) -> str:
    lines = [line for line in text.splitlines() if "Error" in line or "RESOURCE_EXHAUSTED" in line]
    return (lines or text.splitlines() or ["nothing was said"])[-1][:300]


def datasheet(kind: str) -> float | None:
    from lmscale.planning.accelerators import find

    known = find(kind)
    return known.bfloat16_flops if known else None


def measure_card() -> int:
    import jax

    device = jax.devices()[0]
    if device.platform != "gpu":
        print(f"no GPU here (jax {jax.__version__} sees {device.platform}): nothing to measure\n{{}}")
        return 0
    best, peak = matmul_rate(), datasheet(device.device_kind)
    print(f"{device.device_kind}, jax {jax.__version__}, {time.strftime('%Y-%m-%d')}")
    print(f"bfloat16 {SQUARE}^3: {best / 1e12:.0f} TFLOP/s" + (f" of {peak / 1e12:.0f}" if peak else ""))
    print(f"fused attention against plain, loss of a bfloat16 step: {attention_difference():.1e} apart")
    print(json.dumps({"matmul": best, "device": device.device_kind}))
    return 0


def matmul_rate() -> float:
    """FLOP/s of products of random bfloat16 matrices, twenty in a program: the median of seven programs."""
    import jax
    import jax.numpy as jnp

    a, b = (jax.random.normal(jax.random.key(i), (SQUARE, SQUARE), jnp.bfloat16) for i in range(2))
    a = a / SQUARE**0.5  # products stay as large as b
    chain = jax.jit(lambda a, b: jax.lax.fori_loop(0, PRODUCTS, lambda _, x: a @ x, b))
    chain(a, b).block_until_ready()
    seconds = []
    for _ in range(7):
        began = time.perf_counter()
        chain(a, b).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * SQUARE**3 * PRODUCTS / statistics.median(seconds)


def attention_difference() -> float:
    """How far apart the losses of a small model are, its attention fused or not, relative to the loss."""
    import jax

    from lmscale.network import attention

    losses, choose = [], attention.way_of
    for way in ("cudnn", "plain"):
        import lmscale.models as models

        models.way_of = (lambda *_: "plain") if way == "plain" else choose  # type: ignore[assignment]
        step, windows, rates = step_of(Case(size="512x4x8", sequence=1024, batch=4, documents="apart"))
        _, metrics = step.advance(step.init(), step.put(windows), rates, CALL_STEPS)
        losses.append(float(jax.device_get(metrics.loss_nats[0])))
        models.way_of = choose
    return abs(losses[0] - losses[1]) / losses[1]


def step_of(case: Case) -> Any:
    """A compiled step of the case, windows [K, B, S + 1] and rates [K]."""
    import numpy as np
    from unprepared import unprepared

    from lmscale.config import MeshConfig, PowerRule, Recipe, Size
    from lmscale.mesh import make_mesh
    from lmscale.shapes import shape_of
    from lmscale.step import Step

    shape = shape_of(Size.from_text(case.size), vocab=VOCAB)
    recipe = Recipe(
        sequence=case.sequence,
        batch_tokens=PowerRule(value=case.batch * case.sequence),
        documents=case.documents,  # type: ignore[arg-type]
        moments_dtype=case.moments,  # type: ignore[arg-type]
    )
    h = recipe.resolve(shape.params_matrices)
    trajectory = unprepared(shape, h, vocab=VOCAB, eos_id=1)
    mesh = make_mesh(MeshConfig())
    step = Step(
        trajectory,
        mesh,
        microbatches=case.microbatches,
        steps_per_dispatch=CALL_STEPS,
        remat=case.remat,  # type: ignore[arg-type]
    )
    random = np.random.default_rng(0)
    windows = random.integers(2, VOCAB, (CALL_STEPS, h.batch_sequences, h.sequence + 1), np.int32)
    windows[random.random(windows.shape) < 1 / 512] = 1  # end-of-sequence
    return step, windows, np.full(CALL_STEPS, 1e-4, np.float32)


def measure(case: Case, profile: bool) -> int:
    import jax

    step, windows, rates = step_of(case)
    state, batch = step.init(), step.put(windows)
    jax.block_until_ready((state, batch))
    began = time.perf_counter()
    program = step.advance.lower(state, batch, rates, CALL_STEPS).compile()
    compiled = time.perf_counter() - began
    seconds, metrics = [], None
    for _ in range(1 + CALLS):
        began = time.perf_counter()
        state, metrics = program(state, batch, rates, CALL_STEPS)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - began)
    assert metrics is not None
    if not bool(jax.numpy.isfinite(metrics.loss_nats).all()):
        raise RuntimeError("the loss is not finite")
    if profile:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                state, metrics = program(state, batch, rates, CALL_STEPS)
                jax.block_until_ready(metrics)
            print_profile(Path(folder))
    tokens = CALL_STEPS * case.batch * case.sequence / statistics.median(seconds[1:])
    shape = step.model.shape
    found = {
        "params": shape.params,
        "tokens": tokens,
        "flops": tokens * shape.train_flops(1, case.sequence),
        "bytes": jax.devices()[0].memory_stats()["peak_bytes_in_use"],
        "compile": compiled,
        "seconds": seconds,
    }
    print(json.dumps(found))
    return 0


def print_profile(folder: Path, most: int = 25) -> None:
    """Milliseconds of a step by kernel, those of one name with its numbers left out together."""
    import re

    import jax

    (path,) = folder.rglob("*.xplane.pb")
    spent: dict[str, float] = {}
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        if "/device:GPU" not in plane.name:
            continue
        for line in plane.lines:
            if "Stream" not in line.name:
                continue
            for event in line.events:
                name = re.sub(r"[._]\d+", "", event.name)[:90]
                spent[name] = spent.get(name, 0.0) + event.duration_ns / 1e6 / CALL_STEPS
    total = sum(spent.values())
    print(f"    {total:.1f} ms of kernels a step, of which:")
    for name in sorted(spent, key=lambda name: -spent[name])[:most]:
        print(f"    {spent[name]:>9.2f} ms {spent[name] / total:>6.1%}  {name}")


if __name__ == "__main__":
    raise SystemExit(main())

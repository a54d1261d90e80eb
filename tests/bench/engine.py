"""What the sweep engine saves, and what it takes: branching, workers, its own share of the time.

    python tests/bench/engine.py

Seven token counts sqrt(2) apart of one size, branched off one trunk and trained one by one (one worker, programs on the
disk, from the first step to the end); then the quickstart with a worker that has all cores and with one a core.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = "quickstart"
SIZE = ("--sizes", "64x3", "--flops-max", "1e18", "--allow-collinear", "true")
COUNTS = tuple(512 * round(1600 * 2 ** (i / 2) / 8) for i in range(7))


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run(out, "prepare", STUDY)
        run(out, "sweep", STUDY, "--name", "warm", *SIZE, "--tokens", str(COUNTS[0]), "--workers", "1")
        branching(out)
        workers(out)
    return 0


def branching(out: Path) -> None:
    together = ("--name", "together", *SIZE, "--tokens", ",".join(map(str, COUNTS)))
    run(out, "plan", STUDY, *together, "--no-time", "--json", str(out / "plan.json"))
    total = json.loads((out / "plan.json").read_text())["totals"]
    formula = 0.2 + 0.8 * max(COUNTS) / sum(COUNTS)
    branched = seconds(run(out, "sweep", STUDY, *together, "--workers", "1"))
    alone = 0.0
    for count in COUNTS:
        one = ("--name", f"alone-{count}", *SIZE, "--tokens", str(count), "--workers", "1")
        alone += seconds(run(out, "sweep", STUDY, *one))
    print(f"seven counts from {min(COUNTS):,} to {max(COUNTS):,} tokens, branched against one by one:")
    print(f"  FLOPs {total['flops'] / total['flops_unbranched']:.3f} (formula {formula:.3f}; asked at most 0.48)")
    print(f"  time {branched:.1f} s against {alone:.1f} s: {branched / alone:.3f} (asked at most 0.52)", flush=True)


def workers(out: Path) -> None:
    run(out, "sweep", STUDY, "--name", "fill", "--tokens", "409600", "--allow-collinear", "true")
    for count in (1, 2):
        began = time.monotonic()
        said = run(out, "sweep", STUDY, "--name", f"workers-{count}", "--workers", str(count))
        share = re.findall(r"([\d.]+%) of the workers' time", said)[-1]
        took = time.monotonic() - began
        print(f"{STUDY} with --workers {count}: {took:.0f} s, the engine's share {share}", flush=True)
    default = len(os.sched_getaffinity(0))
    print(f"(the default here is a worker a core, {default}; its engine's share is asked to be below 5 %)")


def seconds(said: str) -> float:
    """From the first step to the end of a sweep."""
    (first,) = re.findall(r"first step ([\d.]+) s after the command", said)
    (last,) = re.findall(r"the end ([\d.]+) s after the command", said)
    return float(last) - float(first)


def run(out: Path, *command: str) -> str:
    """What a command of lmscale said, with the cache of compiled programs in `out`. Raises CalledProcessError."""
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(out / "programs"), "TERM": "dumb"}
    began = time.monotonic()
    told = subprocess.run(
        [sys.executable, "-m", "lmscale.cli", *command, "--out", str(out)], env=env, stdout=subprocess.PIPE, text=True
    )
    told.check_returncode()
    return f"{told.stdout}\nthe end {time.monotonic() - began:.1f} s after the command\n"


if __name__ == "__main__":
    sys.exit(main())

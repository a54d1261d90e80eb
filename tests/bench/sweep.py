"""What a sweep takes beside its steps: seconds from the command to the first step, and the host's share of the time.

    python tests/bench/sweep.py

The first sweep finds no compiled program on the disk, the second finds those of the first. The share is `host_share` of
the runs' records (docs/training.md says how it is counted), the largest of a size.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

STUDY = "quickstart"
SHORT = ("--tokens", "409600")
STEP = ("--flops-max", "1e18", "--recipe.warmup-tokens", "8192")
STEP += ("--recipe.batch-tokens.value", "4096", "--workers", "1")
NO_LAW = ("--allow-collinear", "true")
SIZES = (  # those of train.py: width x depth x heads, sequence, steps
    ("64x2x2", 128, 320),
    ("128x4x4", 256, 128),
    ("256x6x8", 256, 96),
)


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run(out, "prepare", STUDY)
        for name in ("cold", "warm"):
            said = run(out, "sweep", STUDY, "--name", name, *SHORT, *NO_LAW)
            seconds = re.findall(r"first step ([\d.]+) s after the command", said)
            print(f"{STUDY}, {name} cache: first step {seconds[0]} s after the command", flush=True)
        show(out / "warm")
        for size, sequence, steps in SIZES:
            tokens = str(4096 * steps)
            asked = ("--sizes", size, "--tokens", tokens, "--recipe.sequence", str(sequence), *STEP, *NO_LAW)
            run(out, "sweep", STUDY, "--name", size, *asked)
            show(out / size)
    return 0


def run(out: Path, *command: str) -> str:
    """What a command of lmscale said, with the cache of compiled programs in `out`. Raises CalledProcessError."""
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(out / "programs"), "TERM": "dumb"}
    told = subprocess.run(
        [sys.executable, "-m", "lmscale.cli", *command, "--out", str(out)], env=env, stdout=subprocess.PIPE, text=True
    )
    told.check_returncode()
    return told.stdout


def show(study: Path) -> None:
    records = [json.loads(path.read_text()) for path in study.glob("runs/*/record.json")]
    for size in sorted({(r["row"]["params"], r["row"]["width"], r["row"]["depth"]) for r in records}):
        mine = [r for r in records if r["row"]["params"] == size[0]]
        share = max(r["telemetry"]["host_share"] for r in mine)
        speed = max(r["telemetry"]["tokens_per_second"] for r in mine)
        print(f"  {size[1]}x{size[2]}, batch {mine[0]['row']['batch_tokens']}: {speed:,.0f} tokens/s, host {share:.1%}")


if __name__ == "__main__":
    sys.exit(main())

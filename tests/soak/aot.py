"""Large steps compiled for TPU slices by `lmscale aot` itself: do they fit, and how long does the compiler take?

    python tests/soak/aot.py [--cases 1B,70B,v4]

1B: 1.2 billion parameters on v5e:4x4, 64 x 2048 bytes a step, laid out as planned. 70B: 64.7 billion with a vocabulary
of 32,000 on v5p:8x8x16, 1536 x 2048 tokens a step. v4: 110 million on v4:2x2x2, 256 x 2048 tokens. The text is random
numbers, for shapes are all that a compiler sees; nothing is trained. No report is read from the user's cache.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SEQUENCE = 2048
BILLION = ("--sizes", "2048x24x16", "--mesh", "1,4,4", "--corpus.vocab-size", "256")
SEVENTY = ("--sizes", "8192x80x64", "--mesh", "1,256,4", "--remat", "layer", "--microbatches", "1")
CASES = {  # topology, sequences a step, options
    "1B": ("v5e:4x4", 64, BILLION),
    "70B": ("v5p:8x8x16", 1536, (*SEVENTY, "--corpus.vocab-size", "32000")),
    "v4": ("v4:2x2x2", 256, ("--sizes", "768x12x12", "--mesh", "1,8,1", "--corpus.vocab-size", "32000")),
}
STUDY = """
from lmscale.config import Corpus, PowerRule, Recipe, Size, Study
STUDY = Study(
    name="large",
    sizes=(Size(width=64, depth=2),),
    tokens=({batch} * 1000,),
    corpus=Corpus(files=({text!r},), token_type="uint16", heldout=0.1, allow_repeats=True),
    recipe=Recipe(sequence={sequence}, batch_tokens=PowerRule(value={batch}), warmup_tokens=0),
    eval_tokens=16 * {sequence},
    steps_per_dispatch=2,
)
"""


def compile_case(name: str, folder: Path) -> int:
    topology, sequences, options = CASES[name]
    ids = int(options[-1])
    text, study = folder / "text.bin", folder / "study.py"
    np.random.default_rng(0).integers(0, ids, 1_000_000, np.uint16).tofile(text)
    study.write_text(STUDY.format(text=str(text), batch=sequences * SEQUENCE, sequence=SEQUENCE))
    command = [sys.executable, "-m", "lmscale.cli", "aot", str(study), "--topology", topology, "--out", str(folder)]
    began = time.monotonic()
    status = subprocess.run([*command, *options], env={**os.environ, "XDG_CACHE_HOME": str(folder)}).returncode
    held = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"{name}: status {status}, {time.monotonic() - began:.0f} s, {held:.1f} GB of this machine at most so far\n")
    sys.stdout.flush()
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES), help="which, with commas between")
    args = parser.parse_args()
    failed = 0
    for name in args.cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            failed += compile_case(name, Path(folder)) != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

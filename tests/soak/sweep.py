"""The faults of a sweep, many of each: `python tests/soak/sweep.py [ROW ...] [--scale 0.1]`, a line of counts for each.

Rows: corruptions, appends, launchers, disk, mount, clocks, meshes, goodput (an hour), kills.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "lmscale"))

import faults
import file_faults
import workers

MESHES = [f"{d},{f},{8 // d // f}" for d in (1, 2, 4, 8) for f in (1, 2, 4, 8) if d * f <= 8]  # on eight devices


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="a share of the counts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        rows = long_forms(folder, args.scale, args.seed)
        if unknown := set(args.rows) - rows.keys():
            parser.error(f"ROW: {', '.join(sorted(unknown))} is none of {', '.join(rows)}")
        for name in args.rows or rows:
            began = time.monotonic()
            counts = rows[name]()
            print(f"{counts}; {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return 0


def long_forms(folder: Path, scale: float, seed: int) -> dict[str, Callable[[], workers.Counts]]:
    def many(count: int) -> int:
        return max(1, round(count * scale))

    def study() -> Path:
        path = folder / "study" / "study.py"
        return path if path.exists() else workers.make_study(path.parent)

    def endless() -> Path:
        return workers.make_study(folder / "endless", (10**8,))

    return {
        "corruptions": lambda: file_faults.corruptions(many(10_000), seed, folder / "corruptions"),
        "appends": lambda: file_faults.torn_appends(many(1000), seed, folder / "appends"),
        "launchers": lambda: faults.launchers(8, many(100), seed, folder / "launchers"),
        "disk": lambda: file_faults.full_disk(study(), [500 + 400 * i for i in range(many(50))], folder / "disk"),
        "mount": lambda: file_faults.full_mount(study(), [200 + 20 * i for i in range(many(20))], folder / "mount"),
        "clocks": lambda: faults.clocks(study(), [faults.DAY, -faults.DAY] * many(10), folder / "clocks"),
        "meshes": lambda: faults.mesh_changes(list(itertools.permutations(MESHES, 2))[: many(90)], folder / "meshes"),
        "goodput": lambda: faults.goodput(endless(), 3600 * scale, 120 * min(1, 10 * scale), folder / "goodput"),
        "kills": lambda: faults.kills(study(), many(200), seed, folder / "kills"),
    }


if __name__ == "__main__":
    sys.exit(main())

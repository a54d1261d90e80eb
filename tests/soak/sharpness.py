"""How often the sharpness test tells a smooth ability from a true step, on simulated tasks of which it is known.

    python tests/soak/sharpness.py [--sets 100] [--scales 12] [--items 400] [--draws 500] [--seed 0]

Tasks are those of tests/analysis/planted_abilities.py: answers of 2 to 12 tokens, each right with a probability that
grows as a power of compute, by a logistic curve or in proportion to log compute (smooth), or that rises at one scale
(step). Exit status 1 where fewer than 95 % of either are told.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))

from planted_abilities import SMOOTH, planted_task

from analysis.skills.sharpness import sharpness

RIGHT = {"smooth": ("smooth", "made by the metric"), "step": ("sharp",)}
LEAST = 0.95


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    defaults = {"sets": 100, "scales": 12, "items": 400, "draws": 500, "seed": 0}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    passed = True
    print(f"{args.sets} sets of each kind, {args.scales} scales, {args.items} items, {args.draws} draws")
    for kind, names in (("smooth", tuple(SMOOTH)), ("step", ("step",))):
        verdicts, alone = Counter(), Counter()
        for i in range(args.sets):
            task = planted_task(names[i % len(names)], scales=args.scales, items=args.items, seed=args.seed + i)
            result = sharpness(task, draws=args.draws, seed=i)
            verdicts[result.verdict] += 1
            alone[result.main.verdict] += 1
        told = sum(verdicts[each] for each in RIGHT[kind])
        passed &= told >= LEAST * args.sets
        print(f"{kind}: {told} of {args.sets} told; {dict(verdicts)}; exact match by itself: {dict(alone)}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

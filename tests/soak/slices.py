"""How often `lmscale fit --slice` says that groups diverge: of simulated groups that do not, and of some that do.

    python tests/soak/slices.py [--studies 200] [--seed 0]

Studies of the quickstart's design (5 trajectories of up to 4 token counts) and of 25 independent runs. Each group has a
law of its own; the loss of a run errs by .4 % in all groups alike and by .2 % in each by itself, half of the variance
shared within a trajectory. A false alarm is a study in which any pair is said to widen.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.comparing.gaps import find_gaps
from analysis.laws import Chinchilla
from analysis.table import Table

BASE = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6)
SIZES = (2e4, 5e4, 1.1e5, 2.3e5, 4.7e5)
TOKENS = (5e5, 1e6, 2e6, 4e6)
COMMON, OWN = 0.004, 0.002  # sd of the log loss of a run: in all groups alike, in each by itself


def times(factor: float) -> Chinchilla:
    return replace(BASE, A=BASE.A * factor, B=BASE.B * factor, L0=BASE.L0 * factor)


def slower(share: float) -> Chinchilla:
    """Exponents lower by a share; equal to BASE at the smallest run."""
    law = replace(BASE, alpha=BASE.alpha * (1 - share), beta=BASE.beta * (1 - share))
    return replace(law, A=law.A * SIZES[0] ** (law.alpha - BASE.alpha), B=law.B * TOKENS[0] ** (law.beta - BASE.beta))


SCENARIOS: dict[str, tuple[Chinchilla, ...]] = {
    "equal exponents, losses in proportion": (BASE, times(1.3), times(0.7), times(0.9)),
    "equal exponents, L0 apart": (BASE, replace(BASE, L0=1.4), replace(BASE, L0=0.8), replace(BASE, L0=1.0)),
    "four times the same group": (BASE,) * 4,
    "one of four with exponents lower by 5 %": (BASE, times(1.3), times(0.7), slower(0.05)),
    "one of four with exponents lower by 10 %": (BASE, times(1.3), times(0.7), slower(0.1)),
    "one of four with exponents lower by 20 %": (BASE, times(1.3), times(0.7), slower(0.2)),
}
DIVERGING = "g3"


def branched() -> list[tuple[float, float, str]]:
    return [
        (n, d, f"t{i}") for i, n in enumerate(SIZES) for d in TOKENS if not (i >= len(SIZES) - 2 and d == max(TOKENS))
    ]


def independent() -> list[tuple[float, float, str]]:
    return [(n, d, f"t{n:.0f}-{d:.0f}") for n in SIZES for d in np.geomspace(TOKENS[0], TOKENS[-1], 5)]


DESIGNS: dict[str, Callable[[], list[tuple[float, float, str]]]] = {"branched": branched, "independent": independent}


def simulate(laws: tuple[Chinchilla, ...], runs: list[tuple[float, float, str]], rng: np.random.Generator) -> list:
    """The groups of one study, as `find_gaps` takes them."""
    names = [name for _, _, name in runs]
    params, tokens = np.array([run[:2] for run in runs]).T

    def errors(sd: float) -> np.ndarray:
        shared = dict(zip(sorted(set(names)), rng.normal(size=len(set(names))), strict=True))
        return sd * np.sqrt(0.5) * (np.array([shared[name] for name in names]) + rng.normal(size=len(runs)))

    common, groups = errors(COMMON), []
    for k, law in enumerate(laws):
        loss = law.predict(params, tokens) * np.exp(common + errors(OWN))
        frame = pd.DataFrame({"run_id": range(len(runs)), "trajectory": names, "params": params, "tokens": tokens})
        groups.append((f"g{k}", Table(frame=frame.assign(loss_nats=loss), clustered=True)))
    return groups


def rates(scenario: str, design: str, *, studies: int, seed: int) -> tuple[float, float, float]:
    """Shares of studies: in which some pair is said to widen; in which one with DIVERGING is; in which another is."""
    found = np.zeros((studies, 2), bool)
    for study in range(studies):
        rng = np.random.default_rng([seed, study, list(SCENARIOS).index(scenario), list(DESIGNS).index(design)])
        for gap in find_gaps(simulate(SCENARIOS[scenario], DESIGNS[design](), rng)):
            if gap.widens:
                found[study, 0 if DIVERGING in (gap.first, gap.second) else 1] = True
    return float(found.any(axis=1).mean()), float(found[:, 0].mean()), float(found[:, 1].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"{args.studies} studies each, seed {args.seed}: share with some pair, with one of g3, with another pair")
    for design in DESIGNS:
        for scenario in SCENARIOS:
            some, diverging, others = rates(scenario, design, studies=args.studies, seed=args.seed)
            print(f"{design:12} {scenario:42} {some:6.1%} {diverging:6.1%} {others:6.1%}", flush=True)


if __name__ == "__main__":
    main()

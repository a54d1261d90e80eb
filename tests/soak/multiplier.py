"""How often the 95 % interval of an effective-compute multiplier holds the planted one.

    python tests/soak/multiplier.py [--studies 2000] [--bootstrap 400] [--seed 0]

Two studies of one design a time: the tokens of the first are worth 1.3 times those of the second, which multiplies its
compute by 1.3 at every loss. Each is fitted as any table is; the runs of a fit and all of its resamples are one array
computation, so that 2,000 pairs take about ten minutes on one core. Counted at the lowest and the middle loss that both
reach, and for the mean over the range. Exit status 1 where a coverage leaves 93 to 97 %.
"""

import argparse
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.fit import Fit, fit
from analysis.laws import Chinchilla
from analysis.multiplier import multiplier
from analysis.table import Table

PLANTED = 1.3
LAW = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6)
NOISE, SHARED = 0.004, 0.5  # sd of the log loss of a run; of its variance, shared within a trajectory
ASKED = (0.93, 0.97)

Runs = tuple[np.ndarray, np.ndarray, np.ndarray]


def worth(law: Chinchilla, times: float) -> Chinchilla:
    """The law of a recipe whose tokens are worth `times` those of `law`: its frontier reaches each loss at C/times."""
    return replace(law, B=law.B / times**law.beta)


def independent() -> Runs:
    params, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(2e4, 5e5, 5), np.geomspace(5e5, 4e6, 5)))
    return params, tokens, np.arange(len(params))


def branched() -> Runs:
    params, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(2e4, 5e5, 8), np.geomspace(5e5, 4e6, 4)))
    return params, tokens, np.unique(params, return_inverse=True)[1]


DESIGNS = {"25 independent runs": independent, "8 trajectories x 4": branched}


def study(law: Chinchilla, runs: Runs, rng: np.random.Generator, bootstrap: int) -> Fit:
    params, tokens, trajectory = runs
    alone = len(set(trajectory)) == len(params)
    shared = 0.0 if alone else np.sqrt(SHARED) * rng.normal(size=trajectory.max() + 1)[trajectory]
    error = shared + np.sqrt(1.0 if alone else 1 - SHARED) * rng.normal(size=len(params))
    frame = pd.DataFrame({"run_id": range(len(params)), "trajectory": trajectory, "params": params, "tokens": tokens})
    frame = frame.assign(loss_nats=law.predict(params, tokens) * np.exp(NOISE * error))
    return fit(Table(frame=frame, clustered=not alone), bootstrap=bootstrap, seed=int(rng.integers(2**31)))


def covered(design: str, *, studies: int, bootstrap: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Whether the lowest loss, the middle one and the mean cover PLANTED [S, 3]; their log widths [S, 3]; refused."""
    held, widths, refused = [], [], 0
    for number in range(studies):
        rng = np.random.default_rng([seed, number, list(DESIGNS).index(design)])
        better, plain = (study(law, DESIGNS[design](), rng, bootstrap) for law in (worth(LAW, PLANTED), LAW))
        try:
            found = multiplier(better, plain, seed=number)
        except InputError:
            refused += 1
            continue
        ends = [found.rows[-1].interval, found.rows[len(found.rows) // 2].interval, found.overall_interval]
        pairs = [end for end in ends if end is not None]
        held.append([low <= PLANTED <= high for low, high in pairs])
        widths.append([np.log(high / low) if low > 0 else np.inf for low, high in pairs])
    return np.array(held), np.array(widths), refused


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--bootstrap", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(f"planted {PLANTED}, {args.studies} pairs of studies each, {args.bootstrap} resamples, seed {args.seed}")
    print("coverage, and median high end over low end: lowest common loss, middle loss, mean over the range")
    good = True
    for design in DESIGNS:
        start = time.perf_counter()
        held, widths, refused = covered(design, studies=args.studies, bootstrap=args.bootstrap, seed=args.seed)
        shares, factors = held.mean(axis=0), np.exp(np.median(widths, axis=0))
        good &= all(ASKED[0] <= share <= ASKED[1] for share in shares)
        told = "  ".join(f"{share:.1%} ({factor:.3g} x)" for share, factor in zip(shares, factors, strict=True))
        print(f"{design:20} {told}  {refused} refused  {time.perf_counter() - start:.0f} s", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

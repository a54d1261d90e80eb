"""Do suggested runs beat a regular grid of the same cost? Simulated studies, whose truth the suggestion does not know.

    python tests/soak/suggest.py [--studies 200] [--seed 0]

Each study has a law of its own (exponents and terms 10 % about Besiroglu et al. 2024), errors of its own size (.1 to
.5 %, three to seven tenths of the variance shared within a trajectory), and a first grid of 4 sizes x 3 token counts,
branched off trunks, that is fitted as any table is. That fit alone is the prior of `suggest`, which chooses 12 more
runs for twice the FLOPs of the first grid; N* is asked at ten times the largest run of the first grid. Two grids of
4 x 3 runs spend the same: `again` is the first grid with sizes and tokens larger by one factor; `box` reaches from
the smallest size and over all token ratios that `suggest` may choose, as far as the budget pays. Every study is then
fitted with `analysis.fit`; compared are the widths of the 95 % intervals of log N*, and how far N* is off.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from analysis.coverage import LARGE
from analysis.deciding.planned import Planned
from analysis.deciding.prior import fitted
from analysis.errors import InputError
from analysis.fit import Fit, fit
from analysis.laws import Array, Chinchilla
from analysis.solving.sandwich import Noise
from analysis.suggest import Candidates, cost, suggest
from analysis.table import from_frame
from analysis.uncertainty import interval

SIZES, COUNTS, RUNS = 4, 3, 12
COOLDOWN = 0.2  # share of a run that is its cooldown
RATIOS = (5.0, 80.0)  # tokens per parameter of the first grid
REACH = 2.0  # candidates: token ratios and smallest sizes beyond those of the first grid, by this factor
LARGER = 4.0  # and the largest size that can be trained
SPREAD = 0.1  # of the truth about LARGE
BOOTSTRAP = 199


def branched(params: Array, ratios: Array, first: int) -> Candidates:
    """Runs of every size at every ratio of tokens to parameters, trajectories numbered from `first`."""
    n = np.repeat(params, len(ratios))
    d = n * np.tile(ratios, len(params))
    trajectory = np.repeat(np.arange(first, first + len(params)), len(ratios))
    flops = 6.0 * n * d
    runs = Planned(params=n, tokens=d, trajectory=trajectory, trunk_flops=(1 - COOLDOWN) * flops)
    return Candidates(runs=runs, own_flops=COOLDOWN * flops)


def regular(make: Callable[[float], Candidates], planned: Planned, budget: float) -> Planned:
    """The grid of a scale whose cost is the budget."""

    def off(log_scale: float) -> float:
        grid = make(math.exp(log_scale))
        return math.log(cost(planned, grid, range(len(grid))) / budget)

    root: Any = brentq(off, math.log(0.05), math.log(50.0))
    return make(math.exp(root)).runs


def measured(runs: Planned, law: Chinchilla, noise: Noise, rng: np.random.Generator) -> pd.DataFrame:
    loss = law.predict(runs.params, runs.tokens) * np.exp(noise.draw(runs.trajectory, 1, rng)[0])
    names = [f"t{t}" for t in runs.trajectory]
    return pd.DataFrame({"params": runs.params, "tokens": runs.tokens, "loss_nats": loss, "trajectory": names})


def truth(rng: np.random.Generator) -> Chinchilla:
    """LARGE with exponents, L0 and the terms in the middle of the first grid moved."""
    z = np.exp(SPREAD * rng.normal(size=5))
    alpha, beta = LARGE.alpha * z[0], LARGE.beta * z[1]
    n, d = 1e9, 2e10
    a = LARGE.A * z[2] * n ** (alpha - LARGE.alpha)
    b = LARGE.B * z[3] * d ** (beta - LARGE.beta)
    return Chinchilla(A=a, B=b, L0=LARGE.L0 * z[4], alpha=alpha, beta=beta)


def told(found: Fit, target: float, law: Chinchilla) -> tuple[float, float]:
    """Width of the interval of log N*, and how far N* is off."""
    assert found.samples is not None
    low, high = interval(found.samples.optimum(target).params[:, 0])
    return math.log(high / low), abs(math.log(float(found.law.optimum(target).params / law.optimum(target).params)))


def study(seed: int) -> dict[str, tuple[float, float]] | None:
    """By design: width and error; None where the first grid tells no law, and nothing could be suggested from it."""
    rng = np.random.default_rng([seed, 17])
    law = truth(rng)
    noise = Noise(sd=math.exp(rng.uniform(math.log(0.001), math.log(0.005))), shared=rng.uniform(0.3, 0.7))
    first = branched(np.geomspace(1e8, 1e10, SIZES), np.geomspace(*RATIOS, COUNTS), 0)
    nothing = replace(first.runs, **{n: getattr(first.runs, n)[:0] for n in vars(first.runs)})
    budget = 2 * cost(nothing, first, range(len(first)))
    target = 10 * float(first.runs.flops.max())
    frame = measured(first.runs, law, noise, rng)
    try:
        prior = fitted(fit(from_frame(frame), bootstrap=BOOTSTRAP, seed=seed), source="the first grid")
    except InputError:
        return None
    ratios = (RATIOS[0] / REACH, RATIOS[1] * REACH)
    candidates = branched(np.geomspace(1e8 / REACH, 1e10 * LARGER, 20), np.geomspace(*ratios, 10), SIZES)
    chosen = suggest(first.runs, candidates, prior, flops=target, runs=RUNS, budget_flops=budget, seed=seed)

    def again(scale: float) -> Candidates:
        return branched(scale * np.geomspace(1e8, 1e10, SIZES), scale * np.geomspace(*RATIOS, COUNTS), SIZES)

    def box(scale: float) -> Candidates:
        return branched(np.geomspace(1e8 / REACH, 1e10 * scale, SIZES), np.geomspace(*ratios, COUNTS), SIZES)

    found = {}
    designs = {"suggested": candidates.runs.take(chosen.indices)}
    designs |= {f.__name__: regular(f, first.runs, budget) for f in (again, box)}
    for name, runs in designs.items():
        both = pd.concat([frame, measured(runs, law, noise, np.random.default_rng([seed, 18]))])
        found[name] = told(fit(from_frame(both), bootstrap=BOOTSTRAP, seed=seed), target, law)
    found["spent"] = (chosen.flops / budget, float(len(chosen.choices)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first study")
    given = parser.parse_args()
    begun, found, none = time.monotonic(), [], 0
    seed = given.seed
    while len(found) < given.studies:
        result = study(seed)
        seed += 1
        if result is None:
            none += 1
        else:
            found.append(result)
    spent = np.array([f["spent"] for f in found])
    print(f"{len(found)} studies, {time.monotonic() - begun:.0f} s; {none} more whose first grid told no law")
    print(f"suggested: {np.median(spent[:, 1]):.0f} runs for {np.median(spent[:, 0]):.2f} of the budget (medians)")
    mine = np.array([f["suggested"] for f in found])
    print(f"{'design':10s} {'width of log N*':>16s} {'N* off by':>10s} {'suggest wins':>13s} {'width ratio':>12s} "
          f"{'error ratio':>12s}")  # fmt: skip
    passed = True
    for name in ("suggested", "again", "box"):
        each = np.array([f[name] for f in found])
        line = f"{name:10s} {np.median(each[:, 0]):16.3f} {np.sqrt(np.mean(each[:, 1] ** 2)):10.3f}"
        if name != "suggested":
            wins, ratio = float(np.mean(mine[:, 0] < each[:, 0])), float(np.median(mine[:, 0] / each[:, 0]))
            error = float(np.sqrt(np.mean(mine[:, 1] ** 2) / np.mean(each[:, 1] ** 2)))
            line += f" {100 * wins:12.1f}% {ratio:12.3f} {error:12.3f}"
            passed &= wins >= 0.8 and ratio <= 0.7
        print(line)
    print("width: median of the 95 % intervals; off: root mean square of log N* - its truth; ratios: suggested / grid")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Are the standard errors that `lmscale audit` predicts those of studies that are really fitted?

    python tests/soak/audit.py [--studies 1000] [--widths 40] [--seed 0]

Six designs of analysis.coverage. Predicted: analysis.expected at the true law and noise. Simulated: the standard
deviation over studies of the best optimum from every start of the search, in one batch a start. The intervals that
`fit` prints are compared too: the median width of `widths` studies with 199 resamples against the interval predicted.
"""

import argparse
import math
import time

import numpy as np

from analysis.coverage import DESIGNS, QUANTITIES, SHARED, Design, losses, simulate, study
from analysis.deciding.planned import Planned
from analysis.deciding.prior import Prior
from analysis.expected import Expected, expected
from analysis.fit import fit
from analysis.solving.form import Runs
from analysis.solving.sandwich import Noise
from analysis.solving.solve import Loss, minimise
from analysis.solving.sums import ChinchillaForm
from analysis.solving.targets import LOGARITHMS, quantities

CASES = (
    ("grid 5x5", 0.004),
    ("grid 8x8", 0.01),
    ("branched 4x3", 0.001),
    ("branched 5x4", 0.004),
    ("branched 8x3", 0.004),
    ("small 5x4", 0.004),
)
ASKED = ("alpha", "beta", "a", "N*", "loss")
CHECKED = 10  # studies of each design that are fitted once more by analysis.fit
WITHIN = 0.1  # relative: what is asked of a standard error


def predicted(design: Design, noise: float, seed: int) -> tuple[Expected, float]:
    """What is expected of a design, and its budget: ten times its largest run."""
    runs = Planned.independent(design.params, design.tokens)
    if design.trajectory is not None:
        runs = Planned(
            params=runs.params, tokens=runs.tokens, trajectory=design.trajectory, trunk_flops=runs.trunk_flops
        )
    shared = 0.0 if design.trajectory is None else SHARED
    prior = Prior(law=design.law, noise=Noise(sd=noise, shared=shared), source="the truth")
    budget = 10 * float(runs.flops.max())
    return expected(runs, prior, budget, simulations=4000, seed=seed), budget


def simulated(design: Design, noise: float, budget: float, seeds: range) -> tuple[dict[str, float], float]:
    """Standard deviations over studies of the best optimum of all starts; and how far N* of the first few is from that
    of `analysis.fit`, whose starts are those of the study itself (the largest difference of the logarithm).
    """
    loss = design.law.predict(design.params, design.tokens)
    runs = Runs(params=design.params, tokens=design.tokens, loss_nats=loss)
    form = ChinchillaForm.of(runs)
    model, starts = form.model(runs), form.starts(runs)
    best, lowest = np.empty((len(seeds), len(form.names))), np.full(len(seeds), np.inf)
    targets = np.log(np.array([losses(design, noise, seed)[0] for seed in seeds]))
    for start in starts:
        begin = np.repeat(start[None], len(seeds), axis=0)
        found = minimise(model, targets, np.ones((1, len(runs.params))), begin, form.lower, form.upper, loss=Loss())
        better = found.objective < lowest
        best[better], lowest = found.theta[better], np.minimum(lowest, found.objective)
    law = form.law(best)
    told = quantities(law, budget)
    apart = [
        abs(float(quantities(fit(simulate(design, noise, seed)[0], bootstrap=0).law, budget)["N*"] - told["N*"][i, 0]))
        for i, seed in enumerate(seeds[:CHECKED])
    ]
    return {name: float(np.std(told[name])) for name in ASKED}, max(apart)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--widths", type=int, default=40, help="studies whose intervals are made; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun, worst = time.monotonic(), 0.0
    print(f"predicted over simulated standard errors, {given.studies} studies a design; 'line': the delta method's")
    print(f"{'design':13s} {'noise':>6s}  " + "  ".join(f"{name:>12s} {'line':>5s}" for name in ASKED) + "  from fit")
    for name, noise in CASES:
        design = DESIGNS[name]
        ahead, budget = predicted(design, noise, given.seed)
        told, apart = simulated(design, noise, budget, range(given.seed, given.seed + given.studies))
        cells = []
        for quantity in ASKED:
            ratio, line = (x / told[quantity] for x in (ahead[quantity].standard_error, ahead[quantity].linearised))
            worst = max(worst, abs(ratio - 1))
            cells.append(f"{ratio:12.3f} {line:5.2f}")
        print(f"{name:13s} {100 * noise:4.1f} %  " + "  ".join(cells) + f"  {apart:.1e}", flush=True)
    print(f"largest difference: {100 * worst:.1f} %, {time.monotonic() - begun:.0f} s")
    if given.widths:
        print(f"\nwidth of the interval predicted over the median of those that fit gives, {given.widths} studies")
        for name, noise in CASES:
            design = DESIGNS[name]
            ahead, _ = predicted(design, noise, given.seed)
            widths = np.array([study(design, noise, seed, bootstrap=199)[1] for seed in range(given.widths)])
            cells = []
            for quantity in ("alpha", "beta", "a", "N*"):
                low, high = ahead[quantity].interval
                fitted = float(np.median(widths[:, QUANTITIES.index(quantity)]))
                ratio = math.log(high / low) / math.log1p(fitted) if quantity in LOGARITHMS else (high - low) / fitted
                cells.append(f"{quantity} {ratio:.2f}")
            print(f"{name:13s} {100 * noise:4.1f} %  " + "  ".join(cells), flush=True)
    return 0 if worst <= WITHIN else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""Speed of the fit against SciPy's L-BFGS-B on the same work, time of the command, memory of a million rows.

Run by `make bench`. Prints one line a figure. The table is Epoch AI's 240 runs where LMSCALE_REFERENCE_DATA says where
they are, otherwise 240 runs of the law that was fitted to them.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

import analysis
from analysis.laws import Array, Chinchilla
from analysis.solving.form import Runs
from analysis.solving.solve import HUBER_DELTA, Loss, minimise
from analysis.solving.sums import ChinchillaForm
from analysis.table import Table

REFITS = 4000
SAMPLE = 200  # of SciPy's descents on either side; the rest is scaled
TIGHT = {"maxiter": 15_000, "maxfun": 15_000, "ftol": 1e-15, "gtol": 1e-10}
LAW = Chinchilla(A=477.826, B=2143.417, L0=1.81722, alpha=0.34731, beta=0.36717)  # fitted to Epoch AI's table
MILLION = 1_000_000


def main() -> int:
    table = epoch()
    search(table)
    command(table)
    subprocess.run([sys.executable, __file__, "--million"], check=True)
    return 0


def epoch() -> Table:
    folder = os.environ.get("LMSCALE_REFERENCE_DATA")
    if folder:
        return analysis.read(Path(folder) / "runs" / "epoch_chinchilla.csv", where={"besiroglu_excluded": "False"})
    print("LMSCALE_REFERENCE_DATA is unset: 240 runs simulated")
    return analysis.from_frame(simulated(240))


def simulated(rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    params = np.exp(rng.uniform(np.log(5e7), np.log(1.6e10), rows))
    tokens = np.exp(rng.uniform(np.log(1e9), np.log(3e11), rows))
    loss = LAW.predict(params, tokens) * np.exp(0.005 * rng.standard_t(4, size=rows))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss_nats": loss})


def reference_grid() -> Array:
    """The 4,500 starts (log A, log B, log L0, alpha, beta) of Besiroglu et al. 2024."""
    amplitudes, exponents = range(0, 26, 5), np.arange(0, 2.1, 0.5)
    return np.array(list(product(amplitudes, amplitudes, (-1, -0.5, 0, 0.5, 1), exponents, exponents)), np.float64)


def search(table: Table) -> None:
    """The global optimum and 4,000 bootstrap refits from it, by both."""
    runs = Runs(params=table.params, tokens=table.tokens, loss_nats=table.loss_nats)
    rows = len(table)
    weights = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), REFITS).astype(np.float64)
    target = np.log(runs.loss_nats)[None]

    def ours() -> tuple[float, Array, Chinchilla]:
        form = ChinchillaForm.of(runs)
        model, box = form.model(runs), (form.lower, form.upper)
        found = minimise(model, target, np.ones((1, rows)), form.starts(runs), *box, loss=Loss())
        best = int(np.argmin(found.objective))
        start = np.repeat(found.theta[best][None], REFITS, axis=0)
        refits = minimise(model, target, weights, start, *box, loss=Loss())
        return float(found.objective[best]), refits.objective, form.law(found.theta[best])

    (objective, refits, law), seconds = clocked(ours, repeats=3)
    x, y, log_loss = np.log(runs.params), np.log(runs.tokens), np.log(runs.loss_nats)

    def objective_and_slope(theta: Array, weight: Array) -> tuple[float, Array]:
        a, b, e, alpha, beta = theta
        first, second = a - alpha * x, b - beta * y
        top = np.maximum(np.maximum(first, second), e)
        p, q, r = np.exp(first - top), np.exp(second - top), np.exp(e - top)
        total = p + q + r
        residual = top + np.log(total) - log_loss
        size = np.abs(residual)
        huber = np.where(size <= HUBER_DELTA, 0.5 * residual**2, HUBER_DELTA * (size - 0.5 * HUBER_DELTA))
        slope = weight * np.clip(residual, -HUBER_DELTA, HUBER_DELTA) / total
        return float(weight @ huber), np.array([slope @ p, slope @ q, slope @ r, -(slope * p) @ x, -(slope * q) @ y])

    def descend(start: Array, weight: Array) -> float:
        found: Any = minimize(objective_and_slope, start, (weight,), "L-BFGS-B", jac=True, options=TIGHT)
        return float(found.fun)

    grid = reference_grid()
    chosen = np.random.default_rng(1).choice(len(grid), SAMPLE, replace=False)
    begun = time.perf_counter()
    lowest = min(descend(grid[i], np.ones(rows)) for i in chosen)
    grid_seconds = (time.perf_counter() - begun) / SAMPLE * len(grid)
    at = np.array([np.log(law.A), np.log(law.B), np.log(law.L0), law.alpha, law.beta], np.float64)
    begun = time.perf_counter()
    theirs = np.array([descend(at, weights[i]) for i in range(SAMPLE)])
    refit_seconds = (time.perf_counter() - begun) / SAMPLE * REFITS
    scipy_seconds = grid_seconds + refit_seconds
    print(f"global optimum + {REFITS:,} refits: {seconds:.2f} s; objective {objective:.13f}")
    print(f"SciPy L-BFGS-B, exact gradient: {scipy_seconds:.1f} s ({len(grid):,} starts {grid_seconds:.1f} s, refits "
          f"{refit_seconds:.1f} s, scaled from {SAMPLE} of each); lowest objective {lowest:.13f}")  # fmt: skip
    print(f"ratio: {scipy_seconds / seconds:.0f} x; our optimum above SciPy's by {objective - lowest:.1e}; "
          f"our worst sampled refit above SciPy's by {np.max(refits[:SAMPLE] - theirs):.1e}")  # fmt: skip


def clocked(function: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """What it returns, and the median of its seconds."""
    times = []
    result = None
    for _ in range(repeats):
        begun = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - begun)
    return result, float(np.median(times))


def command(table: Table) -> None:
    """The whole process: `lmscale fit` on 240 rows with 1,000 resamples."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.csv"
        table.frame[["params", "tokens", "loss_nats"]].to_csv(path, index=False)
        words = [sys.executable, "-m", "lmscale.cli", "fit", str(path), "--bootstrap", "1000"]
        _, seconds = clocked(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL), repeats=5)
    print(f"lmscale fit, {len(table)} rows, 1,000 resamples, whole process: {seconds:.2f} s")


def million() -> None:
    """Read and fit a million rows: seconds and the largest memory of the process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.csv"
        simulated(MILLION).to_csv(path, index=False)
        begun = time.perf_counter()
        table = analysis.read(path)
        read_seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        fitted = analysis.fit(table)
        seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    low, high = fitted.intervals["alpha"]
    alpha = float(fitted.law.parameters["alpha"])
    print(f"{MILLION:,} rows: read {read_seconds:.1f} s, fit with 1,000 resamples {seconds:.1f} s, peak {peak:.2f} GB; "
          f"alpha {alpha:.5f} [{low:.5f}, {high:.5f}], planted {LAW.alpha}")  # fmt: skip


if __name__ == "__main__":
    if "--million" in sys.argv:
        million()
    else:
        sys.exit(main())

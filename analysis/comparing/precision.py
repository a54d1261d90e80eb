"""Loss that rounded weights add, against model size, tokens and bits: the law of post-training quantisation, fitted.

    added(N, D, P) = C_T D^gamma_D / N^gamma_N exp(-P / gamma_P)        Kumar et al. 2024 (arXiv:2411.04330), eq. 2

P is the bits of a weight. The law is linear in its logarithm, but what a run adds is not always positive: at eight bits
it is often less than its own error. So added losses are fitted as they are, by quasi-likelihood (McCullagh & Nelder
1989, Ch. 9): mean mu from the law, variance (scatter mu)^2 + stderr^2, the scatter of runs about the law being that
for which Pearson's chi-square is its degrees of freedom. A run with less than nothing counts like any other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.comparing.added_losses import TOLD, AddedLosses, read_added
from analysis.comparing.gaps import LEAST_RUNS
from analysis.laws import MOST_LOG, Array
from analysis.reading.scores import Scores
from analysis.solving.clustered import LEAST_CLUSTERS, varies
from analysis.table import Table
from analysis.uncertainty import Resampling, interval, require_resamples

ROUNDS, STEADY = 100, 1e-10  # of reweighting, and the change of log mu at which it ends
LONGEST_STEP = 2.0  # of log mu in a round
LEAST_SCATTER, MOST_SCATTER = 1e-6, 1e3
MISFIT = 0.25  # of the added losses of one precision against the law, on average: said when it is told too
QUADRATIC = 1 / (2 * math.log(2))  # gamma_P where loss is quadratic in the weights' errors, of variance ~ 4^-P


@dataclass(frozen=True, kw_only=True)
class PrecisionLaw:
    """C_T D^gamma_D / N^gamma_N exp(-P / gamma_P) in nats."""

    log_C_T: float
    gamma_D: float
    gamma_N: float
    gamma_P: float

    def __call__(self, params: Array, tokens: Array, bits: Array | float) -> Array:
        logs = self.log_C_T + self.gamma_D * np.log(tokens) - self.gamma_N * np.log(params) - bits / self.gamma_P
        return np.exp(np.clip(logs, -MOST_LOG, MOST_LOG))


@dataclass(frozen=True, kw_only=True)
class Level:
    """One precision: its runs, how many of them tell their added loss from zero, the least, median and greatest of it,
    and the measured over the law's, averaged with the fit's weights, with its standard error (None without a law).
    """

    bits: int
    runs: int
    told: int
    least: float
    median: float
    greatest: float
    ratio: float | None = None
    ratio_stderr: float | None = None


@dataclass(frozen=True, kw_only=True)
class PrecisionFit:
    """law: None where the runs do not tell it (`reason`). scatter: relative, of runs about it. group: inputs that share
    a scale, None for all of an output.
    """

    table: Table
    points: AddedLosses
    task: str
    group: int | None
    levels: tuple[Level, ...]
    law: PrecisionLaw | None
    reason: str
    scatter: float
    intervals: dict[str, tuple[float, float]]
    resampling: str
    bootstrap: int
    warnings: tuple[str, ...]


def fit_precision(
    table: Table,
    scores: Scores,
    *,
    task: str | None = None,
    group: int | None = None,
    bits: Sequence[int] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> PrecisionFit:
    """Fit the law to the added losses of a table's runs, with intervals over trajectories (analysis.uncertainty).

    task: the evaluation set, as in analysis.reading.scores.one_task. group: inputs that share a scale, None for all of
    an output. bits: the precisions wanted, all by default. Raises InputError where no run was scored with its weights
    rounded so; a design that cannot tell the law is no error, but gives no law and the reason.
    """
    require_resamples(bootstrap, seed)
    points, name = read_added(table, scores, task, group, bits)
    fitted, reason = None, _untold(points)
    if not reason:
        fitted = _fit(points, bootstrap, seed)
        reason = fitted.untold
    law = None if fitted is None or reason else fitted.law
    levels = tuple(_level(points, int(bits), fitted if law else None) for bits in np.unique(points.bits)[::-1])
    return PrecisionFit(
        table=table,
        points=points,
        task=name,
        group=group,
        levels=levels,
        law=law,
        reason=reason,
        scatter=math.nan if fitted is None else fitted.scatter,
        intervals={} if fitted is None or law is None or not bootstrap else _shown(fitted.intervals),
        resampling="none" if fitted is None or not bootstrap else fitted.resampling,
        bootstrap=bootstrap,
        warnings=tuple(_warnings(levels)),
    )


def _untold(points: AddedLosses) -> str:
    """Why these points cannot tell the law, if they cannot."""
    if len(set(points.bits)) < 2:
        return f"only {int(points.bits[0])} bits were tried, and gamma_P needs two precisions; add --bits 4 3"
    if (count := len(set(points.trajectory))) < LEAST_CLUSTERS:
        return f"{count} trajectories cannot tell how runs differ; at least {LEAST_CLUSTERS} are needed"
    if not varies(np.log(np.column_stack([points.params, points.tokens]))):
        return "N and D do not vary apart, so gamma_N and gamma_D cannot be told apart; add other token counts"
    told = points.told
    precisions, runs = len(set(points.bits[told])), len({*zip(points.params[told], points.tokens[told], strict=True)})
    if precisions < 2 or runs < LEAST_RUNS:
        return (
            f"only {int(told.sum())} of {len(told)} added losses are told from zero ({TOLD:g} standard errors), "
            f"at {precisions} precisions; round to fewer bits, or score more text"
        )
    return ""


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    law: PrecisionLaw
    scatter: float
    mean: Array
    variance: Array
    intervals: dict[str, tuple[float, float]]
    resampling: str
    untold: str


def _fit(points: AddedLosses, bootstrap: int, seed: int) -> _Fitted:
    logs = np.column_stack([np.log(points.tokens), -np.log(points.params), -points.bits])
    centre = logs.mean(axis=0)
    design = np.column_stack([np.ones(len(logs)), logs - centre])
    told = points.told
    theta: Array = np.asarray(np.linalg.lstsq(design[told], np.log(points.added[told]), rcond=None)[0], np.float64)
    scatter, steady = 0.5, False
    for _ in range(ROUNDS):
        before, scatter = scatter, _scatter(points, _mean(design, theta[None])[0], design.shape[1])
        (theta,), steady = _reweighted(design, points.added[None], points.stderr, scatter, theta[None], np.ones((1, 1)))
        if abs(scatter - before) < 1e-8 * (1 + before):
            break
    mean = _mean(design, theta[None])[0]
    variance = (scatter * mean) ** 2 + points.stderr**2
    resampling = Resampling.of(points.params, list(points.trajectory), clustered=True)
    values, intervals = _values(theta[None], centre), {}
    if bootstrap:
        sd = np.sqrt(variance)
        rng = np.random.default_rng(seed)
        draws = resampling.draw((points.added - mean) / sd, design * (mean / sd)[:, None], count=bootstrap, rng=rng)
        added = mean + sd * draws.log_errors  # errors in units of their sd
        many = np.tile(theta, (bootstrap, 1))
        refits, _ = _reweighted(design, added, points.stderr, scatter, many, draws.weights)
        samples = _values(theta + draws.spread[:, None] * (refits - theta), centre)
        ends = {name: interval(each) for name, each in samples.items()}
        intervals = {name: (float(low), float(high)) for name, (low, high) in ends.items()}
    law = PrecisionLaw(
        log_C_T=float(values["log_C_T"][0]),
        gamma_D=float(values["gamma_D"][0]),
        gamma_N=float(values["gamma_N"][0]),
        gamma_P=float(1 / values["slope"][0]),
    )
    low, _ = intervals.get("slope", (float(values["slope"][0]),) * 2)
    untold = ""
    if not steady:
        untold = "the fit does not settle: the added losses follow no such law"
    elif not low > 0:
        untold = "more bits do not surely add less loss here, so there is no gamma_P; round to fewer bits"
    return _Fitted(
        law=law,
        scatter=scatter,
        mean=mean,
        variance=variance,
        intervals=intervals,
        resampling=resampling.description,
        untold=untold,
    )


def _shown(ends: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Of the law's own parameters, from those in which it is linear."""
    (low, high), logs = ends["slope"], np.clip(ends["log_C_T"], -MOST_LOG, MOST_LOG)
    mine = {name: each for name, each in ends.items() if name.startswith("gamma")}
    return {"C_T": (math.exp(logs[0]), math.exp(logs[1])), **mine, "gamma_P": (1 / high, 1 / low)}


def _values(theta: Array, centre: Array) -> dict[str, Array]:
    """Of coefficients [R, 4] about a centre; slope: 1 / gamma_P."""
    level, gamma_d, gamma_n, slope = theta.T
    return {
        "log_C_T": level - theta[:, 1:] @ centre,
        "gamma_D": gamma_d,
        "gamma_N": gamma_n,
        "gamma_D - gamma_N": gamma_d - gamma_n,
        "slope": slope,
    }


def _mean(design: Array, theta: Array) -> Array:
    """[R, n]"""
    return np.exp(np.clip(theta @ design.T, -MOST_LOG, MOST_LOG))


def _reweighted(
    design: Array, added: Array, stderr: Array, scatter: float, theta: Array, weights: Array
) -> tuple[Array, bool]:
    """Coefficients [R, K] by iteratively reweighted least squares of added [R or 1, n], and whether all settled."""
    change = np.full(len(theta), np.inf)
    for _ in range(ROUNDS):
        mean = _mean(design, theta)
        weight = weights * mean**2 / ((scatter * mean) ** 2 + stderr**2)
        normal = np.einsum("rn,nk,nl->rkl", weight, design, design)
        ridge = 1e-12 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(design.shape[1])
        right = np.einsum("rn,nk->rk", weight * (added - mean) / mean, design)
        step = np.linalg.solve(normal + ridge, right[..., None])[..., 0]
        change = np.abs(step @ design.T).max(axis=1)
        theta = theta + step * np.minimum(1.0, LONGEST_STEP / np.maximum(change, 1e-300))[:, None]
        if change.max() < STEADY:
            break
    return theta, bool(change.max() < 1e-6)


def _scatter(points: AddedLosses, mean: Array, free: int) -> float:
    """The relative scatter at which the sum of squared Pearson residuals is n - K, by bisection; the least there is
    where the standard errors alone explain more.
    """

    def excess(scatter: float) -> float:
        variance = np.maximum((scatter * mean) ** 2 + points.stderr**2, 1e-300)
        return float(np.sum((points.added - mean) ** 2 / variance)) - (len(mean) - free)

    low, high = LEAST_SCATTER, MOST_SCATTER
    if excess(low) <= 0:
        return low
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def _level(points: AddedLosses, bits: int, fitted: _Fitted | None) -> Level:
    here = points.bits == bits
    added = points.added[here]
    ratio = ratio_stderr = None
    if fitted is not None:
        mean, weight = fitted.mean[here], (fitted.mean**2 / fitted.variance)[here]
        ratio = float(np.sum(weight * added / mean) / weight.sum())
        ratio_stderr = float(1 / math.sqrt(weight.sum()))
    return Level(
        bits=bits,
        runs=len(added),
        told=int(points.told[here].sum()),
        least=float(added.min()),
        median=float(np.median(added)),
        greatest=float(added.max()),
        ratio=ratio,
        ratio_stderr=ratio_stderr,
    )


def _warnings(levels: tuple[Level, ...]) -> list[str]:
    said = [
        f"int{level.bits}: {level.runs - level.told} of {level.runs} added losses are not told from zero; the fit "
        "weighs them by their errors"
        for level in levels
        if 2 * level.told < level.runs
    ]
    off = []
    for level in levels:
        if level.ratio is not None and level.ratio_stderr is not None:
            distance = abs(level.ratio - 1)
            if distance > MISFIT and distance > TOLD * level.ratio_stderr:
                off.append(f"{level.ratio:.2f} times at int{level.bits}")
    if off:
        said.append(
            f"exp(-P / gamma_P) does not hold over these precisions: runs add, on average, {', '.join(off)} what the "
            "law says; fit some of them, such as --precision 8 6"
        )
    return said

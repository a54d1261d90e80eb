"""Approach 1: the lower envelope of loss curves, and power laws through the sizes that attain it.

Hoffmann et al. 2022, Sec. 3.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.curves import Curves
from analysis.errors import InputError, require_choice
from analysis.laws import Array
from analysis.profiles.powerlaw import LEAST_FOR_INTERVAL, Compute, Frontier, intervals_of, loss_law, power_law
from analysis.solving.identify import require_identifiable
from analysis.uncertainty import require_resamples

Estimator = Literal["crossings", "points"]
Optima = Callable[[NDArray[np.bool_]], tuple[Array, Array]]

GRID = 400  # computes at which the envelope is taken; Hoffmann et al. 2022, Sec. 3.1, take 1500
LOSS_POINTS = 32  # of them that the loss law is fitted to
SAME_FLOPS = 1e-6  # relative; 6ND of one budget differs by rounding
LEAST_SHARE = 0.5  # of resamples that must give a law
BLOCK = 4_000_000  # elements of one array over resamples, 32 MB


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """The lower envelope and its power laws.

    flops, loss_nats [G]: the envelope; size, tokens [G]: of the curve that attains it (NaN where none reaches).
    inside [G]: the size there is neither the smallest nor the largest that reaches this compute. points [4, M]:
    compute, N, D, loss that the laws were fitted to, of the kind `estimator` says: "crossings", "points", or "runs"
    where each run is one point. dominated: runs below which another one lies (of kind "runs").
    frontier, samples, intervals: as in analysis.isoflop.IsoFlop.
    """

    curves: Curves
    flops: Array
    loss_nats: Array
    size: Array
    tokens: Array
    inside: NDArray[np.bool_]
    points: Array
    estimator: str
    dominated: int
    frontier: Frontier
    samples: Frontier | None
    resampling: str
    compute: Compute
    intervals: dict[str, tuple[float, float]]
    warnings: tuple[str, ...]

    @property
    def flops_max(self) -> float:
        return float(self.points[0].max())


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """log compute [G]; log loss and log tokens [K, G] of every curve, infinite and NaN where it does not reach."""

    x: Array
    loss: Array
    tokens: Array
    params: Array


def envelope(
    curves: Curves,
    *,
    estimator: Estimator = "crossings",
    compute: Compute = "given",
    bootstrap: int = 1000,
    seed: int = 0,
) -> Envelope:
    """The envelope of curves and N*, D* ~ C^a, C^b by least squares, with intervals from resampled curves.

    estimator: "crossings" fits the computes at which the envelope passes from one size to the next, where both do
    equally well, N* being the geometric mean of the two. "points" fits the size that attains the envelope at every
    compute of the grid, as Hoffmann et al. do, without those attained by the smallest or largest size that reaches
    there; with K sizes its staircase flattens a by about 1/K^2. Where most runs are one point, runs that no other
    one undercuts with less compute take their place. compute: as the file gives it, or 6ND.
    Raises InputError for a bad option and for curves whose envelope shows fewer than two optima.
    """
    require_choice("estimator", estimator, Estimator)
    require_choice("compute", compute, Compute)
    require_resamples(bootstrap, seed)
    if len({curve.params for curve in curves.curves}) < 3:
        raise InputError("params: the curves have fewer than 3 sizes, so none is between two others; add sizes")
    joined = sum(len(curve.flops) for curve in curves.curves if len(curve.flops) > 1)
    single = 2 * joined < len(curves)
    grid = _grid(curves, compute)
    runs = _runs(curves, compute)
    units = runs.shape[1] if single else len(curves.curves)
    if single:  # with D a function of N nothing undercuts anything, and the law would be the design's
        require_identifiable(runs[1], runs[2], free=2)

    def optima(keep: NDArray[np.bool_]) -> tuple[Array, Array]:
        return _nondominated(runs, keep) if single else _steps(grid, keep, estimator)

    everything = np.ones((1, units), bool)
    found, weight = (value[0] for value in optima(everything))
    points = found[:, weight > 0]
    kind = "runs" if single else estimator
    _require(points, kind, curves)
    curve_all = np.ones((1, len(curves.curves)), bool)
    best = _winner(grid, curve_all)
    log_loss = np.take_along_axis(grid.loss, best, 0)[0]
    reached = np.isfinite(log_loss)
    frontier = _frontier(found[None], weight[None], grid, everything, single)
    samples, intervals = None, {}
    warnings = list(curves.warnings)
    if bootstrap and _distinct(points) >= LEAST_FOR_INTERVAL:
        samples, share = _resample(optima, grid, units, bootstrap, single, np.random.default_rng([seed, 3]))
        if samples is None:
            warnings.append(f"only {share:.0%} of the resamples give a law: too few curves for an interval")
        else:
            intervals = intervals_of(samples)
            if not 0 < intervals["a"][0] <= intervals["a"][1] < 1:
                warnings.append("the interval of a leaves 0 to 1: this envelope does not tell the exponent")
    elif bootstrap:
        warnings.append(f"{_distinct(points)} optima give an exponent and no interval: add sizes")
    if single:
        warnings.append(
            f"each run is one point: the law goes through the {points.shape[1]} runs that none undercuts, which in a "
            "thin grid leans to the sizes tried at each compute; rely on the other approaches"
        )
    elif _distinct(points) < 5:
        warnings.append(f"only {_distinct(points)} optima on the envelope: its exponents are approximate")
    unit = "runs" if single else {"trajectory": "trajectories"}.get(curves.joined, f"curves (one a {curves.joined})")
    return Envelope(
        curves=curves,
        flops=np.exp(grid.x),
        loss_nats=np.where(reached, np.exp(np.where(reached, log_loss, 0.0)), np.nan),
        size=np.where(reached, grid.params[best[0]], np.nan),
        tokens=np.where(reached, np.exp(np.take_along_axis(grid.tokens, best, 0)[0]), np.nan),
        inside=_inside(grid, curve_all, best)[0],
        points=points,
        estimator=kind,
        dominated=runs.shape[1] - points.shape[1] if single else 0,
        frontier=Frontier.from_numbers(frontier.numbers[0]),
        samples=samples,
        resampling=f"{bootstrap} resamples of {units} {unit}" if samples is not None else "none",
        compute=compute,
        intervals=intervals,
        warnings=tuple(warnings),
    )


def _grid(curves: Curves, compute: Compute) -> _Grid:
    axes = [np.log(curve.flops if compute == "given" else curve.flops_6nd) for curve in curves.curves]
    x = np.linspace(min(a[0] for a in axes), max(a[-1] for a in axes), GRID)
    loss, tokens = np.full((len(axes), GRID), np.inf), np.full((len(axes), GRID), np.nan)
    for k, (axis, curve) in enumerate(zip(axes, curves.curves, strict=True)):
        covered = (x >= axis[0]) & (x <= axis[-1])
        loss[k, covered] = np.interp(x[covered], axis, np.log(curve.loss_nats))
        tokens[k, covered] = np.interp(x[covered], axis, np.log(curve.tokens))
    return _Grid(x=x, loss=loss, tokens=tokens, params=np.array([curve.params for curve in curves.curves]))


def _runs(curves: Curves, compute: Compute) -> Array:
    """[4, points]: compute, N, D, loss of every point, as if each were a run."""
    parts = [
        np.stack(
            [c.flops if compute == "given" else c.flops_6nd, np.full(len(c.flops), c.params), c.tokens, c.loss_nats]
        )
        for c in curves.curves
    ]
    return np.concatenate(parts, axis=1)


def _winner(grid: _Grid, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Curve that attains the envelope [R, G] of the curves kept [R, K]."""
    return np.where(keep[:, :, None], grid.loss, np.inf).argmin(axis=1)


def _inside(grid: _Grid, keep: NDArray[np.bool_], best: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether smaller and larger sizes than the best [R, G] reach the same compute."""
    reached = keep[:, :, None] & np.isfinite(grid.loss)
    size = grid.params[best]
    smallest = np.where(reached, grid.params[:, None], np.inf).min(axis=1)
    largest = np.where(reached, grid.params[:, None], 0.0).max(axis=1)
    return (size > smallest) & (size < largest)


def _steps(grid: _Grid, keep: NDArray[np.bool_], estimator: Estimator) -> tuple[Array, Array]:
    """[R, 4, M] compute, N, D, loss of optima and their weights [R, M] under the curves kept [R, K]."""
    best = _winner(grid, keep)
    g = np.arange(GRID)
    if estimator == "points":
        loss, tokens = grid.loss[best, g], grid.tokens[best, g]
        reached = np.isfinite(loss)
        values = [np.broadcast_to(grid.x, best.shape), np.log(grid.params[best])]
        values += [np.where(reached, tokens, 0.0), np.where(reached, loss, 0.0)]
        return np.exp(np.stack(values, 1)), _inside(grid, keep, best).astype(np.float64)
    one, two, at = best[:, :-1], best[:, 1:], g[:-1]
    corners = [grid.loss[one, at], grid.loss[two, at], grid.loss[one, at + 1], grid.loss[two, at + 1]]
    crossing = (grid.params[one] != grid.params[two]) & np.logical_and.reduce([np.isfinite(c) for c in corners])
    a0, b0, a1, b1 = (np.where(crossing, corner, 0.0) for corner in corners)
    gap = (b0 - a0) - (b1 - a1)
    part = np.where(gap > 0, (b0 - a0) / np.where(gap > 0, gap, 1.0), 0.5)
    tokens = [grid.tokens[one, at], grid.tokens[two, at], grid.tokens[one, at + 1], grid.tokens[two, at + 1]]
    d = [np.where(crossing, t, 0.0) for t in tokens]
    values = np.stack(
        [
            grid.x[:-1] + part * (grid.x[1] - grid.x[0]),
            0.5 * (np.log(grid.params[one]) + np.log(grid.params[two])),
            0.5 * ((1 - part) * (d[0] + d[1]) + part * (d[2] + d[3])),
            (1 - part) * a0 + part * a1,
        ],
        1,
    )
    return np.exp(values), crossing.astype(np.float64)


def _nondominated(runs: Array, keep: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Runs [4, n] that no kept run undercuts in loss with no more compute, without the smallest and largest sizes."""
    flops, params, _, loss = runs
    order = np.argsort(flops)
    lowest = np.minimum.accumulate(np.where(keep, loss, np.inf)[:, order], axis=1)
    reach = np.searchsorted(flops[order], flops * (1 + SAME_FLOPS), side="right") - 1
    smallest = np.where(keep, params, np.inf).min(axis=1, keepdims=True)
    largest = np.where(keep, params, 0.0).max(axis=1, keepdims=True)
    free = (lowest[:, reach] >= loss) & (params > smallest) & (params < largest)
    return np.broadcast_to(runs, (len(keep), *runs.shape)), (keep & free).astype(np.float64)


def _frontier(found: Array, weight: Array, grid: _Grid, keep: NDArray[np.bool_], single: bool) -> Frontier:
    """Laws [R, 1] of optima [R, 4, M]; the loss law follows the envelope itself between its first and last optimum."""
    flops, params, tokens, loss = (found[:, k] for k in range(4))
    at, losses, use = flops, loss, weight
    if not single:
        some = np.linspace(0, GRID - 1, LOSS_POINTS * 4).round().astype(int)
        best = _winner(grid, keep)[:, some]
        losses, x = grid.loss[best, some], grid.x[some]
        low = np.where(weight > 0, np.log(flops), np.inf).min(axis=1, keepdims=True)
        high = np.where(weight > 0, np.log(flops), -np.inf).max(axis=1, keepdims=True)
        use = ((x >= low) & (x <= high) & np.isfinite(losses)).astype(np.float64)
        at, losses = np.broadcast_to(np.exp(x), use.shape), np.exp(np.where(np.isfinite(losses), losses, 0.0))
    return Frontier(
        params=power_law(flops, params, weight), tokens=power_law(flops, tokens, weight), loss=loss_law(at, losses, use)
    )


def _resample(
    optima: Optima, grid: _Grid, units: int, count: int, single: bool, rng: np.random.Generator
) -> tuple[Frontier | None, float]:
    """Laws of `count` resamples of curves (or runs) and the share that gave one; no laws where that is too small."""
    block = max(1, BLOCK // (units * (units if single else GRID)))
    parts = []
    for first in range(0, count, block):
        keep = rng.multinomial(units, np.full(units, 1 / units), size=min(block, count - first)) > 0
        parts.append(_frontier(*optima(keep), grid, keep, single).numbers)
    laws = np.concatenate(parts)
    told = np.isfinite(laws).all(axis=1)
    share = float(told.mean())
    return (None if share < LEAST_SHARE else Frontier.from_numbers(laws[told])), share


def _distinct(points: Array) -> int:
    """How many different sizes the optima [4, M] show."""
    return len(np.unique(points[1]))


def _require(points: Array, kind: str, curves: Curves) -> None:
    if _distinct(points) >= 2:
        return
    reach = f"{len({curve.params for curve in curves.curves})} sizes"
    if kind == "crossings":
        why = f"the envelope of {reach} passes from one to another at {_distinct(points)} compute, 2 are needed"
        mend = "train each size on a wider range of tokens, so that neighbours overlap in compute"
    else:
        why = f"{_distinct(points)} of {reach} attain the envelope between a smaller and a larger one, 2 are needed"
        mend = "add sizes, or tokens per size"
    raise InputError(f"curves: {why}; {mend}")

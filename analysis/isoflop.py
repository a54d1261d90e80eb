"""Approach 2: the size of lowest loss at each of several budgets, and power laws through these optima.

Hoffmann et al. 2022, Sec. 3.2 (parabolas), and Porian et al. 2024 (Akima interpolation, weights from seed noise).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.errors import InputError, require_choice
from analysis.laws import Array, flops_6nd
from analysis.profiles.budgets import TOLERANCE, Grouping, group
from analysis.profiles.powerlaw import (
    LEAST_FOR_FLOOR,
    LEAST_FOR_INTERVAL,
    Compute,
    Frontier,
    intervals_of,
    loss_law,
    power_law,
    unexplained,
)
from analysis.profiles.profile import (
    AKIMA_POINTS,
    WINDOW,
    Method,
    Profile,
    Response,
    SameSize,
    Shape,
    minima,
    read_profile,
    residuals_of_parabola,
)
from analysis.table import Table
from analysis.uncertainty import require_resamples

Resample = Literal["noise", "budgets"]
Scatter = Literal["include", "ignore"]
Weights = Literal["noise", "equal"]

LEAST_SHARE = 0.5  # of resamples that keep a minimum, Porian et al. 2024 (their public code)
LEAST_SD = 0.33  # of the mean gap between sizes, for Akima, ibid.


@dataclass(frozen=True, kw_only=True)
class IsoFlop:
    """Optima of budgets and the power laws through them.

    profiles: all, rejected ones with their reason. frontier: N*, D*, loss against compute; samples: the same per
    resample (None without). noise: sd of log loss [sizes] is `noise` nats over the loss, or `noise_relative` as
    estimated from `noise_freedom` degrees of freedom. scatter_ratio: rms distance of log N* from the law over the sd
    that noise gives it; scatter: sd of log N* that noise does not explain and that the intervals include.
    intervals: 95 % of a, b and of the coefficients of N* and D*.
    """

    table: Table
    shape: Shape
    grouping: Grouping
    profiles: tuple[Profile, ...]
    frontier: Frontier
    samples: Frontier | None
    noise: float | None
    noise_relative: float | None
    noise_freedom: int
    scatter_ratio: float | None
    scatter: float
    resampling: str
    compute: Compute
    intervals: dict[str, tuple[float, float]]
    warnings: tuple[str, ...]

    @property
    def accepted(self) -> tuple[Profile, ...]:
        return tuple(profile for profile in self.profiles if profile.optimum)

    @property
    def points(self) -> Array:
        """[4, budgets]: compute as the laws count it, N*, D*, loss."""
        return _points(self.accepted, self.compute)

    @property
    def flops_max(self) -> float:
        return float(self.points[0].max())


def isoflop(
    table: Table,
    *,
    method: Method = "parabola",
    window: float = WINDOW,
    response: Response = "log_loss",
    same_size: SameSize = "mean",
    budgets: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
    noise: float | None = None,
    resample: Resample = "noise",
    scatter: Scatter = "include",
    weights: Weights = "noise",
    compute: Compute = "given",
    bootstrap: int = 1000,
    seed: int = 0,
) -> IsoFlop:
    """Profiles of the budgets of a table and the power laws N*, D* ~ C^a, C^b through their minima.

    method: a parabola in log N (of `response`) within a factor `window` of the minimum, or Akima interpolation of all
    sizes. same_size: runs of one size and budget are averaged, or the best is taken (a sweep of learning rates).
    budgets, tolerance: see analysis.profiles.budgets.group. noise: sd of a loss between seeds, in nats; None estimates
    a relative one from the residuals of the profiles. resample: perturb the losses by that noise, or also draw the
    budgets with replacement. scatter: where the optima lie farther from the law than noise explains, include what is
    missing in weights and intervals. weights: 1/sd(log N*)^2, or equal ones. compute: of the laws, the budget's as
    given, or 6 N* D*.
    Raises InputError for a bad option and where fewer than two budgets have an interior minimum.
    """
    shape = Shape(method=method, response=response, window=float(window), same_size=same_size)
    require_choice("resample", resample, Resample)
    require_choice("scatter", scatter, Scatter)
    require_choice("weights", weights, Weights)
    require_choice("compute", compute, Compute)
    if noise is not None and not (math.isfinite(noise) and noise > 0):
        raise InputError(f"noise: {noise} is no standard deviation of a loss; give nats such as 0.002")
    require_resamples(bootstrap, seed)
    grouping = group(table, budgets=budgets, tolerance=tolerance)
    params, tokens, losses = table.params, table.tokens, table.loss_nats
    profiles = [
        read_profile(b.flops, b.spread, params[b.rows], tokens[b.rows], losses[b.rows], shape, b.reason)
        for b in grouping.budgets
    ]
    _require(profiles, grouping)
    rng = np.random.default_rng([seed, 2])
    relative, freedom = (None, 0) if noise is not None else _noise(profiles, shape)
    drawn: list[Array] | None = None
    if bootstrap and (noise is not None or freedom):
        profiles, drawn = _perturb(profiles, shape, noise, relative, freedom, bootstrap, rng)
        _require(profiles, grouping)
    accepted = [profile for profile in profiles if profile.optimum]
    points = _points(accepted, compute)
    flops, best = points[0], points[1:]
    sds = None if drawn is None else np.array([profile.sd_log_params for profile in accepted], np.float64)
    ratio, extra, samples, intervals = None, 0.0, None, {}
    if sds is not None and len(accepted) >= LEAST_FOR_INTERVAL:
        ratio, extra = unexplained(flops, best[0], sds)
        extra = extra if scatter == "include" else 0.0
    weight = None if sds is None or weights == "equal" else 1.0 / (sds**2 + extra**2)
    frontier = _frontier(flops, best, weight)
    if drawn is not None and ratio is not None:
        if scatter == "include":
            drawn = _scattered(drawn, extra, _loss_misfit(flops, best[2], drawn[2], frontier), rng)
        draws = weight
        if resample == "budgets":
            draws = _redraw(len(accepted), bootstrap, rng) * (1.0 if weight is None else weight)
        samples = _frontier(flops, drawn, draws)
        intervals = intervals_of(samples)
    kept = samples is not None
    how = f"losses of {len(accepted)} budgets perturbed by their noise"
    how += ", budgets drawn with replacement" if resample == "budgets" else ""
    return IsoFlop(
        table=table,
        shape=shape,
        grouping=grouping,
        profiles=tuple(profiles),
        frontier=frontier,
        samples=samples,
        noise=noise,
        noise_relative=relative,
        noise_freedom=freedom,
        scatter_ratio=ratio,
        scatter=extra,
        resampling=f"{bootstrap} resamples, {how}" if kept else "none",
        compute=compute,
        intervals=intervals,
        warnings=_warnings(accepted, noise, freedom, ratio, scatter, bootstrap),
    )


def _require(profiles: Sequence[Profile], grouping: Grouping) -> None:
    accepted = [profile for profile in profiles if profile.optimum]
    if len(accepted) >= 2:
        return
    count = len(profiles)
    if not any(profile.runs for profile in profiles):
        raise InputError(f"budgets: no run is near one of them ({grouping.description}); see the FLOPs of the table")
    if count == 1:
        budget = f"all runs are of one budget, {profiles[0].flops:.3g} FLOPs"
        raise InputError(f"flops: {budget} ({grouping.description}); an exponent needs at least 2, an interval 3")
    rejected = [profile for profile in profiles if not profile.optimum]
    largest = max(rejected, key=lambda profile: profile.runs)
    why = f"the largest rejected, {largest.flops:.3g} FLOPs with {largest.runs} runs: {largest.reason}"
    raise InputError(
        f"flops: {len(accepted)} of {count} budgets ({grouping.description}) have an interior minimum, 2 are needed; "
        f"{why}; add sizes to the profiles, or name budgets and a tolerance"
    )


def _noise(profiles: Sequence[Profile], shape: Shape) -> tuple[float | None, int]:
    """Relative sd of one loss, pooled over the profiles, and its degrees of freedom."""
    rests = [residuals_of_parabola(profile, shape) for profile in profiles if profile.optimum]
    freedom = sum(free for _, free in rests)
    if not freedom:
        return None, 0
    return math.sqrt(sum(float(rest @ rest) for rest, free in rests if free) / freedom), freedom


def _perturb(
    profiles: Sequence[Profile],
    shape: Shape,
    noise: float | None,
    relative: float | None,
    freedom: int,
    count: int,
    rng: np.random.Generator,
) -> tuple[list[Profile], list[Array]]:
    """Profiles with the sd of their minima, and N*, D*, loss [count, accepted] of perturbed ones (NaN where none)."""
    # The sd itself is known from so many residuals alone: Student's t instead of the normal.
    spread = np.ones((count, 1)) if not freedom else np.sqrt(freedom / rng.chisquare(freedom, size=(count, 1)))
    out, drawn = [], []
    for profile in profiles:
        if not profile.optimum:
            out.append(profile)
            continue
        normal = spread * rng.standard_normal((count, len(profile.params)))
        sd = noise if noise is not None else profile.loss_nats * float(relative or 0.0)
        x = np.log(profile.params)
        perturbed = np.maximum(profile.loss_nats + sd * normal, 1e-3 * profile.loss_nats)
        log_n, loss = minima(x, perturbed, profile.used, shape)
        kept = np.isfinite(log_n)
        share = float(kept.mean())
        if share < LEAST_SHARE:
            reason = f"only {share:.0%} of its perturbed profiles keep an interior minimum"
            out.append(replace(profile, optimum=None, share=share, reason=reason))
            continue
        least = LEAST_SD * np.ptp(x) / (len(x) - 1 / AKIMA_POINTS - 1) if shape.method == "akima" else 1e-9
        sd_log = max(float(np.std(log_n[kept])), float(least)) / share
        tokens = np.exp(np.interp(log_n, x, np.log(profile.tokens)))
        optimum = profile.optimum
        if shape.method == "akima":  # an interpolation through every point is noisy; the median of perturbed ones less
            optimum = tuple(float(np.nanmedian(v)) for v in (np.exp(log_n), tokens, loss))
        out.append(replace(profile, optimum=optimum, share=share, sd_log_params=sd_log))
        drawn.append(np.stack([np.exp(log_n), tokens, loss]))
    return out, [] if not drawn else list(np.stack(drawn, axis=-1))


def _points(profiles: Sequence[Profile], compute: Compute) -> Array:
    """[4, budgets]: compute, N*, D*, loss of accepted profiles."""
    best = np.array([profile.optimum for profile in profiles], np.float64).T
    flops = np.array([profile.flops for profile in profiles], np.float64)
    return np.vstack([flops if compute == "given" else flops_6nd(best[0], best[1]), best])


def _frontier(flops: Array, best: Array | Sequence[Array], weights: Array | None) -> Frontier:
    params, tokens, losses = best
    return Frontier(
        params=power_law(flops, params, weights), tokens=power_law(flops, tokens, weights), loss=loss_law(flops, losses)
    )


def _loss_misfit(flops: Array, losses: Array, drawn: Array, frontier: Frontier) -> float:
    """Sd of log loss at the optima about its law that the noise of the losses does not explain."""
    freedom = len(flops) - 3
    if freedom < 1:
        return 0.0
    found = float((np.log(losses / frontier.loss(flops)) ** 2).sum()) / freedom
    return math.sqrt(max(found - float(np.nanmean(np.nanvar(np.log(drawn), axis=0))), 0.0))


def _scattered(drawn: Sequence[Array], extra: float, misfit: float, rng: np.random.Generator) -> list[Array]:
    """Perturbed optima with the scatter added: N* up is D* down, at one budget."""
    shift = np.exp(extra * rng.standard_normal(drawn[0].shape))
    return [drawn[0] * shift, drawn[1] / shift, drawn[2] * np.exp(misfit * rng.standard_normal(drawn[2].shape))]


def _redraw(budgets: int, count: int, rng: np.random.Generator) -> Array:
    """How often each budget is drawn [count, budgets], at least two of them different."""
    drawn = rng.multinomial(budgets, np.full(budgets, 1 / budgets), size=count).astype(np.float64)
    while (lost := (drawn > 0).sum(axis=1) < 2).any():
        drawn[lost] = rng.multinomial(budgets, np.full(budgets, 1 / budgets), size=int(lost.sum()))
    return drawn


def _warnings(
    accepted: Sequence[Profile],
    noise: float | None,
    freedom: int,
    ratio: float | None,
    scatter: str,
    bootstrap: int,
) -> tuple[str, ...]:
    warnings = []
    if len(accepted) < LEAST_FOR_INTERVAL:
        warnings.append("2 budgets give an exponent and no interval: add a third")
    elif len(accepted) < 5:
        warnings.append(f"only {len(accepted)} budgets: intervals from so few are approximate")
    if len(accepted) < LEAST_FOR_FLOOR:
        warnings.append(f"{len(accepted)} budgets do not tell an irreducible loss: losses beyond them come out too low")
    if bootstrap and noise is None and not freedom:
        warnings.append("no profile has more sizes than its parabola needs: give a noise in nats to get intervals")
    if ratio is not None and ratio > 1.5:
        then = "intervals include that" if scatter == "include" else "intervals do not include that"
        warnings.append(f"the optima scatter {ratio:.2g} x as far about the law as noise explains: {then}")
    spread = max(profile.spread for profile in accepted)
    if spread > 1.05:
        warnings.append(f"FLOPs within one budget differ by up to {spread - 1:.0%}: that bends a profile")
    return tuple(warnings)

"""Effective compute: how many times the compute of one recipe, corpus or family another one needs for the same loss.

At a loss, each law's frontier says the least compute that reaches it; the multiplier of the first over the second is
the ratio of the two (Hernandez & Brown 2020, arXiv:2005.04305, between algorithms of different years; here between
laws, with both uncertain).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.errors import InputError
from analysis.fit import Fit
from analysis.laws import FLOPS_PER_PARAM_TOKEN, MOST_LOG, Array, Law
from analysis.solving.golden import crossing, sectioned
from analysis.uncertainty import interval

POINTS = 9  # losses over the range that both fits reach
OPEN = 1e30  # a ratio of computes beyond which a resample never reaches the loss: no end to speak of


@dataclass(frozen=True, kw_only=True)
class MultiplierRow:
    """At `loss_nats`: the least FLOPs (6ND) of both, and second over first with its 95 % interval.

    An end of the interval is infinite, or zero, where resamples never reach the loss; interval is None without
    resamples. measured: both laws were fitted to runs of less and of more compute; otherwise it is an extrapolation.
    """

    loss_nats: float
    first_flops: float
    second_flops: float
    multiplier: float
    interval: tuple[float, float] | None
    measured: bool


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """What the compute of `first` is worth in that of `second`: above 1, the first needs less.

    rows: at losses, from the highest to the lowest. overall: the geometric mean over the losses that both fits reach,
    None where losses were given; it is one number only as far as the rows agree. loss_range: those losses, the highest
    first, None where there are none. warnings: of both fits, with their names.
    """

    first: str
    second: str
    rows: tuple[MultiplierRow, ...]
    overall: float | None
    overall_interval: tuple[float, float] | None
    loss_range: tuple[float, float] | None
    bootstrap: int
    warnings: tuple[str, ...]


def multiplier(
    first: Fit,
    second: Fit,
    losses: Sequence[float] | None = None,
    *,
    names: tuple[str, str] = ("first", "second"),
    seed: int = 0,
) -> Multiplier:
    """The multiplier of `first` over `second` at losses in nats, by default at POINTS of those that both fits reach.

    Intervals are of resamples of the two fits in random pairs, so of independent studies. Both losses must be of one
    evaluation set and tokenizer, which only the caller can know.
    Raises InputError where a fit tells no exponents, for a loss that a law never reaches, and where there is no loss
    that both reach and none was given.
    """
    for name, fit in zip(names, (first, second), strict=True):
        if not fit.identifiable:
            raise InputError(f"{name}: has no frontier to compare: {fit.reason}; add runs to it")
    common = reached_by_both(first, second)
    if losses is None and common is None:
        ends = [_reach(fit) for fit in (first, second)]
        told = " and ".join(f"{n} {low:.4g} to {high:.4g}" for n, (high, low) in zip(names, ends, strict=True))
        raise InputError(
            f"losses: no loss is reached by both ({told} nats along their frontiers); give one with --losses, and read "
            "the answer as an extrapolation"
        )
    at = np.array(losses, np.float64) if losses is not None else _spread(first, common)
    at = np.sort(at)[::-1]
    needed = [compute_for(fit.law, at) for fit in (first, second)]
    for name, fit, flops in zip(names, (first, second), needed, strict=True):
        never = at[~np.isfinite(flops)]
        if never.size:
            floor = float(fit.law.parameters.get("L0", 0.0))
            raise InputError(
                f"losses: {never[0]:.6g} nats is never reached by {name}, whose L0 is {floor:.4g}; ask above it"
            )
    ratio, drawn = needed[1] / needed[0], _drawn(first, second, at, seed)
    ends = [None] * len(at) if drawn is None else _ends(drawn)
    mean = None if losses is not None else math.exp(float(np.log(ratio).mean()))
    rows = tuple(
        MultiplierRow(
            loss_nats=float(loss),
            first_flops=float(needed[0][i]),
            second_flops=float(needed[1][i]),
            multiplier=float(ratio[i]),
            interval=ends[i],
            measured=_measured(first, needed[0][i]) and _measured(second, needed[1][i]),
        )
        for i, loss in enumerate(at)
    )
    said = [f"{name}: {warning}" for name, fit in zip(names, (first, second), strict=True) for warning in fit.warnings]
    return Multiplier(
        first=names[0],
        second=names[1],
        rows=rows,
        overall=mean,
        overall_interval=None if mean is None or drawn is None else _ends(drawn.mean(axis=1, keepdims=True))[0],
        loss_range=common,
        bootstrap=0 if drawn is None else len(drawn),
        warnings=tuple(said),
    )


def _measured(fit: Fit, flops: float) -> bool:
    return bool(fit.table.flops_6nd.min() * 0.999 <= flops <= fit.flops_max * 1.001)


def compute_for(law: Law, losses: Array, unique_tokens: ArrayLike | None = None) -> Array:
    """The least FLOPs (6ND) whose optimum has each loss [n], [R, n] for resamples; infinite where no compute has it.

    By bisection, so of any law whose best loss falls with compute.
    """
    floor = law.optimum(FLOPS_PER_PARAM_TOKEN * np.exp(np.full(losses.shape, MOST_LOG)), unique_tokens)
    never = floor.loss_nats >= losses

    def above(log_product: Array) -> NDArray[np.bool_]:
        return law.optimum(FLOPS_PER_PARAM_TOKEN * np.exp(log_product), unique_tokens).loss_nats > losses

    # With limited text every optimum is a search of its own: many at once, few times.
    step = crossing if unique_tokens is None else sectioned
    found = step(above, np.zeros(never.shape), np.full(never.shape, MOST_LOG))
    return np.where(never, np.inf, FLOPS_PER_PARAM_TOKEN * np.exp(found))


def reached_by_both(first: Fit, second: Fit) -> tuple[float, float] | None:
    """The highest and the lowest loss that both frontiers show within the compute of their runs."""
    ends = [_reach(fit) for fit in (first, second)]
    high, low = min(end[0] for end in ends), max(end[1] for end in ends)
    return (high, low) if high > low else None


def _reach(fit: Fit) -> tuple[float, float]:
    """Loss of the frontier at the smallest and at the largest compute that was fitted."""
    compute = fit.table.flops_6nd
    best = fit.law.optimum([compute.min(), compute.max()]).loss_nats
    return float(best[0]), float(best[1])


def _spread(fit: Fit, common: tuple[float, float] | None) -> Array:
    """Losses over the common range, evenly spread in the log compute of one of the fits."""
    assert common is not None
    ends = compute_for(fit.law, np.array(common))
    return fit.law.optimum(np.geomspace(ends[0], ends[1], POINTS)).loss_nats


def _drawn(first: Fit, second: Fit, losses: Array, seed: int) -> Array | None:
    """log multiplier [R, n] of resamples in random pairs; NaN where neither law reaches the loss."""
    if first.samples is None or second.samples is None:
        return None
    pairing = np.random.default_rng([seed, 4])
    logs = []
    for fit in (first, second):
        assert fit.samples is not None
        with np.errstate(divide="ignore"):
            # Fits of one design are resampled with the same weights: shuffled, their errors are independent again.
            logs.append(pairing.permutation(np.log(compute_for(fit.samples, losses))))
    count = min(len(each) for each in logs)
    with np.errstate(invalid="ignore"):
        return logs[1][:count] - logs[0][:count]


def _ends(drawn: Array) -> list[tuple[float, float] | None]:
    """95 % intervals of exp(drawn) [R, n]. What a resample cannot tell counts as both too low and too high."""
    rows: list[tuple[float, float] | None] = []
    for column in drawn.T:
        unknown = np.isnan(column)
        lost = np.where(np.cumsum(unknown) % 2 == 0, -1.0, 1.0) * math.log(OPEN)
        known = np.clip(np.where(unknown, lost, column), -math.log(OPEN), math.log(OPEN))
        low, high = (math.exp(float(end)) for end in interval(known))
        rows.append((0.0 if low < 10 / OPEN else low, math.inf if high > OPEN / 10 else high))
    return rows

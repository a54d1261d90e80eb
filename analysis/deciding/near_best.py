"""How flat the optimum is: the sizes within epsilon of the best loss of a budget, and what a wrong choice wastes.

A size of loss L at compute C wastes the FLOPs beyond those with which the best size would have reached L.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.errors import InputError
from analysis.fit import Fit
from analysis.laws import FLOPS_PER_PARAM_TOKEN, Array, Law, budgets
from analysis.multiplier import compute_for
from analysis.solving.golden import crossing

WITHIN_NATS = 0.01  # the default epsilon
FACTORS = (0.25, 0.5, 2.0, 4.0)  # of N*: wrong choices of which the waste is told
UPPER = 95.0  # per cent of the resamples in which a choice wastes no more


@dataclass(frozen=True, kw_only=True)
class Waste:
    """A size `factor` times N*: parameters, tokens, loss above the best in nats, and the share of the FLOPs wasted."""

    factor: float
    params: float
    tokens: float
    excess_nats: float
    wasted: float


@dataclass(frozen=True, kw_only=True)
class NearBest:
    """At one budget: the sizes [params_low, params_high] within `within_nats` of the best loss.

    An end is 1 parameter, or the size that sees 1 token, where no size on that side is that bad. wasted_low,
    wasted_high: share of the FLOPs that the two ends waste. wrong: what sizes beside N* cost. likely_excess_nats,
    likely_wasted: what choosing N* costs if one of the resamples is the truth, not exceeded in 95 % of them; None
    without resamples, and with limited text.
    """

    flops: float
    within_nats: float
    params_low: float
    params_high: float
    wasted_low: float
    wasted_high: float
    wrong: tuple[Waste, ...]
    likely_excess_nats: float | None
    likely_wasted: float | None


def near_best(
    fit: Fit, flops: Sequence[float], *, within_nats: float = WITHIN_NATS, unique_tokens: float | None = None
) -> tuple[NearBest, ...]:
    """One row a budget. Raises InputError for a budget or an epsilon that is not finite and positive."""
    if not (np.isfinite(within_nats) and within_nats > 0):
        raise InputError(f"within: {within_nats} is no difference of losses; give nats such as 0.01")
    law, at = fit.law, budgets(flops)
    best = law.optimum(at, unique_tokens)
    low, high = sizes_within(law, at, within_nats, unique_tokens)
    factors = np.array(FACTORS)[:, None]
    sizes = np.concatenate([low[None], high[None], factors * best.params])  # in one call: with limited text it is dear
    excess, share = wasted(law, sizes, np.broadcast_to(at, sizes.shape), unique_tokens)
    plenty = unique_tokens is None  # with limited text each resample's optimum is a search of its own
    likely = wasted(fit.samples, best.params, at) if plenty and fit.samples is not None else None
    rows = []
    for i, budget in enumerate(at):
        wrong = []
        for k, factor in enumerate(FACTORS, start=2):
            params, tokens = float(sizes[k, i]), float(budget / (FLOPS_PER_PARAM_TOKEN * sizes[k, i]))
            if params >= 1 and tokens >= 1:
                lost, part = float(excess[k, i]), float(share[k, i])
                wrong.append(Waste(factor=factor, params=params, tokens=tokens, excess_nats=lost, wasted=part))
        rows.append(
            NearBest(
                flops=float(budget),
                within_nats=within_nats,
                params_low=float(low[i]),
                params_high=float(high[i]),
                wasted_low=float(share[0, i]),
                wasted_high=float(share[1, i]),
                wrong=tuple(wrong),
                likely_excess_nats=None if likely is None else _upper(likely[0][:, i]),
                likely_wasted=None if likely is None else _upper(likely[1][:, i]),
            )
        )
    return tuple(rows)


def sizes_within(
    law: Law, flops: Array, within_nats: float, unique_tokens: ArrayLike | None = None
) -> tuple[Array, Array]:
    """The smallest and the largest N whose loss at C = 6 N D exceeds the best by no more than `within_nats` [n]."""
    best = law.optimum(flops, unique_tokens)
    log_best, log_product = np.log(best.params), np.log(flops / FLOPS_PER_PARAM_TOKEN)

    def worse(log_n: Array) -> NDArray[np.bool_]:
        loss = law.predict(np.exp(log_n), np.exp(log_product - log_n), unique_tokens)
        return loss > best.loss_nats + within_nats

    low, high = np.minimum(log_best, 0.0), np.maximum(log_best, log_product)
    return np.exp(crossing(worse, low, log_best)), np.exp(crossing(worse, high, log_best))


def wasted(law: Law, params: Array, flops: Array, unique_tokens: ArrayLike | None = None) -> tuple[Array, Array]:
    """Loss above the best, in nats, and the share of the FLOPs wasted, of sizes [..., n] at budgets [..., n].

    [R, n] for a law of resamples.
    """
    best = law.optimum(flops, unique_tokens)
    loss = law.predict(params, flops / (FLOPS_PER_PARAM_TOKEN * params), unique_tokens)
    excess = np.maximum(loss - best.loss_nats, 0.0)  # the search for a minimum ends a hair above it
    needed = compute_for(law, best.loss_nats + excess, unique_tokens)
    return excess, np.clip(1.0 - needed / flops, 0.0, 1.0)


def _upper(values: Array) -> float:
    return float(np.percentile(values, UPPER))

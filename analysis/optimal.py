"""Budgets to compute-optimal sizes, token counts and losses, each with its interval and its extrapolation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.errors import InputError
from analysis.fit import Fit
from analysis.laws import Array, Optimum
from analysis.uncertainty import interval


@dataclass(frozen=True, kw_only=True)
class OptimalRow:
    """The best use of one budget: C = 6ND in FLOPs, parameters, tokens, nats per token; intervals are 95 %.

    extrapolation: budget over the largest compute fitted; above 1 the answer lies beyond the data.
    """

    method: str
    flops: float
    params: float
    tokens: float
    loss_nats: float
    tokens_per_param: float
    params_interval: tuple[float, float] | None
    tokens_interval: tuple[float, float] | None
    loss_interval: tuple[float, float] | None
    extrapolation: float


def optimal(
    fit: Fit, flops: Sequence[float] | None = None, *, unique_tokens: float | None = None
) -> tuple[OptimalRow, ...]:
    """One row a budget; by default 1, 10 and 100 times the largest compute fitted.

    unique_tokens: the text there is, for a law that knows what repeating it is worth.
    Raises InputError for a budget that is not finite and positive, and for unique_tokens with a law that ignores them.
    """
    if unique_tokens is not None and not fit.law.models_repeats:
        raise InputError(
            f"unique_tokens: the law {fit.law.name!r} counts a repeated token as a new one; fit the law 'repeats'"
        )
    budgets = budgets_asked(flops, fit.flops_max)
    best = fit.law.optimum(budgets, unique_tokens)
    drawn = None if fit.samples is None else fit.samples.optimum(budgets, unique_tokens)
    return optimal_rows("parametric", best, drawn, fit.flops_max)


def budgets_asked(flops: Sequence[float] | None, flops_max: float) -> Array:
    """The budgets asked for, by default 1, 10 and 100 times the largest compute that was measured."""
    return flops_max * np.array([1.0, 10.0, 100.0]) if flops is None else np.asarray(flops, np.float64)


def optimal_rows(method: str, best: Optimum, drawn: Optimum | None, flops_max: float) -> tuple[OptimalRow, ...]:
    """A row for each budget [n] of `best`; intervals are those of `drawn` [R, n], None without resamples."""
    rows = []
    for i, budget in enumerate(best.flops):
        ends: list[tuple[float, float] | None] = [None, None, None]
        if drawn is not None:
            for k, values in enumerate((drawn.params, drawn.tokens, drawn.loss_nats)):
                low, high = interval(values[:, i])
                ends[k] = (float(low), float(high))
        rows.append(
            OptimalRow(
                method=method,
                flops=float(budget),
                params=float(best.params[i]),
                tokens=float(best.tokens[i]),
                loss_nats=float(best.loss_nats[i]),
                tokens_per_param=float(best.tokens[i] / best.params[i]),
                params_interval=ends[0],
                tokens_interval=ends[1],
                loss_interval=ends[2],
                extrapolation=float(budget / flops_max),
            )
        )
    return tuple(rows)

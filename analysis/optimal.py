"""Budgets to compute-optimal sizes, token counts and losses, each with its interval and its extrapolation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.fit import Fit
from analysis.laws import Array, Optimum
from analysis.uncertainty import interval

EDGE = 1.001  # a budget this much past the data is past it
LOST = 0.025  # of the resamples: more without an optimum leave a 95 % interval without an end


FLOPS_MOST = 1e40  # as of the target of a study (lmscale.config)


@dataclass(frozen=True, kw_only=True)
class OptimalRow:
    """The best use of one budget: C = 6ND in FLOPs, parameters, tokens, nats per token; intervals are 95 %.

    An interval is None without resamples, and where more than one in forty of them have no best size.
    extrapolation: budget over the largest compute fitted; above 1 the answer lies beyond the data. below: the smallest
    compute fitted over the budget; above 1 the answer lies below the data (1 where the smallest is not known).
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
    below: float

    @property
    def where(self) -> str:
        """Where the budget lies: `within` the data, or so many times beyond or below it."""
        if self.extrapolation > EDGE:
            return f"{self.extrapolation:.3g} x beyond"
        return f"{self.below:.3g} x below" if self.below > EDGE else "within"


def optimal(
    fit: Fit, flops: Sequence[float] | None = None, *, unique_tokens: float | None = None
) -> tuple[OptimalRow, ...]:
    """One row a budget; by default 1, 10 and 100 times the largest compute fitted.

    unique_tokens: the text there is, for a law that knows what repeating it is worth.
    Raises InputError for a budget that is not finite and positive, for unique_tokens with a law that ignores them, and
    where the law has no best size of at least 1 parameter that sees at least 1 token.
    """
    if unique_tokens is not None and not fit.law.models_repeats:
        raise InputError(
            f"unique_tokens: the law {fit.law.name!r} counts a repeated token as a new one; fit the law 'repeats'"
        )
    budgets = budgets_asked(flops, fit.flops_max)
    best = fit.law.optimum(budgets, unique_tokens)
    require_interior(fit, best)
    drawn = None if fit.samples is None else fit.samples.optimum(budgets, unique_tokens)
    return optimal_rows("parametric", best, drawn, fit.flops_max, float(fit.table.flops_6nd.min()))


def interior(best: Optimum) -> NDArray[np.bool_]:
    """Whether an optimum is a model, of 1 parameter or more, that sees 1 token or more."""
    return (best.params >= 1) & (best.tokens >= 1) & np.isfinite(best.loss_nats)


def require_interior(fit: Fit, best: Optimum) -> None:
    """Raise InputError for a budget at which the law has no best size."""
    for budget, inside in zip(best.flops, interior(best), strict=True):
        if not inside:
            raise InputError(
                f"flops: at {budget:.3g} the fitted law {fit.law.name!r} has no best size of at least 1 parameter and "
                f"1 token; ask for a budget near those fitted ({fit.table.flops_6nd.min():.2g} to {fit.flops_max:.2g}) "
                "or fit another law"
            )


def row_warnings(rows: Sequence[OptimalRow], resampled: bool) -> tuple[str, ...]:
    """What to say of answers of a fit: budgets below its runs, and intervals that cannot be given."""
    warnings = []
    below = [row for row in rows if row.below > EDGE]
    if below:
        named = ", ".join(f"{row.flops:.2e}" for row in below)
        warnings.append(
            f"{named} FLOPs {'is' if len(below) == 1 else 'are'} below the smallest run fitted: the law is "
            "extrapolated downwards, where warmup and embeddings rule"
        )
    if not resampled:
        warnings.append("no resamples: these numbers have no intervals; --bootstrap 1000 gives them")
    open_ended = [f"{row.flops:.2e}" for row in rows if resampled and row.params_interval is None]
    if open_ended:
        warnings.append(f"at {', '.join(open_ended)} FLOPs too many resamples have no best size: no interval is given")
    return tuple(warnings)


def budgets_asked(flops: Sequence[float] | None, flops_max: float) -> Array:
    """The budgets asked for, by default 1, 10 and 100 times the largest compute that was measured.

    Raises InputError for one beyond FLOPS_MOST.
    """
    if flops is None:
        return flops_max * np.array([1.0, 10.0, 100.0])
    asked = np.asarray(flops, np.float64)
    if asked.size and asked.max() > FLOPS_MOST:
        raise InputError(f"flops: {asked.max():g} is beyond any law; give at most {FLOPS_MOST:g}")
    return asked


def optimal_rows(
    method: str, best: Optimum, drawn: Optimum | None, flops_max: float, flops_min: float | None = None
) -> tuple[OptimalRow, ...]:
    """A row for each budget [n] of `best`; intervals are those of `drawn` [R, n], None without resamples."""
    rows = []
    for i, budget in enumerate(best.flops):
        ends: list[tuple[float, float] | None] = [None, None, None]
        if drawn is not None and np.mean(~interior(drawn)[:, i]) <= LOST:
            # By their logs, so that the ends of N* and D* are those of one budget.
            for k, values in enumerate((drawn.params, drawn.tokens, drawn.loss_nats)):
                low, high = np.exp(interval(np.log(values[:, i])))
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
                below=1.0 if flops_min is None else float(flops_min / budget),
            )
        )
    return tuple(rows)

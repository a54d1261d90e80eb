"""The best size for a model that will also be served: training and inference FLOPs together, at one loss.

Sardana et al. 2024 (arXiv:2401.00448), Sec. 3: minimise 6 N D + 2 N D_inf over N and D of one loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.fit import Fit
from analysis.laws import FLOPS_PER_PARAM_TOKEN, Array, Law, budgets
from analysis.solving.golden import crossing, minimum
from analysis.uncertainty import interval

INFERENCE_FLOPS_PER_PARAM_TOKEN = 2.0  # a forward pass alone: Kaplan et al. 2020, Sec. 2.1
FARTHEST = 12.0  # e-folds below N* that are searched: a model 160,000 times smaller
MOST_TOKENS_LOG = 90.0


@dataclass(frozen=True, kw_only=True)
class ServedRow:
    """The model as good as the one that is best to train with `flops`, cheapest to train and to serve together.

    served_tokens: over the model's life. params, tokens: of the model; total_flops: 6 N D + 2 N served_tokens;
    saved: share of the total that the best model to train alone would take. Intervals are 95 %, None without resamples.
    """

    flops: float
    loss_nats: float
    served_tokens: float
    params: float
    tokens: float
    train_flops: float
    total_flops: float
    saved: float
    params_interval: tuple[float, float] | None
    tokens_interval: tuple[float, float] | None
    saved_interval: tuple[float, float] | None


def served(fit: Fit, flops: Sequence[float], served_tokens: float) -> tuple[ServedRow, ...]:
    """One row a budget. Raises InputError for a bad budget and for served_tokens that are not finite and positive."""
    if not (np.isfinite(served_tokens) and served_tokens > 0):
        raise InputError(f"served: {served_tokens} is no number of tokens; give one such as 2e12")
    at = budgets(flops)
    best = fit.law.optimum(at)
    params, tokens, saved = cheapest(fit.law, at, served_tokens)
    drawn = None if fit.samples is None else cheapest(fit.samples, at, served_tokens)
    rows = []
    for i, budget in enumerate(at):
        ends: list[tuple[float, float] | None] = [None, None, None]
        if drawn is not None:
            for k, values in enumerate(drawn):
                column = values[:, i]
                low, high = interval(column) if k == 2 else np.exp(interval(np.log(column)))
                ends[k] = (float(low), float(high))
        train = FLOPS_PER_PARAM_TOKEN * float(params[i]) * float(tokens[i])
        rows.append(
            ServedRow(
                flops=float(budget),
                loss_nats=float(best.loss_nats[i]),
                served_tokens=served_tokens,
                params=float(params[i]),
                tokens=float(tokens[i]),
                train_flops=train,
                total_flops=train + INFERENCE_FLOPS_PER_PARAM_TOKEN * float(params[i]) * served_tokens,
                saved=float(saved[i]),
                params_interval=ends[0],
                tokens_interval=ends[1],
                saved_interval=ends[2],
            )
        )
    return tuple(rows)


def cheapest(law: Law, flops: Array, served_tokens: float) -> tuple[Array, Array, Array]:
    """N, D and the share saved [n] ([R, n] for resamples) of the models described in ServedRow, by search over N."""
    best = law.optimum(flops)
    log_best, loss = np.log(best.params), best.loss_nats

    def total(log_n: Array) -> Array:
        log_d = _log_tokens(law, log_n, np.log(best.tokens), loss)
        return np.logaddexp(
            np.log(FLOPS_PER_PARAM_TOKEN) + log_n + log_d,
            np.log(INFERENCE_FLOPS_PER_PARAM_TOKEN * served_tokens) + log_n,
        )

    log_n = minimum(total, np.maximum(log_best - FARTHEST, 0.0), log_best)
    log_d = _log_tokens(law, log_n, np.log(best.tokens), loss)
    saved = -np.expm1(np.minimum(total(log_n) - total(log_best), 0.0))
    return np.exp(log_n), np.exp(log_d), saved


def _log_tokens(law: Law, log_n: Array, log_d_best: Array, loss: Array) -> Array:
    """log D with which sizes no larger than the best have its loss; infinite where no amount of text gives it.

    In closed form where the data term stands alone, otherwise by halving.
    """
    named = law.parameters
    if set(named) == {"L0", "A", "B", "alpha", "beta"}:
        rest = loss - named["L0"] - np.exp(np.log(named["A"]) - named["alpha"] * log_n)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (np.log(named["B"]) - np.log(rest)) / named["beta"]
        return np.where(rest > 0, np.minimum(np.nan_to_num(found, nan=np.inf), np.inf), np.inf)

    def enough(log_d: Array) -> NDArray[np.bool_]:
        return law.predict(np.exp(log_n), np.exp(log_d)) <= loss * (1 + 1e-13)

    most = np.maximum(log_d_best, MOST_TOKENS_LOG) + 0.0 * log_n
    reached = enough(most)
    return np.where(reached, crossing(enough, most, log_d_best - 1e-9 + 0.0 * log_n), np.inf)

"""Would the law have predicted the largest runs from the smaller ones?"""

from dataclasses import dataclass

import numpy as np

from analysis.errors import InputError
from analysis.fit import HUBER_DELTA, Fit, fit
from analysis.laws import Chinchilla
from analysis.table import Table


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One run left out: losses in nats, relative_error = predicted / measured - 1, 95 % interval of a new run."""

    run: str
    params: float
    tokens: float
    flops: float
    predicted: float
    measured: float
    relative_error: float
    interval: tuple[float, float] | None
    covered: bool | None


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """fit: of the remaining runs. coverage: share of held-out runs inside their interval (None without resamples)."""

    fit: Fit
    rows: tuple[HeldOut, ...]
    mean_relative_error: float
    max_relative_error: float
    coverage: float | None


def backtest(
    table: Table,
    law: str = Chinchilla.name,
    *,
    holdout: int = 1,
    delta: float = HUBER_DELTA,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Backtest:
    """Hold out the `holdout` runs of largest compute (6ND), fit the others, predict the held out.

    Runs that tie with the smallest compute held out are held out too, or replicas would give it away.
    Raises InputError when too few runs remain.
    """
    if not 1 <= holdout < len(table):
        raise InputError(f"holdout: {holdout} of {len(table)} runs; give at least 1 and fewer than there are")
    compute = table.flops_6nd
    out = compute >= np.sort(compute)[-holdout] * (1 - 1e-9)
    rest, held = table.keep(~out), table.keep(out)
    if not len(rest):
        raise InputError("holdout: every run has the same compute, none would remain; add runs at other budgets")
    fitted = fit(rest, law, delta=delta, bootstrap=bootstrap, seed=seed)
    prediction = fitted.predict(held.params, held.tokens)
    low, high = prediction.new_run
    rows = []
    for i, run in enumerate(held.frame["run_id"]):
        measured, predicted = float(held.loss_nats[i]), float(prediction.loss_nats[i])
        rows.append(
            HeldOut(
                run=str(run),
                params=float(held.params[i]),
                tokens=float(held.tokens[i]),
                flops=float(compute[out][i]),
                predicted=predicted,
                measured=measured,
                relative_error=predicted / measured - 1,
                interval=(float(low[i]), float(high[i])) if bootstrap else None,
                covered=bool(low[i] <= measured <= high[i]) if bootstrap else None,
            )
        )
    errors = [abs(row.relative_error) for row in rows]
    return Backtest(
        fit=fitted,
        rows=tuple(rows),
        mean_relative_error=float(np.mean(errors)),
        max_relative_error=max(errors),
        coverage=float(np.mean([bool(row.covered) for row in rows])) if bootstrap else None,
    )

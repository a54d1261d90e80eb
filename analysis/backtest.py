"""Would the law have predicted the largest runs from the smaller ones, and which law would have done it best?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.fit import Fit, Options, fit, suited
from analysis.laws import Chinchilla
from analysis.solving.forms import form_of
from analysis.table import Table
from analysis.uncertainty import require_resamples

ORIGINS = 5  # of a rolling test: half of the runs are fitted at first, nine tenths at last
FIRST, LAST = 0.5, 0.9


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


@dataclass(frozen=True, kw_only=True)
class Origin:
    """One law fitted below a compute and judged above it.

    flops: the largest compute fitted (6ND); reach: the largest predicted over it; errors relative to the loss; reason:
    why this law could not be fitted here, and then no numbers.
    """

    law: str
    flops: float
    fitted: int
    predicted: int
    reach: float
    mean_relative_error: float | None
    max_relative_error: float | None
    coverage: float | None
    width: float | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A law over all origins: mean and largest relative error of its extrapolations, coverage, and over how many."""

    law: str
    origins: int
    mean_relative_error: float
    max_relative_error: float
    coverage: float | None


def backtest(
    table: Table,
    law: str = Chinchilla.name,
    *,
    holdout: float = 1,
    bootstrap: int = 1000,
    seed: int = 0,
    **options: Unpack[Options],
) -> Backtest:
    """Hold out the runs of largest compute (6ND), fit the others, predict the held out.

    holdout: how many, or below 1 the share of the runs. Runs that tie with the smallest compute held out are held out
    too, or replicas would give it away. Raises InputError when too few runs remain.
    """
    count = round(holdout * len(table)) if 0 < holdout < 1 else holdout
    if not (1 <= count < len(table) and count == int(count)):
        raise InputError(
            f"holdout: {holdout:g} of {len(table)} runs; give a number of at least 1 and fewer than there are, or a "
            "share such as 0.2"
        )
    compute = table.flops_6nd
    out = compute >= np.sort(compute)[-int(count)] * (1 - 1e-9)
    if out.all():
        raise InputError("holdout: every run has the same compute, none would remain; add runs at other budgets")
    return _split(table, out, law, bootstrap, seed, options)


def _split(table: Table, out: NDArray[np.bool_], law: str, bootstrap: int, seed: int, options: Options) -> Backtest:
    """Fit the runs not in `out` [n], predict those in it."""
    held = suited(table.keep(out), law)
    fitted = fit(table.keep(~out), law, bootstrap=bootstrap, seed=seed, **options)
    prediction = fitted.predict(held.params, held.tokens, held.unique_tokens)
    low, high = prediction.new_run
    compute = held.flops_6nd
    rows = []
    for i, run in enumerate(held.frame["run_id"]):
        measured, predicted = float(held.loss_nats[i]), float(prediction.loss_nats[i])
        rows.append(
            HeldOut(
                run=str(run),
                params=float(held.params[i]),
                tokens=float(held.tokens[i]),
                flops=float(compute[i]),
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


def rolling(
    table: Table,
    laws: Sequence[str] = (Chinchilla.name,),
    *,
    bootstrap: int = 200,
    seed: int = 0,
    **options: Unpack[Options],
) -> tuple[tuple[Origin, ...], tuple[Standing, ...]]:
    """Fit every law below a compute, predict all runs above it, move the compute up, repeat.

    The origins hold half of the runs, then up to nine tenths. A law is judged by its extrapolation, best first, over
    the origins at which every law that can be fitted at all could be: a law of many parameters is not excused its
    hardest tests. Raises InputError for an unknown law and when no law can be fitted at any origin.
    """
    if not laws:
        raise InputError("laws: none were named; name at least one, such as chinchilla")
    for law in laws:
        form_of(law)
    require_resamples(bootstrap, seed, usual=200)
    compute = table.flops_6nd
    order = np.sort(compute)
    ends = sorted({float(order[max(round(q * len(order)) - 1, 0)]) for q in np.linspace(FIRST, LAST, ORIGINS)})
    origins: list[Origin] = []
    for end in ends:
        out = compute > end * (1 + 1e-9)
        if not out.any():
            continue
        here = {"flops": end, "fitted": int((~out).sum()), "predicted": int(out.sum()), "reach": order[-1] / end}
        for law in laws:
            try:
                result = _split(table, out, law, bootstrap, seed, options)
            except InputError as error:
                nothing = dict.fromkeys(("mean_relative_error", "max_relative_error", "coverage", "width"))
                origins.append(Origin(law=law, **here, **nothing, reason=str(error)))
                continue
            spans = [np.log(row.interval[1] / row.interval[0]) for row in result.rows if row.interval]
            origins.append(
                Origin(
                    law=law,
                    **here,
                    mean_relative_error=result.mean_relative_error,
                    max_relative_error=result.max_relative_error,
                    coverage=result.coverage,
                    width=float(np.median(spans)) if spans else None,
                )
            )
    fitted = [origin for origin in origins if not origin.reason]
    if not fitted:
        raise InputError(f"backtest: no law could be fitted at any origin ({origins[0].reason}); add runs")
    able = {origin.law for origin in fitted}
    shared = {end for end in ends if {o.law for o in fitted if o.flops == end} == able}
    standings = []
    for law in able:
        mine = [o for o in fitted if o.law == law and (o.flops in shared or not shared)]
        weights = [o.predicted for o in mine]
        coverages = [o.coverage for o in mine if o.coverage is not None]
        standings.append(
            Standing(
                law=law,
                origins=len(mine),
                mean_relative_error=float(np.average([o.mean_relative_error or 0.0 for o in mine], weights=weights)),
                max_relative_error=max(o.max_relative_error or 0.0 for o in mine),
                coverage=float(np.average(coverages, weights=weights)) if coverages else None,
            )
        )
    standings.sort(key=lambda standing: standing.mean_relative_error)
    return tuple(origins), tuple(standings)

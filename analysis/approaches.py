"""The three approaches of Hoffmann et al. 2022 side by side: envelope (1), IsoFLOP profiles (2), parametric fit (3)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

from analysis.curves import Curves
from analysis.envelope import Envelope, envelope
from analysis.errors import InputError
from analysis.fit import Fit
from analysis.isoflop import IsoFlop, isoflop
from analysis.laws import budgets as require_budgets
from analysis.optimal import OptimalRow, budgets_asked, optimal, optimal_rows
from analysis.profiles.powerlaw import LEAST_FOR_FLOOR
from analysis.uncertainty import require_resamples

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Approach:
    """One approach's answer. a, b of N* ~ C^a, D* ~ C^b with 95 % intervals (None without); rows: one a budget.

    optima: how many measured optima its laws go through, for the parametric fit how many runs.
    """

    method: str
    a: float
    b: float
    a_interval: tuple[float, float] | None
    b_interval: tuple[float, float] | None
    rows: tuple[OptimalRow, ...]
    optima: int
    flops_max: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Approaches:
    """All approaches that the runs allow; refused: (method, reason) of the others; disagreements: in one line each.

    What they were found from follows for figures; envelope and isoflop are None where refused.
    """

    answers: tuple[Approach, ...]
    refused: tuple[tuple[str, str], ...]
    disagreements: tuple[str, ...]
    envelope: Envelope | None
    isoflop: IsoFlop | None
    fit: Fit

    @property
    def rows(self) -> tuple[OptimalRow, ...]:
        return tuple(row for answer in self.answers for row in answer.rows)


def compare(
    fit: Fit,
    curves: Curves | None = None,
    flops: Sequence[float] | None = None,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Approaches:
    """Every approach on the runs of a fit, and on curves of theirs where given, at the same budgets.

    Compute is 6ND in all three, so that one budget means one thing. flops: by default 1, 10 and 100 times the largest
    compute of the fit. Approaches that the runs do not allow are listed with the reason.
    Raises InputError for a budget that is not finite and positive, and for a bad number of resamples or seed.
    """
    require_resamples(bootstrap, seed)
    budgets = list(require_budgets(budgets_asked(flops, fit.flops_max)))
    answers, refused = [], []
    enveloped: Envelope | None = None
    profiled: IsoFlop | None = None
    if curves is None:
        refused.append(("envelope", "no curves were given"))
    else:
        enveloped = _try(lambda: envelope(curves, compute="6nd", bootstrap=bootstrap, seed=seed), "envelope", refused)
    profiled = _try(lambda: isoflop(fit.table, compute="6nd", bootstrap=bootstrap, seed=seed), "isoflop", refused)
    for method, found in (("envelope", enveloped), ("isoflop", profiled)):
        if found is not None:
            answers.append(_approach(method, found, budgets))
    rows = _try(lambda: optimal(fit, budgets), "parametric", refused) if fit.identifiable else None
    if rows is not None:
        exponents = {name: float(value) for name, value in fit.law.exponents.items()}
        answers.append(
            Approach(
                method="parametric",
                a=exponents["a"],
                b=exponents["b"],
                a_interval=fit.intervals.get("a"),
                b_interval=fit.intervals.get("b"),
                rows=rows,
                optima=len(fit.table),
                flops_max=fit.flops_max,
                warnings=fit.warnings,
            )
        )
    elif not fit.identifiable:
        refused.append(("parametric", fit.reason))
    return Approaches(
        answers=tuple(answers),
        refused=tuple(refused),
        disagreements=_disagreements(answers),
        envelope=enveloped,
        isoflop=profiled,
        fit=fit,
    )


def frontier_rows(found: IsoFlop | Envelope, flops: Sequence[float] | None = None) -> tuple[OptimalRow, ...]:
    """The rows of approach 1 or 2 at budgets `flops`, by default 1, 10 and 100 times the largest measured optimum.

    The loss has no interval where too few optima tell its irreducible part. Raises InputError for a bad budget.
    """
    budgets = budgets_asked(flops, found.flops_max)
    best = found.frontier.optimum(budgets)
    drawn = None if found.samples is None else found.samples.optimum(budgets)
    method = "isoflop" if isinstance(found, IsoFlop) else "envelope"
    rows = optimal_rows(method, best, drawn, found.flops_max)
    if method == "isoflop" and found.points.shape[1] < LEAST_FOR_FLOOR:
        rows = tuple(replace(row, loss_interval=None) for row in rows)
    return rows


def _try(make: Callable[[], T], method: str, refused: list[tuple[str, str]]) -> T | None:
    try:
        return make()
    except InputError as error:
        refused.append((method, str(error)))
        return None


def _approach(method: str, found: IsoFlop | Envelope, budgets: Sequence[float]) -> Approach:
    return Approach(
        method=method,
        a=float(found.frontier.params.exponent),
        b=float(found.frontier.tokens.exponent),
        a_interval=found.intervals.get("a"),
        b_interval=found.intervals.get("b"),
        rows=frontier_rows(found, budgets),
        optima=found.points.shape[1],
        flops_max=found.flops_max,
        warnings=found.warnings,
    )


def _disagreements(answers: Sequence[Approach]) -> tuple[str, ...]:
    """Pairs whose intervals of a do not overlap."""
    lines = []
    for one, two in combinations(answers, 2):
        if one.a_interval is None or two.a_interval is None:
            continue
        low, high = sorted((one, two), key=lambda answer: answer.a)
        if (low.a_interval or (0, math.inf))[1] < (high.a_interval or (-math.inf, 0))[0]:
            lines.append(
                f"{one.method} and {two.method} disagree: a = {one.a:.3f} and {two.a:.3f}, and their 95 % intervals do "
                "not overlap; see which runs each one uses"
            )
    return tuple(lines)

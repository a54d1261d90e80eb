"""Which runs spent one budget: by a declared column, by budgets that the user names, or by FLOPs within a tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.laws import Array
from analysis.reading.rows import numbers
from analysis.table import Table

TOLERANCE = 0.1  # of FLOPs within one budget, as the flop_tolerance of Porian et al. 2024
DECLARED = "flops_budget"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Runs of one budget. flops: declared, or the geometric mean; rows [n] of the table.

    spread: largest over smallest FLOPs of its runs. reason: why it can be no profile, empty if it may be one.
    """

    flops: float
    rows: NDArray[np.int64]
    spread: float
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """budgets in ascending order, how they were told apart, and how many runs belong to none."""

    budgets: tuple[Budget, ...]
    description: str
    left_over: int


def group(table: Table, *, budgets: Sequence[float] | None = None, tolerance: float = TOLERANCE) -> Grouping:
    """Runs by budget: `budgets` where given, else the column flops_budget where it is filled, else FLOPs in clusters.

    Named budgets take the runs within a factor 1 + tolerance, each run going to the nearest. Clusters end where the
    next FLOPs are more than that factor away; a cluster that spans more than (1 + tolerance)^2 is several budgets
    that run into one another, and is marked as unusable instead of being rounded together or cut somewhere.
    Raises InputError for a tolerance or a budget that is none.
    """
    if not (np.isfinite(tolerance) and 0 < tolerance <= 1):
        raise InputError(f"tolerance: {tolerance} is no share of a budget; give one above 0 and up to 1, such as 0.1")
    flops = table.frame["flops"].to_numpy(np.float64)
    if budgets is not None:
        return _named(flops, np.asarray(budgets, np.float64), tolerance)
    if DECLARED in table.frame:
        declared = numbers(table.frame, DECLARED)
        filled = np.isfinite(declared) & (declared > 0)
        if filled.any():
            values, group_of, sizes = np.unique(declared[filled], return_inverse=True, return_counts=True)
            rows = np.flatnonzero(filled)[np.argsort(group_of, kind="stable")]
            parts = np.split(rows, np.cumsum(sizes)[:-1])
            found = tuple(_budget(float(value), part, flops) for value, part in zip(values, parts, strict=True))
            text = f"by the column {DECLARED}"
            return Grouping(budgets=found, description=text, left_over=int((~filled).sum()))
    return _clusters(flops, tolerance)


def _named(flops: Array, budgets: Array, tolerance: float) -> Grouping:
    if not (budgets.size and np.all(np.isfinite(budgets) & (budgets > 0))):
        raise InputError(f"budgets: {budgets.tolist()} are no budgets; give finite positive FLOPs such as 6e18 1e19")
    budgets = np.unique(budgets)
    distance = np.abs(np.log(flops[:, None] / budgets))
    nearest = distance.argmin(axis=1)
    near = distance.min(axis=1) <= np.log1p(tolerance) + 1e-12
    found = [_budget(float(value), np.flatnonzero(near & (nearest == i)), flops) for i, value in enumerate(budgets)]
    text = f"runs within {tolerance:.0%} of the budgets given"
    return Grouping(budgets=tuple(found), description=text, left_over=int((~near).sum()))


def _clusters(flops: Array, tolerance: float) -> Grouping:
    order = np.argsort(flops, kind="stable")
    cuts = np.flatnonzero(np.diff(np.log(flops[order])) > np.log1p(tolerance)) + 1
    found = []
    for rows in np.split(order, cuts):
        middle = float(flops[rows].min() * np.exp(np.log(flops[rows] / flops[rows].min()).mean()))
        budget = _budget(middle, np.sort(rows), flops)
        reason = ""
        if budget.spread > (1 + tolerance) ** 2:
            reason = f"its FLOPs span a factor {budget.spread:.3g}: several budgets run together; name them"
        found.append(Budget(flops=budget.flops, rows=budget.rows, spread=budget.spread, reason=reason))
    text = f"by FLOPs, a new budget where the next is more than {tolerance:.0%} away"
    return Grouping(budgets=tuple(found), description=text, left_over=0)


def _budget(flops: float, rows: NDArray[np.int64], of_runs: Array) -> Budget:
    mine = of_runs[rows]
    spread = float(mine.max() / mine.min()) if len(rows) else 1.0
    return Budget(flops=flops, rows=rows.astype(np.int64), spread=spread)

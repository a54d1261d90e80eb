"""Whether groups of documents diverge as models grow: the gap between two losses, tested against compute."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from analysis.laws import Array
from analysis.solving.clustered import holm, line, varies
from analysis.table import Table

LEVEL = 0.05  # chance that groups which do not diverge are said to, over all pairs
LEAST_RUNS = 4


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How much worse `first` is than `second`, in nats and as a ratio of losses, at the ends of the compute measured.

    p_value: the larger of those of the two slopes against log compute; p_adjusted: for all pairs (Holm 1979). widens:
    both slopes are away from zero at LEVEL so adjusted, and the gap is the wider at the larger end.
    """

    first: str
    second: str
    smallest_nats: float
    largest_nats: float
    smallest_ratio: float
    largest_ratio: float
    p_value: float
    p_adjusted: float
    widens: bool


def find_gaps(groups: Sequence[tuple[str, Table]]) -> tuple[Gap, ...]:
    """Every pair of groups, given by name and by the table of their losses in the runs that scored them.

    The slope is that where N and D grow alike: gaps are regressed on log N and log D (runs of one compute have many
    shapes), and on log C where N and D do not vary apart.

    A gap that widens in nats may shrink as a ratio, where both losses rise, and the other way round, where both fall:
    so it must widen as both, each at the level asked (Berger 1982, Technometrics 24:295). Groups whose losses are
    proportional, or apart by a constant, are then not taken to diverge, whatever their exponents are said to be.
    """
    found = [gap for one, other in combinations(groups, 2) if (gap := _gap(one, other)) is not None]
    adjusted = holm([gap.p_value for gap in found])
    return tuple(
        replace(gap, p_adjusted=p, widens=gap.p_value < 1 and p < LEVEL) for gap, p in zip(found, adjusted, strict=True)
    )


def _gap(one: tuple[str, Table], other: tuple[str, Table]) -> Gap | None:
    """A pair, over the runs that both have: what a run errs in both alike is in neither of their differences."""
    (name, table), (other_name, other_table) = one, other
    runs = {str(run): i for i, run in enumerate(other_table.frame["run_id"])}
    at = [(i, runs[run]) for i, run in enumerate(map(str, table.frame["run_id"])) if run in runs]
    if len(at) < LEAST_RUNS:
        return None
    mine, theirs = (np.array(rows) for rows in zip(*at, strict=True))
    scale, along = _scale(table, mine)
    clusters = [table.trajectory[i] for i in mine]
    first, second = table.loss_nats[mine], other_table.loss_nats[theirs]
    nats, ratio = (line(scale, y, clusters, along) for y in (first - second, np.log(first / second)))
    if nats is None or ratio is None:
        return None
    order = np.argsort(table.flops_6nd[mine], kind="stable")
    ends = scale[order[0]], scale[order[-1]]
    sign = 1.0 if nats(ends[1]) >= 0 else -1.0
    small, large, small_log, large_log = (sign * each(end) for each in (nats, ratio) for end in ends)
    wider = min(sign * nats.slope, sign * ratio.slope) > 0 and large > abs(small) and large_log > abs(small_log)
    p_value = max(nats.p_value, ratio.p_value) if wider else 1.0
    names = (name, other_name) if sign > 0 else (other_name, name)
    return Gap(
        first=names[0],
        second=names[1],
        smallest_nats=small,
        largest_nats=large,
        smallest_ratio=float(np.exp(small_log)),
        largest_ratio=float(np.exp(large_log)),
        p_value=p_value,
        p_adjusted=p_value,
        widens=False,
    )


def _scale(table: Table, rows: NDArray[np.int64]) -> tuple[Array, list[float]]:
    """What gaps of some runs are regressed on [n, k], and the direction in which log compute grows by one."""
    shape = np.log(np.column_stack([table.params, table.tokens])[rows])
    return (shape, [0.5, 0.5]) if varies(shape) else (np.log(table.flops_6nd[rows])[:, None], [1.0])

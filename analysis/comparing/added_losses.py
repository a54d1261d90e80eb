"""What rounding the weights of runs added to their losses: the points of a table of scores."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.laws import Array
from analysis.reading.rows import listed, texts
from analysis.reading.scores import Scores, one_task
from analysis.table import Table

METRIC = re.compile(r"loss_added_int(\d+)(?:_g(\d+))?")
TOLD = 2.0  # standard errors from which an added loss is told from zero


@dataclass(frozen=True, kw_only=True)
class AddedLosses:
    """Points [n], one a run and precision: what rounding to `bits` added to its loss, in nats, with the paired standard
    error (0 where the table does not tell one).
    """

    params: Array
    tokens: Array
    bits: Array
    added: Array
    stderr: Array
    trajectory: tuple[str, ...]

    @property
    def told(self) -> NDArray[np.bool_]:
        """Whether a point is told from zero [n]."""
        return (self.added > 0) & (self.added > TOLD * self.stderr)


def read_added(
    table: Table, scores: Scores, task: str | None, group: int | None, bits: Sequence[int] | None
) -> tuple[AddedLosses, str]:
    """What was added to each run of a table, and the set where: the one asked for, else as `one_task` chooses.

    group: inputs that share a scale, None for all of an output. bits: the precisions wanted, None for all there are.
    Raises InputError where no run was scored so.
    """
    kinds = [(metric, METRIC.fullmatch(metric)) for metric in sorted(set(texts(scores.frame, "metric")))]
    found = [(metric, int(kind[1]), kind[2] and int(kind[2])) for metric, kind in kinds if kind]
    wanted = {metric: b for metric, b, g in found if g == group}
    if not wanted:
        others = sorted({g for _, _, g in found if g})
        mend = f"; found groups of {listed(others)} (--group)" if others and group is None else ""
        size = "" if group is None else f", {group} inputs a scale"
        raise InputError(
            f"precision: no run in {scores.source!r} was scored with rounded weights{size}; lmscale quantise STUDY "
            f"does it{mend}"
        )
    if missing := sorted({*(bits or ())} - {*wanted.values()}):
        raise InputError(
            f"precision: {missing[0]} bits were not scored, found {listed(sorted(wanted.values()))}; lmscale quantise "
            f"STUDY --bits {missing[0]} does it"
        )
    wanted = {metric: b for metric, b in wanted.items() if bits is None or b in bits}
    rows = np.asarray(texts(scores.frame, "metric").isin(list(wanted)), bool)
    mine = one_task(Scores(frame=scores.frame.loc[rows], source=scores.source), table, task).keep(slice="")
    parts = []
    for metric, precision in wanted.items():
        some = mine.keep(metric=metric)
        added, stderr = some.of(table), some.of(table, "stderr")
        parts += [(i, precision, added[i], stderr[i]) for i in np.flatnonzero(np.isfinite(added))]
    if not parts:
        raise InputError(f"precision: none of the runs of the table has rounded weights in {scores.source!r}")
    index, precisions, added, stderr = (np.array(column) for column in zip(*parts, strict=True))
    index = index.astype(np.int64)
    names = table.trajectory
    points = AddedLosses(
        params=table.params[index],
        tokens=table.tokens[index],
        bits=precisions.astype(np.float64),
        added=added,
        stderr=np.nan_to_num(stderr),
        trajectory=tuple(names[i] for i in index),
    )
    return points, str(texts(mine.frame, "task").iloc[0])

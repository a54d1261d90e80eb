"""Read a table of runs, ours or anyone's, and keep only rows that a fit may use, saying what was left out and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.laws import Array, flops_6nd
from analysis.reading.aliases import canonical
from analysis.reading.excluded import Excluded, ExcludedRows
from analysis.reading.formats import load
from analysis.reading.loaded import Loaded
from analysis.reading.rows import (
    OPTIONAL,
    ROW,
    as_given,
    blank,
    chosen,
    drop_duplicates,
    drop_highest,
    keep_finished,
    keep_numbers,
    keep_positive,
    keep_rows_with_cells,
    keep_units,
    keep_whole_rows,
    leave_out,
    numbers,
    plain,
    refuse_conflicts,
    refuse_pooling,
    texts,
)
from analysis.reading.selection import Where, select


@dataclass(frozen=True, kw_only=True)
class Table:
    """Runs that may be fitted together.

    frame: one row a run, at least `run_id, trajectory, csv_row` and in float64 `params, tokens, flops, loss_nats`;
    where the file has them `unique_tokens, flops_budget, loss_stderr` in float64, NaN where a row tells nothing; the
    other columns of the file follow under their own names, in float64 where every cell is a number. `clustered` says
    whether the file told which rows belong to one trajectory.
    """

    frame: pd.DataFrame
    clustered: bool
    excluded: Sequence[Excluded] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def params(self) -> Array:
        return self.frame["params"].to_numpy(np.float64)

    @property
    def tokens(self) -> Array:
        return self.frame["tokens"].to_numpy(np.float64)

    @property
    def loss_nats(self) -> Array:
        return self.frame["loss_nats"].to_numpy(np.float64)

    @property
    def unique_tokens(self) -> Array | None:
        """Unique tokens [n] behind each run, NaN where the row does not tell; None where no row does."""
        if "unique_tokens" not in self.frame:
            return None
        values = self.frame["unique_tokens"].to_numpy(np.float64)
        return None if np.isnan(values).all() else values

    @property
    def entropy_nats(self) -> float | None:
        """The entropy rate of the source in nats a token, where the column of this name knows it: what L0 should be."""
        values = self.frame.get("entropy_nats")
        if values is None or values.dtype != np.float64 or values.nunique(dropna=False) != 1:
            return None
        return float(values.iloc[0]) if np.isfinite(values.iloc[0]) else None

    @property
    def flops_6nd(self) -> Array:
        return flops_6nd(self.params, self.tokens)

    @property
    def trajectory(self) -> list[str]:
        return [str(name) for name in self.frame["trajectory"]]

    def keep(self, rows: Iterable[bool]) -> "Table":
        """The same table with some of its rows, for holding runs out."""
        frame = chosen(self.frame, np.fromiter(rows, bool)).reset_index(drop=True)
        return replace(self, frame=frame)

    def needing(self, column: str) -> "Table":
        """The rows whose optional column is a finite positive number; the others are left out and listed.

        column: unique_tokens, flops_budget or loss_stderr. Raises InputError where no row has it.
        """
        if column not in OPTIONAL or column not in self.frame or bool(np.isnan(numbers(self.frame, column)).all()):
            raise InputError(f"{column}: no row of the table tells it; name its column with --columns {column}=COLUMN")
        excluded = ExcludedRows.of(self.excluded)
        frame = keep_positive(self.frame, column, excluded).reset_index(drop=True)
        if frame.empty:
            raise InputError(f"{column}: no row has a usable value ({excluded[0]}); mend the column")
        return replace(self, frame=frame, excluded=excluded)


def read(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    where: Where | None = None,
    drop_highest_loss: int = 0,
    by: str | None = None,
) -> Table:
    """Read runs from a file or folder (analysis.reading.formats.load says of which kinds).

    columns names the file's column for one of ours, {"tokens": "D"}, or computes it, {"params": "N*1e6"}
    (analysis.reading.expressions). where keeps the rows that meet conditions: {"seed": "0"}, or a sequence of texts
    such as ["seed=0", "params<1e9", "corpus!=c4"] (analysis.reading.selection). drop_highest_loss leaves out so many
    rows of the highest loss. by is a column by whose groups the table will be fitted (analysis.groups): columns that
    must not be pooled may then differ between the groups. Rows are counted as lines of a CSV or of JSON lines,
    elsewhere from 1.

    Parameters, tokens and loss are needed, or FLOPs in place of one of the first two, which C = 6ND then gives: plain
    counts, and nats per token. Raises InputError when the file cannot be read, lacks a column, holds rows that
    contradict each other, or pools what must not be pooled; single bad rows are left out and listed in
    `Table.excluded`.
    """
    loaded = load(path)
    loaded = replace(loaded, frame=plain(loaded.frame, str(path)))
    return _table(loaded, columns, where, drop_highest_loss, by, str(path))


def from_frame(
    frame: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    where: Where | None = None,
    drop_highest_loss: int = 0,
    by: str | None = None,
    source: str = "table",
    cut_short: bool = False,
) -> Table:
    """The same checks on a DataFrame, its rows counted from 2 as if it were a CSV.

    `cut_short` says that the last row of its file had no end of line.
    """
    loaded = Loaded(frame=plain(frame, source), rows=np.arange(2, len(frame) + 2), cut_short=cut_short)
    return _table(loaded, columns, where, drop_highest_loss, by, source)


def _table(
    loaded: Loaded,
    columns: Mapping[str, str] | None,
    where: Where | None,
    drop_highest_loss: int,
    by: str | None,
    source: str,
) -> Table:
    excluded = ExcludedRows.of(loaded.excluded)
    frame, named, notes = canonical(loaded.frame, columns or {}, source)
    frame = frame.rename(columns={ROW: as_given(ROW, frame.columns)})
    frame.insert(0, ROW, loaded.rows)
    frame = keep_whole_rows(frame, loaded.cut_short, excluded)
    frame = select(keep_rows_with_cells(frame), where, named, source)
    group = None
    if by is not None:
        group = by if by in frame else named.get(by)
        if group is None or group not in frame:
            raise InputError(f"by: {by!r} names no column of {source}; found {', '.join(loaded.frame.columns[:12])}")
        frame = leave_out(frame, blank(frame, group), group, "no value to group by", excluded)
        if by != group:  # the user's name for one of our columns
            frame = frame.assign(**{by: texts(frame, group)})
    frame = keep_numbers(keep_finished(frame, excluded), excluded, notes)
    if frame.empty:
        why = f": {excluded[0]}" if excluded else ""
        raise InputError(f"{source}: 0 usable rows, {len(excluded)} left out{why}; mend these rows or the selection")
    frame = drop_duplicates(frame, notes)
    refuse_pooling(frame, notes, group)
    frame, clustered = _identity(frame, notes)
    refuse_conflicts(frame, group)
    frame = keep_units(frame, excluded, notes, source)
    frame = drop_highest(frame, drop_highest_loss, excluded)
    return Table(frame=frame.reset_index(drop=True), clustered=clustered, excluded=excluded, notes=tuple(notes))


def _identity(frame: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, bool]:
    """With run_id and trajectory in every row, and whether the file told which rows share a trajectory."""
    frame = frame.assign(run_id=_filled(frame, "run_id", notes))
    if "trajectory" in frame:
        return frame.assign(trajectory=_filled(frame, "trajectory", notes)), True
    repeated = len(frame["run_id"].unique()) < len(frame)
    if repeated:
        notes.append("run_id repeats: rows of one run_id are taken as points of one trajectory")
    else:
        notes.append("no trajectory column: rows are taken as independent runs")
    return frame.assign(trajectory=frame["run_id"]), repeated


def _filled(frame: pd.DataFrame, column: str, notes: list[str]) -> NDArray[np.object_]:
    """Names [n]; a row that has none is one of its own."""
    rows = np.array([f"row {row}" for row in frame[ROW]], object)
    if column not in frame:
        return rows
    names = texts(frame, column).to_numpy(object)
    blanks = names == ""
    if blanks.any():
        notes.append(f"{int(blanks.sum())} rows name no {column}: each is taken as one of its own")
    return np.where(blanks, rows, names)

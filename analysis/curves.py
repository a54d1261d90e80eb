"""Loss curves of runs: our curves.csv beside its runs.csv, or any long table with one row a logged point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import InputError, require_choice
from analysis.laws import Array, flops_6nd
from analysis.reading.excluded import Excluded, ExcludedRows
from analysis.reading.formats import load
from analysis.reading.rows import (
    ROW,
    chosen,
    keep_rows_with_cells,
    keep_whole_rows,
    leave_out,
    listed,
    numbers,
    plain,
    texts,
)
from analysis.reading.selection import Where
from analysis.table import Table, read

Points = Literal["decayed", "all"]
CURVES = "curves.csv"
COLUMNS = ("run_id", "step", "tokens", "flops", "loss_nats", "decayed")
TRUE, FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no", "")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Losses of one size at ascending compute: tokens, flops, loss_nats [k]; params: a number."""

    name: str
    params: float
    tokens: Array
    flops: Array
    loss_nats: Array

    @property
    def flops_6nd(self) -> Array:
        return flops_6nd(self.params, self.tokens)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves to take an envelope of. joined: what one curve is, "trajectory", "run" or "size"."""

    curves: tuple[Curve, ...]
    points: Points
    joined: str
    excluded: tuple[Excluded, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def __len__(self) -> int:
        return sum(len(curve.flops) for curve in self.curves)


def read_curves(
    path: str | Path,
    *,
    points: Points = "decayed",
    columns: Mapping[str, str] | None = None,
    where: Where | None = None,
    drop_highest_loss: int = 0,
) -> Curves:
    """Curves from a folder with curves.csv and runs.csv, or from a long table with params, tokens and loss in each row.

    points: "decayed" takes the losses at the end of a schedule alone; "all" takes every held-out loss, and warns. In a
    folder only runs that `analysis.read` accepts count. Raises InputError for a missing file or column, for compute
    that does not grow along a run, and where no loss is left; single bad rows are listed in `excluded`.
    """
    require_choice("points", points, Points)
    file = Path(path)
    folder = file if file.is_dir() else file.parent
    ours = file.is_dir() or file.name in (CURVES, "runs.csv")
    if not ours or (file.name == "runs.csv" and not (folder / CURVES).is_file()):
        return from_table(read(file, columns=columns, where=where, drop_highest_loss=drop_highest_loss), points=points)
    if not (folder / CURVES).is_file():
        raise InputError(f"curves: {str(folder)!r} holds no {CURVES}; give a folder with one, or a long table")
    if not (folder / "runs.csv").is_file():
        raise InputError(f"curves: {str(folder)!r} holds no runs.csv, which says the parameters of each run_id; add it")
    table = read(folder / "runs.csv", columns=columns, where=where, drop_highest_loss=drop_highest_loss)
    return _ours(folder / CURVES, table, points)


def from_table(table: Table, *, points: Points = "decayed") -> Curves:
    """Curves from the rows of a table: one a trajectory, or one a size where each trajectory is a single point.

    Rows whose column `decayed` is false enter only with points="all"; without that column rows are taken as final.
    """
    require_choice("points", points, Points)
    frame, excluded, notes = table.frame, table.excluded, [*table.notes]
    told = "decayed" in frame
    if told:
        decayed = _flags(frame)
        if points == "decayed":
            frame = chosen(frame, decayed)
            notes.append(f"{int((~decayed).sum())} undecayed points are not used")
    elif table.clustered and points == "decayed":
        notes.append("no decayed column: every row is taken as a loss at the end of its schedule")
    if "step" in frame:
        _require_growth(frame.assign(step=numbers(frame, "step")))
    return _assemble(frame, points, excluded, notes)


def _ours(file: Path, table: Table, points: Points) -> Curves:
    try:
        loaded = load(file)
        frame = plain(loaded.frame, str(file))
    except InputError as error:
        why = str(error).removeprefix("runs: ")
        raise InputError(f"curves: {why}, or export it again with lmscale export") from None
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InputError(f"{missing[0]}: no such column in {str(file)!r}; it needs {', '.join(COLUMNS)}")
    excluded = ExcludedRows()
    frame = keep_whole_rows(frame.assign(**{ROW: loaded.rows}), loaded.cut_short, excluded)
    frame = keep_rows_with_cells(frame)
    runs = {str(run): i for i, run in enumerate(table.frame["run_id"])}
    known = np.array([run in runs for run in texts(frame, "run_id")], bool)
    notes = [] if known.all() else [f"{int((~known).sum())} rows of runs that runs.csv leaves out are not used"]
    frame = chosen(frame, known)
    blank = np.array([text == "" for text in texts(frame, "loss_nats")], bool)
    decayed = _flags(frame)
    wanted = decayed if points == "decayed" else decayed | ~blank
    if points == "all" and not (~decayed & ~blank).any():
        notes.append("undecayed points of this file have no held-out loss: only decayed ones could be used")
    frame = chosen(frame, wanted)
    for name in ("step", "tokens", "flops", "loss_nats"):
        values = numbers(frame, name)
        frame = leave_out(frame, ~(np.isfinite(values) & (values > 0)), name, "not a positive number", excluded)
    at = [runs[run] for run in texts(frame, "run_id")]
    frame = frame.assign(
        **{name: numbers(frame, name) for name in ("step", "tokens", "flops", "loss_nats")},
        params=table.params[at],
        trajectory=np.array(table.trajectory, dtype=object)[at],
    )
    _require_growth(frame)
    return _assemble(frame, points, excluded, notes)


def _flags(frame: pd.DataFrame) -> NDArray[np.bool_]:
    cells = [text.lower() for text in texts(frame, "decayed")]
    for row, cell in zip(frame[ROW], cells, strict=True):
        if cell not in TRUE + FALSE:
            raise InputError(f"decayed: row {row} has {cell!r}, neither true nor false; mend it")
    return np.array([cell in TRUE for cell in cells], bool)


def _require_growth(frame: pd.DataFrame) -> None:
    """Tokens and FLOPs of one run grow with its steps."""
    for run, rows in frame.groupby("run_id", sort=False):
        rows = rows.sort_values("step", kind="stable")
        for name in ("tokens", "flops"):
            wrong = np.flatnonzero(np.diff(rows[name].to_numpy(np.float64)) <= 0)
            if wrong.size:
                first, then = (int(rows[ROW].iloc[wrong[0] + k]) for k in (0, 1))
                raise InputError(f"{name}: of run {str(run)!r} do not grow from row {first} to row {then}; mend one")


def _assemble(frame: pd.DataFrame, points: Points, excluded: Sequence[Excluded], notes: list[str]) -> Curves:
    if frame.empty:
        why = f": {excluded[0]}" if excluded else ""
        hint = "" if points == "all" else "; the runs have no decayed point, or choose points all"
        raise InputError(f"curves: no usable point, {len(excluded)} rows left out{why}{hint}")
    # Undecayed points of one trunk belong to several runs of one trajectory; each run then is a curve of its own.
    key = "trajectory" if points == "decayed" else "run_id"
    joined = "trajectory" if points == "decayed" else "run"
    if len(set(frame[key])) == len(frame) > len(set(frame["params"])):
        key, joined = "params", "size"
    parts = [_curve(str(name), rows) for name, rows in frame.groupby(key, sort=False)]
    sizes = [str(name) for name, rows in frame.groupby(key, sort=False) if len(set(rows["params"])) > 1]
    if sizes:
        raise InputError(f"params: {joined} {sizes[0]!r} has several sizes; name the column that tells runs apart")
    warnings = []
    if points == "all":
        warnings.append(
            "points before the end of a schedule are used: their losses lie above what a schedule of that length "
            "reaches, which biases the exponents"
        )
    return Curves(
        curves=tuple(sorted(parts, key=lambda curve: curve.params)),
        points=points,
        joined=joined,
        excluded=tuple(excluded),
        notes=tuple(notes),
        warnings=tuple(warnings),
    )


def _curve(name: str, rows: pd.DataFrame) -> Curve:
    """Points of one curve by compute; replicas at the same tokens become their geometric mean."""
    rows = rows.sort_values("tokens", kind="stable")
    tokens = rows["tokens"].to_numpy(np.float64)
    parts: Sequence[NDArray[np.int64]] = np.split(
        np.arange(len(tokens)), np.flatnonzero(np.diff(np.log(tokens)) > 1e-6) + 1
    )
    means = {
        column: np.exp([np.log(rows[column].to_numpy(np.float64)[p]).mean() for p in parts])
        for column in ("tokens", "flops", "loss_nats")
    }
    return Curve(name=name, params=float(rows["params"].iloc[0]), **means)


def describe(curves: Curves) -> str:
    """One line: how many curves of what, and which points."""
    sizes = sorted({curve.params for curve in curves.curves})
    which = "points at the end of their schedule" if curves.points == "decayed" else "points, decayed or not"
    names = listed([f"{size:.3g}" for size in sizes], 3)
    return f"{len(curves.curves)} curves (one a {curves.joined}, {len(sizes)} sizes: {names}), {len(curves)} {which}"

"""Scores of runs beside their losses: our scores.csv, or anyone's with its columns run_id, metric, value and slice."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.laws import Array
from analysis.reading.formats import load
from analysis.reading.rows import blank, chosen, listed, numbers, plain, texts
from analysis.table import Table

SCORES = "scores.csv"
NEEDED = ("run_id", "metric", "value", "slice")
OPTIONAL = ("task", "eval_set", "stderr")
WORDS = ("run_id", "metric", "slice", "task", "eval_set")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """frame: one row a number, the columns NEEDED and OPTIONAL; value and stderr are float64, NaN for none."""

    frame: pd.DataFrame
    source: str

    def fields(self) -> dict[str, list[str]]:
        """The fields by which there are groups, each with its values."""
        found: dict[str, list[str]] = {}
        for part in sorted(set(texts(self.frame, "slice"))):
            if part:
                field, _, value = part.partition("=")
                found.setdefault(field, []).append(value)
        return found

    def keep(self, **values: str) -> "Scores":
        """The rows whose columns have these values."""
        rows = np.ones(len(self.frame), bool)
        for column, value in values.items():
            rows &= np.asarray(texts(self.frame, column) == value, bool)
        return Scores(frame=chosen(self.frame, rows), source=self.source)

    def of(self, table: Table, column: str = "value") -> Array:
        """The value of each run of a table [n], NaN where it has none. Keep one metric of one slice first."""
        known = dict(zip(texts(self.frame, "run_id"), self.frame[column].to_numpy(np.float64), strict=True))
        return np.array([known.get(str(run), np.nan) for run in table.frame["run_id"]])


def read_scores(path: str | Path) -> Scores:
    """The scores beside a table of runs, or in a folder of results.

    Raises InputError where there are none, a column is missing, a number is none, or two rows say the same thing.
    """
    path = Path(path)
    file = (path if path.is_dir() else path.parent) / SCORES
    if not file.is_file():
        raise InputError(
            f"scores: there is no {SCORES} beside {str(path)!r}; add one, or export it with lmscale export"
        )
    loaded = load(file)
    frame = plain(loaded.frame, str(file))
    for column in NEEDED:
        if column not in frame:
            raise InputError(f"scores: {str(file)!r} has no column {column!r}; it needs {', '.join(NEEDED)}")
    frame = frame.assign(**{name: "" for name in OPTIONAL if name not in frame})
    frame = frame.assign(**{name: texts(frame, name) for name in WORDS})
    values = numbers(frame, "value")
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        given = str(frame["value"].iloc[first])
        raise InputError(f"scores: row {loaded.rows[first]} of {str(file)!r} has value {given!r}, no number; mend it")
    parts = [part for part in frame["slice"] if part and not all(part.partition("="))]
    if parts:
        raise InputError(f"scores: slice {parts[0]!r} is not FIELD=VALUE, such as source=web; mend it")
    stderr = np.where(blank(frame, "stderr"), np.nan, numbers(frame, "stderr"))
    frame = frame.assign(value=values, stderr=stderr)
    again = np.asarray(frame.duplicated(["run_id", "task", "eval_set", "metric", "slice"]), bool)
    if again.any():
        row = frame.loc[again].iloc[0]
        raise InputError(
            f"scores: row {loaded.rows[again][0]} of {str(file)!r} says {row['metric']} of {row['run_id']!r} "
            f"({row['slice'] or 'the whole set'}) again; keep one"
        )
    return Scores(frame=frame, source=str(file))


def one_task(scores: Scores, table: Table, task: str | None) -> Scores:
    """The scores on one set: the one asked for, else the runs' own (their `eval_set`), else the only one there is.

    Raises InputError for a set that is not there, and where several are and none is the runs' own.
    """
    names = sorted(set(texts(scores.frame, "task")))
    if task is not None:
        if task not in names:
            raise InputError(f"task: {task!r} has no such scores in {scores.source!r}; found {listed(names)}")
        return scores.keep(task=task)
    if "eval_set" in table.frame:
        own = texts(table.frame, "eval_set").iloc[0]
        if own and (mine := scores.keep(eval_set=own)).frame.size:
            return mine
    if len(names) > 1:
        raise InputError(f"task: {listed(names)} have such scores in {scores.source!r}; choose one with --task NAME")
    return scores

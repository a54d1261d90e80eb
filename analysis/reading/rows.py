"""Row by row: which rows of a table of runs may enter a fit, and why the others may not."""

from collections.abc import Collection
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.laws import Array, flops_6nd
from analysis.reading.excluded import SHOWN, ExcludedRows

ROW = "csv_row"  # the place in the file; in a CSV as a spreadsheet counts: the header is row 1, the first run row 2
POOLED_ONLY_WITHIN = ("family", "objective", "corpus", "tokenizer", "eval_set", "recipe")
NEEDED = ("params", "tokens", "flops", "loss_nats")
OPTIONAL = ("unique_tokens", "flops_budget", "loss_stderr")  # numbers that only some laws and methods use
DONE = ("done", "finished", "completed")  # ours, Weights & Biases', others'
LEAST_LOSS, MOST_LOSS, MOST_COUNT = 1e-6, 1e6, 1e60  # beyond these a cell is a slip, and powers of it overflow
LEAST_COUNT = 1_000  # parameters or tokens: less is a unit (millions, billions), not a count
UNIQUE_SLACK = 1e-3  # of tokens: counts may be rounded
FLOPS_FACTOR = 3.0  # exact FLOPs of very small models are up to about twice 6ND; beyond three it is a unit
LISTED = 8
TRIED = 100  # cells of a column that must all be numbers before the whole of it is parsed


def plain(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Every column as numbers (int64, uint64 or float64) or as stripped text; truth values and dates become text.

    A missing cell becomes NaN among numbers and '' among texts. Raises InputError for a name that stands twice.
    """
    names = [str(c).strip() for c in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{source}: column {twice!r} appears twice; rename one")
    frame = frame.set_axis(names, axis=1).reset_index(drop=True)
    return pd.DataFrame({name: _plain(_column(frame, name)) for name in frame.columns}, index=frame.index, copy=False)


def _plain(cells: pd.Series) -> Any:
    if isinstance(cells.dtype, pd.CategoricalDtype):
        words = [*map(_word, cells.cat.categories), ""]
        return np.array(words, object)[cells.cat.codes.to_numpy()]
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells) and cells.dtype.kind != "c":
        if cells.dtype.kind == "f" or cells.isna().any():
            return cells.to_numpy(np.float64, na_value=np.nan)
        return cells.to_numpy(np.uint64 if cells.dtype.kind == "u" else np.int64)
    if isinstance(cells.dtype, pd.StringDtype):
        return (cells.fillna("") if cells.isna().any() else cells).str.strip()
    return np.array([_word(value) for value in cells.to_numpy(object)], object)


def _word(value: Any) -> str:
    """A cell as text: 3.0 is '3', what is missing is ''."""
    if isinstance(value, str):
        return value.strip()
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if isinstance(value, float | np.floating):
        number = float(value)
        if np.isnan(number):
            return ""
        return str(int(number)) if number.is_integer() and abs(number) < 2.0**53 else repr(number)
    return str(value).strip()


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    return cast(pd.Series, frame[name])


def is_text(frame: pd.DataFrame, column: str) -> bool:
    return not pd.api.types.is_numeric_dtype(frame[column])


def texts(frame: pd.DataFrame, column: str) -> pd.Series:
    """Cells of a column as text, stripped; '' where there is nothing."""
    cells = _column(frame, column)
    if is_text(frame, column):
        return cells
    codes, values = pd.factorize(cells)
    return pd.Series(np.array([*map(_word, values), ""], object)[codes], index=cells.index)


def numbers(frame: pd.DataFrame, column: str) -> Array:
    """A column in float64; what is no number is NaN. Python's float() would take 1_000 for one, pandas does not."""
    cells = frame[column]
    if is_text(frame, column):
        cells = pd.to_numeric(cells, errors="coerce")
    return np.asarray(cells, np.float64)


def blank(frame: pd.DataFrame, column: str) -> NDArray[np.bool_]:
    """Where a column holds nothing."""
    return np.asarray(frame[column] == "" if is_text(frame, column) else frame[column].isna(), bool)


def chosen(frame: pd.DataFrame, rows: NDArray[np.bool_]) -> pd.DataFrame:
    """The rows where `rows` is true."""
    return frame if rows.all() else frame.loc[rows]


def as_given(name: str, taken: Collection[str]) -> str:
    """A name for the file's own column where `name` is to mean ours: none of those taken."""
    while (name := f"{name}_as_given") in taken:
        pass
    return name


def listed(names: Any, most: int = 12) -> str:
    names = list(names)
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def _record(frame: pd.DataFrame, bad: NDArray[np.bool_], column: str, reason: str, excluded: ExcludedRows) -> None:
    if bad.any():
        gone = frame.loc[bad]
        excluded.add(gone[ROW].to_numpy(np.int64), column, gone[column], reason)


def leave_out(
    frame: pd.DataFrame, bad: NDArray[np.bool_], column: str, reason: str, excluded: ExcludedRows
) -> pd.DataFrame:
    """Drop rows and remember each."""
    _record(frame, bad, column, reason, excluded)
    return chosen(frame, ~bad)


def keep_whole_rows(frame: pd.DataFrame, cut_short: bool, excluded: ExcludedRows) -> pd.DataFrame:
    """Without the last row where its file ends inside it, or may."""
    last = np.arange(len(frame)) == len(frame) - 1
    reason = "the file ends without a newline, so this row may be cut short; end the file with one"
    return leave_out(frame, last & cut_short, "loss_nats", reason, excluded)


def keep_rows_with_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the empty lines of a file."""
    empty = np.ones(len(frame), bool)
    for column in frame.columns.drop(ROW):
        empty &= blank(frame, column)
        if not empty.any():
            break
    return chosen(frame, ~empty)


def drop_duplicates(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Rows equal to an earlier one in every column are dropped and counted."""
    again = np.array(frame.duplicated([c for c in NEEDED if c in frame], keep=False), bool)
    if again.any():
        again[np.flatnonzero(again)] = frame.loc[again].drop(columns=ROW).duplicated()
    if again.any():
        rows = listed(frame.loc[again, ROW], LISTED)
        notes.append(f"{int(again.sum())} identical rows dropped (rows {rows})")
    return chosen(frame, ~again)


def keep_finished(frame: pd.DataFrame, excluded: ExcludedRows) -> pd.DataFrame:
    """Runs that are done and that nobody interfered with, where the table says so."""
    if "status" in frame:
        unfinished = ~np.asarray(texts(frame, "status").str.lower().isin(DONE), bool)
        frame = leave_out(frame, unfinished, "status", "only runs that are done enter a fit", excluded)
        frame = frame.assign(status="done")
    if "interventions" in frame:
        touched = ~blank(frame, "interventions") & (numbers(frame, "interventions") != 0)
        frame = leave_out(frame, touched, "interventions", "the run was interfered with", excluded)
    return frame


def keep_positive(frame: pd.DataFrame, column: str, excluded: ExcludedRows) -> pd.DataFrame:
    """The column in float64; rows where it is not a finite positive number are left out."""
    values = numbers(frame, column)
    _record(frame, np.isnan(values), column, "not a number", excluded)
    _record(frame, np.isinf(values), column, "not finite", excluded)
    _record(frame, np.isfinite(values) & (values <= 0), column, "not positive", excluded)
    least, most = (LEAST_LOSS, MOST_LOSS) if column == "loss_nats" else (0.0, MOST_COUNT)
    beyond = np.isfinite(values) & (values > 0) & ((values < least) | (values > most))
    _record(frame, beyond, column, "no such run is possible", excluded)
    good = np.isfinite(values) & (values > 0) & ~beyond
    return chosen(frame, good).assign(**{column: values[good]})


def keep_numbers(frame: pd.DataFrame, excluded: ExcludedRows, notes: list[str]) -> pd.DataFrame:
    """Float64 params, tokens, flops, loss_nats; rows where one is not a finite positive number are left out.

    One of params, tokens, flops that the table lacks is derived from C = 6ND, and said. The optional columns become
    float64 with NaN where they tell nothing, other columns where every cell is a number.
    """
    for column in NEEDED:
        if column in frame:
            frame = keep_positive(frame, column, excluded)
    missing = [column for column in NEEDED if column not in frame]
    clean: dict[str, Any] = {}
    if "params" in missing:
        clean["params"] = frame["flops"] / flops_6nd(1.0, frame["tokens"])
    if "tokens" in missing:
        clean["tokens"] = frame["flops"] / flops_6nd(frame["params"], 1.0)
    if "flops" in missing:
        clean["flops"] = flops_6nd(frame["params"], frame["tokens"])
    notes += [f"{column} derived as C = 6ND" if column == "flops" else f"{column} derived from flops as C = 6ND"
              for column in missing]  # fmt: skip
    clean |= {column: _optional(frame, column, notes) for column in OPTIONAL if column in frame}
    kept = {"run_id", "trajectory", "status", "seed", ROW, *NEEDED, *OPTIONAL, *POOLED_ONLY_WITHIN}
    for column in frame.columns:
        tried = not is_text(frame, column) or not np.isnan(numbers(frame[[column]].head(TRIED), column)).any()
        if column not in kept and tried:
            values = numbers(frame, column)
            if not np.isnan(values).any():
                clean[str(column)] = values
    return frame.assign(**clean)


def _optional(frame: pd.DataFrame, column: str, notes: list[str]) -> Array:
    """Numbers, NaN where the cell is blank, or bad and then named: what needs the column may not use that row."""
    values = numbers(frame, column)
    bad = ~(np.isfinite(values) & (values > 0))
    wrong = bad & ~blank(frame, column)
    if wrong.any():
        cell, row = (frame[name].to_numpy()[wrong][0] for name in (column, ROW))
        notes.append(
            f"{column}: {int(wrong.sum())} cells are no finite positive number and taken as blank, "
            f"the first {str(cell)[:SHOWN]!r} in row {row}"
        )
    return np.where(bad, np.nan, values)


def refuse_pooling(frame: pd.DataFrame, notes: list[str], by: str | None) -> None:
    """Each of these columns has one value, or one in each group of `by`."""
    for column in POOLED_ONLY_WITHIN:
        if column == by or column not in frame:
            continue
        cells = texts(frame, column)
        values = sorted(cells.unique())
        if len(values) < 2:
            continue
        within = [values] if by is None else [sorted(set(g)) for _, g in cells.groupby(texts(frame, by).to_numpy())]
        mixed = max(within, key=len)
        if len(mixed) > 1:
            raise InputError(
                f"{column}: {len(mixed)} values ({', '.join(map(repr, mixed[:4]))}) are not fitted together"
                f"{'' if by is None else f' within one {by}'}; choose one with --where {column}={mixed[-1]}"
                f"{f', or fit each with --by {column}' if by is None else ''}"
            )
        notes.append(f"{column} differs between the groups of {by} as well: a difference may come from either")


def refuse_conflicts(frame: pd.DataFrame, by: str | None) -> None:
    """One run at one point of its training has one loss, in each group of `by`."""
    key = ["run_id", "params", "tokens", *([] if by is None or by in ("run_id", "params", "tokens") else [by])]
    again = frame.loc[np.asarray(frame.duplicated(key, keep=False), bool)]
    if again.empty:
        return
    groups = again.groupby(key, sort=False, dropna=False)
    other = again["loss_nats"] != groups["loss_nats"].transform("first")
    if other.any():
        second, first_rows = again.loc[other].iloc[0], groups[ROW].transform("first")
        first = again.loc[again[ROW] == first_rows[other].iloc[0]].iloc[0]
        raise InputError(
            f"loss_nats: rows {first[ROW]}, {second[ROW]} give {first['loss_nats']}, {second['loss_nats']} for the "
            f"same run {second['run_id']!r}; keep one of them"
        )


def refuse_more_unique(frame: pd.DataFrame) -> None:
    """No run has seen more different tokens than tokens."""
    unique, tokens = numbers(frame, "unique_tokens"), numbers(frame, "tokens")
    more = unique > tokens * (1 + UNIQUE_SLACK)
    if more.any():
        first = int(np.flatnonzero(more)[0])
        raise InputError(
            f"unique_tokens: row {frame[ROW].iloc[first]} has {unique[first]:.6g}, more than the {tokens[first]:.6g} "
            f"tokens it was trained on ({int(more.sum())} such rows); give the unique tokens that a run has seen"
        )


def keep_units(frame: pd.DataFrame, excluded: ExcludedRows, notes: list[str], source: str) -> pd.DataFrame:
    """Find millions among counts: by size, and by FLOPs against 6ND."""
    for column in ("params", "tokens"):
        small = numbers(frame, column) < LEAST_COUNT
        if small.all():
            notes.append(f"every {column} is below {LEAST_COUNT:,}: taken in a unit of its own, and FLOPs with it")
        elif small.any():
            frame = leave_out(frame, small, column, f"below {LEAST_COUNT:,}: another unit than other rows?", excluded)
    given = numbers(frame, "flops")
    if "flops_6nd" in frame:  # exact FLOPs of very small models lie far from 6ND
        stated = numbers(frame, "flops_6nd")
        given = np.where(np.isnan(stated), given, stated)
    ratio = given / flops_6nd(numbers(frame, "params"), numbers(frame, "tokens"))
    off = ~((ratio >= 1 / FLOPS_FACTOR) & (ratio <= FLOPS_FACTOR))
    if off.mean() > 0.5:
        raise InputError(
            f"flops: {source} has a median of {np.median(ratio):.3g} x 6ND (params x tokens); give params, tokens and "
            f"FLOPs as plain counts, or leave the flops column out"
        )
    reason = f"more than a factor {FLOPS_FACTOR:.0f} from 6ND: another unit than other rows?"
    return leave_out(frame, off, "flops", reason, excluded)


def drop_highest(frame: pd.DataFrame, count: int, excluded: ExcludedRows) -> pd.DataFrame:
    """Leave out the `count` rows of highest loss; among equal losses the earlier row goes first."""
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < len(frame):
        raise InputError(f"drop_highest_loss: {count} of {len(frame)} rows; give a whole number from 0 to fewer")
    if count == 0:
        return frame
    highest = np.zeros(len(frame), bool)
    highest[np.argsort(-numbers(frame, "loss_nats"), kind="stable")[:count]] = True
    return leave_out(frame, highest, "loss_nats", f"among the {count} highest losses, dropped as asked", excluded)

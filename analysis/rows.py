"""Row by row: which rows of a table of runs may enter a fit, and why the others may not."""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.laws import Array, flops_6nd

ROW = "csv_row"  # as a spreadsheet counts: the header is row 1, the first run row 2
POOLED_ONLY_WITHIN = ("family", "objective", "corpus", "tokenizer", "eval_set", "recipe")
LEAST_COUNT = 1_000  # parameters or tokens: less is a unit (millions, billions), not a count
FLOPS_FACTOR = 3.0  # exact FLOPs of very small models are up to about twice 6ND; beyond three it is a unit
LISTED = 8


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """A row left out. `row` counts as a spreadsheet does: the header is row 1, the first run row 2."""

    row: int
    column: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row}, {self.column} {self.value!r}: {self.reason}"


def texts(frame: pd.DataFrame, column: str) -> list[str]:
    """Cells of a column, stripped."""
    return [str(value).strip() for value in frame[column]]


def numbers(frame: pd.DataFrame, column: str) -> Array:
    """A column in float64; what is no number is NaN. Python's float() would take 1_000 for one, pandas does not."""
    return np.asarray(pd.to_numeric(pd.Series(texts(frame, column), dtype=object), errors="coerce"), np.float64)


def chosen(frame: pd.DataFrame, rows: NDArray[np.bool_]) -> pd.DataFrame:
    """The rows where `rows` is true."""
    return frame.take(np.flatnonzero(rows).tolist())


def select(frame: pd.DataFrame, column: str, value: str, source: str) -> pd.DataFrame:
    """Rows whose column equals value, as text or as a number."""
    if column not in frame:
        raise InputError(f"where: {column}={value} names no column of {source}; found {listed(list(frame.columns))}")
    cells = texts(frame, column)
    keep = np.array([cell == value for cell in cells], bool)
    with suppress(ValueError):
        keep |= numbers(frame, column) == float(value)
    if not keep.any():
        held = listed(sorted(set(cells)))
        raise InputError(f"where: {column}={value} keeps no row; {column} holds {held}; choose one of these")
    return chosen(frame, keep)


def listed(names: list[str], most: int = 12) -> str:
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def drop_duplicates(frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    again = np.asarray(frame.drop(columns=ROW).duplicated(), bool)
    if again.any():
        rows = listed([str(row) for row in chosen(frame, again)[ROW]], LISTED)
        notes.append(f"{int(again.sum())} identical rows dropped (rows {rows})")
    return chosen(frame, ~again)


def leave_out(
    frame: pd.DataFrame, bad: NDArray[np.bool_], column: str, reason: str, excluded: list[Excluded]
) -> pd.DataFrame:
    """Drop rows and remember each."""
    gone = chosen(frame, bad)
    for row, value in zip(gone[ROW], gone[column], strict=True):
        excluded.append(Excluded(row=int(row), column=column, value=str(value)[:40], reason=reason))
    return chosen(frame, ~bad)


def keep_finished(frame: pd.DataFrame, excluded: list[Excluded]) -> pd.DataFrame:
    """Runs that are done and that nobody interfered with, where the table says so."""
    if "status" in frame:
        unfinished = np.array([cell != "done" for cell in texts(frame, "status")], bool)
        frame = leave_out(frame, unfinished, "status", "only runs that are done enter a fit", excluded)
    if "interventions" in frame:
        blank = np.array([cell == "" for cell in texts(frame, "interventions")], bool)
        touched = ~blank & (numbers(frame, "interventions") != 0)
        frame = leave_out(frame, touched, "interventions", "the run was interfered with", excluded)
    return frame


def keep_numbers(frame: pd.DataFrame, excluded: list[Excluded]) -> pd.DataFrame:
    """Float64 params, tokens, flops, loss_nats; rows where one is not a finite positive number are left out.

    One of params, tokens, flops that the table lacks is derived from C = 6ND.
    """
    for column in ("params", "tokens", "flops", "loss_nats"):
        if column not in frame:
            continue
        frame = leave_out(frame, np.isnan(numbers(frame, column)), column, "not a number", excluded)
        frame = leave_out(frame, np.isinf(numbers(frame, column)), column, "not finite", excluded)
        frame = leave_out(frame, numbers(frame, column) <= 0, column, "not positive", excluded)
    clean = {c: numbers(frame, c) for c in ("params", "tokens", "flops", "loss_nats") if c in frame}
    if "params" not in clean:
        clean["params"] = clean["flops"] / flops_6nd(1.0, clean["tokens"])
    if "tokens" not in clean:
        clean["tokens"] = clean["flops"] / flops_6nd(clean["params"], 1.0)
    if "flops" not in clean:
        clean["flops"] = flops_6nd(clean["params"], clean["tokens"])
    for column in frame.columns.difference(["run_id", "trajectory", ROW, "seed", *clean, *POOLED_ONLY_WITHIN]):
        values = numbers(frame, column)
        if not np.isnan(values).any():
            clean[str(column)] = values
    return frame.assign(**clean)


def refuse_pooling(frame: pd.DataFrame) -> None:
    for column in POOLED_ONLY_WITHIN:
        values = sorted(set(texts(frame, column))) if column in frame else []
        if len(values) > 1:
            raise InputError(
                f"{column}: {len(values)} values ({', '.join(map(repr, values[:4]))}) are not fitted together; "
                f"choose one with --where {column}={values[-1]}"
            )


def refuse_conflicts(frame: pd.DataFrame) -> None:
    """One run at one point of its training has one loss."""
    seen: dict[tuple[str, float, float], tuple[int, float]] = {}
    keys = zip(frame["run_id"], frame["params"], frame["tokens"], strict=True)
    for key, row, loss in zip(keys, frame[ROW], frame["loss_nats"], strict=True):
        first, other = seen.setdefault(key, (row, loss))
        if loss != other:
            raise InputError(
                f"loss_nats: rows {first}, {row} give {other}, {loss} for the same run {key[0]!r}; keep one of them"
            )


def keep_units(frame: pd.DataFrame, excluded: list[Excluded], notes: list[str], source: str) -> pd.DataFrame:
    """Find millions among counts: by size, and by FLOPs against 6ND."""
    for column in ("params", "tokens"):
        small = numbers(frame, column) < LEAST_COUNT
        if small.all():
            notes.append(f"every {column} is below {LEAST_COUNT:,}: taken in a unit of its own, and FLOPs with it")
        elif small.any():
            frame = leave_out(frame, small, column, f"below {LEAST_COUNT:,}: another unit than other rows?", excluded)
    given = numbers(frame, "flops_6nd" if "flops_6nd" in frame else "flops")
    ratio = given / flops_6nd(numbers(frame, "params"), numbers(frame, "tokens"))
    off = ~((ratio >= 1 / FLOPS_FACTOR) & (ratio <= FLOPS_FACTOR))
    if off.mean() > 0.5:
        raise InputError(
            f"flops: {source} has a median of {np.median(ratio):.3g} x 6ND (params x tokens); give params, tokens and "
            f"FLOPs as plain counts, or leave the flops column out"
        )
    reason = f"more than a factor {FLOPS_FACTOR:.0f} from 6ND: another unit than other rows?"
    return leave_out(frame, off, "flops", reason, excluded)

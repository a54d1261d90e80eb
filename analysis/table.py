"""Read a table of runs, ours or anyone's, and keep only rows that a fit may use, saying what was left out and why."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.laws import Array, flops_6nd
from analysis.rows import (
    ROW,
    Excluded,
    chosen,
    drop_duplicates,
    keep_finished,
    keep_numbers,
    keep_units,
    listed,
    numbers,
    refuse_conflicts,
    refuse_pooling,
    select,
)

ALIASES: Mapping[str, tuple[str, ...]] = {
    "params": ("params", "n", "n_params", "num_params", "nparams", "parameters", "n_parameters", "num_parameters",
               "param_count", "model_size", "total_params"),
    "tokens": ("tokens", "d", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "tokens_seen",
               "total_tokens"),
    "flops": ("flops", "c", "compute", "train_flops", "training_flops", "total_flops"),
    "loss_nats": ("loss_nats", "loss", "val_loss", "valid_loss", "validation_loss", "eval_loss", "test_loss",
                  "final_loss"),
    "run_id": ("run_id", "run", "run_name", "name", "id"),
    "unique_tokens": ("unique_tokens", "u", "n_unique_tokens", "unique"),
    "trajectory": ("trajectory", "trajectory_id"),
}  # fmt: skip
MAX_BYTES = 400_000_000


@dataclass(frozen=True, kw_only=True)
class Table:
    """Runs that may be fitted together.

    frame: one row a run, at least `run_id, trajectory, csv_row` and in float64 `params, tokens, flops, loss_nats`; the
    other columns of the file follow under their own names. `clustered` says whether the file told which rows
    belong to one trajectory.
    """

    frame: pd.DataFrame
    clustered: bool
    excluded: tuple[Excluded, ...] = ()
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
    def flops_6nd(self) -> Array:
        return flops_6nd(self.params, self.tokens)

    @property
    def trajectory(self) -> list[str]:
        return [str(name) for name in self.frame["trajectory"]]

    @property
    def unique_tokens(self) -> Array | None:
        """Unique tokens of every run, where the table says them for all."""
        if "unique_tokens" not in self.frame:
            return None
        unique = self.frame["unique_tokens"].to_numpy(np.float64)
        return unique if np.all(np.isfinite(unique) & (unique > 0)) else None

    def keep(self, rows: Iterable[bool]) -> "Table":
        """The same table with some of its rows, for holding runs out."""
        frame = chosen(self.frame, np.fromiter(rows, bool)).reset_index(drop=True)
        return Table(frame=frame, clustered=self.clustered, excluded=self.excluded, notes=self.notes)


def read(
    path: str | Path, *, columns: Mapping[str, str] | None = None, where: Mapping[str, str] | None = None
) -> Table:
    """Read runs from a CSV, a TSV (by suffix), or a folder that holds runs.csv.

    columns names the file's column for one of ours, such as {"tokens": "D"}; where keeps the rows with these values.
    Parameters, tokens and loss are needed, or FLOPs in place of one of the first two, which C = 6ND then gives.
    Raises InputError when the file cannot be read, lacks a column, holds rows that contradict each other, or pools
    what must not be pooled; single bad rows are left out and listed in `Table.excluded`.
    """
    return from_frame(
        _load(Path(path)), columns=columns, where=where, source=str(path), cut_short=_cut_short(Path(path))
    )


def from_frame(
    frame: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
    source: str = "table",
    cut_short: bool = False,
) -> Table:
    """The same checks on a DataFrame. `cut_short` says that the last row of its file had no end of line."""
    frame = frame.copy()
    frame.columns = [str(c).strip() for c in frame.columns]
    frame, notes = _canonical(frame, columns or {}, source)
    frame = frame.rename(columns={ROW: f"{ROW}_as_given"})
    frame.insert(0, ROW, np.arange(2, len(frame) + 2))
    excluded: list[Excluded] = []
    if cut_short and len(frame):
        last = frame.iloc[-1]
        reason = "the file ends without a newline, so this row may be cut short; end the file with one"
        excluded.append(Excluded(row=int(last[ROW]), column="loss_nats", value=str(last["loss_nats"]), reason=reason))
        frame = frame.iloc[:-1]
    frame = chosen(frame, np.asarray((frame.drop(columns=ROW) != "").any(axis=1), bool))
    for column, value in (where or {}).items():
        frame = select(frame, column, value, source)
    frame = drop_duplicates(frame, notes)
    frame = keep_finished(frame, excluded)
    frame = keep_numbers(frame, excluded)
    if frame.empty:
        why = f": {excluded[0]}" if excluded else ""
        raise InputError(f"{source}: 0 usable rows, {len(excluded)} left out{why}; mend these rows or the selection")
    refuse_pooling(frame)
    frame, clustered = _identity(frame, notes)
    refuse_conflicts(frame)
    frame = keep_units(frame, excluded, notes, source)
    excluded.sort(key=lambda e: e.row)
    return Table(frame=frame.reset_index(drop=True), clustered=clustered, excluded=tuple(excluded), notes=tuple(notes))


def _path(path: Path) -> Path:
    return path / "runs.csv" if path.is_dir() else path


def _load(path: Path) -> pd.DataFrame:
    file = _path(path)
    try:
        if not file.is_file():
            raise InputError(f"runs: {str(file)!r} is not a file; give a CSV, a TSV or a folder that holds runs.csv")
        if file.stat().st_size > MAX_BYTES:
            size = f"{file.stat().st_size / 1e6:.0f} MB"
            raise InputError(f"runs: {str(file)!r} is {size}, above the {MAX_BYTES / 1e6:.0f} MB of a table; split it")
        separator = "\t" if file.suffix.lower() in (".tsv", ".tab") else ","
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # index_col=False: otherwise a field too many in every row would silently shift every column.
            frame = pd.read_csv(file, sep=separator, dtype=str, na_filter=False, index_col=False, encoding="utf-8-sig",
                                encoding_errors="strict", skip_blank_lines=False, on_bad_lines="error")  # fmt: skip
    except UnicodeDecodeError as error:
        raise InputError(f"runs: {str(file)!r} is not UTF-8 text ({error.reason}); save it as a UTF-8 CSV") from None
    except OSError as error:
        raise InputError(f"runs: {str(file)!r} cannot be read ({error.strerror}); check the path") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"runs: {str(file)!r} is not a table ({error}); give one header row and one row a run"
        ) from None
    return frame


def _cut_short(path: Path) -> bool:
    with _path(path).open("rb") as file:
        file.seek(0, 2)
        if file.tell() == 0:
            return False
        file.seek(-1, 2)
        return file.read(1) not in (b"\n", b"\r")


def _canonical(frame: pd.DataFrame, columns: Mapping[str, str], source: str) -> tuple[pd.DataFrame, list[str]]:
    """Rename to our columns; a name given by the user wins, then our own name, then the only alias present."""
    found = [str(c) for c in frame.columns]
    twice = sorted({c for c in found if found.count(c) > 1 and c})
    if twice:
        raise InputError(f"{source}: column {twice[0]!r} appears twice; rename one")
    for name, column in columns.items():
        if name not in ALIASES:
            raise InputError(f"columns: {name!r} is none of {', '.join(ALIASES)}; name one of these")
        if column not in found:
            raise InputError(f"columns: {name}={column} names no column; found {listed(found)}; choose one of these")
    rename = {column: name for name, column in columns.items()}
    for name, aliases in ALIASES.items():
        free = [c for c in found if c not in columns.values()]
        matches = [c for c in free if c.lower().replace(" ", "_").replace("-", "_") in aliases]
        if len(matches) > 1:  # `param_count` may hold the name of a counting rule beside an N that holds the count
            matches = [c for c in matches if not np.isnan(numbers(frame, c)).all()] or matches
        if name in columns or not matches:
            continue
        if name in matches:
            rename[name] = name
        elif len(matches) > 1 and name != "run_id":
            raise InputError(f"{name}: both {listed(matches)} could be it; choose with --columns {name}={matches[0]}")
        else:
            rename[matches[0]] = name
    taken = set(rename.values())
    # A column that only looks like ours, because the user named another, keeps its values under a name of its own.
    frame = frame.rename(columns={c: rename.get(c, f"{c}_as_given" if c in taken else c) for c in found})
    missing = [name for name in ("params", "tokens", "loss_nats") if name not in taken]
    derivable = "flops" in taken and missing in (["params"], ["tokens"])
    if missing and not derivable:
        name = missing[0]
        instead = "" if name == "loss_nats" or "flops" in taken else " (or add a flops column)"
        raise InputError(
            f"{name}: no such column in {source}; found {listed(found)}; "
            f"name yours with --columns {name}=YOUR_COLUMN{instead}"
        )
    notes = [f"{name} read from column {c!r}" for c, name in rename.items() if c != name and name in columns]
    return frame, notes + [f"{name} derived from flops as C = 6ND" for name in missing]


def _identity(frame: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, bool]:
    frame = frame.copy()
    named = "run_id" in frame
    if not named:
        frame["run_id"] = [f"row {row}" for row in frame[ROW]]
    if "trajectory" in frame:
        return frame, True
    repeated = named and len(set(frame["run_id"])) < len(frame)
    frame["trajectory"] = frame["run_id"]
    if repeated:
        notes.append("run_id repeats: rows of one run_id are taken as points of one trajectory")
    else:
        notes.append("no trajectory column: rows are taken as independent runs")
    return frame, bool(repeated)

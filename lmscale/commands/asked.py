"""What was asked on the command line: which table, which rows, which fit; and where the answer goes."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError
from lmscale.store.files import on_store, write_atomic
from lmscale.store.places import beside, place

if TYPE_CHECKING:
    from analysis.fit import Options
    from analysis.table import Table

TABLES = ("runs.csv", "curves.csv", "scores.csv")
RUNS_HELP = """a table (CSV, TSV, Parquet, JSON lines, a Weights & Biases export), a folder of TensorBoard logs,
a results folder (this and a table also by a URL such as s3://BUCKET/PATH), or the name of a study"""


class Place(argparse.Action):
    """Takes an option for a folder, or a URL of a store (lmscale.store.places). What is wrong is an InputError."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, place(self.dest, values))


def add_table_options(parser: argparse.ArgumentParser, *, resampled: bool = True) -> None:
    """The table, its columns and rows, the resamples if there are some, and where the answer goes: of every answering
    command.
    """
    parser.add_argument("runs", help=RUNS_HELP)
    text = "where studies keep results: a folder, or a URL such as s3://BUCKET/PATH"
    parser.add_argument("--out", action=Place, default=Path("results"), metavar="DIR", help=text)
    text = "keep these rows only: =, !=, <, <=, > or >= (quoted), such as seed=0 or 'params<1e9'"
    parser.add_argument("--where", action="append", default=[], metavar="CONDITION", help=text)
    text = "your column, or arithmetic of columns, for one of ours: tokens=D params='N*1e6'"
    parser.add_argument("--columns", nargs="+", action="extend", default=[], metavar="NAME=COLUMN", help=text)
    text = "leave out the K rows of highest loss, and list them"
    parser.add_argument("--drop-highest-loss", default="0", metavar="K", help=text)
    if resampled:
        parser.add_argument("--bootstrap", default="1000", metavar="K", help="resamples (default 1000, 0 for none)")
        parser.add_argument("--seed", default="0", metavar="S", help="of the resamples (default 0)")
    parser.add_argument("--json", metavar="FILE", help="write the answer as JSON (- for standard output)")


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the fit")
    group.add_argument("--law", default="chinchilla", metavar="NAME",
                       help="chinchilla (default), equal, coupled, kaplan, interaction, repeats or broken")  # fmt: skip
    group.add_argument("--loss", default="huber", metavar="KIND", help="huber (default), mse or lad")
    group.add_argument("--delta", default="1e-3", metavar="D", help="corner of the Huber loss (default 1e-3)")
    group.add_argument("--residual", default="log", metavar="OF", help="log (default) or nats")
    group.add_argument("--weights", metavar="COLUMN", help="a column that multiplies each run's loss")
    group.add_argument(
        "--fix",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="hold parameters, such as alpha=0.35",
    )


def fit_options(args: argparse.Namespace) -> Options:
    """What `analysis.fit` takes beside the law. Raises InputError for a number that is none."""
    held = {name: number("fix", value) for name, value in pairs("fix", args.fix).items()}
    return {
        "loss": args.loss,
        "delta": number("delta", args.delta),
        "residual": args.residual,
        "weights": args.weights,
        "fixed": held,
    }


def table_asked(args: argparse.Namespace) -> Table:
    path = find(args.runs, args.out)
    columns = pairs("columns", args.columns)
    drop = whole("drop-highest-loss", args.drop_highest_loss)
    from analysis.table import read

    return read(path, columns=columns, where=args.where, drop_highest_loss=drop, by=getattr(args, "by", None))


def resamples(args: argparse.Namespace) -> tuple[int, int]:
    return whole("bootstrap", args.bootstrap), whole("seed", args.seed)


def find(runs: str, out: Path) -> Path:
    """The table meant: a file, a folder that holds runs, or a study (by name or by its file) under `out`."""
    from analysis.reading.formats import holds_runs
    from lmscale.study.studies import results_name

    path = Path(runs)
    if "://" in runs:
        path = _fetched(place("runs", runs)) or path
    study = out / results_name(runs)
    try:
        if path.suffix != ".py" and holds_runs(path):
            return path
        if on_store(out) and (copy := _fetched(study)):
            return copy
        if (study / "runs.csv").is_file():
            return study / "runs.csv"
    except (OSError, ValueError):
        pass
    raise InputError(
        f"runs: {runs!r} is no table, no folder of runs.csv or TensorBoard logs and no study with results under "
        f"{str(out)!r}; "
        "give a path, or train the study first with lmscale sweep"
    )


def _fetched(path: Path) -> Path | None:
    """A table on a store, or that of a folder there, copied to this machine (`beside`) with the tables next to it; None
    if there is none.
    """
    file = path if path.is_file() else path / "runs.csv"
    here = beside(file.parent)
    here.mkdir(parents=True, exist_ok=True)
    for name in {file.name, *TABLES}:
        part = here / f".{name}.{os.getpid()}"
        try:
            part.write_bytes((file.parent / name).read_bytes())
            part.replace(here / name)
        except FileNotFoundError:
            (here / name).unlink(missing_ok=True)
    return here / file.name if (here / file.name).is_file() else None


def pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError(f"{option}: {text!r} is not NAME=VALUE; write it as one word such as alpha=0.35")
        if name.strip() in pairs:
            raise InputError(f"{option}: {name.strip()} is given twice; give it once")
        pairs[name.strip()] = value.strip()
    return pairs


def positive(option: str, text: str, *, such_as: str = "1e21") -> float:
    value = _float(text)
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{option}: {text!r} is not a finite positive number; give one such as {such_as}")
    return value


def whole(option: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1_000_000:
        raise InputError(f"{option}: {text!r} is not a whole number from 0 to 1000000; give one such as 1000")
    return value


def number(option: str, text: str) -> float:
    value = _float(text)
    if not math.isfinite(value):
        raise InputError(f"{option}: {text!r} is not a finite number; give one such as 1e-3")
    return value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def say(args: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr if args.json == "-" else sys.stdout)


def write_json(target: str, answer: Any) -> None:
    """Write to a file by way of a temporary one beside it, or to standard output for `-`. NaN is refused.

    Raises InputError when the file cannot be written.
    """
    text = json.dumps(answer, indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    path = place("json", target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"json: {target!r} cannot be written ({why}); choose a writable file") from None

"""The commands that answer from a table of runs: fit, optimal, backtest, plot. Imports happen when one is run."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError

if TYPE_CHECKING:
    from analysis.fit import Fit
    from analysis.optimal import OptimalRow
    from analysis.table import Table
    from lmscale.shapes import Shape

DEFAULT_VOCAB = 256  # bytes, where the table has no vocab column
COMMANDS = {
    "fit": "fit the law L(N, D) to a table of runs, with intervals",
    "optimal": "say which size and token count to choose for a budget",
    "backtest": "hold out the runs of largest compute and predict them from the others",
    "plot": "draw loss against compute, residuals and the IsoFLOP view",
}


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    """Add the commands to a parser; each sets `run`, a function from the parsed arguments to an exit status."""
    from lmscale import answer_profiles

    functions = {"fit": fit, "optimal": optimal, "backtest": backtest, "plot": plot}
    functions |= {"isoflop": answer_profiles.isoflop, "envelope": answer_profiles.envelope}
    for name, about in {**COMMANDS, **answer_profiles.COMMANDS}.items():
        parser = subparsers.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        parser.set_defaults(run=functions[name])
        parser.add_argument("runs", help="a CSV or TSV, a results folder, or the name of a study")
        parser.add_argument(
            "--out", type=Path, default=Path("results"), metavar="DIR", help="where studies keep results"
        )
        parser.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="keep these rows only")
        parser.add_argument("--columns", nargs="+", default=[], metavar="NAME=COLUMN", help="such as tokens=D params=N")
        parser.add_argument("--bootstrap", default="1000", metavar="K", help="resamples (default 1000, 0 for none)")
        parser.add_argument("--seed", default="0", metavar="S", help="of the resamples (default 0)")
        parser.add_argument("--json", metavar="FILE", help="write the answer as JSON (- for standard output)")
        if name == "optimal":
            text = "budgets (default 1, 10 and 100 times the largest run's 6ND)"
            parser.add_argument("--flops", nargs="+", metavar="C", help=text)
        if name in ("optimal", "isoflop", "envelope"):
            answer_profiles.add_options(parser, name)
        if name == "backtest":
            parser.add_argument("--holdout", default="1", metavar="K", help="runs to hold out (default 1)")
        if name == "plot":
            parser.add_argument("--figures", type=Path, metavar="DIR", help="default: figures/ beside the table")


def fit(args: argparse.Namespace) -> int:
    from analysis.summary import fit_text

    fitted = _fitted(args)
    _say(args, fit_text(fitted))
    if args.json:
        write_json(args.json, fit_json(fitted))
    return 0


def optimal(args: argparse.Namespace) -> int:
    from analysis.optimal import optimal as optima
    from analysis.summary import optimal_text

    budgets = None if args.flops is None else [_positive("flops", text) for text in args.flops]
    fitted = _fitted(args)
    rows = optima(fitted, budgets)
    shapes = [_shape(row, fitted.table) for row in rows]
    _say(args, optimal_text(fitted, rows, [_shape_text(shape) for shape in shapes]))
    from lmscale.answer_profiles import approaches_json, other_approaches

    found = other_approaches(args, fitted, [row.flops for row in rows])
    rows += tuple(row for row in found.rows if row.method != "parametric")
    if args.json:
        answers = [_row_json(row, _shape(row, fitted.table)) for row in rows]
        write_json(args.json, {**_common(fitted), **approaches_json(found), "rows": answers})
    return 0


def backtest(args: argparse.Namespace) -> int:
    from analysis.backtest import backtest as hold_out
    from analysis.summary import backtest_text

    bootstrap, seed = _options(args)
    result = hold_out(_table(args), holdout=_whole("holdout", args.holdout), bootstrap=bootstrap, seed=seed)
    _say(args, backtest_text(result))
    if args.json:
        answer: dict[str, Any] = {
            "mean_relative_error": result.mean_relative_error,
            "max_relative_error": result.max_relative_error,
            "coverage": result.coverage,
            "rows": [asdict(row) for row in result.rows],
        }
        write_json(args.json, {**_common(result.fit), **answer})
    return 0


def plot(args: argparse.Namespace) -> int:
    from analysis import plots
    from analysis.backtest import backtest as hold_out

    bootstrap, seed = _options(args)
    fitted = _fitted(args)
    try:
        held_out = hold_out(fitted.table, bootstrap=bootstrap, seed=seed)
    except InputError as error:
        held_out = None
        print(f"warning: no run is held out in the figure: {error}", file=sys.stderr)
    path = _find(args.runs, args.out)
    folder = args.figures or (path if path.is_dir() else path.parent) / "figures"
    figures = {
        "loss_against_compute.png": plots.loss_against_compute(fitted, held_out),
        "residuals.png": plots.residuals(fitted),
        "isoflop.png": plots.isoflop(fitted),
    }
    written = [plots.save(figure, folder / name) for name, figure in figures.items()]
    _say(args, "\n".join([*map(str, written), *(f"warning: {warning}" for warning in fitted.warnings)]))
    if args.json:
        write_json(args.json, {**_common(fitted), "figures": [str(path) for path in written]})
    return 0


def fit_json(fit: Fit) -> dict[str, Any]:
    """The answer of `lmscale fit`: numbers in full precision; exponents are null where the data cannot tell them."""
    exponents = {name: float(value) for name, value in fit.law.exponents.items()}
    return {
        "law": fit.law.name,
        "description": fit.law.description,
        "parameters": {name: float(value) for name, value in fit.law.parameters.items()},
        "intervals": {name: list(ends) for name, ends in fit.intervals.items()},
        "objective": fit.objective,
        "exponents": exponents if fit.identifiable else None,
        "delta": fit.delta,
        "gradient_norm": fit.gradient_norm,
        "condition": fit.condition,
        "starts": fit.starts,
        "agreement": fit.agreement,
        "at_bounds": list(fit.at_bounds),
        "residual_median_relative": fit.residual_median,
        "seed": fit.seed,
        **_common(fit),
    }


def write_json(target: str, answer: Any) -> None:
    """Write to a file by way of a temporary one beside it, or to standard output for `-`. NaN is refused.

    Raises InputError when the file cannot be written.
    """
    text = json.dumps(answer, indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    from lmscale.records import write_atomic

    path = Path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"json: {target!r} cannot be written ({why}); choose a writable file") from None


def _common(fit: Fit) -> dict[str, Any]:
    return {
        "runs": len(fit.table),
        "flops_max": fit.flops_max,
        "excluded": [asdict(row) for row in fit.table.excluded],
        "notes": list(fit.table.notes),
        "identifiable": fit.identifiable,
        "reason": fit.reason,
        "warnings": list(fit.warnings),
        "bootstrap": fit.bootstrap,
        "resampling": fit.resampling,
    }


def _row_json(row: OptimalRow, shape: Shape | None) -> dict[str, Any]:
    if shape is None:
        return {**asdict(row), "shape": None}
    built = {"width": shape.width, "depth": shape.depth, "heads": shape.heads, "params": int(shape.params)}
    return {**asdict(row), "shape": built}


def _say(args: argparse.Namespace, text: str) -> None:
    print(text, file=sys.stderr if args.json == "-" else sys.stdout)


def _fitted(args: argparse.Namespace) -> Fit:
    from analysis.fit import fit as fit_law

    bootstrap, seed = _options(args)
    return fit_law(_table(args), bootstrap=bootstrap, seed=seed)


def _options(args: argparse.Namespace) -> tuple[int, int]:
    return _whole("bootstrap", args.bootstrap), _whole("seed", args.seed)


def _table(args: argparse.Namespace) -> Table:
    path = _find(args.runs, args.out)
    columns, where = _pairs("columns", args.columns), _pairs("where", args.where)
    from analysis.table import read

    return read(path, columns=columns, where=where)


def _find(runs: str, out: Path) -> Path:
    """The table meant: a file, a folder that holds runs.csv, or a study (by name or by its file) under `out`."""
    from lmscale.studies import results_name

    path = Path(runs)
    study = out / results_name(runs) / "runs.csv"
    try:
        if path.suffix != ".py" and (path.is_file() or (path / "runs.csv").is_file()):
            return path
        if study.is_file():
            return study
    except (OSError, ValueError):
        pass
    raise InputError(
        f"runs: {runs!r} is no table, no folder that holds runs.csv and no study with results under {str(out)!r}; "
        "give a path, or train the study first with lmscale sweep"
    )


def _pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError(f"{option}: {text!r} is not NAME=VALUE; write it as one word such as seed=0")
        pairs[name.strip()] = value.strip()
    return pairs


def _positive(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{option}: {text!r} is not a finite positive number; give one such as 1e21")
    return value


def _whole(option: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1_000_000:
        raise InputError(f"{option}: {text!r} is not a whole number from 0 to 1000000; give one such as 1000")
    return value


def _shape(row: OptimalRow, table: Table) -> Shape | None:
    """The ladder's shape for N*, or None where the ladder has none near it."""
    from lmscale.shapes import shape_for

    vocab = DEFAULT_VOCAB
    if "vocab" in table.frame:
        given = str(table.frame["vocab"].iloc[0])
        vocab = int(_positive("vocab", given))
    try:
        shape = shape_for(row.params, vocab)
    except InputError:
        return None
    return shape if abs(math.log(shape.params / row.params)) < math.log(1.5) else None


def _shape_text(shape: Shape | None) -> str:
    if shape is None:
        return "none on the ladder"
    from analysis.summary import count

    return f"{shape.depth} x {shape.width}, {shape.heads} heads ({count(shape.params)})"

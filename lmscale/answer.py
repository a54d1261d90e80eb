"""The commands that answer from a table of runs: fit, optimal, backtest, plot. Imports happen when one is run."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError
from lmscale.asked import (
    add_fit_options,
    add_table_options,
    find,
    fit_options,
    positive,
    resamples,
    say,
    table_asked,
    write_json,
)

if TYPE_CHECKING:
    from analysis.fit import Fit
    from analysis.groups import GroupedFit
    from analysis.likelihood import LikelihoodProfile
    from analysis.optimal import OptimalRow
    from analysis.table import Table
    from lmscale.shapes import Shape

ROLLING_RESAMPLES = 200  # at the most: every law is fitted at every origin
DEFAULT_VOCAB = 256  # bytes, where the table has no vocab column
COMMANDS = {
    "fit": "fit the law L(N, D) to a table of runs, with intervals",
    "optimal": "say which size and token count to choose for a budget",
    "backtest": "hold out the runs of largest compute and predict them from the others",
    "plot": "draw loss against compute, residuals and the IsoFLOP view",
}


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    """Add the commands to a parser; each sets `run`, a function from the parsed arguments to an exit status."""
    from lmscale import answer_precision, answer_profiles, answer_published, answer_slices, answer_transfer

    functions = {"fit": fit, "optimal": optimal, "backtest": backtest, "plot": plot}
    functions |= {"isoflop": answer_profiles.isoflop, "envelope": answer_profiles.envelope}
    for name, about in {**COMMANDS, **answer_profiles.COMMANDS}.items():
        parser = subparsers.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        parser.set_defaults(run=functions[name])
        add_table_options(parser)
        if name in COMMANDS:
            add_fit_options(parser)
        if name == "fit":
            text = "profile-likelihood intervals beside the others (seconds; longer where little is told)"
            parser.add_argument("--profile", action="store_true", help=text)
            parser.add_argument("--by", metavar="COLUMN", help="fit each group of this column and compare them")
        if name == "optimal":
            parser.add_argument("--unique-tokens", metavar="U", help="text there is, for --law repeats")
            text = "budgets (default 1, 10 and 100 times the largest run's 6ND)"
            parser.add_argument("--flops", nargs="+", action="extend", metavar="C", help=text)
        if name in ("optimal", "isoflop", "envelope"):
            answer_profiles.add_options(parser, name)
        if name == "backtest":
            text = "runs to hold out, or their share such as 0.2 (default 1)"
            parser.add_argument("--holdout", metavar="K", help=text)
            text = f"compare laws by rolling extrapolation: names, or all (at most {ROLLING_RESAMPLES} resamples)"
            parser.add_argument("--rolling", nargs="*", metavar="LAW", help=text)
        if name == "plot":
            parser.add_argument("--figures", type=Path, metavar="DIR", help="default: figures/ beside the table")
            text = "draw the groups of this column side by side, such as family: loss against N, D and context"
            parser.add_argument("--by", metavar="COLUMN", help=text)
            answer_precision.add_options(parser)
        if name in ("fit", "plot"):
            answer_slices.add_options(parser, name)
    answer_transfer.add_parser(subparsers)
    answer_published.add_parser(subparsers)


def fit(args: argparse.Namespace) -> int:
    from analysis.summary import fit_text
    from lmscale import answer_slices

    answer_slices.check(args)
    if args.slice is not None:
        return answer_slices.fit(args)
    if args.by is not None:
        if args.profile:
            raise InputError("profile: --by compares groups and takes no profiles; leave one of the two out")
        return _fit_groups(args)
    fitted = _fitted(args)
    profiles = _profiles(fitted) if args.profile else {}
    say(args, fit_text(fitted, profiles))
    if args.json:
        found = {name: {"interval": list(p.interval), "open": [p.open_low, p.open_high], "assumes": p.assumes}
                 for name, p in profiles.items()}  # fmt: skip
        write_json(args.json, {**fit_json(fitted), **({"profiles": found} if profiles else {})})
    return 0


def _profiles(fitted: Fit) -> dict[str, LikelihoodProfile]:
    """Of every parameter that is not held, and of the exponent a."""
    from analysis.likelihood import profile_likelihood

    names = [name for name in (*fitted.law.parameters, "a") if name not in fitted.fixed]
    return {name: profile_likelihood(fitted, name) for name in names}


def optimal(args: argparse.Namespace) -> int:
    from analysis.optimal import optimal as optima
    from analysis.summary import optimal_text

    budgets = None if args.flops is None else [positive("flops", text) for text in args.flops]
    unique = None if args.unique_tokens is None else positive("unique_tokens", args.unique_tokens)
    fitted = _fitted(args)
    family = _family(fitted.table)
    if family == "ngram":
        raise InputError(
            "family: 'ngram' is counted, not trained: 6ND is no compute of it, and no size is optimal; choose another "
            "family with --where family=decoder"
        )
    rows = optima(fitted, budgets, unique_tokens=unique)
    shapes = [_shape(row, fitted.table) for row in rows]
    say(args, optimal_text(fitted, rows, [_shape_text(shape) for shape in shapes]))
    limits: dict[str, Any] = {}
    if unique is not None:
        from analysis.limited import limited, limited_text

        pairs = limited(fitted, budgets, unique)
        say(args, "\n" + limited_text(pairs))
        limits = {"limited": [asdict(pair) for pair in pairs]}
    from lmscale.answer_profiles import approaches_json, other_approaches

    found = other_approaches(args, fitted, [row.flops for row in rows])
    rows += tuple(row for row in found.rows if row.method != "parametric")
    if args.json:
        answers = [_row_json(row, _shape(row, fitted.table)) for row in rows]
        write_json(args.json, {**_common(fitted), **approaches_json(found), "rows": answers, **limits})
    return 0


def backtest(args: argparse.Namespace) -> int:
    from analysis.backtest import backtest as hold_out
    from analysis.summary import backtest_text

    if args.rolling is not None:
        return _rolling(args)
    bootstrap, seed = resamples(args)
    holdout = positive("holdout", args.holdout or "1", such_as="0.2")
    result = hold_out(table_asked(args), args.law, holdout=holdout, bootstrap=bootstrap, seed=seed, **fit_options(args))
    say(args, backtest_text(result))
    if args.json:
        answer: dict[str, Any] = {
            "mean_relative_error": result.mean_relative_error,
            "max_relative_error": result.max_relative_error,
            "coverage": result.coverage,
            "rows": [asdict(row) for row in result.rows],
        }
        write_json(args.json, {**_common(result.fit), **answer})
    return 0


def _rolling(args: argparse.Namespace) -> int:
    """Laws side by side; `--rolling all` takes those that the table's columns allow."""
    from analysis.backtest import rolling
    from analysis.forms import FORMS
    from analysis.summary import rolling_text

    if args.holdout is not None:
        raise InputError("holdout: --rolling chooses what is held out; leave one of the two out")
    bootstrap, seed = resamples(args)
    table = table_asked(args)
    laws = list(dict.fromkeys(args.rolling or [args.law]))
    if "all" in laws:
        laws = [law for law, form in FORMS.items() if not form.fits.models_repeats or table.unique_tokens is not None]
    origins, standings = rolling(
        table, laws, bootstrap=min(bootstrap, ROLLING_RESAMPLES), seed=seed, **fit_options(args)
    )
    say(args, rolling_text(table, origins, standings))
    if args.json:
        best = standings[0]
        answer = {
            "law": best.law,
            "mean_relative_error": best.mean_relative_error,
            "max_relative_error": best.max_relative_error,
            "coverage": best.coverage,
            "runs": len(table),
            "excluded": [asdict(row) for row in table.excluded],
            "notes": list(table.notes),
            "bootstrap": min(bootstrap, ROLLING_RESAMPLES),
            "seed": seed,
            "laws": [asdict(standing) for standing in standings],
            "rows": [asdict(origin) for origin in origins],
        }
        write_json(args.json, answer)
    return 0


def plot(args: argparse.Namespace) -> int:
    from analysis import plots
    from analysis.backtest import backtest as hold_out
    from lmscale import answer_compared, answer_precision, answer_slices

    answer_slices.check(args)
    if args.by is not None:
        return answer_compared.plot(args)
    if args.recall:
        return answer_slices.recall(args)
    if args.precision is not None:
        return answer_precision.plot(args)
    if args.translation:
        return answer_slices.translation(args)
    if args.slice is not None:
        return answer_slices.plot(args)
    bootstrap, seed = resamples(args)
    fitted = _fitted(args)
    try:
        held_out = hold_out(fitted.table, args.law, bootstrap=bootstrap, seed=seed, **fit_options(args))
    except InputError as error:
        held_out = None
        print(f"warning: no run is held out in the figure: {error}", file=sys.stderr)
    path = find(args.runs, args.out)
    folder = args.figures or (path if path.is_dir() else path.parent) / "figures"
    figures = {
        "loss_against_compute.png": plots.loss_against_compute(fitted, held_out),
        "residuals.png": plots.residuals(fitted),
        "isoflop.png": plots.isoflop(fitted),
    }
    written = [plots.save(figure, folder / name) for name, figure in figures.items()]
    say(args, "\n".join([*map(str, written), *(f"warning: {warning}" for warning in fitted.warnings)]))
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
        "fixed": dict(fit.fixed),
        "loss": asdict(fit.loss),
        "gradient_norm": fit.gradient_norm,
        "condition": fit.condition if math.isfinite(fit.condition) else None,
        "starts": fit.starts,
        "agreement": fit.agreement,
        "at_bounds": list(fit.at_bounds),
        "residual_median_relative": fit.residual_median,
        "seed": fit.seed,
        "entropy_nats": fit.table.entropy_nats,
        **_common(fit),
    }


def groups_json(result: GroupedFit) -> dict[str, Any]:
    """The answer of `lmscale fit --by`: each group as `lmscale fit` gives it, or `reason`, and the differences."""
    groups = []
    for group in result.groups:
        answer = {} if group.fit is None else fit_json(group.fit)
        reason = {"identifiable": False, "reason": group.reason} if group.fit is None else {}
        groups.append({"group": group.name, "runs": group.runs, **answer, **reason})
    return {
        "by": result.by,
        "runs": len(result.table),
        "groups": groups,
        "differences": [asdict(difference) for difference in result.differences],
        "excluded": [asdict(row) for row in result.table.excluded],
        "notes": list(result.table.notes),
        "warnings": list(result.warnings),
    }


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


def _fitted(args: argparse.Namespace) -> Fit:
    from analysis.fit import fit as fit_law

    bootstrap, seed = resamples(args)
    return fit_law(table_asked(args), args.law, bootstrap=bootstrap, seed=seed, **fit_options(args))


def _fit_groups(args: argparse.Namespace) -> int:
    from analysis.groups import fit_groups, groups_text

    bootstrap, seed = resamples(args)
    result = fit_groups(table_asked(args), args.by, law=args.law, bootstrap=bootstrap, seed=seed, **fit_options(args))
    say(args, groups_text(result))
    if args.json:
        write_json(args.json, groups_json(result))
    return 0


def _family(table: Table) -> str:
    """The one of its rows, or '' where the table does not say."""
    return str(table.frame["family"].iloc[0]) if "family" in table.frame else ""


def _shape(row: OptimalRow, table: Table) -> Shape | None:
    """The ladder's shape for N*, of the table's family, or None where the ladder has none near it."""
    from lmscale.config import Family, Size
    from lmscale.shapes import SHAPES, shape_for, shape_of

    vocab = DEFAULT_VOCAB
    if "vocab" in table.frame:
        given = str(table.frame["vocab"].iloc[0])
        vocab = int(positive("vocab", given, such_as="256")) if given.strip() else DEFAULT_VOCAB
    try:
        families: dict[str, Family] = {name: name for name in SHAPES}
        family = families.get(_family(table), "decoder")  # of a table from elsewhere: a decoder
        shape = shape_for(row.params, shape_of(Size(width=16), vocab=vocab, family=family))
    except InputError:
        return None
    return shape if abs(math.log(shape.params / row.params)) < math.log(1.5) else None


def _shape_text(shape: Shape | None) -> str:
    if shape is None:
        return "none on the ladder"
    from analysis.summary import count

    heads = f", {shape.heads} heads" if shape.usual_heads(shape.width) > 1 else ""
    return f"{shape.depth} x {shape.width}{heads} ({count(shape.params)})"

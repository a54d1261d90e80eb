"""The commands that answer from a table of runs: fit, backtest, plot. Imports happen when one is run."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError
from lmscale.commands.asked import (
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

ROLLING_RESAMPLES = 200  # at the most: every law is fitted at every origin
COMMANDS = {
    "fit": "fit the law L(N, D) to a table of runs, with intervals",
    "backtest": "hold out the runs of largest compute and predict them from the others",
    "plot": "draw loss against compute, residuals and the IsoFLOP view",
}


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    """Add the commands to a parser; each sets `run`, a function from the parsed arguments to an exit status."""
    from lmscale.commands import abilities, compare, optimal, precision, profiles, published, report, slices, transfer

    functions = {"fit": fit, "backtest": backtest, "plot": plot, "optimal": optimal.optimal}
    functions |= {"isoflop": profiles.isoflop, "envelope": profiles.envelope}
    for name, about in {**COMMANDS, **optimal.COMMANDS, **profiles.COMMANDS}.items():
        parser = subparsers.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        parser.set_defaults(run=functions[name])
        add_table_options(parser)
        if name in (*COMMANDS, *optimal.COMMANDS):
            add_fit_options(parser)
        if name == "fit":
            text = "profile-likelihood intervals beside the others (seconds; longer where little is told)"
            parser.add_argument("--profile", action="store_true", help=text)
            parser.add_argument("--by", metavar="COLUMN", help="fit each group of this column and compare them")
        if name == "optimal":
            optimal.add_options(parser)
        if name in ("isoflop", "envelope"):
            profiles.add_options(parser, name)
        if name == "backtest":
            text = "runs to hold out, or their share such as 0.2 (default 1)"
            parser.add_argument("--holdout", metavar="K", help=text)
            text = f"compare laws by rolling extrapolation: names, or all (at most {ROLLING_RESAMPLES} resamples)"
            parser.add_argument("--rolling", nargs="*", metavar="LAW", help=text)
        if name == "plot":
            parser.add_argument("--figures", type=Path, metavar="DIR", help="default: figures/ beside the table")
            text = "draw the groups of this column side by side, such as family: loss against N, D and context"
            parser.add_argument("--by", metavar="COLUMN", help=text)
            precision.add_options(parser)
        if name in ("fit", "plot"):
            slices.add_options(parser, name)
    transfer.add_parser(subparsers)
    abilities.add_parsers(subparsers)
    compare.add_parsers(subparsers)
    published.add_parser(subparsers)
    report.add_parser(subparsers)


def fit(args: argparse.Namespace) -> int:
    from analysis.words.summary import fit_text
    from lmscale.commands import slices

    slices.check(args)
    if args.slice is not None:
        return slices.fit(args)
    if args.by is not None:
        if args.profile:
            raise InputError("profile: --by compares groups and takes no profiles; leave one of the two out")
        return _fit_groups(args)
    fitted = fitted_asked(args)
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


def backtest(args: argparse.Namespace) -> int:
    from analysis.backtest import backtest as hold_out
    from analysis.words.summary import backtest_text

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
        write_json(args.json, {**common_json(result.fit), **answer})
    return 0


def _rolling(args: argparse.Namespace) -> int:
    """Laws side by side; `--rolling all` takes those that the table's columns allow."""
    from analysis.backtest import rolling
    from analysis.solving.forms import FORMS
    from analysis.words.summary import rolling_text

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
    from lmscale.commands import compared, precision, slices

    slices.check(args)
    if args.by is not None:
        return compared.plot(args)
    if args.recall:
        return slices.recall(args)
    if args.precision is not None:
        return precision.plot(args)
    if args.translation:
        return slices.translation(args)
    if args.slice is not None:
        return slices.plot(args)
    bootstrap, seed = resamples(args)
    fitted = fitted_asked(args)
    try:
        held_out = hold_out(fitted.table, args.law, bootstrap=bootstrap, seed=seed, **fit_options(args))
    except InputError as error:
        held_out = None
        print(f"warning: no run is held out in the figure: {error}", file=sys.stderr)
    path = find(args.runs, args.out)
    folder = args.figures or (path if path.is_dir() else path.parent) / "figures"
    figures = {
        "loss_against_compute": plots.loss_against_compute(fitted, held_out),
        "residuals": plots.residuals(fitted),
        "isoflop": plots.isoflop(fitted),
    }
    written = [path for name, figure in figures.items() for path in plots.save_both(figure, folder, name)]
    say(args, "\n".join([*map(str, written), *(f"warning: {warning}" for warning in fitted.warnings)]))
    if args.json:
        write_json(args.json, {**common_json(fitted), "figures": [str(path) for path in written]})
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
        **common_json(fit),
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


def common_json(fit: Fit) -> dict[str, Any]:
    """What every answer from a fit says of it."""
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


def fitted_asked(args: argparse.Namespace) -> Fit:
    """The fit of the command line."""
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

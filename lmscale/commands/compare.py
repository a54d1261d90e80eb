"""`lmscale compare` and `lmscale multiverse`: two studies, and every choice. Imports happen when one is run.

The multiverse is a command of its own, not an option of `optimal`: it varies what the options of the fit settle, so
that it takes none of them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError
from lmscale.commands.asked import (
    add_fit_options,
    add_table_options,
    fit_options,
    positive,
    resamples,
    say,
    table_asked,
    write_json,
)
from lmscale.commands.optimal import width

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.fit import Fit
    from analysis.table import Table

COMMANDS = {
    "compare": "say how many times the compute one recipe, corpus or family needs for the loss of another",
    "multiverse": "answer one budget under every reasonable choice of law, loss, exclusions and counting",
}


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    functions = {"compare": compare, "multiverse": multiverse}
    for name, about in COMMANDS.items():
        parser = subparsers.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        parser.set_defaults(run=functions[name])
        add_table_options(parser)
        parser.add_argument("--figures", type=Path, metavar="DIR", help="draw the figure into this folder")
        if name == "multiverse":
            text = "the budget (default 10 times the largest run's 6ND)"
            parser.add_argument("--flops", metavar="C", help=text)
            text = "laws to try (default chinchilla, equal, coupled, kaplan and interaction)"
            parser.add_argument("--laws", nargs="+", action="extend", metavar="LAW", help=text)
            continue
        add_fit_options(parser)
        text = "the other table, folder or study (or --by COLUMN, for two groups of one table)"
        parser.add_argument("other", nargs="?", help=text)
        parser.add_argument("--by", metavar="COLUMN", help="compare two groups of this column")
        text = "which two of the groups, the one asked about first (default: the two there are)"
        parser.add_argument("--groups", nargs=2, metavar="GROUP", help=text)
        text = "at these losses in nats (default: nine over the range that both reach)"
        parser.add_argument("--losses", nargs="+", action="extend", metavar="L", help=text)


def compare(args: argparse.Namespace) -> int:
    from analysis.multiplier import multiplier
    from analysis.words.multiplier_text import multiplier_text

    losses = None if args.losses is None else [positive("losses", text, such_as="2.5") for text in args.losses]
    fits = _groups(args) if args.other is None else _tables(args)
    (first, one), (second, two) = fits.items()
    _, seed = resamples(args)
    found = multiplier(one, two, losses, names=(first, second), seed=seed)
    say(args, multiplier_text(found, width=width()))

    def draw() -> Figure:
        from analysis.pictures.multiplier_plots import effective_compute

        return effective_compute(found, one, two)

    _draw(args, "effective_compute", draw)
    if args.json:
        answer = {**asdict(found), "rows": [_open({**asdict(row)}) for row in found.rows]}
        write_json(args.json, _open(answer, "overall_interval"))
    return 0


def multiverse(args: argparse.Namespace) -> int:
    from analysis.multiverse import LAWS
    from analysis.multiverse import multiverse as every
    from analysis.words.multiverse_text import multiverse_text
    from lmscale.study.table_family import refuse_counted

    flops = None if args.flops is None else positive("flops", args.flops)
    bootstrap, seed = resamples(args)
    laws = tuple(dict.fromkeys(args.laws)) if args.laws else LAWS
    table = table_asked(args)
    refuse_counted(table)
    found = every(table, flops, laws=laws, bootstrap=bootstrap, seed=seed)
    say(args, multiverse_text(found, width=width()))

    def draw() -> Figure:
        from analysis.pictures.multiverse_plots import specification_curve

        return specification_curve(found)

    _draw(args, "multiverse", draw)
    if args.json:
        answer = {
            "flops": found.flops,
            "params": list(found.params),
            "tokens": list(found.tokens),
            "loss_nats": list(found.loss_nats),
            "params_interval": found.params_interval,
            "runs": len(found.fit.table),
            "choices": [asdict(choice) for choice in found.choices],
            "universes": [asdict(universe) for universe in (*found.universes, *found.refused)],
            "warnings": list(found.fit.warnings),
        }
        write_json(args.json, answer)
    return 0


def _tables(args: argparse.Namespace) -> Mapping[str, Fit]:
    """The fits of two tables, by short names of theirs."""
    from analysis.fit import fit

    for name in ("by", "groups"):
        if getattr(args, name) is not None:
            raise InputError(f"{name}: is for groups of one table, and two tables are given; leave one of the two out")
    bootstrap, seed = resamples(args)
    names = [_short(args.runs), _short(args.other)]
    if names[0] == names[1]:
        names = [args.runs, args.other] if args.runs != args.other else ["first", "second"]
    tables = [table_asked(argparse.Namespace(**{**vars(args), "runs": runs})) for runs in (args.runs, args.other)]
    _check_comparable(tables)
    # Seeds of their own: two studies of one design would otherwise be resampled alike.
    fits = [
        fit(table, args.law, bootstrap=bootstrap, seed=seed + k, **fit_options(args)) for k, table in enumerate(tables)
    ]
    return dict(zip(names, fits, strict=True))


def _check_comparable(tables: Sequence[Table]) -> None:
    """Raises InputError for runs whose losses are of other tokens, other text, or another question, and for n-grams."""
    from lmscale.study.table_family import refuse_counted

    for table in tables:
        refuse_counted(table)
    for column in ("eval_set", "tokenizer", "objective"):
        told = [_only(table.frame, column) for table in tables]
        if None not in told and told[0] != told[1]:
            raise InputError(
                f"{column}: {told[0]!r} and {told[1]!r} differ, and losses of the two say nothing of each other; "
                "compare runs of one"
            )


def _groups(args: argparse.Namespace) -> Mapping[str, Fit]:
    """The fits of two groups of one table."""
    from analysis.groups import fit_groups

    if args.by is None:
        raise InputError("compare: takes two tables, or one and --by COLUMN; give the other")
    bootstrap, seed = resamples(args)
    grouped = fit_groups(table_asked(args), args.by, seed=seed, law=args.law, bootstrap=bootstrap, **fit_options(args))
    there = {group.name: group for group in grouped.groups}
    names = list(args.groups or there)
    unknown = [name for name in names if name not in there]
    if unknown or len(set(names)) != 2:
        wrong = f"{unknown[0]!r} is none of them" if unknown else f"{len(set(names))} of them, where two are compared"
        raise InputError(f"groups: {wrong}; name two of {', '.join(there)}, the one asked about first")
    fits = {}
    for name in names:
        found = there[name].fit
        if found is None:
            raise InputError(f"groups: {name!r} has no law ({there[name].reason}); choose another, or add runs")
        fits[name] = found
    _check_comparable([found.table for found in fits.values()])
    return fits


def _short(runs: str) -> str:
    path = Path(runs)
    return path.parent.name if path.name in ("runs.csv",) and path.parent.name else path.stem or runs


def _only(frame: Any, column: str) -> str | None:
    """The one value of a column, None where there is none or several."""
    if column not in frame:
        return None
    values = {str(value) for value in frame[column]}
    return values.pop() if len(values) == 1 else None


def _open(row: dict[str, Any], name: str = "interval") -> dict[str, Any]:
    """JSON knows no infinity: an end that is not there is null."""
    if row[name] is not None:
        row[name] = [end if math.isfinite(end) and end > 0 else None for end in row[name]]
    return row


def _draw(args: argparse.Namespace, name: str, make: Callable[[], Figure]) -> None:
    if args.figures is None:
        return
    from analysis.plots import save

    figure = make()
    for suffix in (".png", ".svg"):
        say(args, str(save(figure, args.figures / f"{name}{suffix}")))

"""`lmscale report`: a study as one HTML file. Imports happen when it is run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from analysis.errors import InputError
from lmscale.commands.asked import add_fit_options, add_table_options, find, positive, say, write_json
from lmscale.store.files import write_atomic

COMMANDS = {"report": "write one HTML file with the answer, interactive figures, tables, warnings and the checklist"}
NAME = "report.html"
NOT_OF_THE_OPTIMISER = ("documents", "horizon_steps", "sequence", "schedule", "learning_rate", "batch_sequences")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    about = COMMANDS["report"]
    parser = subparsers.add_parser("report", help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(run=report)
    add_table_options(parser)
    add_fit_options(parser)
    text = "the file to write (default report.html beside the table); an earlier one is replaced"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=text)
    text = "budgets (default 1, 10 and 100 times the largest run's 6ND)"
    parser.add_argument("--flops", nargs="+", action="extend", metavar="C", help=text)
    text = "also the answer under every choice of the analyst (minutes of fits)"
    parser.add_argument("--multiverse", action="store_true", help=text)


def report(args: argparse.Namespace) -> int:
    from analysis.page.report_page import page, require_plotly
    from analysis.report import report as assemble
    from lmscale.commands.answer import common_json, fitted_asked
    from lmscale.commands.optimal import curves_beside
    from lmscale.study.table_family import refuse_counted

    require_plotly()
    flops = None if args.flops is None else [positive("flops", text) for text in args.flops]
    path = find(args.runs, args.out)
    folder = path if path.is_dir() else path.parent
    output = args.output or folder / NAME
    require_writable(output)
    fitted = fitted_asked(args)
    refuse_counted(fitted.table)
    made = assemble(
        fitted,
        title=path.name if not path.is_dir() and path.stem != "runs" else folder.resolve().name,
        source=path.name,
        made=date.today(),
        curves=curves_beside(args, fitted),
        flops=flops,
        every_choice=args.multiverse,
        scores=folder,
        recipe=recorded_optimiser(folder),
    )
    text = page(made)
    before = output.exists()
    try:
        write_atomic(output, text)
    except OSError as error:
        raise InputError(f"output: {str(output)!r} cannot be written ({error.strerror}); choose another file") from None
    lines = [f"{output}  {len(text.encode()) / 1e6:.1f} MB" + (", in place of the earlier one" if before else "")]
    say(args, "\n".join([*lines, *(f"warning: {warning}" for warning in made.warnings)]))
    if args.json:
        rows = [] if made.decision is None else [
            {"flops": row.flops, "params": row.params, "tokens": row.tokens, "loss_nats": row.loss_nats}
            for row in made.decision.rows
        ]  # fmt: skip
        answer = {**common_json(fitted), "report": str(output), "rows": rows, "missing": dict(made.missing)}
        answer["checklist"] = [{"part": i.part, "question": i.question, "answer": i.answer} for i in made.checklist]
        write_json(args.json, answer)
    return 0


def require_writable(output: Path) -> None:
    """Make the folder of the file. Raises InputError, before anything is fitted, where it cannot be written."""
    try:
        if output.is_dir():
            raise InputError(f"output: {str(output)!r} is a folder; name a file in it, such as {NAME}")
        output.parent.mkdir(parents=True, exist_ok=True)
        probe = output.with_name(f".{output.name}.part")
        probe.write_bytes(b"")
        probe.unlink()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        if isinstance(error, InputError):
            raise
        raise InputError(f"output: {str(output)!r} cannot be written ({why}); choose another file") from None


def recorded_optimiser(folder: Path) -> Mapping[str, str]:
    """What the records of a study's runs tell of the optimiser, '' of none: numbers in which all runs agree."""
    found: dict[str, set[str]] = {}
    for file in sorted((folder / "runs").glob("*/record.json")):
        try:
            told = json.loads(file.read_text())["identity"].get("hyperparameters", {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        for name, value in told.items():
            found.setdefault(name, set()).add(str(value))
    agreed = {name: values for name, values in found.items() if name not in NOT_OF_THE_OPTIMISER}
    same = {name: next(iter(values)) for name, values in agreed.items() if len(values) == 1}
    return {"kind": "AdamW", **same} if "beta1" in same else {}

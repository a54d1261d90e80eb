"""`lmscale optimal`: a budget to a size, a token count, a shape, a bill and a study. Imports happen when it is run."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError
from lmscale.commands.asked import find, positive, resamples, say, write_json

if TYPE_CHECKING:
    from analysis.approaches import Approaches
    from analysis.curves import Curves
    from analysis.decision import Decision
    from analysis.fit import Fit
    from analysis.table import Table
    from lmscale.planning.bill import Bill
    from lmscale.shapes import Shape

COMMANDS = {"optimal": "say which size and token count to choose for a budget, how sure that is and what it costs"}
DEFAULT_VOCAB = 256  # bytes, where the table has no vocab column
WIDEST = 120  # columns of a table for a person, and of one that goes into a file


def add_options(parser: argparse.ArgumentParser) -> None:
    text = "budgets (default 1, 10 and 100 times the largest run's 6ND)"
    parser.add_argument("--flops", nargs="+", action="extend", metavar="C", help=text)
    text = "how much worse than the best loss is as good (default 0.01 nats)"
    parser.add_argument("--within", metavar="NATS", help=text)
    parser.add_argument("--unique-tokens", metavar="U", help="text there is, for --law repeats")
    text = "tokens that the model will serve in its life: the size cheapest to train and serve at the same loss"
    parser.add_argument("--served", metavar="TOKENS", help=text)
    text = "also device-hours, money and energy on this accelerator, such as H200 or 'TPU v5e'"
    parser.add_argument("--device", metavar="NAME", help=text)
    text = "a TOML file of further accelerators, or of your prices of known ones"
    parser.add_argument("--accelerators", type=Path, metavar="FILE", help=text)
    text = "share of its peak that steps reach (default: as measured in the table, else 0.4)"
    parser.add_argument("--utilisation", metavar="SHARE", help=text)
    text = "write the answer to one budget as a study that lmscale sweep takes"
    parser.add_argument("--write", type=Path, metavar="FILE.py", help=text)
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw the figures into this folder")


def optimal(args: argparse.Namespace) -> int:
    from analysis.deciding.limited import limited_text
    from analysis.deciding.near_best import WITHIN_NATS
    from analysis.decision import decide
    from analysis.words.decision_text import decision_text
    from lmscale.commands.answer import common_json, fitted_asked
    from lmscale.commands.next_study import check_write, write_next
    from lmscale.study.table_family import refuse_counted

    flops = None if args.flops is None else [positive("flops", text) for text in args.flops]
    unique = None if args.unique_tokens is None else positive("unique_tokens", args.unique_tokens)
    served = None if args.served is None else positive("served", args.served, such_as="2e12")
    within = WITHIN_NATS if args.within is None else positive("within", args.within, such_as="0.01")
    check_write(args, flops)
    device = _device(args)
    fitted = fitted_asked(args)
    refuse_counted(fitted.table)
    curves = curves_beside(args, fitted)
    if not fitted.identifiable:
        return _others_alone(args, fitted, curves, flops)
    decision = decide(
        fitted, flops, curves=curves, unique_tokens=unique, served_tokens=served, within_nats=within, today=date.today()
    )
    shapes = [shape_near(row.params, fitted.table) for row in decision.rows]
    extra = [shape_cells(shape) for shape in shapes]
    bills, note = _bills(args, decision, shapes, device)
    for cells, found in zip(extra, bills, strict=False):
        from lmscale.planning.bill import bill_cells

        cells |= bill_cells(found)
    written = "" if args.write is None else write_next(args, decision)
    say(args, decision_text(decision, extra, width=width(), notes=[note] if note else []))
    if decision.limited:
        say(args, "\n" + limited_text(decision.limited))
    _draw(args, decision)
    if written:
        say(args, written)
    if args.json:
        rows = [
            {**asdict(row), "where": row.where, "shape": _shape_json(shape)}
            for row, shape in zip(decision.rows, shapes, strict=True)
        ]
        rows += [
            {**asdict(row), "where": row.where, "shape": _shape_json(shape_near(row.params, fitted.table))}
            for row in decision.approaches.rows
            if row.method != "parametric"
        ]
        answer = {
            **common_json(fitted),
            **approaches_json(decision.approaches),
            "warnings": list(decision.warnings),
            "rows": rows,
            "near_best": [asdict(row) for row in decision.near],
            "counted": [{**asdict(each), "counted": str(each.counting)} for each in decision.counted.answers],
            "not_counted": dict(decision.counted.refused),
            "served": [asdict(row) for row in decision.served],
            "limited": [asdict(row) for row in decision.limited],
            "bills": [asdict(found) for found in bills],
        }
        write_json(args.json, answer)
    return 0


def width() -> int:
    """Columns of the screen, or of a file."""
    return min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)


def curves_beside(args: argparse.Namespace, fit: Fit) -> Curves | None:
    """The loss curves beside the table, or those that its rows make."""
    from analysis.curves import CURVES, from_table
    from lmscale.commands.profiles import curves_asked

    path = find(args.runs, args.out)
    if not ((path if path.is_dir() else path.parent) / CURVES).is_file():
        return from_table(fit.table)
    try:
        return curves_asked(args, "decayed")
    except InputError as error:
        print(f"warning: the curves beside the table are not used: {error}", file=sys.stderr)
        return None


def approaches_json(found: Approaches) -> dict[str, Any]:
    """Exponents of each approach, why others are missing, and where they disagree."""
    exponents = {
        each.method: {"a": each.a, "b": each.b, "a_interval": each.a_interval, "b_interval": each.b_interval}
        for each in found.answers
    }
    return {"approaches": exponents, "refused": dict(found.refused), "disagreements": list(found.disagreements)}


def shape_near(params: float, table: Table) -> Shape | None:
    """The ladder's shape for N parameters of this table's family, or None where the ladder has none near it."""
    from lmscale.config import Size
    from lmscale.shapes import shape_for, shape_of
    from lmscale.study.table_family import kind_of

    vocab = DEFAULT_VOCAB
    if "vocab" in table.frame:
        given = str(table.frame["vocab"].iloc[0])
        vocab = int(positive("vocab", given, such_as="256")) if given.strip() else DEFAULT_VOCAB
    try:
        shape = shape_for(params, shape_of(Size(width=16), vocab=vocab, family=kind_of(table)[0]))
    except InputError:
        return None
    return shape if abs(math.log(shape.params / params)) < math.log(1.5) else None


def shape_cells(shape: Shape | None) -> dict[str, str]:
    """Two lines: layers and width, then heads and the parameters that these make."""
    if shape is None:
        return {"layers x width": "none on the ladder"}
    from analysis.words.summary import count

    return {
        "layers x width": f"{shape.depth} x {shape.width}",
        "layers x width ": (f"{shape.heads} heads, " if shape.usual_heads(shape.width) > 1 else "")
        + count(shape.params),
    }


def _shape_json(shape: Shape | None) -> dict[str, Any] | None:
    if shape is None:
        return None
    return {"width": shape.width, "depth": shape.depth, "heads": shape.heads, "params": int(shape.params)}


def _device(args: argparse.Namespace) -> Any:
    """The device asked for, with the share given. Options that nothing would read are refused."""
    from lmscale.planning.prices import price_of

    if args.device is None:
        for name in ("accelerators", "utilisation"):
            if getattr(args, name) is not None:
                raise InputError(f"{name}: says something of a device; name it with --device NAME")
        return None
    return price_of(args.device, args.accelerators)


def _bills(
    args: argparse.Namespace, decision: Decision, shapes: Sequence[Shape | None], device: Any
) -> tuple[list[Bill], str]:
    """What each budget's answer costs to train: exact FLOPs where shape and sequence are known, 6ND elsewhere."""
    if device is None:
        return [], ""
    from lmscale.planning.bill import bill, bill_note, share_of

    given = None if args.utilisation is None else positive("utilisation", args.utilisation, such_as="0.4")
    if given is not None and given > 1:
        raise InputError(f"utilisation: {args.utilisation!r} is more than the whole peak; give a share such as 0.4")
    table = decision.fit.table
    share = share_of(table, device, given)
    sequence = None
    told = str(table.frame["sequence"].iloc[0]).strip() if "sequence" in table.frame else ""
    if told and all(shapes):
        sequence = int(positive("sequence", told, such_as="1024"))
    bills = []
    for row, shape in zip(decision.rows, shapes, strict=True):
        exact = None if shape is None or sequence is None else shape.train_flops(row.tokens, sequence)
        bills.append(bill(row.flops if exact is None else exact, device, share))
    counted = "of the exact FLOPs of the shape" if sequence is not None else "of 6ND"
    return bills, bill_note(device, share, counted)


def _others_alone(args: argparse.Namespace, fitted: Fit, curves: Curves | None, flops: Sequence[float] | None) -> int:
    """The answer of approaches 1 and 2, where the law tells none. Raises InputError where they tell none either."""
    from analysis.approaches import compare
    from analysis.words.profile_text import approaches_text
    from lmscale.commands.answer import common_json

    for name in ("write", "device", "served"):
        if getattr(args, name) is not None:
            raise InputError(f"{name}: needs a law, and these runs tell none: {fitted.reason}; add runs")
    bootstrap, seed = resamples(args)
    found = compare(fitted, curves, flops, bootstrap=bootstrap, seed=seed)
    if not found.answers:
        raise InputError(f"runs: the law tells no best size: {fitted.reason}; no other approach does; add runs")
    say(args, approaches_text(found))
    if args.json:
        rows = [{**asdict(row), "where": row.where} for row in found.rows]
        write_json(args.json, {**common_json(fitted), **approaches_json(found), "rows": rows})
    return 0


def _draw(args: argparse.Namespace, decision: Decision) -> None:
    if args.figures is None:
        return
    from analysis.pictures.decision_plots import near_optimum
    from analysis.pictures.profile_plots import three_approaches
    from analysis.plots import save

    figures = {"near_optimum": near_optimum(decision)}
    if decision.approaches.answers:
        figures["approaches"] = three_approaches(decision.approaches)
    for name, figure in figures.items():
        for suffix in (".png", ".svg"):
            say(args, str(save(figure, args.figures / f"{name}{suffix}")))

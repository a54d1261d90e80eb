"""The answer about rounded weights: the loss that they add, its law and its figure."""

from __future__ import annotations

import argparse

from lmscale.commands.asked import find, resamples, say, table_asked, whole, write_json


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of plot about rounded weights."""
    text = """draw what rounding weights adds to the loss (lmscale quantise) against tokens per parameter, and fit its
    law: at all bits that were scored, or at these"""
    parser.add_argument("--precision", nargs="*", metavar="B", help=text)
    text = "with --precision: inputs that share a scale (default: all of an output do)"
    parser.add_argument("--group", metavar="SIZE", help=text)


def plot(args: argparse.Namespace) -> int:
    from analysis.comparing.precision import fit_precision
    from analysis.plots import save
    from analysis.reading.scores import read_scores
    from analysis.words.precision_text import precision_figure, precision_json, precision_text

    bootstrap, seed = resamples(args)
    group = None if args.group is None else whole("group", args.group)
    bits = [whole("precision", text) for text in args.precision] or None
    path = find(args.runs, args.out)
    table, scores = table_asked(args), read_scores(path)
    result = fit_precision(table, scores, task=args.task, group=group, bits=bits, bootstrap=bootstrap, seed=seed)
    folder = args.figures or (path if path.is_dir() else path.parent) / "figures"
    name = "loss_added_by_rounding" + (f"_g{group}" if group else "")
    written = save(precision_figure(result), folder / f"{name}.png")
    say(args, f"{precision_text(result)}\n\n{written}")
    if args.json:
        write_json(args.json, {**precision_json(result), "figures": [str(written)]})
    return 0

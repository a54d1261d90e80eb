"""The answers about parts of the text: loss by groups of documents, recall of planted facts, translations."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale.commands.asked import find, fit_options, resamples, say, table_asked, write_json

if TYPE_CHECKING:
    from analysis.comparing.slices import SlicedFit


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Options of fit and plot about parts of the text."""
    text = "loss by groups of documents, of scores.csv: a field such as source, or some groups: source=web,code"
    parser.add_argument("--slice", metavar="FIELD", help=text)
    those = "--slice or --precision" if name == "plot" else "--slice"
    text = f"with {those}: the evaluation set (default: that of the runs' loss, or the only one)"
    parser.add_argument("--task", metavar="NAME", help=text)
    if name == "plot":
        text = "draw recall of planted facts against how often they were repeated, for each size"
        parser.add_argument("--recall", action="store_true", help=text)
        text = "draw exact match and chrF of translations against parameters, for each family and evaluation set"
        parser.add_argument("--translation", action="store_true", help=text)


def check(args: argparse.Namespace) -> None:
    """Raises InputError for options that do not go together."""
    asked = [name for name in ("slice", "recall", "translation", "by", "profile") if getattr(args, name, None)]
    if getattr(args, "precision", None) is not None:  # an empty list: all precisions
        asked.append("precision")
    if "slice" in asked and len(asked) > 1:
        other = next(name for name in asked if name != "slice")
        raise InputError(f"slice: --slice answers for groups of documents and takes no --{other}; leave one out")
    figures = [name for name in asked if name in ("precision", "recall", "translation")]
    if "by" in asked and hasattr(args, "figures"):  # of plot
        figures.append("by")
    if len(figures) > 1:
        first, second = sorted(figures)[:2]
        raise InputError(f"{first}: --{first} and --{second} are figures of their own; leave one out")
    if args.task is not None and not {"slice", "precision"} & {*asked}:
        raise InputError(f"task: {args.task!r} chooses among evaluation sets of --slice; add --slice FIELD")
    if getattr(args, "group", None) is not None and "precision" not in asked:
        raise InputError(f"group: {args.group!r} chooses among rounded weights; add --precision")


def fit(args: argparse.Namespace) -> int:
    from analysis.words.slice_text import slices_json, slices_text

    result = _sliced(args)
    say(args, slices_text(result))
    if args.json:
        write_json(args.json, slices_json(result))
    return 0


def plot(args: argparse.Namespace) -> int:
    from analysis.plots import save
    from analysis.words.slice_text import loss_by_group, slices_json

    result = _sliced(args)
    path = save(loss_by_group(result), _figures(args) / f"loss_by_{result.field}.png")
    say(args, "\n".join([str(path), *(f"warning: {warning}" for warning in result.warnings)]))
    if args.json:
        write_json(args.json, {**slices_json(result), "figures": [str(path)]})
    return 0


def recall(args: argparse.Namespace) -> int:
    from analysis.comparing.recall import read_recall, recall_text
    from analysis.pictures.recall_plots import recall_figure
    from analysis.plots import save

    result = read_recall(find(args.runs, args.out), table_asked(args))
    path = save(recall_figure(result), _figures(args) / "recall.png")
    say(args, f"{recall_text(result)}\n\n{path}")
    if args.json:
        cells = [asdict(cell) for cell in result.cells]
        write_json(args.json, {"chance": result.chance, "cells": cells, "figures": [str(path)]})
    return 0


def translation(args: argparse.Namespace) -> int:
    from analysis.comparing.translation import read_translation, translation_figure, translation_text
    from analysis.plots import save

    table = table_asked(argparse.Namespace(**{**vars(args), "by": "family"}))  # each family is drawn apart
    result = read_translation(find(args.runs, args.out), table)
    path = save(translation_figure(result), _figures(args) / "translation.png")
    say(args, f"{translation_text(result)}\n\n{path}")
    if args.json:
        write_json(args.json, {"cells": [asdict(cell) for cell in result.cells], "figures": [str(path)]})
    return 0


def _figures(args: argparse.Namespace) -> Path:
    path = find(args.runs, args.out)
    return args.figures or (path if path.is_dir() else path.parent) / "figures"


def _sliced(args: argparse.Namespace) -> SlicedFit:
    from analysis.comparing.slices import fit_slices
    from analysis.reading.scores import read_scores

    field, equals, values = args.slice.partition("=")
    names = values.split(",") if equals else None
    if not field or (names is not None and not all(names)):
        raise InputError(f"slice: {args.slice!r} is neither a field such as source nor groups such as source=web,code")
    bootstrap, seed = resamples(args)
    return fit_slices(
        table_asked(args),
        read_scores(find(args.runs, args.out)),
        field,
        values=names,
        task=args.task,
        law=args.law,
        bootstrap=bootstrap,
        seed=seed,
        **fit_options(args),
    )

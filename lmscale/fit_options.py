"""The options of a fit on the command line: which law, which loss, what is weighted and what is held."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from analysis.errors import InputError

if TYPE_CHECKING:
    from analysis.fit import Options


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the fit")
    group.add_argument("--law", default="chinchilla", metavar="NAME",
                       help="chinchilla (default), equal, coupled, kaplan, interaction, repeats or broken")  # fmt: skip
    group.add_argument("--loss", default="huber", metavar="KIND", help="huber (default), mse or lad")
    group.add_argument("--delta", default="1e-3", metavar="D", help="corner of the Huber loss (default 1e-3)")
    group.add_argument("--residual", default="log", metavar="OF", help="log (default) or nats")
    group.add_argument("--weights", metavar="COLUMN", help="a column that multiplies each run's loss")
    group.add_argument("--fix", nargs="+", default=[], metavar="NAME=VALUE", help="hold parameters, such as alpha=0.35")


def fit_options(args: argparse.Namespace) -> Options:
    """What `analysis.fit` takes beside the law. Raises InputError for a number that is none."""
    held = {}
    for text in args.fix:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InputError(f"fix: {text!r} is not NAME=VALUE; write it as one word such as alpha=0.35")
        held[name.strip()] = _number("fix", value)
    return {
        "loss": args.loss,
        "delta": _number("delta", args.delta),
        "residual": args.residual,
        "weights": args.weights,
        "fixed": held,
    }


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{option}: {text!r} is not a finite number; give one such as 1e-3")
    return value

"""The command `transfer`: what runs that began from others were saved, beside those from scratch."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict

from lmscale.commands.asked import add_table_options, say, table_asked, write_json


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    about = "say how many tokens fine-tuned runs were saved, and fit the law of it"
    parser = subparsers.add_parser("transfer", help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(run=transfer)
    add_table_options(parser, resampled=False)


def transfer(args: argparse.Namespace) -> int:
    from analysis.comparing.transfer import transfer as compare
    from analysis.comparing.transfer import transfer_text

    result = compare(table_asked(argparse.Namespace(**{**vars(args), "by": "family"})))  # each has a law of its own
    say(args, transfer_text(result))
    if args.json:
        rows = [{**asdict(s), "transferred": s.transferred} for s in result.saved]
        laws = [asdict(law) for law in result.laws]
        write_json(args.json, {"runs": [_finite(row) for row in rows], "laws": [_finite(law) for law in laws]})
    return 0


def _finite(row: dict) -> dict:
    """What is not known as null: JSON has no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}

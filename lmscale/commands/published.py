"""The command `reproduce`: published results again, from their tables."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from lmscale import FAILURE
from lmscale.commands.asked import say, write_json


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    about = "compute published scaling-law results again from their tables"
    parser = subparsers.add_parser("reproduce", help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(run=reproduce)
    parser.add_argument("paper", help="besiroglu, hoffmann, porian, gadre, muennighoff, llama3, pythia, or all")
    parser.add_argument("--data", required=True, metavar="DIR", help="the folder that holds the published tables")
    parser.add_argument("--json", metavar="FILE", help="write the answer as JSON (- for standard output)")


def reproduce(args: argparse.Namespace) -> int:
    """Exit status 1 when a figure is missed."""
    from analysis.reproduce import PAPERS, reproduce_text
    from analysis.reproduce import reproduce as compute

    papers = tuple(PAPERS) if args.paper == "all" else (args.paper,)
    answers = {}
    for paper in papers:
        checks = answers[paper] = compute(paper, args.data)
        say(args, reproduce_text(paper, checks) + "\n")
    passed = all(check.passed for checks in answers.values() for check in checks)
    if args.json:
        named = {
            paper: [{**asdict(check), "difference": check.difference, "passed": check.passed} for check in checks]
            for paper, checks in answers.items()
        }
        write_json(args.json, {"passed": passed, "papers": named})
    return 0 if passed else FAILURE

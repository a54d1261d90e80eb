"""The commands about trained models: quantise. Each imports what it needs, when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale import FAILURE, INTERRUPTED
from lmscale.commands.asked import whole, write_json

if TYPE_CHECKING:
    from lmscale.scoring.quantise import Rounding

SHOWN = 5  # of the runs of another plan
BITS = ("8", "4")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of quantise beside the study."""
    parser.add_argument("--bits", nargs="+", default=BITS, metavar="B", help="bits of a weight (default: 8 4)")
    text = "inputs that share a scale, such as 128 (default: all of an output do)"
    parser.add_argument("--group", metavar="SIZE", help=text)
    parser.add_argument("--json", metavar="FILE", help="also write the scores as JSON (- for standard output)")


def _roundings(bits: Sequence[str], group: str | None) -> list[Rounding]:
    from lmscale.scoring.quantise import Rounding

    size = None if group is None else whole("group", group)
    return [Rounding(bits=whole("bits", text), group=size) for text in dict.fromkeys(bits)]


def quantise(args: argparse.Namespace) -> int:
    from lmscale.commands.study import before_jax, need
    from lmscale.records import Workspace
    from lmscale.study.studies import load_study, override

    study = override(load_study(args.study), args.overrides)
    need("jax", "flax", "optax", "orbax", "rich")
    if all(member.family == "ngram" for member in study.members):
        raise InputError("family: 'ngram' has counts, and no weights to be rounded; choose a study of networks")
    workspace = Workspace(args.out, study.name)
    if not any(record["row"]["status"] == "done" for record in workspace.records()):
        raise InputError(f"study: {study.name!r} has no finished run in {str(args.out)!r}; sweep it, or pass --out DIR")
    # a sweep may be training on the accelerator, which jax would otherwise take most of at once
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from lmscale.training.allocator import keep_memory

    keep_memory()
    before_jax(study.mesh.devices)
    roundings = _roundings(args.bits, args.group)
    from lmscale.planning.assemble import assemble
    from lmscale.scoring.rounded_scores import score_rounded
    from lmscale.training.compilation import use_cache

    def line(text: str) -> None:
        print(text, file=sys.stderr if args.json == "-" else sys.stdout, flush=True)  # seen as it goes, in a log too

    assembly = assemble(study, args.out, line)
    use_cache(line)
    try:
        outcome = score_rounded(assembly, workspace, roundings, line)
    except KeyboardInterrupt:
        workspace.export()
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    workspace.export()
    if others := outcome.unplanned:
        more = f" and {len(others) - SHOWN} more" * (len(others) > SHOWN)
        line(f"left alone, of another plan than this: {', '.join(others[:SHOWN])}{more}")
    skipped = len(outcome.missing) + len(outcome.damaged)
    line(
        f"{outcome.scored} runs scored, {outcome.before} were before, {skipped} have no sound final parameters; "
        f"loss_added_* in {workspace.root / 'scores.csv'}"
    )
    if args.json:
        metrics = {metric for rounding in roundings for metric in rounding.metrics}
        ids = [run.id for trajectory in assembly.plan for run in trajectory.runs]
        rows = [row for run_id in ids for row in workspace.scores(run_id) if row["metric"] in metrics]
        write_json(args.json, {**vars(outcome), "scores": rows})
    return FAILURE if outcome.damaged else 0

"""The commands about a study's text: prepare, contamination. Each imports what it needs, when it runs."""

from __future__ import annotations

import argparse
import sys
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale.commands.asked import say, write_json
from lmscale.commands.study import count

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmscale.config import Study
    from lmscale.planning.assemble import OpenText


def _texts(
    args: argparse.Namespace, study: Study, echo: Callable[[str], None], processes: int | None = None
) -> dict[str, OpenText]:
    """The study's text and those of its evaluation sets, prepared where needed."""
    from lmscale.planning.assemble import open_texts
    from lmscale.records import Workspace

    Workspace(args.out, study.name).create()
    return open_texts(study, args.out, echo, processes)


def _study(args: argparse.Namespace) -> Study:
    from lmscale.study.studies import load_study, override

    return override(load_study(args.study), args.overrides)


def prepare(args: argparse.Namespace) -> int:
    processes = None if args.processes is None else count("processes", args.processes)
    texts = _texts(args, _study(args), print, processes)
    for shards in (part.shards for text in texts.values() for part in text):
        for split in (shards.train, shards.heldout):
            print(f"{split.documents:>9,} documents  {split.tokens:>13,} tokens  {split.total_bytes:>13,} bytes")
        print(shards.folder)
    return 0


def contamination(args: argparse.Namespace) -> int:
    from lmscale.config import OWN_SET
    from lmscale.data.clean.contamination import find_overlap
    from lmscale.data.clean.prepared import check_writable, shard_documents, write_without
    from lmscale.data.clean.settings import Contamination

    units = ("words", "bytes") if args.unit is None else (args.unit,)
    size = None if args.size is None else count("size", args.size)
    asked = [Contamination(unit=unit, size=size) for unit in units]
    study = _study(args)
    target = None if args.write is None else check_writable(Path(args.write), study.corpus)
    texts = _texts(args, study, lambda line: print(line, file=sys.stderr, flush=True))
    if target is not None and len(texts[OWN_SET]) > 1:
        raise InputError(f"write: {args.write!r} would be one text, and the study's is a mixture; write each Task's")
    found, overlaps = {}, []
    for settings in asked:
        began = time.monotonic()
        sets = {
            name: chain.from_iterable(shard_documents(part.shards.heldout, name) for part in text)
            for name, text in texts.items()
        }
        training = chain.from_iterable(shard_documents(part.shards.train, part.name) for part in texts[OWN_SET])
        overlap = find_overlap(training, sets, settings)
        found[settings.unit] = overlap.as_json()
        overlaps.append(overlap)
        rate = overlap.training_bytes / 1e6 / (time.monotonic() - began)
        say(args, f"{overlap.as_text()}\n  {overlap.training_bytes / 1e6:.1f} MB of training text, {rate:.1f} MB/s")
    if target is not None:
        written = write_without(texts[OWN_SET][0].shards, overlaps, study.corpus, target)
        say(
            args,
            f"{target}: {written.kept:,} training documents and all that are held out; without the {written.dropped:,} "
            f"that overlap ({written.dropped_bytes / 1e6:.2f} MB). Train on it with --corpus.files {target}",
        )
    if args.json:
        write_json(args.json, found)
    return 0

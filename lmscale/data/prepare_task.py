"""Prepares a Task of the user's: the shards of its source side by side, each run by seqio in one process.

TensorFlow is loaded where a Task is run, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.crew import work
from lmscale.data.folder_names import SOURCE
from lmscale.data.pieces import ENDING, Counts, Side, heldout_share, is_whole, write_piece
from lmscale.data.preparation import Echo, Progress, join, pieces_folder, versions
from lmscale.data.prepared import Place
from lmscale.data.shards import FEATURE, SPLITS, Vocabulary
from lmscale.store.files import write_atomic

if TYPE_CHECKING:
    import seqio

    from lmscale.data.examples import Example

PIECE_TOKENS = 1 << 20
PIECE_DOCUMENTS = 1 << 14


def prepare_task(place: Place, task: seqio.Task, echo: Echo, processes: int) -> Path:
    """Writes the prepared folder of a Task, whose lock the caller holds.

    Shards of the source that a killed preparation finished are not run again. A source that has one shard alone (a
    function, a single file) is run from its start, in one process.

    Raises:
        InputError: a Task without `train` split, `targets` or integer tokens; one that fails; no document on one side.
    """
    from lmscale.data.examples import shards
    from lmscale.data.tasks import vocabularies as described

    vocabularies, of = described(task), shards(task)
    done = 0
    progress = Progress(task.name, echo, lambda: done / of)
    with pieces_folder(place.folder, vocabularies) as pieces:
        waiting = [shard for shard in range(of) if not _finished(pieces, shard)]
        make = partial(_Runner, place.corpus, task.name, place.source, pieces, of, tuple(vocabularies))
        alone = min(processes, len(waiting)) <= 1
        if alone:  # the process has the Task, and can say how far it is
            make = partial(make, tell=progress.add)
        for counts in work(waiting, make, 1 if alone else processes):
            done += 1
            if not alone:
                progress.add(counts)
        echo(progress.line(left=False) + ", done")
        if of > 1 and len(waiting) < of:
            echo(f"prepare {task.name}: {of - len(waiting)} of {of} shards were there from an earlier preparation")
        order = [pieces / name for shard in range(of) for name in json.loads(_list(pieces, shard).read_text())]
        return join(place, vocabularies, order, lambda dropped: _about(place, task, vocabularies, dropped))


def _list(pieces: Path, shard: int) -> Path:
    """The file that names the pieces of a finished shard."""
    return pieces / f"shard-{shard:05d}.json"


def _finished(pieces: Path, shard: int) -> bool:
    try:
        return all(is_whole(pieces / name) for name in json.loads(_list(pieces, shard).read_text()))
    except (OSError, ValueError):
        return False


class _Runner:
    """Runs shards of one Task in the process that makes it."""

    def __init__(
        self,
        corpus: Corpus,
        name: str,
        source: str | None,
        pieces: Path,
        of: int,
        features: tuple[str, ...],
        tell: Callable[[Counts], None] | None = None,
    ) -> None:
        from lmscale.data import tasks
        from lmscale.data.examples import examples

        found = {member.task.name: member.task for member in tasks.members(tasks.find_task(corpus))}
        self._task, self._examples = found[name], examples
        self._corpus, self._source, self._pieces, self._of, self._tell = corpus, source, pieces, of, tell
        self._features = features

    def __call__(self, shard: int) -> Counts:
        """Writes the pieces of one shard, and the list of them once all are there. Returns what they hold."""
        names, total = [], Counts(documents=0, text_bytes=0, dropped=0, lowest_share=1.0)
        for index, gathered in enumerate(self._gather(shard)):
            names.append(f"{shard:05d}-{index:06d}{ENDING}")
            counts = gathered.write(self._pieces / names[-1])
            total = Counts(
                documents=total.documents + counts.documents,
                text_bytes=total.text_bytes + counts.text_bytes,
                dropped=total.dropped + counts.dropped,
                lowest_share=min(total.lowest_share, counts.lowest_share),
            )
            if self._tell is not None:
                self._tell(counts)
        write_atomic(_list(self._pieces, shard), json.dumps(names))
        return total

    def _gather(self, shard: int) -> Iterator[_Gathered]:
        gathered = _Gathered(self._features, self._corpus)
        for example in self._examples(self._task, shard, self._of):
            gathered.add(example, self._fields(example))
            if gathered.tokens >= PIECE_TOKENS or gathered.documents == PIECE_DOCUMENTS:
                yield gathered
                gathered = _Gathered(self._features, self._corpus)
        yield gathered

    def _fields(self, example: Example) -> dict[str, str]:
        fields = {}
        for field in self._corpus.slices:
            if field == SOURCE and self._source is not None:
                fields[field] = self._source
                continue
            value = example.given.get(field, self._task.name if field == SOURCE else None)
            if value is None:
                there = ", ".join(sorted(example.given))
                raise InputError(f"corpus.slices: {field!r} is not kept by {self._task.name!r} (its features: {there})")
            if isinstance(value, np.ndarray) and value.ndim:
                raise InputError(f"corpus.slices: {field!r} of {self._task.name!r} has rank {value.ndim}; name scalars")
            fields[field] = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return fields


class _Gathered:
    """Documents of a Task on their way into a piece."""

    def __init__(self, features: tuple[str, ...], corpus: Corpus) -> None:
        self._features, self._corpus = features, corpus
        self._sides: dict[str, list[tuple[Example, dict[str, str]]]] = {split: [] for split in SPLITS}
        self.tokens = self.documents = self._dropped = 0
        self._lowest = 1.0

    def add(self, example: Example, fields: dict[str, str]) -> None:
        if len(example.tokens[FEATURE]) == 0:
            self._dropped += 1
            return
        share = heldout_share(example.content)
        self._sides["heldout" if share < self._corpus.heldout else "train"].append((example, fields))
        self._lowest = min(self._lowest, share)
        self.documents += 1
        self.tokens += sum(map(len, example.tokens.values()))

    def write(self, path: Path) -> Counts:
        sides, total = {}, 0
        for split, given in self._sides.items():
            tokens, lengths, text_bytes = {}, {}, {}
            for feature in self._features:
                values = [example.tokens[feature] for example, _ in given]
                tokens[feature] = np.concatenate(values) if values else np.zeros(0, np.int32)
                lengths[feature] = np.fromiter(map(len, values), np.int64, len(values))
                text_bytes[feature] = np.array([example.text_bytes[feature] for example, _ in given], np.int64)
            slices = {field: [fields[field] for _, fields in given] for field in self._corpus.slices}
            sides[split] = Side(tokens=tokens, lengths=lengths, text_bytes=text_bytes, slices=slices)
            total += int(text_bytes[FEATURE].sum())
        counts = Counts(documents=self.documents, text_bytes=total, dropped=self._dropped, lowest_share=self._lowest)
        write_piece(path, sides, counts)
        return counts


def _about(place: Place, task: seqio.Task, vocabularies: dict[str, Vocabulary], dropped: int) -> dict[str, Any]:
    from lmscale.data import tasks

    models = {}
    for feature in vocabularies:
        path = tasks.model_file(task.output_features[feature].vocabulary)
        if path is not None and Path(path).is_file():
            content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            models[feature] = {"path": str(Path(path).resolve()), "sha256": content}
    return {
        "corpus": task.name,
        "task": task.name,
        "heldout": place.corpus.heldout,
        "source": {
            "fingerprint": place.fingerprint,
            "module": place.corpus.module,
            "dropped_empty": dropped,
            "models": models,  # a module may stay as it is while the file that it reads changes
        },
        "versions": versions(["seqio", "tensorflow"]),
    }

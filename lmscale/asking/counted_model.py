"""The n-gram of a finished run. Its record keeps no counts: its text is counted again, which gives the same tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.asking.decoding import Told, Written
from lmscale.asking.found_run import FIELD, FoundRun
from lmscale.asking.prompts import Asked
from lmscale.asking.sampling import Numbers, Sampling, draw
from lmscale.data.loader import Loader
from lmscale.data.shards import MANIFEST, Shards, Vocabulary, open_shards
from lmscale.ngram import KneserNey, estimate
from lmscale.ngram_counts import NgramCounts
from lmscale.shapes import NgramShape

BLOCK_WINDOWS = 4096  # counted at a time


class Counted:
    """An n-gram as a model that can be asked. Its counts are its cache: a token depends on order - 1 others."""

    module = None

    def __init__(self, params: KneserNey, end: int | None):
        self.params, self.end = params, end
        self._draw = jax.jit(draw, static_argnames="filters")

    def scores(self, asked: Sequence[Asked]) -> list[Told]:
        found = []
        for each in asked:
            row = np.array([[*each.inputs, each.targets[-1]]], np.int32)
            told = -self.params.token_nats(row)[0][each.scored]
            first = len(each.targets) - len(told)
            best = [self._following(row[0, : first + i + 1]).max() <= p + 1e-9 for i, p in enumerate(told)]
            found.append(Told(log_probs=told, likeliest=np.array(best, bool)))
        return found

    def write(self, asked: Sequence[Asked], sampling: Sampling, most: int, known: int) -> list[Written]:
        numbers, key = sampling.numbers(self.params.vocab), jax.random.key(sampling.seed)
        return [self._write(each, numbers, jax.random.fold_in(key, row), sampling.filters, most)
                for row, each in enumerate(asked)]  # fmt: skip

    def _write(self, asked: Asked, numbers: Numbers, key: Any, filters: bool, most: int) -> Written:
        row, tokens, costs = list(asked.inputs), [], []
        for number in range(most):
            said = self._following(np.array(row, np.int32))
            keys = jax.random.fold_in(key, number)[None]
            token = int(self._draw(said[None].astype(np.float32), keys, numbers, filters=filters)[0])
            if token == self.end:
                return Written(tokens=tuple(tokens), log_probs=tuple(costs), ended=True)
            row.append(token)
            tokens.append(token)
            costs.append(float(said[token]))
        return Written(tokens=tuple(tokens), log_probs=tuple(costs), ended=False)

    def _following(self, before: NDArray[np.int32]) -> NDArray[np.float64]:
        """ln p of every token [V] after these, of which the last order - 1 are looked at."""
        context = before[max(0, len(before) - max(1, self.params.order - 1)) :]
        every = np.arange(self.params.vocab, dtype=np.int32)[:, None]
        windows = np.concatenate([np.tile(context, (self.params.vocab, 1)), every], axis=1)
        return -self.params.token_nats(windows)[:, -1]


def recount(run: FoundRun, vocabulary: Vocabulary) -> Counted:
    """Counts what the run counted. Raises InputError where its text is not there, is a mixture or a part of one, or
    gives another number of counts.
    """
    assert isinstance(run.shape, NgramShape)
    text, rules = run.record["text"], run.record["identity"]["hyperparameters"]
    shards = _shards(run, text["corpus"])
    sampler = Loader(
        parts=((shards.train, 1.0),),
        sequence=run.sequence,
        batch_sequences=rules["batch_sequences"],
        seed=run.record["row"]["seed"],
    )
    end = vocabulary.eos_id if run.documents_apart else None
    counts = NgramCounts(order=run.shape.order, vocab=run.shape.vocab, eos_id=end)
    for first in range(0, run.step, BLOCK_WINDOWS):
        windows = sampler.batches(first, min(first + BLOCK_WINDOWS, run.step))
        counts.add(windows.reshape(-1, windows.shape[-1]))
    model = estimate(counts)
    if model.params != run.params:
        raise InputError(
            f"{FIELD}: {run.run_id!r} has {run.params:,} counts, and its text gives {model.params:,} when it is "
            "counted again, as one of which corpus.unique_tokens took a part does; name a run of all of a text"
        )
    return Counted(model, vocabulary.eos_id)


def _shards(run: FoundRun, corpus: str) -> Shards:
    """The prepared text of a run, by the digest in its name."""
    name, _, digest = corpus.rpartition("-")
    for path in sorted(Path(run.shards).glob(f"*/{MANIFEST}")):
        try:
            shards = open_shards(path.parent)
        except InputError:  # damaged, or of another version
            continue
        if shards.digest.startswith(digest):
            shards.verify()
            return shards
    raise InputError(
        f"{FIELD}: an n-gram keeps no counts, and the text of {run.run_id!r} ({name}, digest {digest}) is not in "
        f"{str(run.shards)!r} to be counted again (mixtures are not); prepare it again, or name a network"
    )

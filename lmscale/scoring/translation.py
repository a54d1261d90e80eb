"""How a model translates: its own greedy output for the sources of an evaluation set, beside what is asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.solving.proportions import wilson
from lmscale.data.loader import EvaluationSet
from lmscale.data.permutation import permute
from lmscale.data.tokenizers import bytes_of
from lmscale.evaluate import NamedSet, Score, by_window
from lmscale.study.corpora import TRANSLATED

if TYPE_CHECKING:
    from lmscale.step import Step

PAIRS = 256  # each costs a forward pass for every token that is written
SAMPLE_KEY = 0x7AB  # fixed: every model translates the same sources
SLACK = 1.25  # what is written may be longer than the longest target of the sample by so much
GROUPS = 32  # of pairs, for the jackknife of chrF: Efron & Stein 1981 (Ann. Statist. 9:586), here by groups


@dataclass(frozen=True, kw_only=True)
class Translations(NamedSet):
    """Pairs of an evaluation set. `windows` are wide enough for each source and what may be written after it."""

    given: NDArray[np.float32]  # [M, T]: 1 for the tokens of the source and the separator, 0 for what is asked for

    @property
    def scored(self) -> int:
        return len(self.given)

    @property
    def unit(self) -> str:
        return "pairs"

    @property
    def read_tokens(self) -> int:
        """At the most: all of a window for every token that is written."""
        return self.given.size * int((self.given.shape[1] - self.given.sum(axis=1)).max())

    def measure(self, step: Step, params: Any) -> list[Score]:
        """exact: the share of sources for which the model writes the target and its end, with a 95 % interval (Wilson
        1927). chrf: chrF of what it writes, 0 to 100 (Popovic 2015, W15-3049: character 6-grams, beta 2), by sacrebleu
        over the whole sample, with a standard error by the jackknife over groups of pairs. pairs: how many.
        """
        targets, end = self.windows.tokens[:, 1:], int(self.windows.tokens[0, 0])
        asked = np.where(self.given > 0, self.windows.tokens[:, 1:], 0)
        start = np.concatenate([self.windows.tokens[:, :1], asked], axis=1)
        (found,) = by_window(step.written, params, start, self.given, step.row_devices)
        mine = [_answer(row, told, end) for row, told in zip(found.astype(np.int32), self.given, strict=True)]
        right = [_answer(row, told, end) for row, told in zip(targets, self.given, strict=True)]
        hits = sum(a == b for a, b in zip(mine, right, strict=True))
        count = len(right)
        share, (low, high) = hits / count, wilson(hits, count)
        spread = math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else None
        chrf, stderr = corpus_chrf(*([bytes_of(x).decode(errors="replace") for x in each] for each in (mine, right)))
        return [
            Score(metric="exact", value=share, stderr=spread),
            Score(metric="exact_low", value=low, stderr=None),
            Score(metric="exact_high", value=high, stderr=None),
            Score(metric="chrf", value=chrf, stderr=stderr),
            Score(metric="pairs", value=count, stderr=None),
        ]


def _answer(tokens: NDArray[np.int32], given: NDArray[np.float32], end: int) -> tuple[int, ...]:
    """What stands after the tokens that were given, up to end-of-sequence and with it, if it is there."""
    rest = tokens[int(given.sum()) :].tolist()
    return tuple(rest[: rest.index(end) + 1] if end in rest else rest)


def corpus_chrf(written: Sequence[str], asked: Sequence[str]) -> tuple[float, float | None]:
    """chrF of a corpus and its standard error (None: of one text), by leaving out a group of texts at a time."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()  # its own resampling fails where some resamples have 0 (sacrebleu 2.6)

    def score(kept: Sequence[int]) -> float:
        return float(metric.corpus_score([written[i] for i in kept], [[asked[i] for i in kept]]).score)

    every, groups = range(len(written)), min(GROUPS, len(written))
    if groups == 1:
        return score(every), None
    left = np.array([score([i for i in every if i % groups != group]) for group in range(groups)])
    return score(every), math.sqrt((groups - 1) / groups * float(np.sum((left - left.mean()) ** 2)))


def translations(of: NamedSet, separator_id: int, pairs: int = PAIRS) -> Translations:
    """At most that many pairs of an evaluation set, in a fixed order, of which a smaller number takes the first.

    Raises InputError where sacrebleu is not installed, and for a document that is no whole pair.
    """
    if importlib.util.find_spec("sacrebleu") is None:
        raise InputError("objective: 'pairs' is scored by sacrebleu; pip install 'lmscale[translation]'")
    held = of.windows
    every = np.arange(len(held.tokens)), held.weights.sum(axis=1, dtype=np.float64).astype(int)
    whole = (held.tokens[every] == held.tokens[:, 0]) & (np.sum(held.tokens == separator_id, axis=1) == 1)
    rows = permute(np.arange(min(pairs, len(held.tokens))), len(held.tokens), seed=SAMPLE_KEY, epoch=0)
    tokens, lengths = held.tokens[rows], held.weights[rows].sum(axis=1, dtype=np.float64).astype(int)
    sequence = held.weights.shape[1]
    if not whole.all():
        raise InputError(
            f"recipe.sequence: {sequence} tokens of {of.name!r} do not hold a whole pair, a source, a tab and a "
            "target; raise it, or give files of pairs (.tsv)"
        )
    sources = np.argmax(tokens[:, 1:] == separator_id, axis=1) + 1  # tokens of each, the separator among them
    most = min(sequence, int(sources.max()) + math.ceil(SLACK * int((lengths - sources).max())))
    windows = _of(held, rows, most)
    given = (np.arange(most) < sources[:, None]).astype(np.float32)
    name = of.name + TRANSLATED
    return Translations(name=name, label=f"{of.label}-{len(rows)}", windows=windows, given=given)


def _of(held: EvaluationSet, rows: NDArray[np.int64], length: int) -> EvaluationSet:
    """Some windows of a set, cut to a length that leaves out padding alone."""
    tokens, weights, documents = held.tokens[rows, : length + 1], held.weights[rows, :length], held.documents[rows]
    digest = hashlib.sha256(f"{held.digest} {rows.tolist()} {length}".encode()).hexdigest()
    sizes = held.window_bytes[rows]
    return EvaluationSet(
        tokens=tokens,
        weights=weights,
        documents=documents,
        bytes_scored=round(float(sizes.sum())),
        digest=digest,
        window_bytes=sizes,
    )

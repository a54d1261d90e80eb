"""Asks a model for planted facts (lmscale.data.facts): which attribute it gives to each name, and how surely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.solving.proportions import wilson
from lmscale.data.facts import FACTS_SET, Fact, Facts, make_facts
from lmscale.data.loader import EvaluationSet, made_set
from lmscale.data.shards import Vocabulary
from lmscale.data.tokenizers import BYTE_OFFSET
from lmscale.evaluate import NamedSet, Score, by_window
from lmscale.study.typed import check

if TYPE_CHECKING:
    from lmscale.step import Step


@dataclass(frozen=True, kw_only=True)
class FactSet(NamedSet):
    """Facts as windows: for each fact, one for every attribute that it could have, of which the attribute counts."""

    facts: tuple[Fact, ...]
    attributes: int

    def measure(self, step: Step, params: Any) -> list[Score]:
        """For all facts and for those of each count of repeats: shares with 95 % intervals (Wilson 1927), means with
        their standard errors over facts.

        recall: the right attribute is the likeliest of all; log_prob: its log-probability among them, in nats;
        exact: what the model writes after the sentence's beginning, the likeliest token each time, is the attribute.
        """
        windows, devices = self.windows, step.row_devices
        nats, _ = by_window(step.token_losses, params, windows.tokens, windows.weights, devices)
        nats = nats.sum(axis=1).reshape(len(self.facts), self.attributes)
        right = np.array([fact.attribute for fact in self.facts])
        rows = np.arange(len(right)) * self.attributes + right
        (misses,) = by_window(step.window_misses, params, windows.tokens[rows], windows.weights[rows], devices)
        every = np.arange(len(right))
        log_prob = -nats[every, right] - np.logaddexp.reduce(-nats, axis=1)
        best = nats[every, right] <= nats.min(axis=1)
        counts = np.array([fact.repeats for fact in self.facts])
        scores = _scores(best, misses == 0, log_prob, "")
        scores.append(Score(metric="chance", value=1 / self.attributes, stderr=None))
        for repeats in np.unique(counts).tolist():
            some = counts == repeats
            scores += _scores(best[some], misses[some] == 0, log_prob[some], f"repeats={repeats}")
        return scores


def _scores(best: np.ndarray, exact: np.ndarray, log_prob: np.ndarray, part: str) -> list[Score]:
    scores = []
    count = len(best)
    for metric, hits in (("recall", best), ("exact", exact)):
        share = float(hits.mean())
        stderr = math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else None
        scores.append(Score(metric=metric, value=share, stderr=stderr, slice=part))
        low, high = wilson(int(hits.sum()), count)
        scores.append(Score(metric=f"{metric}_low", value=low, stderr=None, slice=part))
        scores.append(Score(metric=f"{metric}_high", value=high, stderr=None, slice=part))
    spread = float(log_prob.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    scores.append(Score(metric="log_prob", value=float(log_prob.mean()), stderr=spread, slice=part))
    scores.append(Score(metric="facts", value=count, stderr=None, slice=part))
    return scores


def fact_set(facts: Facts, vocabulary: Vocabulary, sequence: int) -> FactSet:
    """The facts of a corpus as an evaluation set. Raises InputError where they do not fit its windows, or its tokens
    are no bytes.
    """
    name = "corpus.facts"
    check(vocabulary.name == "bytes", name, str(facts), f"is asked in bytes, and the text is in {vocabulary.name!r}")
    made, pool = make_facts(facts), facts.pool
    longest = max(len(fact.before) + 1 + len(pool[0]) for fact in made)
    check(
        longest <= sequence,
        "recipe.sequence",
        sequence,
        f"is shorter than a planted fact; give it at least {longest} tokens",
    )
    windows = _windows(made, pool, vocabulary.start_id, sequence)
    label = f"{FACTS_SET}-{len(made)}-{windows.digest[:8]}"
    return FactSet(name=FACTS_SET, label=label, windows=windows, facts=made, attributes=len(pool))


def _windows(made: Sequence[Fact], pool: Sequence[str], start_id: int, sequence: int) -> EvaluationSet:
    """[facts x pool] windows: a line break, as before every planted sentence, its beginning, and an attribute."""
    tokens = np.zeros((len(made) * len(pool), sequence + 1), np.int32)
    weights = np.zeros((len(tokens), sequence), np.float32)
    tokens[:, 0] = start_id
    for row in range(len(tokens)):
        fact, attribute = made[row // len(pool)], pool[row % len(pool)].encode()
        before = b"\n" + fact.before.encode()
        line = np.frombuffer(before + attribute, np.uint8)
        tokens[row, 1 : len(line) + 1] = line.astype(np.int32) + BYTE_OFFSET
        weights[row, len(before) : len(line)] = 1
    documents = np.repeat(np.arange(len(made), dtype=np.int32), len(pool))
    told = [(fact.repeats, fact.attribute) for fact in made]
    return made_set(tokens, weights, documents, told)

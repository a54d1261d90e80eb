"""What a model's answers are worth, by several metrics of the same outputs (docs/tasks.md says what each is)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analysis.solving.proportions import wilson
from lmscale.evaluate import Score
from lmscale.tasks.item import Item

Numbers = NDArray[np.float64]


def ability_scores(
    items: Sequence[Item],
    option_nats: Sequence[Numbers],
    answer_nats: Numbers,
    written: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    part: str,
) -> list[Score]:
    """Of one part of a task. `option_nats`: of each item minus the log-probability of every option, in their order;
    `answer_nats` [n]: the same of the answers. `written`: what a model writes, `answers`: what is asked for, in tokens,
    without the end of the line.

    A tie of the right option with another counts as right.
    """
    scores: list[Score] = []
    if items[0].options:
        hits, brier, among = _chosen(items, option_nats)
        scores += _share("accuracy", hits, part)
        scores += [_mean("brier", brier, part), _mean("correct_prob", among, part)]
    exact = np.array([list(a) == list(b) for a, b in zip(written, answers, strict=True)])
    scores += _share("exact_match", exact, part)
    far = [edit_distance(a, b) / len(b) for a, b in zip(written, answers, strict=True)]
    sizes = np.array([len((item.answer + item.end).encode()) for item in items])
    scores += [
        _mean("token_edit_distance", np.array(far), part),
        _mean("log_prob", -answer_nats, part),
        _mean("log_prob_per_byte", -answer_nats / sizes, part),
        Score(metric="chance", value=math.fsum(item.chance for item in items) / len(items), stderr=None, slice=part),
        Score(metric="items", value=len(items), stderr=None, slice=part),
    ]
    return scores


def _chosen(items: Sequence[Item], option_nats: Sequence[Numbers]) -> tuple[NDArray[np.bool_], Numbers, Numbers]:
    """Of each item whether the right option is the likeliest; the Brier score of the options' shares of probability,
    sum (p - y)^2 (Brier 1950, Mon. Weather Rev. 78:1); and the right one's share.
    """
    hits, brier, among = [], [], []
    for item, nats in zip(items, option_nats, strict=True):
        right = item.options.index(item.answer)
        p = np.exp(nats.min() - nats)
        p /= p.sum()
        hits.append(nats[right] <= nats.min())
        brier.append(float(np.sum((p - np.eye(len(p))[right]) ** 2)))
        among.append(float(p[right]))
    return np.array(hits), np.array(brier), np.array(among)


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Insertions, deletions and substitutions between two sequences (Levenshtein 1966)."""
    before = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        now = [i]
        for j, b in enumerate(second, 1):
            now.append(min(before[j] + 1, now[-1] + 1, before[j - 1] + (a != b)))
        before = now
    return before[-1]


def _share(metric: str, hits: NDArray[np.bool_], part: str) -> list[Score]:
    """A share with its 95 % interval (Wilson 1927)."""
    count, value = len(hits), float(hits.mean())
    stderr = math.sqrt(value * (1 - value) / (count - 1)) if count > 1 else None
    low, high = wilson(int(hits.sum()), count)
    return [
        Score(metric=metric, value=value, stderr=stderr, slice=part),
        Score(metric=f"{metric}_low", value=low, stderr=None, slice=part),
        Score(metric=f"{metric}_high", value=high, stderr=None, slice=part),
    ]


def _mean(metric: str, values: Numbers, part: str) -> Score:
    spread = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Score(metric=metric, value=float(values.mean()), stderr=spread, slice=part)

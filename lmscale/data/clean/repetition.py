"""Gopher's repetition rules: Rae et al. 2021, App. A.1.1 and Table A1.

What occurs a second time or later is a duplicate, the first is not. Shares of characters are of those of the lines, the
paragraphs or the words (white space between words is no part of either side). The characters of a top gram are its own
times its occurrences; those of duplicate grams are counted once where grams overlap, as the paper asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmscale.data.clean.settings import Repetition
from lmscale.data.clean.verdict import Verdict, dropped, kept

PARAGRAPH_END = re.compile(r"\n\s*\n")
TOP_WORDS = (2, 3, 4)
DUPLICATE_WORDS = (5, 6, 7, 8, 9, 10)


class GopherRepetition:
    def __init__(self, settings: Repetition) -> None:
        self.settings = settings

    def __call__(self, name: str, text: str) -> Verdict:
        s = self.settings
        for pieces, many, characters in (
            (text.splitlines(), "lines_max", "line_characters_max"),
            (PARAGRAPH_END.split(text), "paragraphs_max", "paragraph_characters_max"),
        ):
            share, share_characters = duplicates(pieces)
            if share > getattr(s, many):
                return dropped(many, share)
            if share_characters > getattr(s, characters):
                return dropped(characters, share_characters)
        top, duplicate = grams(text.split())
        for rule, sizes, shares, most in (
            ("top_grams_max", TOP_WORDS, top, s.top_grams_max),
            ("duplicate_grams_max", DUPLICATE_WORDS, duplicate, s.duplicate_grams_max),
        ):
            for size, share, limit in zip(sizes, shares, most, strict=True):
                if share > limit:
                    return dropped(rule, f"{share:.3f} of {size} words")
        return kept(text)


def duplicates(pieces: Sequence[str]) -> tuple[float, float]:
    """Shares of pieces, and of their characters, that have been there before; blank pieces do not count."""
    seen: set[str] = set()
    count = characters = repeated = repeated_characters = 0
    for piece in map(str.strip, pieces):
        if not piece:
            continue
        count += 1
        characters += len(piece)
        if piece in seen:
            repeated += 1
            repeated_characters += len(piece)
        seen.add(piece)
    return (repeated / count, repeated_characters / characters) if count else (0.0, 0.0)


def grams(words: Sequence[str]) -> tuple[list[float], list[float]]:
    """The shares of characters in the top gram of 2, 3 and 4 words, and in duplicate grams of 5 to 10.

    Grams are told apart exactly: each is the number of the gram that is a word shorter, with that of its last word.
    """
    numbers: dict[str, int] = {}
    word_ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.int64, len(words))
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    top, duplicate = [0.0] * len(TOP_WORDS), [0.0] * len(DUPLICATE_WORDS)
    ids, starts = word_ids, np.arange(len(words))
    for size in range(2, DUPLICATE_WORDS[-1] + 1):
        inside = starts + size <= len(words)
        ids, starts = ids[inside], starts[inside]
        if len(starts) == 0:
            break
        pairs = ids * len(numbers) + word_ids[starts + size - 1]
        _, first, ids, counts = np.unique(pairs, return_index=True, return_inverse=True, return_counts=True)
        if (most := counts.max()) == 1:
            break
        if size in TOP_WORDS:
            tops = starts[first[counts == most]]  # of several that are as frequent, the longest
            top[size - TOP_WORDS[0]] = min(1.0, float((ends[tops + size] - ends[tops]).max() * most / ends[-1]))
        else:
            later = np.ones(len(ids), bool)
            later[first] = False
            duplicate[size - DUPLICATE_WORDS[0]] = _covered(starts[later], size, lengths)
        repeated = counts[ids] > 1  # a longer gram that occurs twice begins with one that does
        ids, starts = ids[repeated], starts[repeated]
    return top, duplicate


def _covered(starts: NDArray[np.int64], size: int, lengths: NDArray[np.int64]) -> float:
    """Share of the characters that lie in the grams that start there."""
    edges = np.zeros(len(lengths) + 1, np.int64)  # +1 where a gram begins, -1 behind its last word
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + size, -1)
    return float(lengths[np.cumsum(edges[:-1]) > 0].sum() / lengths.sum())

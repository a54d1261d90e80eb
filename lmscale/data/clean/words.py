"""Words and sentences of a text, and numbers that stand for words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

BLOCK_CHARACTERS = 1 << 22  # of text that is held as words at a time: a word takes some 60 bytes
WORDS_KNOWN = 1 << 19  # words whose numbers are remembered, some 100 MB at most
SPACE = re.compile(r"\s")
# An end mark with the quotes and brackets that close with it, or the end of a line
SENTENCE_END = re.compile(r"[.!?]+[\"')\]\u201d\u2019]*\s+|\n\s*")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: golden ratio, as in SplitMix64 (Steele et al. 2014)


class WordNumbers(dict[str, int]):
    """The 64-bit number of a word, the same in every process (BLAKE2b)."""

    def __missing__(self, word: str) -> int:
        if len(self) >= WORDS_KNOWN:
            self.clear()
        number = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        self[word] = number
        return number


def blocks_of_words(text: str) -> Iterator[list[str]]:
    """The words of a text, in lists of a bounded size."""
    start = 0
    while start < len(text):
        end = start + BLOCK_CHARACTERS
        if end < len(text):
            space = SPACE.search(text, end)
            end = space.start() if space else len(text)
        yield text[start:end].split()
        start = end


def gram_hashes(numbers: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """uint64 [n - size + 1]: a hash of every `size` numbers that follow each other."""
    count = len(numbers) - size + 1
    hashes = numbers[:count].copy()
    for offset in range(1, size):  # arithmetic modulo 2^64 is meant: arrays wrap around in silence
        hashes *= MULTIPLIER
        hashes += numbers[offset : offset + count]
    return mix(hashes)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele et al. 2014): a bijection that makes every bit depend on all."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def sentences(text: str) -> list[tuple[int, int]]:
    """Where each sentence starts and ends, white space behind it included; what is white alone joins the one before."""
    bounds: list[tuple[int, int]] = []
    start = 0
    for end in [*(match.end() for match in SENTENCE_END.finditer(text)), len(text)]:
        if text[start:end].strip():
            bounds.append((start, end))
            start = end
        elif bounds:
            bounds[-1] = (bounds[-1][0], end)
            start = end
    return bounds

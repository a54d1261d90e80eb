"""An index of the grams of evaluation documents, and the search for them in a stream of other documents.

A document is an array of symbols: bytes, or numbers of words. Grams are found by a rolling hash over whole blocks of
text, and every find is verified symbol by symbol, so that no hash can accuse. Memory is bounded by the evaluation
documents: their symbols, 16 bytes a gram and as much for each document that holds it, and a filter of 16 to 32 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmscale.data.clean.words import mix

VERIFIED = 1 << 14  # finds compared at a time
BASES = (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB)  # odd
FILTER_BITS_MIN, FILTER_BITS_MAX = 16, 32


@dataclass(frozen=True, kw_only=True)
class Finds:
    """Grams of the index found in a block: which document of the block holds which gram, each pair once, in order."""

    documents: NDArray[np.int64]
    grams: NDArray[np.int64]
    places: NDArray[np.int64]  # where the gram first stands in that document's symbols


class GramIndex:
    """The different grams of `size` symbols of some documents, numbered; and which documents hold each."""

    def __init__(self, documents: Sequence[NDArray], size: int) -> None:
        self.size = size
        dtype = documents[0].dtype if documents else np.dtype(np.uint8)
        self._symbols: NDArray = np.concatenate(documents) if documents else np.zeros(0, dtype)
        offsets = np.concatenate([[0], np.cumsum([len(document) for document in documents], dtype=np.int64)])
        owners = np.repeat(np.arange(len(documents)), np.diff(offsets))
        starts = _starts(offsets, size)
        for base in BASES:
            hashes = rolling(self._symbols, size, base)[starts]
            order = np.argsort(hashes, kind="stable")
            ordered, places = hashes[order], starts[order]
            new = np.ones(len(ordered), bool)
            new[1:] = ordered[1:] != ordered[:-1]
            group = np.cumsum(new) - 1
            examples = places[new]
            if self._same(self._symbols, places[~new], examples[group[~new]]).all():  # equal hashes, equal grams
                break
        else:
            raise ValueError("different grams have equal hashes under every base")  # some 2^-64 a pair, for each base
        self._base, self._hashes, self._examples = base, ordered[new], examples
        # (gram, document) pairs in which it occurs, each once: the sort was stable, so equal ones follow each other
        holders = owners[places]
        new[1:] |= holders[1:] != holders[:-1]
        self.gram_of_pair, self.document_of_pair = group[new], holders[new]
        bits = min(FILTER_BITS_MAX, max(FILTER_BITS_MIN, (16 * len(self._hashes)).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, bool)
        self._filter[self._hashes >> self._shift] = True

    @property
    def grams(self) -> int:
        return len(self._hashes)

    def gram(self, number: int) -> NDArray:
        """The symbols of a gram."""
        return self._symbols[self._examples[number] : self._examples[number] + self.size]

    def find(self, documents: Sequence[NDArray]) -> Finds:
        """The grams of the index in a block of documents, verified."""
        symbols = np.concatenate(documents)
        offsets = np.concatenate([[0], np.cumsum([len(document) for document in documents], dtype=np.int64)])
        hashes = rolling(symbols, self.size, self._base)
        places = np.flatnonzero(self._filter[hashes >> self._shift])
        owners = np.searchsorted(offsets, places, side="right") - 1
        inside = places + self.size <= offsets[owners + 1]  # a gram does not reach into the next document
        places, owners = places[inside], owners[inside]
        grams = np.minimum(np.searchsorted(self._hashes, hashes[places]), max(0, self.grams - 1))
        equal = self._hashes[grams] == hashes[places] if self.grams else np.zeros(0, bool)
        places, owners, grams = places[equal], owners[equal], grams[equal]
        same = self._same(symbols, places, self._examples[grams])
        places, owners, grams = places[same], owners[same], grams[same]
        _, first = np.unique(owners * max(1, self.grams) + grams, return_index=True)
        places, owners, grams = places[first], owners[first], grams[first]
        return Finds(documents=owners, grams=grams, places=places - offsets[owners])

    def _same(self, symbols: NDArray, places: NDArray, examples: NDArray) -> NDArray[np.bool_]:
        """Whether the grams of `symbols` at `places` are those of the index at `examples`."""
        span, same = np.arange(self.size), np.ones(len(places), bool)
        for start in range(0, len(places), VERIFIED):
            part = slice(start, start + VERIFIED)
            left, right = symbols[places[part, None] + span], self._symbols[examples[part, None] + span]
            same[part] = (left == right).all(axis=1)
        return same


def rolling(symbols: NDArray, size: int, base: int) -> NDArray[np.uint64]:
    """uint64 [max(0, n - size + 1)]: a hash of every gram, a polynomial in `base` modulo 2^64 that is mixed at the end.

    By doubling: the hash of 2 m symbols is that of the first m times base^m plus that of the next m.
    """
    count = len(symbols) - size + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    hashes: NDArray[np.uint64] = symbols.astype(np.uint64) + np.uint64(1)
    multiplier = np.array([base], np.uint64)
    total: NDArray[np.uint64] | None = None
    done, span = 0, 1
    while True:
        if size & span:
            part = hashes[done : done + count]
            total = part.copy() if total is None else total * multiplier + part
            done += span
        if done == size:
            assert total is not None
            return mix(total)
        hashes = hashes[:-span] * multiplier + hashes[span:]
        multiplier, span = multiplier * multiplier, 2 * span


def _starts(offsets: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Where a gram can start without reaching into the next document."""
    counts = np.maximum(0, np.diff(offsets) - size + 1)
    first = np.repeat(offsets[:-1] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return first + np.arange(counts.sum())

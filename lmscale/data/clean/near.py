"""Near duplicates: MinHash (Broder 1997) with locality-sensitive hashing, every candidate verified.

The MinHash is rensa's: on the same sets it finds as many pairs as datasketch, several times faster
(tests/bench/clean.py measures both). Only the bands are kept of it; the similarity that decides is that of the two sets
of shingles.
"""

from __future__ import annotations

import tempfile
from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.data.clean.libraries import library
from lmscale.data.clean.settings import Near
from lmscale.data.clean.words import MULTIPLIER, WordNumbers, blocks_of_words, gram_hashes, mix

SEED = 0x5CA1AB1E


@dataclass(frozen=True, kw_only=True)
class Shingles:
    """A document as near duplicates see it. Computed anywhere; compared in one place, in order."""

    bands: list[int]  # 64-bit keys, one a band
    hashes: NDArray[np.uint32]  # of its different shingles, sorted


class Shingler:
    """Shingles of `words` words that follow each other, lower case; a shorter text is one shingle."""

    def __init__(self, settings: Near) -> None:
        self.settings = settings
        self._rensa: Any = library("rensa", "near")
        self._numbers = WordNumbers()

    def __call__(self, text: str) -> Shingles:
        size, parts = self.settings.words, []
        carried = np.zeros(0, np.uint64)  # the last words of a block, whose shingles reach into the next
        for words in blocks_of_words(text):
            numbers = np.array([self._numbers[word] for word in map(str.lower, words)], np.uint64)
            numbers = np.concatenate([carried, numbers])
            if len(numbers) >= size:
                parts.append(np.unique(gram_hashes(numbers, size)))
            carried = numbers[len(numbers) - min(len(numbers), size - 1) :]
        if not parts and len(carried):
            parts.append(gram_hashes(carried, len(carried)))
        hashes = np.unique(np.concatenate(parts)) if parts else np.zeros(1, np.uint64)
        return Shingles(bands=self._bands(hashes), hashes=np.unique((hashes >> np.uint64(32)).astype(np.uint32)))

    def _bands(self, hashes: NDArray[np.uint64]) -> list[int]:
        s = self.settings
        matrix = self._rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, [0, len(hashes)], s.bands * s.rows, SEED
        )
        rows = np.array(matrix.to_rows()[0], np.uint64).reshape(s.bands, s.rows)
        keys = np.arange(s.bands, dtype=np.uint64)  # a band's number goes in, so that one table holds all bands
        for column in rows.T:
            keys = keys * MULTIPLIER + column
        return mix(keys).tolist()


class NearDuplicates:
    """Documents kept so far, to which each next one is compared.

    Memory: the keys of the bands, measured at 1.4 kB a kept document (tests/bench/clean.py). Shingles, 4 bytes each,
    lie in an unnamed temporary file, and those of candidates are read back.
    """

    def __init__(self, settings: Near) -> None:
        self.settings = settings
        self._holders: dict[int, int | list[int]] = {}  # key of a band -> kept documents that have it
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._offsets = array("q", [0])

    def add(self, shingles: Shingles) -> float:
        """The similarity to the first kept document that is near enough; otherwise 0, and the document is kept."""
        for candidate in sorted(self._candidates(shingles.bands)):
            if (similarity := jaccard(shingles.hashes, self._read(candidate))) >= self.settings.jaccard_min:
                return similarity
        number = len(self._offsets) - 1
        for key in shingles.bands:
            held = self._holders.get(key)
            if held is None:
                self._holders[key] = number
            elif isinstance(held, int):
                self._holders[key] = [held, number]
            else:
                held.append(number)
        self._spool.seek(self._offsets[-1])
        self._spool.write(shingles.hashes.tobytes())
        self._offsets.append(self._offsets[-1] + shingles.hashes.nbytes)
        return 0.0

    def _candidates(self, bands: list[int]) -> set[int]:
        found: set[int] = set()
        for key in bands:
            held = self._holders.get(key)
            if isinstance(held, int):
                found.add(held)
            elif held is not None:
                found.update(held)
        return found

    def _read(self, number: int) -> NDArray[np.uint32]:
        self._spool.seek(self._offsets[number])
        return np.frombuffer(self._spool.read(self._offsets[number + 1] - self._offsets[number]), np.uint32)

    def close(self) -> None:
        self._spool.close()


def jaccard(first: NDArray, second: NDArray) -> float:
    """|A and B| / |A or B| of two sorted sets."""
    if min(len(first), len(second)) == 0:
        return float(len(first) == len(second))
    places = np.minimum(np.searchsorted(first, second), len(first) - 1)
    shared = int(np.count_nonzero(first[places] == second))
    return shared / (len(first) + len(second) - shared)

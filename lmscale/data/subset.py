"""Limited text: the first documents of a split in a fixed keyed order, as many as hold a number of tokens."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.data.permutation import permute
from lmscale.data.shards import Split, Vocabulary

SUBSET_KEY = 0xF1A15  # fixed: every seed and every study takes the same documents
BLOCK_DOCUMENTS = 1 << 16  # whose lengths are looked up at a time


class Subset:
    """`tokens` tokens of a split, read as a split is: whole documents end to end in a keyed order, the last one cut.

    A smaller subset is the beginning of a larger one. Of documents that are left out, tokens are never read. Held are
    16 bytes for each document taken (of 10^8 of them, 1.6 GB); nothing for those left out.

    Raises:
        InputError: the split holds fewer tokens; `whose` names it.
    """

    def __init__(self, split: Split, tokens: int, whose: str) -> None:
        if tokens > split.tokens:
            raise InputError(
                f"corpus.unique_tokens: {tokens} exceeds the {split.tokens:,} tokens of {whose}; lower it, or leave it "
                "out to train on all"
            )
        self.split, self.tokens = split, tokens
        self.documents, self._starts = self._choose()

    @property
    def vocabulary(self) -> Vocabulary:
        return self.split.vocabulary

    @cached_property
    def total_bytes(self) -> int:
        """UTF-8 bytes of text; of a document that is cut, its tokens' share."""
        sizes = self.split.bytes[self.documents]
        if len(sizes) == 0:
            return 0
        offsets, last = self.split.offsets, int(self.documents[-1])
        whole = int(offsets[last + 1]) - int(offsets[last])
        return int(sizes[:-1].sum()) + round(int(sizes[-1]) * (self.tokens - int(self._starts[-1])) / whole)

    def read(self, start: int, stop: int) -> NDArray:
        """Tokens [start, stop) as stored. Raises IndexError outside [0, tokens]."""
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"tokens [{start}, {stop}) are not within the {self.tokens} of the subset")
        index = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces = []
        while start < stop or not pieces:
            end = int(self._starts[index + 1]) if index + 1 < len(self._starts) else self.tokens
            shift = int(self.split.offsets[self.documents[index]]) - int(self._starts[index])
            pieces.append(self.split.read(start + shift, min(stop, end) + shift))
            start, index = end, index + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _choose(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The documents taken, in their order, and where each begins among them."""
        total, offsets = self.split.documents, self.split.offsets
        documents, starts, held = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for first in range(0, total, BLOCK_DOCUMENTS):
            if held >= self.tokens:
                break
            block = permute(np.arange(first, min(first + BLOCK_DOCUMENTS, total)), total, seed=SUBSET_KEY, epoch=0)
            ends = held + np.cumsum(offsets[block + 1] - offsets[block])
            taken = int(np.searchsorted(ends, self.tokens)) + 1
            documents.append(block[:taken])
            starts.append(np.concatenate([[held], ends[:-1]])[:taken])
            held = int(ends[-1])
        return np.concatenate(documents), np.concatenate(starts)

"""Where held-out windows lie: those of all documents counted, and found again, without holding anything a document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmscale.data.shards import Split

BLOCK_DOCUMENTS = 1024  # of whose windows only the sum is held: 8 bytes for as many documents
READ_DOCUMENTS = 1 << 20  # whose offsets are read at a time


class Places(NamedTuple):
    """Of windows: the split, the document within it, and the tokens [begin, end) of the split that are targets."""

    split: NDArray[np.int64]
    document: NDArray[np.int64]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    document_begin: NDArray[np.int64]


class HeldOut:
    """The windows of `sequence` targets into which documents are cut, of several splits one after the other.

    `total` is how many there are, `first_document` where each split's documents begin when all are counted through.
    """

    def __init__(self, splits: Sequence[Split], sequence: int) -> None:
        self.splits, self.sequence = splits, sequence
        sums = [np.zeros(1, np.int64)]
        blocks = [0]  # before each split
        for split in splits:
            for first in range(0, split.documents, READ_DOCUMENTS):
                sums.append(self._sums(split, first))
            blocks.append(sum(map(len, sums)) - 1)
        self._before = np.cumsum(np.concatenate(sums))  # windows before each block of documents
        self._blocks = np.array(blocks)
        self.total = int(self._before[-1])
        self.first_document = np.cumsum([0, *(split.documents for split in splits)])

    def find(self, windows: NDArray[np.int64]) -> Places:
        """The places of windows, given by their numbers in [0, total)."""
        block_of = np.searchsorted(self._before, windows, side="right") - 1
        order = np.argsort(block_of, kind="stable")
        found = np.empty((len(Places._fields), len(windows)), np.int64)
        for mine in np.split(order, np.flatnonzero(np.diff(block_of[order])) + 1) if len(windows) else []:
            block = int(block_of[mine[0]])
            number = int(np.searchsorted(self._blocks, block, side="right")) - 1
            split, first = self.splits[number], (block - int(self._blocks[number])) * BLOCK_DOCUMENTS
            offsets = np.asarray(split.offsets[first : first + BLOCK_DOCUMENTS + 1])
            before = int(self._before[block]) + np.cumsum([0, *self._windows(offsets)])
            document = np.searchsorted(before, windows[mine], side="right") - 1
            begin = offsets[document] + (windows[mine] - before[document]) * self.sequence
            end = np.minimum(begin + self.sequence, offsets[document + 1])
            found[:, mine] = np.full(len(mine), number), first + document, begin, end, offsets[document]
        return Places(*found)

    def _windows(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        return -(-np.diff(offsets) // self.sequence)

    def _sums(self, split: Split, first: int) -> NDArray[np.int64]:
        """Windows of each block of documents, of those from `first` on that are read at a time."""
        windows = self._windows(split.offsets[first : first + READ_DOCUMENTS + 1])
        return np.add.reduceat(windows, np.arange(0, len(windows), BLOCK_DOCUMENTS))

"""Windows that hold whole documents, as many as fit: for text whose documents must not be cut, such as pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.data.shards import Split


class WholeDocuments:
    """A split as windows of S + 1 tokens: what stands before the first document, and documents end to end. The rest of
    a window is 0. Documents keep their order; 8 bytes a window are held.

    Raises:
        InputError: a document is longer than a window; `whose` names the text.
    """

    def __init__(self, split: Split, sequence: int, whose: str) -> None:
        self.split, self.sequence = split, sequence
        offsets = np.asarray(split.offsets)
        lengths = np.diff(offsets)
        if len(lengths) and (longest := int(lengths.max())) > sequence:
            raise InputError(
                f"recipe.sequence: {sequence} is less than the {longest} tokens of the longest pair of {whose}, and "
                "pairs are not cut; raise it, leave such pairs out, or give files of pairs (.tsv)"
            )
        first, starts = 0, []
        while first < len(lengths):
            starts.append(offsets[first])
            first = int(np.searchsorted(offsets, offsets[first] + sequence, side="right")) - 1
        self._starts = np.array([*starts, offsets[-1]], np.int64)

    @property
    def windows(self) -> int:
        return len(self._starts) - 1

    @property
    def filled(self) -> float:
        """Share of the windows' targets that are text."""
        return self.split.tokens / max(1, self.windows * self.sequence)

    def window(self, number: int) -> NDArray[np.int32]:
        begin, end = int(self._starts[number]), int(self._starts[number + 1])
        row = np.zeros(self.sequence + 1, np.int32)
        row[0] = self.split.vocabulary.start_id
        row[1 : end - begin + 1] = self.split.read(begin, end)
        return row

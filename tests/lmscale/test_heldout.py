"""Held-out windows found again from sums over blocks of documents: against holding them all."""

from dataclasses import dataclass

import numpy as np
import pytest

from lmscale.data import heldout
from lmscale.data.heldout import HeldOut


@dataclass(frozen=True)
class Offsets:
    """As much of a split as tells its documents."""

    offsets: np.ndarray

    @property
    def documents(self) -> int:
        return len(self.offsets) - 1


@pytest.mark.parametrize("read_documents", [1 << 20, 2048])
def test_windows_are_found_as_if_all_were_held(monkeypatch, read_documents):
    monkeypatch.setattr(heldout, "READ_DOCUMENTS", read_documents)
    random = np.random.default_rng(0)
    lengths = [
        random.integers(0, 60, count) for count in (3000, 0, 1024, 2500)
    ]  # some documents are empty, and a split
    splits = [Offsets(np.concatenate([[0], np.cumsum(each)])) for each in lengths]
    expected = [
        (number, document, begin, min(begin + 16, end), start)
        for number, split in enumerate(splits)
        for document, (start, end) in enumerate(zip(split.offsets[:-1], split.offsets[1:], strict=True))
        for begin in range(start, end, 16)
    ]
    found = HeldOut(splits, 16)  # pyright: ignore[reportArgumentType]
    assert found.total == len(expected)
    assert found.first_document.tolist() == [0, 3000, 3000, 4024, 6524]
    asked = random.permutation(found.total)
    assert np.array_equal(np.stack(found.find(asked), axis=1), np.array(expected)[asked])
    assert found.find(asked[:0]).begin.shape == (0,)

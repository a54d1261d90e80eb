"""Windows of small vocabularies and large ones, and what is counted of them, for the tests of n-grams."""

from __future__ import annotations

import numpy as np

from lmscale.ngram_counts import NgramCounts

EOS = 1
LARGE = 1 << 21  # a vocabulary of which four tokens do not fit in 64 bits, nor three and the next bit


def counted(windows, *, order: int, vocab: int, eos_id: int | None = EOS) -> NgramCounts:
    counts = NgramCounts(order=order, vocab=vocab, eos_id=eos_id)
    counts.add(np.asarray(windows, np.int32))
    return counts


def random_windows(seed: int, vocab: int, shape: tuple[int, int], skew: float = 0.35) -> np.ndarray:
    """Skewed tokens, so that contexts recur and every count of counts occurs; 1, the likeliest, is end-of-sequence."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.geometric(skew, shape), vocab - 1).astype(np.int32)


def spread(windows: np.ndarray, vocab: int, into: int) -> np.ndarray:
    """The same text in a vocabulary of `into` ids: each id but end-of-sequence goes elsewhere, in order."""
    ids = np.array([0, 1, *(2 + (into - 3) * i // (vocab - 2) for i in range(1, vocab - 1))], np.int32)
    return ids[windows]

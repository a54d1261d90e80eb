"""Batches as a pure function of (seed, step), and the fixed evaluation set. Reads shards only; imports no framework."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.data.shards import Split
from lmscale.data.slices import Slicing

FEISTEL_ROUNDS = 8  # 4 make a pseudorandom permutation (Luby and Rackoff 1988); small domains want more
BLOCK_SAMPLES = 4096
EVALUATION_KEY = 0x5CA1AB1E  # fixed: every run of every study scores the same windows
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permute(index: NDArray, size: int, *, seed: int, epoch: NDArray | int) -> NDArray[np.int64]:
    """Images of `index` under a keyed permutation of range(size), computed without holding the permutation.

    A Feistel network over pairs (left, right) with cycle walking, as in Black and Rogaway 2002 (CT-RSA), Sec. 4-5;
    its round function is SplitMix64 (Steele et al. 2014). The sides are near sqrt(size), so few values walk.

    Args:
        index: integers in [0, size), of any shape.
        epoch: each epoch (one for all, or one per index) is another permutation.
    """
    left_size = max(1, math.isqrt(size - 1) + 1)
    right_size = -(-size // left_size)
    sides = np.uint64(left_size), np.uint64(right_size)
    base = _mix(np.asarray(seed, np.uint64) ^ _mix(np.asarray(epoch, np.uint64) + GOLDEN))
    keys = np.broadcast_to(base, np.shape(index)).reshape(-1)
    values = np.asarray(index, np.uint64).reshape(-1)
    result = np.empty_like(values)
    walking = np.arange(values.size)
    while walking.size:
        values = _feistel(values, keys, sides)
        inside = values < size
        result[walking[inside]] = values[inside]
        walking, values, keys = walking[~inside], values[~inside], keys[~inside]
    return result.astype(np.int64).reshape(np.shape(index))


def _feistel(values: NDArray, keys: NDArray, sides: tuple[np.uint64, np.uint64]) -> NDArray:
    left, right = values // sides[1], values % sides[1]
    for round_number in range(FEISTEL_ROUNDS):
        key = _mix(keys + np.uint64(round_number))
        if round_number % 2 == 0:
            left = (left + _mix(key ^ right) % sides[0]) % sides[0]
        else:
            right = (right + _mix(key ^ left) % sides[1]) % sides[1]
    return left * sides[1] + right


def _mix(values: NDArray) -> NDArray:
    """SplitMix64's output function, on arrays of uint64."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        values = values + GOLDEN
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


@functools.lru_cache(maxsize=64)
def _block(number: int, windows: int, seed: int) -> NDArray[np.int64]:
    """Windows of samples [number, number + 1) * BLOCK_SAMPLES: small batches share the cost of one permutation call."""
    samples = number * BLOCK_SAMPLES + np.arange(BLOCK_SAMPLES, dtype=np.int64)
    epoch, index = np.divmod(samples, windows)
    return permute(index, windows, seed=seed, epoch=epoch)


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Training batches of one run.

    The token stream is cut into W = tokens // sequence windows (fewer than `sequence` tokens at its end are never
    seen). Sample k of the run, k = step * batch_sequences + row, is window permutation(epoch = k // W)(k % W): each
    epoch shows every window once, in another order.

    Raises:
        InputError: the split holds less than one window.
    """

    split: Split
    sequence: int  # tokens S of one window
    batch_sequences: int  # windows B of one step, over all processes
    seed: int

    def __post_init__(self) -> None:
        if self.windows_per_epoch == 0:
            raise InputError(
                f"recipe.sequence: {self.sequence} exceeds the {self.split.tokens} tokens of the training text; "
                "bring more text or shorten it"
            )

    @property
    def windows_per_epoch(self) -> int:
        return self.split.tokens // self.sequence

    def unique_tokens(self, steps: int) -> int:
        """Different target tokens seen in the first `steps` steps."""
        return min(steps * self.batch_sequences, self.windows_per_epoch) * self.sequence

    def indices(self, step: int) -> NDArray[np.int64]:
        """int64 [B]: the windows of one step, in row order."""
        start, stop = step * self.batch_sequences, (step + 1) * self.batch_sequences
        first, last = start // BLOCK_SAMPLES, (stop - 1) // BLOCK_SAMPLES
        blocks = [_block(block, self.windows_per_epoch, self.seed) for block in range(first, last + 1)]
        return np.concatenate(blocks)[start - first * BLOCK_SAMPLES : stop - first * BLOCK_SAMPLES]

    def windows(self, step: int, rows: slice = slice(None)) -> NDArray[np.int32]:
        """int32 [B, S + 1], or the given rows of it: columns [:-1] are inputs and [1:] targets.

        Window i targets tokens [i S, (i + 1) S); its first input is the token before, for i = 0 end-of-sequence.
        """
        indices = self.indices(step)[rows]
        batch = np.empty((len(indices), self.sequence + 1), np.int32)
        for row, index in zip(batch, indices.tolist(), strict=True):
            start = index * self.sequence
            if start == 0:
                row[0] = self.split.vocabulary.start_id
                row[1:] = self.split.read(0, self.sequence)
            else:
                row[:] = self.split.read(start - 1, start + self.sequence)
        return batch


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """Held-out windows that every run scores."""

    tokens: NDArray[np.int32]  # [M, S + 1]: columns [:-1] are inputs, [1:] targets
    weights: NDArray[np.float32]  # [M, S]: 1 for a target that counts, 0 for padding
    documents: NDArray[np.int32]  # [M]: the held-out document of each window, for clustered standard errors
    bytes_scored: int  # UTF-8 bytes of the targets that count
    digest: str  # SHA-256 of all the above: it enters the identity of a run
    window_bytes: NDArray[np.float64]  # [M]: how they are shared out to the windows
    slices: Mapping[str, Slicing] = field(default_factory=dict)  # groups of the windows, by field

    @property
    def tokens_scored(self) -> int:
        return int(self.weights.sum(dtype=np.float64))


def evaluation_set(split: Split, *, sequence: int, tokens: int) -> EvaluationSet:
    """A fixed sample of held-out windows, about `tokens` targets of them and never more.

    Each document is cut into windows of `sequence` targets that never cross its border: the first input is
    end-of-sequence, every token (its final end-of-sequence too, where the Task appends one) is a target once, and the
    rest of its last window is padding of weight 0. Windows are taken in the order of a fixed permutation of them all,
    so that the sample spreads over the documents and a larger one contains a smaller one; they are kept sorted.
    Held-out text smaller than asked is used whole.

    `bytes_scored` shares out the bytes of a document over its tokens other than end-of-sequence: exact for bytes, an
    estimate for other vocabularies unless whole documents are scored.
    """
    offsets, eos = np.asarray(split.offsets), split.vocabulary.eos_id
    first_window = np.concatenate([[0], np.cumsum(-(-np.diff(offsets) // sequence))])
    chosen = _sample(offsets, first_window, sequence, tokens)
    if len(chosen) == 0:
        raise InputError(f"eval_tokens: {tokens} is less than one window of {sequence} tokens; raise it")
    documents = np.searchsorted(first_window, chosen, side="right") - 1
    batch = np.zeros((len(chosen), sequence + 1), np.int32)
    weights = np.zeros((len(chosen), sequence), np.float32)
    content = np.zeros(len(chosen), np.int64)  # targets other than end-of-sequence
    for row, (window, document) in enumerate(zip(chosen.tolist(), documents.tolist(), strict=True)):
        begin = int(offsets[document]) + (window - int(first_window[document])) * sequence
        targets = split.read(begin, min(begin + sequence, int(offsets[document + 1])))
        at_start = begin == offsets[document]
        batch[row, 0] = split.vocabulary.start_id if at_start else split.read(begin - 1, begin)[0]
        batch[row, 1 : len(targets) + 1] = targets
        weights[row, : len(targets)] = 1
        content[row] = np.count_nonzero(targets != eos) if eos is not None else len(targets)
    scored = np.bincount(documents, content, len(offsets) - 1).astype(np.int64)
    bytes_scored, bytes_per_token = 0.0, np.zeros(len(scored))
    for document in np.flatnonzero(scored).tolist():
        whole = split.document(document)
        tokens_there = np.count_nonzero(whole != eos) if eos is not None else len(whole)
        bytes_scored += int(split.bytes[document]) * int(scored[document]) / tokens_there
        bytes_per_token[document] = int(split.bytes[document]) / tokens_there
    digest = hashlib.sha256(f"{batch.shape} {round(bytes_scored)}\n".encode())
    for values, dtype in ((batch, "<i4"), (weights, "<f4"), (documents, "<i4")):
        digest.update(np.ascontiguousarray(values, dtype).tobytes())
    return EvaluationSet(
        tokens=batch,
        weights=weights,
        documents=documents.astype(np.int32),
        bytes_scored=round(bytes_scored),
        digest=digest.hexdigest(),
        window_bytes=bytes_per_token[documents] * content,
    )


def _sample(offsets: NDArray, first_window: NDArray, sequence: int, tokens: int) -> NDArray[np.int64]:
    """Sorted numbers of the windows to score: as many of the fixed permutation as hold at most `tokens` targets."""
    total, taken, left = int(first_window[-1]), [np.zeros(0, np.int64)], tokens
    block = max(1024, tokens // sequence)
    for start in range(0, total, block):
        windows = permute(np.arange(start, min(start + block, total)), total, seed=EVALUATION_KEY, epoch=0)
        documents = np.searchsorted(first_window, windows, side="right") - 1
        ends = np.minimum((windows - first_window[documents] + 1) * sequence, np.diff(offsets)[documents])
        sizes = np.cumsum(ends - (windows - first_window[documents]) * sequence)
        fitting = int(np.searchsorted(sizes, left, side="right"))
        taken.append(windows[:fitting])
        if fitting < len(windows):
            break
        left -= int(sizes[-1])
    return np.sort(np.concatenate(taken))

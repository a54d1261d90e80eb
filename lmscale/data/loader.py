"""Batches as a pure function of (seed, step), and the fixed evaluation set. Reads shards only; imports no framework."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.data import mixing
from lmscale.data.heldout import HeldOut
from lmscale.data.permutation import permute
from lmscale.data.shards import Split
from lmscale.data.slices import Slicing
from lmscale.data.subset import Subset
from lmscale.data.whole_documents import WholeDocuments
from lmscale.network.noise import numbered

BLOCK_SAMPLES = 4096
PART_KEY = 1 << 32  # seeds are below: parts of one size are shuffled apart, and the first as if it were alone
EVALUATION_KEY = 0x5CA1AB1E  # fixed: every run of every study scores the same windows


@functools.lru_cache(maxsize=64)
def _block(
    number: int, windows: tuple[int, ...], weights: tuple[int, ...], seed: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Part and window of samples [number, number + 1) * BLOCK_SAMPLES: small batches share the cost of one call."""
    start = number * BLOCK_SAMPLES
    part_of, window = mixing.deal(weights, start, start + BLOCK_SAMPLES)
    for part, size in enumerate(windows):
        mine = part_of == part
        epoch, index = np.divmod(window[mine], size)
        window[mine] = permute(index, size, seed=seed + part * PART_KEY, epoch=epoch)
    part_of.flags.writeable = window.flags.writeable = False  # they are held, and given out again
    return part_of, window


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Training batches of one run, from the parts of a mixture or from a single one.

    The token stream of each part is cut into W = tokens // sequence windows (fewer than `sequence` tokens at its end
    are never seen). Sample k of the run, k = step * batch_sequences + row, is the j-th of one part, both as
    `lmscale.data.mixing` has it (of a single part j = k), and there window permutation(epoch = j // W)(j % W): each
    epoch of a part shows every window of it once, in another order. Parts go through their epochs independently.

    Raises:
        InputError: a part holds less than one window, or has a rate that is not positive.
    """

    parts: tuple[tuple[Split | Subset, float], ...]  # of one vocabulary, with their rates, whatever these add up to
    sequence: int  # tokens S of one window
    batch_sequences: int  # windows B of one step, over all processes
    seed: int
    names: tuple[str, ...] = ()  # of the parts, for messages
    noisy: bool = False  # windows carry their numbers (lmscale.network.noise)
    whole: bool = False  # windows hold whole documents (lmscale.data.whole_documents)

    def __post_init__(self) -> None:
        assert len(self.weights) == len(self.parts)  # rates are checked
        for number, (part, _) in enumerate(self.parts):
            whose = f" of part {mixing.part_name(number, self.names)}" if len(self.parts) > 1 else ""
            if not self.whole and part.tokens < self.sequence:
                raise InputError(
                    f"recipe.sequence: {self.sequence} exceeds the {part.tokens} tokens of the training text{whose}; "
                    "bring more text or shorten it"
                )

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """The rates as whole numbers."""
        return mixing.weights([rate for _, rate in self.parts], self.names)

    @cached_property
    def windows_per_epoch(self) -> tuple[int, ...]:
        """W of each part."""
        if self.whole:
            return tuple(part.windows for part in self._whole)
        return tuple(part.tokens // self.sequence for part, _ in self.parts)

    @cached_property
    def _whole(self) -> tuple[WholeDocuments, ...]:
        names = self.names or ("the text",) * len(self.parts)
        return tuple(
            _whole_documents(part, self.sequence, name) for (part, _), name in zip(self.parts, names, strict=True)
        )

    def unique_tokens(self, steps: int) -> int:
        """Different target tokens seen in the first `steps` steps."""
        seen = zip(self._samples(steps), self.windows_per_epoch, strict=True)
        return sum(min(samples, windows) for samples, windows in seen) * self.sequence

    def epochs(self, steps: int) -> tuple[float, ...]:
        """How often the first `steps` steps went through each part; below 1 where they did not see all of it."""
        seen = zip(self._samples(steps), self.windows_per_epoch, strict=True)
        return tuple(samples / windows for samples, windows in seen)

    def _samples(self, steps: int) -> tuple[int, ...]:
        return mixing.counts(self.weights, steps * self.batch_sequences)

    def samples(self, start: int, stop: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """[n] each: part and window of every row of the steps start .. stop-1, in order."""
        begin, end = start * self.batch_sequences, stop * self.batch_sequences
        first, last = begin // BLOCK_SAMPLES, (end - 1) // BLOCK_SAMPLES
        blocks = [_block(b, self.windows_per_epoch, self.weights, self.seed) for b in range(first, last + 1)]
        here = slice(begin - first * BLOCK_SAMPLES, end - first * BLOCK_SAMPLES)
        if len(blocks) == 1:
            return blocks[0][0][here], blocks[0][1][here]
        return np.concatenate([b[0] for b in blocks])[here], np.concatenate([b[1] for b in blocks])[here]

    def windows(self, step: int, rows: slice = slice(None)) -> NDArray[np.int32]:
        """int32 [B, C], the batch of one step, or the given rows of it."""
        return self.batches(step, step + 1, rows)[0]

    def batches(self, start: int, stop: int, rows: slice = slice(None)) -> NDArray[np.int32]:
        """int32 [stop - start, B, C]: batches of the steps start .. stop-1, or the given rows of each.

        Of S + 1 columns [:-1] are inputs and [1:] targets; where noise is drawn, a window's number is one more. Window
        i of a part targets its tokens [i S, (i + 1) S); its first input is the token before, for i = 0 end-of-sequence.
        """
        length = self.sequence + 1
        part_of, window = (x.reshape(stop - start, -1)[:, rows] for x in self.samples(start, stop))
        batches = np.empty((*window.shape, length), np.int32)
        if self.whole:
            flat = zip(part_of.ravel().tolist(), window.ravel().tolist(), strict=True)
            batches.reshape(-1, length)[:] = [self._whole[part].window(number) for part, number in flat]
            return self._with_numbers(batches, start, stop, rows)
        begins = (window * self.sequence).ravel().tolist()
        readers = [part.read for part, _ in self.parts]
        for row, part, begin in zip(batches.reshape(-1, length), part_of.ravel().tolist(), begins, strict=True):
            if begin:
                row[:] = readers[part](begin - 1, begin + self.sequence)
            else:
                row[0] = self.parts[part][0].vocabulary.start_id
                row[1:] = readers[part](0, self.sequence)
        return self._with_numbers(batches, start, stop, rows)

    def _with_numbers(self, batches: NDArray[np.int32], start: int, stop: int, rows: slice) -> NDArray[np.int32]:
        if not self.noisy:
            return batches
        samples = np.arange(start * self.batch_sequences, stop * self.batch_sequences)
        return numbered(batches, self.seed, samples.reshape(stop - start, -1)[:, rows])


@functools.lru_cache(maxsize=8)
def _whole_documents(part: Split | Subset, sequence: int, whose: str) -> WholeDocuments:
    """Found once for all trajectories of a sweep, which replace their loader's seed alone."""
    if isinstance(part, Subset):
        raise InputError("corpus.unique_tokens: limits text that is cut, and pairs are not; leave it out")
    return WholeDocuments(part, sequence, whose)


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


def made_set(
    tokens: NDArray[np.int32], weights: NDArray[np.float32], documents: NDArray[np.int32], told: object
) -> EvaluationSet:
    """Windows of text that was made, in bytes, each target that counts being one. `told` is what else tells one set
    from another.
    """
    digest = hashlib.sha256(tokens.astype("<i4").tobytes() + weights.astype("<f4").tobytes())
    digest.update(repr(told).encode())
    scored = weights.sum(axis=1, dtype=np.float64)
    return EvaluationSet(
        tokens=tokens,
        weights=weights,
        documents=documents,
        bytes_scored=int(scored.sum()),
        digest=digest.hexdigest(),
        window_bytes=scored,
    )


def evaluation_set(*splits: Split, sequence: int, tokens: int) -> EvaluationSet:
    """A fixed sample of held-out windows, about `tokens` targets of them and never more.

    Each document is cut into windows of `sequence` targets that never cross its border: the first input is
    end-of-sequence, every token (its final end-of-sequence too, where the Task appends one) is a target once, and the
    rest of its last window is padding of weight 0. Windows are taken in the order of a fixed permutation of them all,
    so that the sample spreads over the documents and a larger one contains a smaller one; they are kept sorted.
    Held-out text smaller than asked is used whole. Of several splits (the parts of a mixture) each counts as much as it
    holds, whatever its rate; their documents are numbered through.

    `bytes_scored` shares out the bytes of a document over its tokens other than end-of-sequence: exact for bytes, an
    estimate for other vocabularies unless whole documents are scored.
    """
    held_out, vocabulary = HeldOut(splits, sequence), splits[0].vocabulary
    eos = vocabulary.eos_id
    chosen = _sample(held_out, tokens)
    if len(chosen) == 0:
        raise InputError(f"eval_tokens: {tokens} is less than one window of {sequence} tokens; raise it")
    places = held_out.find(chosen)
    batch = np.zeros((len(chosen), sequence + 1), np.int32)
    weights = np.zeros((len(chosen), sequence), np.float32)
    counts = np.zeros(len(chosen), np.int64)  # targets other than end-of-sequence
    scored: dict[tuple[int, int], int] = {}  # the same by split and document
    for row, (number, document, begin, end, start) in enumerate(zip(*(x.tolist() for x in places), strict=True)):
        split = splits[number]
        targets = split.read(begin, end)
        batch[row, 0] = vocabulary.start_id if begin == start else split.read(begin - 1, begin)[0]
        batch[row, 1 : len(targets) + 1] = targets
        weights[row, : len(targets)] = 1
        counts[row] = np.count_nonzero(targets != eos) if eos is not None else len(targets)
        scored[number, document] = scored.get((number, document), 0) + int(counts[row])
    bytes_per_token: dict[tuple[int, int], float] = {}
    bytes_scored = 0.0
    for (number, document), count in scored.items():
        whole = splits[number].document(document)
        content = int(np.count_nonzero(whole != eos)) if eos is not None else len(whole)
        size = int(splits[number].bytes[document])
        bytes_scored += size * count / content if count else 0.0
        bytes_per_token[number, document] = size / content if count else 0.0
    documents = held_out.first_document[places.split] + places.document
    whose = zip(places.split.tolist(), places.document.tolist(), strict=True)
    window_bytes = counts * np.fromiter((bytes_per_token[each] for each in whose), np.float64, len(chosen))
    digest = hashlib.sha256(f"{batch.shape} {round(bytes_scored)}\n".encode())
    for values, dtype in ((batch, "<i4"), (weights, "<f4"), (documents, "<i4")):
        digest.update(np.ascontiguousarray(values, dtype).tobytes())
    return EvaluationSet(
        tokens=batch,
        weights=weights,
        documents=documents.astype(np.int32),
        bytes_scored=round(bytes_scored),
        digest=digest.hexdigest(),
        window_bytes=window_bytes,
    )


def _sample(held_out: HeldOut, tokens: int) -> NDArray[np.int64]:
    """Sorted numbers of the windows to score: as many of the fixed permutation as hold at most `tokens` targets."""
    total, taken, left = held_out.total, [np.zeros(0, np.int64)], tokens
    block = max(1024, tokens // held_out.sequence)
    for start in range(0, total, block):
        windows = permute(np.arange(start, min(start + block, total)), total, seed=EVALUATION_KEY, epoch=0)
        places = held_out.find(windows)
        sizes = np.cumsum(places.end - places.begin)
        fitting = int(np.searchsorted(sizes, left, side="right"))
        taken.append(windows[:fitting])
        if fitting < len(windows):
            break
        left -= int(sizes[-1])
    return np.sort(np.concatenate(taken))

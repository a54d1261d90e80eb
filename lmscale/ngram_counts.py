"""Counts of the n-grams of all orders up to one, taken from windows of a token stream: sorted arrays that grow.

A gram of order m is a target with the m - 1 tokens before it, as far as its window shows them. Every target is counted
once at each order for which its window shows enough:

- What lies before the window's first input is unknown, not absent: a target with c tokens of context counts at the
  orders 1 .. c + 1 and at none above. Padding would claim that a document begins at every window.
- A context goes back to the nearest end-of-sequence and holds it as its first token: it is the start symbol of the
  document that follows it, as `<s>` in KenLM, and as a target the end symbol of its own. Nothing lies before it, so no
  gram has it inside. Without an end-of-sequence there are no borders.

Orders below that of a model use adjusted counts (Chen & Goodman 1999, Sec. 3; Heafield et al. 2013, Sec. 3.1):
the number of different tokens seen before a gram. A gram that begins with end-of-sequence has none, and keeps its count
(as in KenLM). A gram that was seen at the left edge of windows alone has had one that no window showed: it has 1.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.config import ORDER_MOST

BLOCK_TOKENS = 1 << 22  # targets counted at a time: working memory beside the counts of some 50 bytes each
TARGETS_MOST = (1 << 32) - 1  # a count is uint32
FORMAT = 1

Keys = NDArray[np.uint64]


class NgramCounts:
    """Distinct n-grams of the orders 1 .. `order` with their counts, of all windows added so far.

    The tokens of a gram are packed into one uint64, the oldest most significant, where vocab^m fits; above, its key is
    (index of its first m - 1 tokens among the grams of that order) x vocab + (its last). Either way keys in ascending
    order have grams of one context side by side. Tables are the same whatever batches the windows came in.

    Memory is 12 bytes a stored count, a block of windows (BLOCK_TOKENS) with what sorting it takes, and one order's
    table a second time while new grams are merged into it.

    Args:
        order: 1 to 6.
        vocab: ids are 0 .. vocab - 1.
        eos_id: the end-of-sequence, or None where the text has no borders.
        counts_max: how many counts may be stored, all orders together; None: as many as there are.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(self, *, order: int, vocab: int, eos_id: int | None, counts_max: int | None = None) -> None:
        if not 1 <= order <= ORDER_MOST:
            raise InputError(f"order: {order} is not 1 to {ORDER_MOST}; choose one of them")
        if not 2 <= vocab <= 1 << 31:
            raise InputError(f"vocab: {vocab} is not 2 to 2^31; give the number of ids")
        if eos_id is not None and not 0 <= eos_id < vocab:
            raise InputError(f"eos_id: {eos_id} is no id below {vocab}; give that of the vocabulary, or None")
        if counts_max is not None and counts_max < 1:
            raise InputError(f"counts_max: {counts_max} is below 1; raise it")
        self.order, self.vocab, self.eos_id, self.counts_max = order, vocab, eos_id, counts_max
        self.packed_order = max(m for m in range(1, order + 1) if vocab**m < 1 << 64)
        self._keys = [np.zeros(0, np.uint64) for _ in range(order)]
        self._counts = [np.zeros(0, np.uint32) for _ in range(order)]
        self._held: list[NDArray[np.int32]] = []
        self._held_targets = self._counted = 0

    @property
    def targets(self) -> int:
        """Tokens counted: all targets of the windows that were added."""
        return self._counted + self._held_targets

    def add(self, windows: NDArray[np.int32]) -> None:
        """Counts the targets of windows, int32 [B, S + 1]: columns [1:] are targets, column 0 is context alone.

        Windows of any S may follow each other. Merging waits until a block is full, or until the counts are asked for.

        Raises:
            InputError: an id is out of range; more counts than `counts_max`, or more than 2^32 - 1 targets. What was
                counted is of no use after the last two.
        """
        check_windows(windows, self.vocab)
        length = windows.shape[1]
        if self._held and self._held[0].shape[1] != length:
            self._merge_held()
        rows = max(1, BLOCK_TOKENS // (length - 1))
        for start in range(0, len(windows), rows):
            part = windows[start : start + rows].copy()  # the caller may draw the next batch into the same array
            if self._held_targets + part.shape[0] * (length - 1) > BLOCK_TOKENS:
                self._merge_held()
            self._held.append(part)
            self._held_targets += part.shape[0] * (length - 1)

    def keys(self, order: int) -> Keys:
        """uint64 [G]: the distinct grams of an order, ascending."""
        self._merge_held()
        return self._keys[order - 1]

    def counts(self, order: int) -> NDArray[np.uint32]:
        """uint32 [G]: how often each was seen."""
        self._merge_held()
        return self._counts[order - 1]

    def stored(self, order: int) -> int:
        """Distinct grams of the orders 1 .. `order`: the `params` of the model of that order."""
        self._merge_held()
        return sum(len(keys) for keys in self._keys[:order])

    @property
    def memory_bytes(self) -> int:
        """Of the tables and of windows not yet merged."""
        return sum(array.nbytes for arrays in (self._keys, self._counts, self._held) for array in arrays)

    def adjusted(self, order: int) -> NDArray[np.uint32]:
        """uint32 [G]: the adjusted counts of the grams of an order below the highest."""
        keys = self.keys(order)
        extended, times = np.unique(self._suffixes(order + 1), return_counts=True)
        adjusted = np.ones(len(keys), np.uint32)
        adjusted[np.searchsorted(keys, extended)] = times
        if order > 1 and self.eos_id is not None:
            begun = self._begun(order)
            adjusted[begun] = self._counts[order - 1][begun]
        return adjusted

    def _suffixes(self, order: int) -> Keys:
        """For each gram of an order of at least 2, the key of the gram without its first token. It is always stored."""
        keys = self.keys(order)
        if order <= self.packed_order:
            return keys % np.uint64(self.vocab ** (order - 1))
        prefixes, tokens = np.divmod(keys, np.uint64(self.vocab))
        shorter = self._suffixes(order - 1)
        if order - 1 > self.packed_order:
            shorter = np.searchsorted(self._keys[order - 3], shorter).astype(np.uint64)
        return shorter[prefixes] * np.uint64(self.vocab) + tokens

    def _begun(self, order: int) -> slice:
        """Where the grams of an order that begin with end-of-sequence are: side by side, for it is the first token."""
        if order <= self.packed_order:
            assert self.eos_id is not None
            low, high = (i * self.vocab ** (order - 1) for i in (self.eos_id, self.eos_id + 1))
        else:
            before = self._begun(order - 1)
            low, high = before.start * self.vocab, before.stop * self.vocab
        return slice(*np.searchsorted(self._keys[order - 1], np.array([low, high], np.uint64)).tolist())

    def _merge_held(self) -> None:
        if not self._held:
            return
        tokens = np.concatenate(self._held).astype(np.uint64)
        self._counted += self._held_targets
        self._held, self._held_targets = [], 0
        if self._counted > TARGETS_MOST:
            raise InputError(f"tokens: {self._counted} exceed the {TARGETS_MOST} that can be counted; count fewer")
        shown = context_tokens(tokens, self.eos_id)
        keys = places = np.zeros(0, np.uint64)
        for order in range(1, self.order + 1):
            keys = gram_keys(tokens, order, self.vocab, self.packed_order, keys, places)
            self._merge(order, *np.unique(keys[shown >= order - 1], return_counts=True))
            if self.packed_order <= order < self.order:
                places = np.searchsorted(self._keys[order - 1], keys).astype(np.uint64)

    def _merge(self, order: int, seen: Keys, times: NDArray[np.int64]) -> None:
        """Adds grams, ascending, to the table of an order; keys of the next that name its grams by index follow."""
        keys, counts = self._keys[order - 1], self._counts[order - 1]
        at, known = find(keys, seen)
        counts = counts.copy()  # a model made before keeps the tables that it was made of
        counts[at[known]] += times[known].astype(np.uint32)
        self._counts[order - 1], fresh = counts, ~known
        if not fresh.any():
            return
        stored = sum(map(len, self._keys)) + int(np.count_nonzero(fresh))
        if self.counts_max is not None and stored > self.counts_max:
            raise InputError(
                f"counts_max: {self.counts_max} is less than the {stored} counts of order {self.order} after "
                f"{self._counted} tokens; raise it, or choose a lower order or fewer tokens"
            )
        self._keys[order - 1] = np.insert(keys, at[fresh], seen[fresh])
        self._counts[order - 1] = np.insert(counts, at[fresh], times[fresh].astype(np.uint32))
        if self.packed_order <= order < self.order:
            later = self._keys[order]
            prefixes = (later // np.uint64(self.vocab)).astype(np.int64)
            moved = np.searchsorted(at[fresh], prefixes, side="right").astype(np.uint64)
            self._keys[order] = later + moved * np.uint64(self.vocab)

    def save(self, path: Path) -> None:
        """Writes an uncompressed .npz. Its bytes follow from the counted windows alone, not from their batches."""
        self._merge_held()
        eos = -1 if self.eos_id is None else self.eos_id
        tables = {f"keys_{m}": keys for m, keys in enumerate(self._keys, 1)}
        tables |= {f"counts_{m}": counts for m, counts in enumerate(self._counts, 1)}
        with path.open("wb") as file:
            np.savez(file, about=np.array([FORMAT, self.order, self.vocab, eos, self._counted]), **tables)  # pyright: ignore[reportArgumentType]

    @classmethod
    def load(cls, path: Path, counts_max: int | None = None) -> Self:
        """What was saved; more can be added. Raises InputError where the file cannot be read or does not add up."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            version, order, vocab, eos, counted = arrays["about"].tolist()
            if version != FORMAT:
                raise ValueError(f"format {version}")
            made = cls(order=order, vocab=vocab, eos_id=None if eos < 0 else eos, counts_max=counts_max)
            made._keys = [arrays[f"keys_{m}"] for m in range(1, order + 1)]
            made._counts = [arrays[f"counts_{m}"] for m in range(1, order + 1)]
            made._counted = counted
            contexts = 1
            for m, (keys, counts) in enumerate(zip(made._keys, made._counts, strict=True), 1):
                if (keys.dtype, counts.dtype, keys.shape) != (np.uint64, np.uint32, counts.shape) or keys.ndim != 1:
                    raise ValueError("a table of another type or size")
                if (keys[1:] <= keys[:-1]).any() or (counts == 0).any():
                    raise ValueError("a table out of order")
                if len(keys) and int(keys[-1]) >= contexts * vocab:
                    raise ValueError("a gram of a context that is not there")
                contexts = vocab**m if m < made.packed_order else len(keys)
            if int(made._counts[0].sum(dtype=np.int64)) != counted:
                raise ValueError("counts that do not add up")
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"ngram: {str(path)!r} holds no counts ({error}); count again") from None
        return made


def check_windows(windows: NDArray[np.int32], vocab: int) -> None:
    """Raises InputError unless windows are integers [B, S + 1] with S >= 1 and ids below `vocab`."""
    if windows.ndim != 2 or windows.shape[1] < 2 or windows.dtype.kind not in "iu":
        raise InputError(f"windows: {windows.dtype} {windows.shape} are not integers [B, S + 1]; give tokens")
    for worst in (int(windows.min()), int(windows.max())) if windows.size else ():
        if not 0 <= worst < vocab:
            raise InputError(f"windows: id {worst} is not 0 to {vocab - 1}; give the vocabulary that made the tokens")


def context_tokens(tokens: NDArray, eos_id: int | None) -> NDArray[np.int64]:
    """int64 [B, S]: tokens of context of each target of [B, S + 1], back to an end-of-sequence, and with it."""
    columns = np.arange(tokens.shape[1] - 1)
    if eos_id is None:
        return np.broadcast_to(columns + 1, (len(tokens), len(columns)))
    begins = np.maximum.accumulate(np.where(tokens[:, :-1] == eos_id, columns, 0), axis=1)
    return columns + 1 - begins


def gram_keys(tokens: Keys, order: int, vocab: int, packed_order: int, keys: Keys, places: Keys) -> Keys:
    """uint64 [B, S]: keys of the grams that end in each target, from what they were one order below.

    `keys` [B, S] are those of the order below, and are overwritten; `places` [B, S], read above `packed_order` alone,
    are their indices in its table. A key is right where the target has `order` - 1 tokens of context, with a place.
    """
    if order == 1:
        return tokens[:, 1:].copy()
    if order <= packed_order:
        targets = max(0, tokens.shape[1] + 1 - order)  # those that are not too near to the left edge
        keys[:, order - 2 :] += tokens[:, :targets] * np.uint64(vocab ** (order - 1))
        return keys
    made = np.zeros_like(places)
    made[:, 1:] = places[:, :-1] * np.uint64(vocab) + tokens[:, 2:]
    return made


def find(keys: Keys, wanted: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each key is among the ascending `keys`, or would be inserted; and whether it is there."""
    at = np.searchsorted(keys, wanted)
    if len(keys) == 0:
        return at, np.zeros(len(wanted), bool)
    return at, keys[np.minimum(at, len(keys) - 1)] == wanted

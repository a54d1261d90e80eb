"""The count-based baseline: n-grams with interpolated modified Kneser-Ney smoothing.

Chen & Goodman 1999, Sec. 3 (Harvard TR-10-98), with the conventions of KenLM (Heafield et al. 2013):

    p_m(w | h) = max(a(h w) - D(a(h w)), 0) / sum_v a(h v) + b(h) p_{m-1}(w | h without its first token)

with D(a) = D1, D2, D3 for a = 1, 2 and more, b(h) what they take away, over the same sum, and p_0 uniform over the
vocabulary. At the order of the model a is the count, below it the adjusted count (lmscale.ngram_counts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.ngram_counts import Keys, NgramCounts, check_windows, context_tokens, find, gram_keys

FALLBACK = (0.5, 1.0, 1.5)  # KenLM's lmplz --discount_fallback
BLOCK_TOKENS = 1 << 20  # targets scored at a time: some 100 bytes each
COUNTED, ADJUSTED = 0, 1


@dataclass(frozen=True, kw_only=True)
class Discounts:
    """What is taken from counts of 1, of 2, and of 3 and more; `fallback` where the text did not tell them."""

    values: tuple[float, float, float]
    fallback: bool


def discounts(counts: NDArray[np.uint32]) -> Discounts:
    """D_j = j - (j + 1) Y n_{j+1} / n_j with Y = n_1 / (n_1 + 2 n_2) and n_j grams of count j (TR-10-98, eq. 26).

    Where n_1, n_2 or n_3 is 0 or a discount is not above 0 or is above j (few grams, or nearly all of them seen often,
    as bytes are at low orders), all three are KenLM's fallback. KenLM itself takes a discount of exactly 0, which
    leaves a context whose grams all have that count nothing for other tokens: their probability would be 0.
    """
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if not (n1 and n2 and n3):
        return Discounts(values=FALLBACK, fallback=True)
    y = n1 / (n1 + 2 * n2)
    values = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    if not all(0 < value <= j for j, value in enumerate(values, 1)):
        return Discounts(values=FALLBACK, fallback=True)
    return Discounts(values=values, fallback=False)


@dataclass(frozen=True, kw_only=True)
class _Order:
    """One order of a model: its grams, and sums over the grams of each context.

    The first axis of all but keys and contexts: by counts, by adjusted counts (the highest order has no second).
    """

    keys: Keys  # [G]
    counts: NDArray[np.uint32]  # [2, G]
    contexts: Keys  # [C]: what the keys // vocab are
    totals: NDArray[np.float64]  # [2, C]
    backoffs: NDArray[np.float64]  # [2, C]
    discounts: tuple[Discounts, ...]
    amounts: NDArray[np.float64]  # [2, 4]: what is taken from a count of 0, 1, 2, and 3 or more


class KneserNey:
    """An n-gram model. Each target is scored with the context that its window shows, `order` - 1 tokens at most.

    A context that begins with end-of-sequence is whole, however short: its order's adjusted counts are its counts, and
    are discounted like the others of that order (as KenLM does with `<s>`). A context of c tokens that was cut short by
    the window's edge is scored as the model of order c + 1 does, by counts: adjusted counts are made for falling back
    from a longer context that was not seen, and this one was not tried.

    `params` is the number of stored counts: distinct n-grams of all orders. Memory is 16 bytes for each, and 40 for
    each context. A model keeps the tables of the moment when it was made, whatever is counted later.
    """

    def __init__(self, vocab: int, eos_id: int | None, packed_order: int, tables: Sequence[_Order]) -> None:
        self.vocab, self.eos_id, self._packed_order, self._tables = vocab, eos_id, packed_order, tuple(tables)
        self.order = len(self._tables)
        self.params = sum(len(table.keys) for table in self._tables)

    @property
    def discounts(self) -> tuple[Discounts, ...]:
        """Of the orders 1 .. order: of adjusted counts, and at the highest of counts."""
        return tuple(table.discounts[-1] for table in self._tables)

    @property
    def memory_bytes(self) -> int:
        tables = self._tables
        return sum(a.nbytes for t in tables for a in (t.keys, t.counts, t.contexts, t.totals, t.backoffs))

    def token_nats(self, windows: NDArray[np.int32]) -> NDArray[np.float64]:
        """float64 [M, S]: -ln p of every target of windows [M, S + 1]. Raises InputError on an id out of range."""
        check_windows(windows, self.vocab)
        nats = np.empty((len(windows), windows.shape[1] - 1))
        rows = max(1, BLOCK_TOKENS // nats.shape[1])
        for start in range(0, len(windows), rows):
            nats[start : start + rows] = -np.log(self._probabilities(windows[start : start + rows].astype(np.uint64)))
        return nats

    def _probabilities(self, tokens: Keys) -> NDArray[np.float64]:
        shown = context_tokens(tokens, self.eos_id)
        first = np.take_along_axis(tokens, np.arange(1, tokens.shape[1]) - shown, axis=1)
        cut = (first != self.eos_id if self.eos_id is not None else np.ones(first.shape, bool)).ravel()
        highest = np.minimum(shown, self.order - 1).ravel() + 1
        probability = np.full(len(highest), 1 / self.vocab)
        live = np.arange(len(highest))  # targets whose context was seen, so far
        seen = np.ones(len(highest), bool)  # targets that were seen after it: of others no longer gram was
        keys = places = np.zeros(0, np.uint64)
        for order, table in enumerate(self._tables, 1):
            keys = gram_keys(tokens, order, self.vocab, self._packed_order, keys, places)
            live = live[highest[live] >= order]
            if order > self._packed_order:  # a key holds the place of its context, which was seen as a gram or has none
                live = live[seen[live - 1]]
            wanted = keys.ravel()[live]
            context, known = find(table.contexts, wanted // np.uint64(self.vocab))
            live, context, wanted = live[known], context[known], wanted[known]
            by_counts = (order == self.order) | ((highest[live] == order) & cut[live])
            which = np.where(by_counts, COUNTED, ADJUSTED)
            probability[live] *= table.backoffs[which, context]
            hit = np.flatnonzero(seen[live])
            at, there = find(table.keys, wanted[hit])
            hit, at = hit[there], at[there]
            counts = table.counts[which[hit], at]
            kept = counts - table.amounts[which[hit], np.minimum(counts, 3)]
            probability[live[hit]] += kept / table.totals[which[hit], context[hit]]
            seen = np.zeros(len(highest), bool)
            seen[live[hit]] = True
            if self._packed_order <= order < self.order:
                places = np.zeros(len(highest), np.uint64)
                places[live[hit]] = at
                places = places.reshape(shown.shape)
        return probability.reshape(shown.shape)


def estimate(
    counts: NgramCounts, order: int | None = None, held: Sequence[tuple[float, float, float]] | None = None
) -> KneserNey:
    """The model of an order (that of the counts, or any below it) from what was counted so far.

    `held` gives discounts D1, D2, D3 for the orders 1 .. order instead of those estimated.

    Raises:
        InputError: nothing was counted; `order` is above that of the counts; a discount is outside 0 .. 1, 2, 3.
    """
    order = counts.order if order is None else order
    if not 1 <= order <= counts.order:
        raise InputError(f"order: {order} is not 1 to {counts.order}, the order counted; count a higher one")
    if counts.targets == 0:
        raise InputError("tokens: 0 were counted; add windows first")
    if held is not None and (
        len(held) != order or not all(0 <= d <= j for three in held for j, d in enumerate(three, 1))
    ):
        raise InputError(f"held: {held} are not {order} times D1, D2, D3 within 0 to 1, 2, 3; mend them")
    tables = []
    for m in range(1, order + 1):
        keys, counted = counts.keys(m), counts.counts(m)
        both = np.stack([counted, counts.adjusted(m)] if m < order else [counted])
        taken = tuple(Discounts(values=held[m - 1], fallback=False) if held else discounts(each) for each in both)
        amounts = np.array([(0.0, *each.values) for each in taken])
        contexts = keys // np.uint64(counts.vocab)
        begins = np.ones(len(contexts), bool)
        begins[1:] = contexts[1:] != contexts[:-1]
        starts = np.flatnonzero(begins)
        totals = np.add.reduceat(both, starts, axis=1, dtype=np.float64)
        off = np.stack([a[np.minimum(each, 3)] for a, each in zip(amounts, both, strict=True)])
        tables.append(
            _Order(
                keys=keys,
                counts=both,
                contexts=contexts[starts],
                totals=totals,
                backoffs=np.add.reduceat(off, starts, axis=1) / totals,
                discounts=taken,
                amounts=amounts,
            )
        )
    return KneserNey(counts.vocab, counts.eos_id, counts.packed_order, tables)

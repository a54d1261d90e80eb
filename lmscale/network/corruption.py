"""Noise on windows: masked tokens (BERT), and spans that are taken out (T5). Keys are one a row."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lmscale.network.borders import NOWHERE, Rows, rows_of
from lmscale.network.spans import MASKED_SHARE, Spans, spans_of

REPLACED = 0.8, 0.1  # by the mask, by a random token; the rest stays: Devlin et al. 2019 (arXiv:1810.04805), Sec. 3.1


def mask_tokens(
    rows: Rows, keys: Array, numbers: Int[Array, " B"], *, mask_id: int, eos_id: int | None
) -> tuple[Rows, Bool[Array, "B S"]]:
    """Rows as an encoder reads them, and which tokens it is to tell. `mask_id` is the first id after the text's.

    A row's number below 0 asks for one token, always by the mask (lmscale.network.noise). End-of-sequence, which the
    documents' borders tell, is not chosen (as BERT does with its separators).
    """
    chosen, how, other = (_draw(keys, number, rows.tokens.shape[1]) for number in range(3))
    one = numbers[:, None] < 0
    told = jnp.where(one, jnp.arange(chosen.shape[1]) == -1 - numbers[:, None], chosen < MASKED_SHARE)
    how = jnp.where(one, 0.0, how)
    if eos_id is not None:
        told &= rows.tokens != eos_id
    masked, replaced = REPLACED
    anything = jnp.floor(other * mask_id).astype(rows.tokens.dtype)
    noise = jnp.where(how < masked, mask_id, jnp.where(how < masked + replaced, anything, rows.tokens))
    return rows._replace(tokens=jnp.where(told, noise, rows.tokens)), told


class Written(NamedTuple):
    """What a decoder reads and writes of the spans that were taken out, [B, noise + count]."""

    inputs: Rows
    targets: Int[Array, "B T"]
    weights: Float[Array, "B T"]


def take_out_spans(
    rows: Rows, weights: Float[Array, "B S"], keys: Array, *, first_sentinel: int, start_id: int, eos_id: int | None
) -> tuple[Rows, Written]:
    """T5's span corruption (Raffel et al. 2020, Sec. 3.1.4): the text with a sentinel for each span, and the spans,
    each after its sentinel. A span that reaches a document's end stops before it. The source keeps its length, and what
    is left free at its end is in no document. Where the last span ends is not written.
    """
    length = rows.tokens.shape[1]
    spans = spans_of(length)
    noise, number = jax.vmap(lambda key: span_noise(key, length, spans))(keys)
    documents = jnp.zeros_like(rows.tokens) if rows.documents is None else rows.documents
    place = jnp.broadcast_to(jnp.arange(length), noise.shape)
    first = noise & ~jnp.pad(noise, ((0, 0), (1, 0)))[:, :-1]
    begins = jax.lax.cummax(jnp.where(first, place, 0), axis=1)
    noise &= documents == jnp.take_along_axis(documents, begins, axis=1)
    if eos_id is not None:  # a span that would begin with it is none
        noise &= rows.tokens != eos_id
        first &= noise
    sentinel = first_sentinel + number

    kept = ~noise | first
    to = jnp.where(kept, jnp.cumsum(kept, axis=1) - 1, length)
    source = _placed(length, (to, jnp.where(first, sentinel, rows.tokens), documents))
    to = jnp.where(noise, jnp.cumsum(noise, axis=1) + number, spans.targets)  # of the span's number, one sentinel more
    before = jnp.where(first, to - 1, spans.targets)
    targets = _placed(spans.targets, (to, rows.tokens, documents), (before, sentinel, documents))
    counts = _scattered(spans.targets, 0.0, (to, weights), (before, weights))
    fresh = targets.positions == 0
    shifted = jnp.pad(targets.tokens, ((0, 0), (1, 0)))[:, :-1]
    inputs = targets._replace(tokens=jnp.where(fresh, start_id, shifted))
    return source, Written(inputs, targets.tokens, counts)


def span_noise(key: Array, length: int, spans: Spans) -> tuple[Bool[Array, " S"], Int[Array, " S"]]:
    """Which tokens of a window are noise, and the number of the span that each is in or after:
    `random_spans_noise_mask` of T5's code, in which text and noise take turns, text first.
    """
    of_noise, of_text = jax.random.split(key)
    noise_lengths = _random_parts(of_noise, spans.noise, spans.count)
    text_lengths = _random_parts(of_text, length - spans.noise, spans.count)
    turns = jnp.stack([text_lengths, noise_lengths], axis=1).reshape(-1)
    starts = jnp.cumsum(turns)[:-1]
    turn = jnp.cumsum(jnp.zeros(length, jnp.int32).at[starts].add(1))
    return turn % 2 == 1, turn // 2


def _random_parts(key: Array, total: int, count: int) -> Int[Array, " count"]:
    """A whole number as a sum of `count` positive ones, each sum as likely as another."""
    order = jnp.argsort(jax.random.uniform(key, (total - 1,)))
    cuts = jnp.zeros(total - 1, jnp.int32).at[order[: count - 1]].set(1)
    part = jnp.pad(jnp.cumsum(cuts), (1, 0))
    return jnp.zeros(count, jnp.int32).at[part].add(1)


def _placed(length: int, *moves: tuple[Array, Array, Array]) -> Rows:
    """Tokens and their documents moved to new places [B, length]; what is left free is in no document."""
    tokens = _scattered(length, 0, *((to, tokens) for to, tokens, _ in moves))
    documents = _scattered(length, NOWHERE, *((to, documents) for to, _, documents in moves))
    changes = documents != jnp.pad(documents, ((0, 0), (1, 0)), constant_values=NOWHERE - 1)[:, :-1]
    place = rows_of(tokens).positions
    begins = jax.lax.cummax(jnp.where(changes, place, 0), axis=1)
    return Rows(tokens, documents, place - begins)


def _scattered(length: int, empty: float, *moves: tuple[Array, Array]) -> Array:
    """Values [B, S] at new places of rows of that length; a place beyond them is dropped."""

    def row(*pairs: tuple[Array, Array]) -> Array:
        found = jnp.full(length, empty, pairs[0][1].dtype)
        for to, values in pairs:
            found = found.at[to].set(values, mode="drop")
        return found

    return jax.vmap(row)(*moves)


def _draw(keys: Array, number: int, length: int) -> Float[Array, "B S"]:
    """Uniform numbers of each row, another draw for each `number`."""
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, number), (length,)))(keys)

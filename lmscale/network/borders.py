"""Rows of tokens with the documents in them: where one ends, and each token's place within its own."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from lmscale.network.attention import EVERYTHING, Sight

NOWHERE = -1  # the document of padding, and of tokens that a row leaves out


class Rows(NamedTuple):
    """Tokens, the document that each belongs to (None: all to one), and its place in that document."""

    tokens: Int[Array, "B S"]
    documents: Int[Array, "B S"] | None
    positions: Int[Array, "B S"]

    def only(self, kept: Bool[Array, "B S"]) -> Rows:
        """The same rows, of which the other tokens are in no document."""
        documents = jnp.zeros_like(self.tokens) if self.documents is None else self.documents
        return self._replace(documents=jnp.where(kept, documents, NOWHERE))

    def sight_of(self, keys: Rows, prefix: Bool[Array, "B T"] | None = None) -> Sight:
        """What queries at these rows see of others."""
        if self.documents is None or keys.documents is None:
            return EVERYTHING._replace(prefix=prefix)
        return Sight(self.documents, keys.documents, prefix)


def rows_of(tokens: Int[Array, "B S"]) -> Rows:
    """Rows of a document each."""
    return Rows(tokens, None, jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape))


def opened(tokens: Int[Array, "B S"], eos_id: int | None) -> Rows:
    """Rows in which end-of-sequence stands before each document, as in the inputs of a decoder."""
    return rows_of(tokens) if eos_id is None else _numbered(tokens, tokens == eos_id)


def closed(tokens: Int[Array, "B S"], eos_id: int | None) -> Rows:
    """Rows in which end-of-sequence is the last token of each document."""
    if eos_id is None:
        return rows_of(tokens)
    return _numbered(tokens, jnp.pad(tokens == eos_id, ((0, 0), (1, 0)))[:, :-1])


def _numbered(tokens: Array, first: Array) -> Rows:
    """Documents numbered along each row by where they begin; what is there before the first has number 0."""
    place = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    begins = jax.lax.cummax(jnp.where(first, place, 0), axis=1)
    return Rows(tokens, jnp.cumsum(first, axis=1), place - begins)

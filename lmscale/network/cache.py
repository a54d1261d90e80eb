"""What a model keeps of the tokens that it has read, so that the next one costs a pass over itself alone.

It is the Flax collection `cache`, beside `params`, as flax's own attention and MaxText's have one: a model that is
applied with it goes on after what it holds, and gives it back with the new tokens in it (`mutable=["cache"]`). A model
that is applied without it, as in training, is the program that it always was.

    documents [B, T], start []         of the slots: whose they are (none where nothing is), and the next that is free
    layers/attention/key, value        [L, B, H, T, K], turned by their slots where positions are rotary
    layers/cross_attention/key, value  [L, B, H, R, K] of what the encoder read; source [B, R], whose its places are
    layers/recurrence/memory, hidden   [L, B, D]

Rows of a batch end together: shorter prompts are padded on the left, by tokens of no document. So all rows write one
slot at a time, and an LSTM's memory is emptied after the padding, at the first token. What two tokens do with each
other depends on their distance alone where positions are rotary; learned ones are told with the tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from lmscale.mesh import constrain
from lmscale.network.borders import NOWHERE, Rows
from lmscale.shapes import Shape

CACHE = "cache"


class Past(NamedTuple):
    """What the tokens of a call see in a cache, and the slot of their first."""

    start: Int[Array, ""]
    seen: Bool[Array, "B S T"]


def empty_cache(family: str, shape: Shape, dtype: Any, *, rows: int, slots: int, read: int = 0) -> dict[str, Any]:
    """A cache that holds nothing, of `rows` rows with `slots` tokens each; `read`: those that an encoder reads."""
    documents = jnp.full((rows, slots), NOWHERE, jnp.int32)
    cache: dict[str, Any] = {"documents": documents, "start": jnp.zeros((), jnp.int32)}
    if family == "lstm":
        memory = jnp.zeros((shape.depth, rows, shape.width), dtype)
        return cache | {"layers": {"recurrence": {"memory": memory, "hidden": memory}}}

    def keys(places: int) -> dict[str, Array]:
        empty = jnp.zeros((shape.depth, rows, shape.heads, places, shape.head_size), dtype)
        return {"key": empty, "value": empty}

    cache["layers"] = {"attention": keys(slots)}
    if family == "encoder_decoder":
        cache["source"] = jnp.full((rows, read), NOWHERE, jnp.int32)
        cache["layers"]["cross_attention"] = keys(read)
    return cache


def is_cached(module: nn.Module) -> bool:
    """Whether a model is applied with a cache."""
    return module.has_variable(CACHE, "documents")


def go_on(module: nn.Module, rows: Rows, prefix: Bool[Array, "B S"] | None = None) -> Past:
    """Gives the tokens of a call their slots, and says what they see: those before them and themselves, of their own
    document; a prefix whole.
    """
    documents, start = (_kept(module, name) for name in ("documents", "start"))
    first, own = start.value, _documents(rows)
    documents.value = jax.lax.dynamic_update_slice(documents.value, own, (0, first))
    start.value = first + own.shape[1]
    slots = jnp.arange(documents.value.shape[1])
    seen = ((first + jnp.arange(own.shape[1]))[:, None] >= slots)[None]
    if prefix is not None:
        nothing = jnp.zeros(documents.value.shape, bool)
        seen = seen | jax.lax.dynamic_update_slice(nothing, prefix, (0, first))[:, None]
    return Past(first, seen & _of_one(own, documents.value))


def across(module: nn.Module, rows: Rows, source: Rows | None) -> Past:
    """What the tokens of a call see of the source: of the one given, which is kept, or of the one kept before."""
    kept = _kept(module, "source")
    if source is not None:
        kept.value = _documents(source)
    return Past(jnp.zeros((), jnp.int32), _of_one(_documents(rows), kept.value))


def keep_keys(
    module: nn.Module, fresh: tuple[Float[Array, "B S H K"], ...] | None, start: Array, mesh: Mesh
) -> tuple[Float[Array, "B H T K"], Float[Array, "B H T K"]]:
    """Keys and values of an attention with a call's own among them, from slot `start` on; None: those kept alone."""
    variables = [_kept(module, name) for name in ("key", "value")]
    for variable, own in zip(variables, fresh or (), strict=bool(fresh)):
        rows = own.swapaxes(1, 2).astype(variable.value.dtype)
        kept = jax.lax.dynamic_update_slice(variable.value, rows, (0, 0, start, 0))
        variable.value = constrain(kept, mesh, "batch", "heads", None, None)
    key, value = (variable.value for variable in variables)
    return key, value


def _kept(module: nn.Module, name: str) -> nn.Variable[Any]:
    """A variable of the cache, which was given with the parameters."""
    return module.variable(CACHE, name)


def _documents(rows: Rows) -> Int[Array, "B S"]:
    return jnp.zeros_like(rows.tokens) if rows.documents is None else rows.documents


def _of_one(queries: Int[Array, "B S"], keys: Int[Array, "B T"]) -> Bool[Array, "B S T"]:
    return (queries[:, :, None] == keys[:, None]) & (keys >= 0)[:, None]

"""Causal attention: by blocks of queries where that is faster, on a CPU; jax's own attention elsewhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

BLOCK = (
    64  # query rows of a block: small enough to leave most of the masked half out, large enough for a matrix product
)
BLOCKS_MAX = 8  # they are unrolled, so long sequences take longer blocks


def causal_attention(
    query: Float[Array, "B S H K"], key: Float[Array, "B S H K"], value: Float[Array, "B S H K"], blocked: bool
) -> Float[Array, "B S H K"]:
    """softmax(query key^T / sqrt(K)) value over the positions not after each (Vaswani et al. 2017, Sec. 3.2.1)."""
    if not blocked:
        return jax.nn.dot_product_attention(query, key, value, is_causal=True)
    scaled = query * query.shape[-1] ** -0.5
    mixed = blocked_attention(*(x.swapaxes(1, 2) for x in (scaled, key, value)))
    return mixed.swapaxes(1, 2)


@jax.custom_vjp
def blocked_attention(
    query: Float[Array, "B H S K"], key: Float[Array, "B H S K"], value: Float[Array, "B H S K"]
) -> Float[Array, "B H S K"]:
    """The same of scaled queries, heads first. A block of queries is scored against the keys not after it alone.

    Its derivative is written out, because automatic differentiation divides, masks and transposes whole S x S squares:
    the exponentials are kept without their sums (as in Milakov & Gimelshein 2018, arXiv:1805.02867), the sums divide
    rows of K, and the gradients of keys and values are added up as [K, S], the faster product on a CPU.
    """
    return _forward(query, key, value)[0]


def _blocks(length: int) -> list[tuple[int, int]]:
    """First and last (excluded) row of each block."""
    size = max(BLOCK, -(-length // BLOCKS_MAX))
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _product(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    """A matrix product for each of the leading [B, H]; sums are float32."""
    batch = ((0, 1), (0, 1))
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), batch), preferred_element_type=jnp.float32)


def _forward(query: Array, key: Array, value: Array) -> tuple[Array, tuple]:
    mixed, kept = [], []
    for start, stop in _blocks(query.shape[2]):
        scores = _product(query[:, :, start:stop], key[:, :, :stop], 3, 3)
        allowed = jnp.arange(stop) <= jnp.arange(start, stop)[:, None]
        scores = jnp.where(allowed, scores, -jnp.inf)
        weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.astype(value.dtype)
        mixed.append((_product(weights, value[:, :, :stop], 3, 2) / total).astype(value.dtype))
        kept.append((weights, total))
    output = jnp.concatenate(mixed, axis=2)
    return output, (query, key, value, output, kept)


def _backward(residuals: tuple, slope: Float[Array, "B H S K"]) -> tuple[Array, Array, Array]:
    """Gradients of query, key and value (Dao et al. 2022, arXiv:2205.14135, App. B.2)."""
    query, key, value, output, kept = residuals
    length = query.shape[2]
    along = jnp.sum((slope * output).astype(jnp.float32), axis=-1, keepdims=True)  # sum of weight x its gradient
    query_slopes, key_slope, value_slope = [], 0.0, 0.0
    for (start, stop), (weights, total) in zip(_blocks(length), kept, strict=True):
        rows = (slope[:, :, start:stop] / total).astype(value.dtype)
        weight_slope = _product(rows, value[:, :, :stop], 3, 3)
        score_slope = (weights * (weight_slope - along[:, :, start:stop] / total)).astype(value.dtype)
        query_slopes.append(_product(score_slope, key[:, :, :stop], 3, 2))
        later = ((0, 0), (0, 0), (0, 0), (0, length - stop))  # keys after the block get nothing from it
        # written out as [K, rows]: XLA multiplies a matrix that it must turn itself at half the speed
        turned = jax.lax.optimization_barrier([jnp.swapaxes(x, 2, 3) for x in (query[:, :, start:stop], rows)])
        key_slope += jnp.pad(_product(turned[0], score_slope, 3, 2), later)
        value_slope += jnp.pad(_product(turned[1], weights, 3, 2), later)
    query_slope = jnp.concatenate(query_slopes, axis=2)
    key_slope, value_slope = jnp.swapaxes(key_slope, 2, 3), jnp.swapaxes(value_slope, 2, 3)
    return query_slope.astype(query.dtype), key_slope.astype(key.dtype), value_slope.astype(value.dtype)


blocked_attention.defvjp(_forward, _backward)

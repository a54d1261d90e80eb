"""Blocked attention against jax.nn's, and its written-out derivative against automatic differentiation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.attention import BLOCK, BLOCKS_MAX, causal_attention

ROUNDING = 3e-6  # of the largest entry: scores reach 15, so their float32 exponentials are rounded by 15 x 6e-8


def inputs(length: int, dtype=jnp.float32, batch=2, heads=3, size=8) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(k, (batch, length, heads, size)).astype(dtype) for k in keys]


def by_autodiff(*arrays):
    return jax.nn.dot_product_attention(*arrays, is_causal=True)


def blocked(*arrays):
    return causal_attention(*arrays, blocked=True)


@functools.partial(jax.jit, static_argnums=0)
def values(attend, query, key, value, slope) -> tuple[jax.Array, ...]:
    """The output, and the gradients of sum(slope x output)."""
    output, pull = jax.vjp(attend, query, key, value)
    return output, *pull(slope)


@pytest.mark.parametrize("length", [1, 16, BLOCK, BLOCK + 1, 3 * BLOCK - 5, (BLOCKS_MAX + 2) * BLOCK])
def test_blocks_equal_the_whole(length):
    *arrays, slope = inputs(length)
    for ours, theirs in zip(values(blocked, *arrays, slope), values(by_autodiff, *arrays, slope), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=ROUNDING * max(1.0, float(jnp.abs(theirs).max())))


def test_large_scores_do_not_overflow():
    query, key, value, slope = inputs(40)
    found = values(blocked, query * 100, key * 100, value, slope)
    np.testing.assert_allclose(found[0], by_autodiff(query * 100, key * 100, value), atol=1e-5)
    assert all(np.isfinite(x).all() for x in found)


def test_bfloat16_sums_in_float32():
    *arrays, slope = inputs(100, jnp.bfloat16)
    exact = [x.astype(jnp.float32) for x in arrays]
    found = values(blocked, *arrays, slope)
    assert found[0].dtype == jnp.bfloat16
    for ours, theirs in zip(found, values(by_autodiff, *exact, slope.astype(jnp.float32)), strict=True):
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, atol=0.05 * float(jnp.abs(theirs).max()))


def test_replicas_are_independent():
    *arrays, slope = (jnp.stack([x, 2 * x]) for x in inputs(80))
    stacked = jax.vmap(functools.partial(values, blocked))(*arrays, slope)
    for r in range(2):
        alone = values(blocked, *(x[r] for x in arrays), slope[r])
        for ours, theirs in zip(stacked, alone, strict=True):
            np.testing.assert_allclose(ours[r], theirs, atol=ROUNDING * max(1.0, float(jnp.abs(theirs).max())))

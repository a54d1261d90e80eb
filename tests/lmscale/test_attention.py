"""Blocked attention against jax.nn's, and its written-out derivative against automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.attention import BLOCK, BLOCKS_MAX, causal_attention

ROUNDING = 3e-6  # of the largest entry: scores reach 40, so their float32 exponentials are rounded by 40 x 6e-8


def inputs(length: int, dtype=jnp.float32, batch=2, heads=3, size=8) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(k, (batch, length, heads, size)).astype(dtype) * 2 for k in keys]


def by_autodiff(*arrays):
    return jax.nn.dot_product_attention(*arrays, is_causal=True)


def blocked(*arrays):
    return causal_attention(*arrays, blocked=True)


@pytest.mark.parametrize("length", [1, 16, BLOCK, BLOCK + 1, 3 * BLOCK - 5, (BLOCKS_MAX + 2) * BLOCK])
def test_blocks_equal_the_whole(length):
    *arrays, slope = inputs(length)
    expected, pull = jax.vjp(by_autodiff, *arrays)
    found, pull_blocked = jax.vjp(blocked, *arrays)
    for ours, theirs in zip((found, *pull_blocked(slope)), (expected, *pull(slope)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=ROUNDING * float(jnp.abs(theirs).max()))


def test_large_scores_do_not_overflow():
    query, key, value, slope = inputs(40)
    found, pull = jax.vjp(blocked, query * 100, key * 100, value)
    np.testing.assert_allclose(found, by_autodiff(query * 100, key * 100, value), atol=1e-5)
    assert all(np.isfinite(g).all() for g in pull(slope))


def test_bfloat16_sums_in_float32():
    *arrays, slope = inputs(100, jnp.bfloat16)
    exact = [x.astype(jnp.float32) for x in arrays]
    found, pull = jax.vjp(blocked, *arrays)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), by_autodiff(*exact), atol=0.05)
    for ours, theirs in zip(pull(slope), jax.vjp(by_autodiff, *exact)[1](slope.astype(jnp.float32)), strict=True):
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, atol=0.05 * float(jnp.abs(theirs).max()))


def test_replicas_are_independent():
    *arrays, slope = (jnp.stack([x, 2 * x]) for x in inputs(80))
    slopes = jax.vmap(lambda q, k, v, s: jax.vjp(blocked, q, k, v)[1](s))(*arrays, slope)
    for r in range(2):
        alone = jax.vjp(blocked, *(x[r] for x in arrays))[1](slope[r])
        for ours, theirs in zip(slopes, alone, strict=True):
            np.testing.assert_allclose(ours[r], theirs, atol=ROUNDING * float(jnp.abs(theirs).max()))

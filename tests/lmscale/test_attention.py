"""Blocked attention against jax.nn's, and its written-out derivative against automatic differentiation."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.mesh import REPLICAS
from lmscale.network.attention import BLOCK, BLOCKS_MAX, Sight, attention, way_of

ROUNDING = 3e-6  # of the largest entry: scores reach 15, so their float32 exponentials are rounded by 15 x 6e-8


def inputs(length: int, dtype=jnp.float32, batch=2, heads=3, size=8) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(k, (batch, length, heads, size)).astype(dtype) for k in keys]


def by_autodiff(*arrays):
    return jax.nn.dot_product_attention(*arrays, is_causal=True)


def blocked(*arrays):
    return attention(*arrays, causal=True, way="blocks")


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


LENGTH = 3 * BLOCK - 5


def sights(keys: int) -> dict[str, tuple[Sight, bool]]:
    """Kinds of sight over LENGTH queries, and whether they are causal. Document -1 is padding: it has queries alone."""
    places = np.arange(LENGTH)
    queries = jnp.asarray(np.stack([places // 50, np.where(places < 150, places // 40, -1)]))
    others = jnp.asarray(np.stack([np.arange(keys) // 50, np.arange(keys) // 40]))
    prefix = jnp.asarray(np.arange(keys) % 50 < 20)[None].repeat(2, axis=0)
    return {
        "documents": (Sight(queries, others), True),
        "prefix": (Sight(prefix=prefix), True),
        "prefix of documents": (Sight(queries, others, prefix), True),
        "both sides": (Sight(), False),
        "both sides of documents": (Sight(queries, others), False),
    }


@pytest.mark.parametrize("kind", sights(LENGTH))
@pytest.mark.parametrize("way", ["blocks", "plain"])
def test_a_query_sees_its_document(kind, way):
    """Against a literal softmax over the keys that are seen."""
    sight, causal = sights(LENGTH)[kind]
    *arrays, slope = inputs(LENGTH)

    def literal(query, key, value):
        scores = jnp.einsum("bshk,bthk->bhst", query, key) * query.shape[-1] ** -0.5
        place = np.arange(LENGTH)
        seen = np.ones((2, LENGTH, LENGTH), bool)
        if causal:
            before = place[:, None] >= place
            seen &= before | (np.zeros((2, 1, LENGTH), bool) if sight.prefix is None else sight.prefix[:, None])
        if sight.queries is not None:
            seen &= np.asarray(sight.queries)[:, :, None] == np.asarray(sight.keys)[:, None]
        weights = jnp.where(seen[:, None], jnp.exp(scores), 0)
        weights = weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-30)
        return jnp.einsum("bhst,bthk->bshk", weights, value)

    def ours(query, key, value):
        return attention(query, key, value, sight, causal=causal, way=way)

    for found, expected in zip(values(ours, *arrays, slope), values(literal, *arrays, slope), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, float(jnp.abs(expected).max())))


@pytest.mark.parametrize("way", ["blocks", "plain"])
def test_attention_across_to_fewer_keys(way):
    """Queries of document -1 see nothing and get zeros; so do their gradients."""
    sight, causal = Sight(*sights(60)["documents"][0][:2]), False
    query, _, _, slope = inputs(LENGTH)
    key, value = inputs(60)[1:3]

    def ours(query, key, value):
        return attention(query, key, value, sight, causal=causal, way=way)

    output, query_slope, *others = values(ours, query, key, value, slope)
    alone = np.asarray(sight.queries)[..., None] == np.asarray(sight.keys)[:, None]
    blind = ~alone.any(axis=-1)
    assert blind.sum() > 100
    assert (np.asarray(output)[blind] == 0).all()
    assert (np.asarray(query_slope)[blind] == 0).all()
    assert all(np.isfinite(x).all() for x in others)
    for document in (0, 1):
        mine, theirs = np.asarray(sight.queries)[0] == document, np.asarray(sight.keys)[0] == document
        expected = jax.nn.dot_product_attention(query[:1, mine], key[:1, theirs], value[:1, theirs])
        np.testing.assert_allclose(output[:1][:, mine], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("platform", "capability", "dtype", "head", "way"),
    [
        ("cpu", None, "bfloat16", 64, "blocks"),
        ("gpu", "9.0", "bfloat16", 128, "cudnn"),
        ("gpu", "9.0", "float32", 64, "plain"),
        ("gpu", "7.0", "bfloat16", 64, "plain"),
        ("gpu", "gfx942", "bfloat16", 64, "plain"),  # AMD's names
        ("gpu", "9.0", "bfloat16", 20, "plain"),
        ("tpu", None, "bfloat16", 64, "splash"),
    ],
)
def test_the_kernel_is_taken_where_there_is_one(platform, capability, dtype, head, way):
    device = SimpleNamespace(platform=platform, compute_capability=capability)
    assert way_of(device, jnp.dtype(dtype), head) == way


@pytest.mark.parametrize("alone", [True, False])
def test_documents_of_a_stack_lower_for_a_gpu(alone, monkeypatch):
    """jax's rule for a vmap of cuDNN's kernel refuses a mask that all heads share (seen on an H200)."""
    # there is no cuDNN here to ask
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91_000)
    query = jnp.zeros((3, 2, 64, 4, 16), jnp.bfloat16)
    documents = jnp.zeros((3, 2, 64), jnp.int32)

    def summed(query, documents):
        return attention(query, query, query, Sight(documents, documents), causal=True, way="cudnn").sum()

    if alone:
        program, given = jax.grad(summed), (query[0], documents[0])
    else:
        program, given = jax.vmap(jax.grad(summed), axis_name=REPLICAS), (query, documents)
    text = jax.jit(program).trace(*given).lower(lowering_platforms=("cuda",)).as_text()
    assert "fmhaScaleBiasSoftmaxBackward" in text

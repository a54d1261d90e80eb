"""The TPU's attention kernel, in Pallas's interpreter, against a literal softmax over the keys that are seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.config import MeshConfig
from lmscale.mesh import make_mesh
from lmscale.network.attention import Sight, attention
from lmscale.network.splash import block_of, splash, suits

LENGTH, HEADS, SIZE = 256, 2, 64  # a head that is filled up to the lanes of a TPU


def inputs() -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (4, LENGTH, HEADS, SIZE)) for key in keys]


def documents() -> jax.Array:
    """Rows of documents that cross the kernel's blocks; the last row ends in padding, which is in none."""
    places = np.arange(LENGTH)
    numbers = [places // 100, places // 37, np.zeros_like(places), np.where(places < 200, 0, -1)]
    return jnp.asarray(np.stack(numbers))


def literal(causal: bool, number: jax.Array | None, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    seen = np.tril(np.ones((LENGTH, LENGTH), bool)) if causal else np.ones((LENGTH, LENGTH), bool)
    seen = np.broadcast_to(seen, (4, LENGTH, LENGTH))
    if number is not None:
        given = np.asarray(number)
        seen = seen & (given[:, :, None] == given[:, None]) & (given >= 0)[:, None]
    weights = jnp.where(seen[:, None], jnp.exp(jnp.einsum("bshk,bthk->bhst", query, key) * SIZE**-0.5), 0)
    weights = weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-30)
    return jnp.einsum("bhst,bthk->bshk", weights, value)


@pytest.mark.parametrize(
    ("mesh", "causal", "apart"), [("2,2,2", True, True), ("1,1,1", False, True), ("1,2,1", True, False)]
)
def test_kernel_and_its_gradients_equal_a_literal_softmax(mesh, causal, apart):
    query, key, value, slope = inputs()
    number = documents() if apart else None
    sight, over = Sight(number, number), make_mesh(MeshConfig.from_text(mesh))
    assert suits(query, key, sight, over)

    def ours(query, key, value):
        return splash(query, key, value, sight, over, causal=causal, interpret=True)

    def pulled(attend):
        def values(*given):
            output, pull = jax.vjp(attend, *given)
            return output, *pull(slope)

        return jax.jit(values)(query, key, value)

    theirs = pulled(lambda q, k, v: literal(causal, number, q, k, v))
    for found, expected in zip(pulled(ours), theirs, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5 * max(1.0, float(jnp.abs(expected).max())))


def test_replicas_and_groups_of_rows_are_mapped_over():
    """A vmap over an axis of the mesh, as gradients of groups of rows are made, leaves each device its own rows."""
    query, key, value, _ = (x.reshape(2, 2, *x.shape[1:]) for x in inputs())
    number = documents().reshape(2, 2, -1)
    over = make_mesh(MeshConfig(data=2, tensor=2))

    def ours(number, query, key, value):
        return splash(query, key, value, Sight(number, number), over, causal=True, interpret=True)

    mapped = jax.jit(jax.vmap(ours, axis_name="data", spmd_axis_name="data"))(number, query, key, value)
    expected = literal(True, documents(), inputs()[0], inputs()[1], inputs()[2])
    np.testing.assert_allclose(mapped.reshape(expected.shape), expected, atol=2e-5)


def test_what_the_kernel_does_not_take_is_computed_plainly():
    query, key, value, _ = inputs()
    whole, over = Sight(), make_mesh(MeshConfig())
    assert block_of(2048) == 512
    assert block_of(1280) == 256
    assert block_of(100) is None
    assert not suits(query[:, :100], key[:, :100], whole, over)
    assert not suits(query[:, :128], key, whole, over)
    assert not suits(query, key, Sight(prefix=jnp.zeros((4, LENGTH), bool)), over)
    assert not suits(query[:3], key[:3], whole, make_mesh(MeshConfig(fsdp=2)))
    assert not suits(query[:, :, :1], key[:, :, :1], whole, make_mesh(MeshConfig(tensor=2)))
    short = query[:, :100], key[:, :100], value[:, :100]
    found = attention(*short, causal=True, way="splash", mesh=over)
    np.testing.assert_allclose(found, attention(*short, causal=True, way="plain"), atol=1e-6)

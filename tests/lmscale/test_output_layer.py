"""Losses made of parts of the logits equal those of all of them; so do their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmscale.config import MeshConfig
from lmscale.mesh import make_mesh
from lmscale.network.output_layer import Output, logits, parts_of, summed_nats, token_nats

B, S, D, V = 4, 24, 16, 40


def given(dtype=jnp.float32):
    states, head, targets, weights = jax.random.split(jax.random.key(0), 4)
    output = Output(jax.random.normal(states, (B, S, D), dtype), jax.random.normal(head, (V, D), dtype))
    chosen = jax.random.randint(targets, (B, S), 0, V)
    return output, chosen, jax.random.bernoulli(weights, 0.7, (B, S)).astype(jnp.float32)


def literal(output, targets, weights):
    """log softmax over whole logits, in the highest precision there is here."""
    scores = jnp.einsum("bsd,vd->bsv", *(x.astype(jnp.float32) for x in output), precision="highest")
    chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), targets[..., None], axis=-1)[..., 0]
    return -jnp.sum(chosen * weights)


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(data=2, fsdp=2, tensor=2)], ids=str)
@pytest.mark.parametrize("parts", [1, 3, 24])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)])
def test_parts_equal_the_whole(mesh, parts, dtype, tolerance):
    output, targets, weights = given(dtype)
    devices = make_mesh(mesh)

    def ours(output):
        return 2.0 * summed_nats(output, targets, weights, devices, parts)

    found, slopes = jax.jit(jax.value_and_grad(ours))(output)
    expected, true = jax.value_and_grad(lambda output: 2.0 * literal(output, targets, weights))(output)
    np.testing.assert_allclose(found, expected, rtol=tolerance / 10)
    for one, other in zip(slopes, true, strict=True):
        assert one.dtype == dtype
        difference = np.abs(one.astype(np.float32) - other.astype(np.float32)).max()
        assert difference <= tolerance * np.abs(other.astype(np.float32)).max()
    whole = jnp.sum(token_nats(output, targets, devices, parts) * weights)
    np.testing.assert_allclose(2.0 * whole, expected, rtol=tolerance / 10)


def test_logits_never_stand_whole():
    """Nothing in the compiled gradient, loops included, is as large as the logits."""
    output, targets, weights = given()
    mesh = make_mesh(MeshConfig())

    def shapes(parts):
        def ours(output):
            return summed_nats(output, targets, weights, mesh, parts)

        text = jax.jit(jax.grad(ours)).lower(output).as_text()
        return [found for found in (f"{B * S}x{V}x", f"{B}x{S}x{V}x", f"{B * S // 3}x{V}x") if found in text]

    assert shapes(1) == [f"{B * S}x{V}x", f"{B}x{S}x{V}x"]
    assert shapes(3) == [f"{B * S // 3}x{V}x"]


def test_the_fewest_parts_that_keep_a_device_within_its_bytes():
    output, _, _ = given()
    whole = 4 * B * S * V
    alone, split = make_mesh(MeshConfig()), make_mesh(MeshConfig(data=2, tensor=2))
    assert parts_of(output, alone, whole) == 1
    assert parts_of(output, alone, whole - 1) == 2
    assert parts_of(output, alone, whole // 5) == 6  # 5 does not divide 24
    assert parts_of(output, split, whole // 5) == 2  # a device has a quarter
    assert parts_of(output, alone, 1) == S
    assert logits(output, alone).shape == (B, S, V)

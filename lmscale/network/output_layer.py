"""The output layer: from the states of the last layer to logits and to losses, which need no logits as a whole.

Where the logits of a batch would be large, states are taken in parts along the sequence (each device keeps its rows):
logits, their losses and their gradients of one part after another. In bfloat16 the products are bfloat16 with sums in
float32, forward and backward.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from lmscale.mesh import constrain, unmapped_devices
from lmscale.planning.memory import LOGIT_BYTES


class Output(NamedTuple):
    """What a model ends in: the states of its last layer, and the matrix that makes logits of them."""

    states: Float[Array, "B S D"]
    head: Float[Array, "V D"]


def logits(output: Output, mesh: Mesh) -> Float[Array, "B S V"]:
    """In float32."""
    states, head = output
    rows = states.reshape(-1, states.shape[-1])  # a plain matrix product, as in lmscale.layers
    product = jnp.matmul(rows, head.T, preferred_element_type=jnp.float32)
    return constrain(product.reshape(*states.shape[:2], len(head)), mesh, "batch", None, "vocab")


def cross_entropy(logits: Float[Array, "B S V"], targets: Int[Array, "B S"]) -> Float[Array, "B S"]:
    """-log softmax(logits)[target] in nats, in float32."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def parts_of(output: Output, mesh: Mesh, bytes_max: int = LOGIT_BYTES) -> int:
    """The fewest equal parts of the sequence whose logits take at most `bytes_max` on each device."""
    batch, sequence, _ = output.states.shape
    whole = 4 * batch * sequence * len(output.head) / unmapped_devices(mesh)
    return next(n for n in range(1, sequence + 1) if sequence % n == 0 and (whole <= n * bytes_max or n == sequence))


def token_nats(output: Output, targets: Int[Array, "B S"], mesh: Mesh, parts: int | None = None) -> Float[Array, "B S"]:
    """Cross-entropy of each target in nats, float32."""
    parts = parts or parts_of(output, mesh)
    if parts == 1:
        return cross_entropy(logits(output, mesh), targets)

    def one(given: tuple[Array, Array]) -> Array:
        return cross_entropy(logits(Output(given[0], output.head), mesh), given[1])

    return _whole(jax.lax.map(one, (_split(output.states, parts), _split(targets, parts))))


def summed_nats(
    output: Output, targets: Int[Array, "B S"], weights: Float[Array, "B S"], mesh: Mesh, parts: int | None = None
) -> Float[Array, ""]:
    """The weighted sum of the targets' cross-entropies in nats, float32."""
    parts = parts or parts_of(output, mesh)
    if parts == 1 and output.states.dtype == jnp.float32:  # here automatic differentiation does as well
        return jnp.sum(cross_entropy(logits(output, mesh), targets) * weights)
    return _summed(mesh, parts, output, targets, weights)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _summed(mesh: Mesh, parts: int, output: Output, targets: Array, weights: Array) -> Array:
    return jnp.sum(token_nats(output, targets, mesh, parts) * weights)


def _forward(mesh: Mesh, parts: int, output: Output, targets: Array, weights: Array) -> tuple[Array, Any]:
    """The sum, and its gradients, for which the logits are at hand: nothing is computed twice."""
    states, head = output

    def one(sums: tuple[Array, Array], given: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
        states, targets, weights = given
        scores = logits(Output(states, head), mesh)
        highest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
        total = jnp.sum(jnp.exp(scores - highest), axis=-1, keepdims=True)
        chosen = jnp.take_along_axis(scores, targets[..., None], axis=-1)
        nats = (jnp.log(total) + highest - chosen)[..., 0]
        hit = jnp.arange(len(head)) == targets[..., None]
        slope = ((jnp.exp(scores - highest) / total - hit) * weights[..., None]).astype(states.dtype)
        slope = constrain(slope, mesh, "batch", None, "vocab")
        rows, flat = states.reshape(-1, states.shape[-1]), slope.reshape(-1, len(head))
        head_slope = jnp.matmul(flat.T, rows, preferred_element_type=jnp.float32)
        state_slope = jnp.matmul(flat, head, preferred_element_type=jnp.float32).astype(states.dtype)
        return (sums[0] + jnp.sum(nats * weights), sums[1] + head_slope), state_slope.reshape(states.shape)

    empty = jnp.zeros((), jnp.float32), jnp.zeros(head.shape, jnp.float32)
    if parts == 1:
        (total, head_slope), state_slope = one(empty, (states, targets, weights))
    else:
        given = _split(states, parts), _split(targets, parts), _split(weights, parts)
        (total, head_slope), split = jax.lax.scan(one, empty, given)
        state_slope = _whole(split)
    return total, (state_slope, head_slope)


def _backward(mesh: Mesh, parts: int, slopes: tuple[Array, Array], of_sum: Array) -> tuple[Output, None, None]:
    state_slope, head_slope = slopes
    dtype = state_slope.dtype
    return Output(state_slope * of_sum.astype(dtype), (head_slope * of_sum).astype(dtype)), None, None


_summed.defvjp(_forward, _backward)


def _split(x: Array, parts: int) -> Array:
    """[B, S, ...] to [parts, B, S / parts, ...]."""
    return jnp.moveaxis(x.reshape(x.shape[0], parts, -1, *x.shape[2:]), 1, 0)


def _whole(split: Array) -> Array:
    """[parts, B, s, ...] to [B, parts s, ...]."""
    return jnp.moveaxis(split, 0, 1).reshape(split.shape[1], -1, *split.shape[3:])

"""Objectives: windows of tokens and logits to a Loss, a sum in nats and the weight it is over."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Loss(NamedTuple):
    """Summed cross-entropy in nats, and the number of tokens scored. Only the last line divides."""

    sum: Array
    weight: Array


class Example(NamedTuple):
    """What a model reads and what it is scored on, all [B, S]."""

    inputs: Array
    targets: Array
    weights: Array


def causal(windows: Int[Array, "B S+1"], weights: Float[Array, "B S"] | None = None) -> Example:
    """Every token predicted from those before it."""
    targets = windows[:, 1:]
    return Example(windows[:, :-1], targets, jnp.ones(targets.shape, jnp.float32) if weights is None else weights)


def cross_entropy(logits: Float[Array, "B S V"], targets: Int[Array, "B S"]) -> Float[Array, "B S"]:
    """-log softmax(logits)[target] in nats, in float32."""
    logits = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def loss(apply: Any, params: Any, example: Example) -> Loss:
    """The weighted loss of a model, `apply(params, inputs) -> logits`."""
    nats = cross_entropy(apply(params, example.inputs), example.targets)
    return Loss(jnp.sum(nats * example.weights), jnp.sum(example.weights))


OBJECTIVES: dict[str, Any] = {"causal": causal}

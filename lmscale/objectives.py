"""Objectives: windows of tokens to what a model reads and is scored on; its output to a Loss, a sum in nats and its
weight.

What the loss of each means, and which may be compared: docs/families.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from lmscale.network.borders import Rows, closed, opened
from lmscale.network.corruption import mask_tokens, take_out_spans
from lmscale.network.output_layer import Output, summed_nats
from lmscale.network.spans import NOISY
from lmscale.plan import Trajectory


class Loss(NamedTuple):
    """Summed cross-entropy in nats, and the number of tokens scored. Only the last line divides."""

    sum: Array
    weight: Array


class Example(NamedTuple):
    """What a model reads and what it is scored on."""

    inputs: Rows  # [B, S]
    targets: Int[Array, "B S"]
    weights: Float[Array, "B S"]
    prefix: Bool[Array, "B S"] | None = None  # inputs that all of their document see
    source: Rows | None = None  # [B, T]: what an encoder reads


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Windows int32 [B, S+1], and a last column with the number of each where `noisy`, to an Example."""

    name: str
    encodes: bool  # for a model whose encoder reads the source
    vocab: int  # tokens of the text; those that the objective adds follow
    eos_id: int | None  # None where documents see each other, or have no end
    start_id: int  # what a decoder reads before its first token
    separator_id: int | None  # between the sides of a pair

    @property
    def noisy(self) -> bool:
        return self.name in NOISY

    def __call__(self, windows: Int[Array, "B C"], weights: Float[Array, "B S"] | None = None) -> Example:
        """`weights` are 1 for the targets that count, the rest of a row is padding; None: all count."""
        keys = numbers = jax.random.key(0)
        if self.noisy:
            windows, numbers = windows[:, :-1], windows[:, -1]
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), numbers)
        targets = windows[:, 1:]
        real = None if weights is None else jnp.cumsum(weights[:, ::-1], axis=1)[:, ::-1] > 0
        weights = jnp.ones(targets.shape, jnp.float32) if weights is None else weights
        match self.name:
            case "causal":
                return Example(opened(windows[:, :-1], self.eos_id), targets, weights)
            case "masked":
                rows, chosen = mask_tokens(
                    closed(targets, self.eos_id), keys, numbers, mask_id=self.vocab, eos_id=self.eos_id
                )
                return Example(rows if real is None else rows.only(real), targets, weights * chosen)
            case "spans":
                rows = closed(targets, self.eos_id)
                rows = rows if real is None else rows.only(real)
                ids = {"first_sentinel": self.vocab, "start_id": self.start_id, "eos_id": self.eos_id}
                source, written = take_out_spans(rows, weights, keys, **ids)
                return Example(written.inputs, written.targets, written.weights, source=source)
            case "prefix":
                length = jnp.full(len(targets), targets.shape[1]) if real is None else jnp.sum(real, axis=1)
                drawn = 1 + jnp.floor(jax.vmap(jax.random.uniform)(keys) * length).astype(jnp.int32)
                cut = jnp.where(numbers < 0, -numbers, drawn)
                place = jnp.arange(targets.shape[1])
                inputs = opened(windows[:, :-1], self.eos_id)
                return self._halved(inputs, targets, weights, place < cut[:, None], place >= cut[:, None] - 1)
            case "pairs":
                inputs = opened(windows[:, :-1], self.eos_id)
                after = _separators(inputs, self.separator_id)
                before = after - (inputs.tokens == self.separator_id)
                return self._halved(inputs, targets, weights, before == 0, after > 0)
            case _:
                raise ValueError(self.name)

    def _halved(
        self, inputs: Rows, targets: Array, weights: Array, prefix: Bool[Array, "B S"], written: Bool[Array, "B S"]
    ) -> Example:
        """A part that is read and a part that is written, which meet in the token from which the first is predicted."""
        if not self.encodes:
            return Example(inputs, targets, weights * written, prefix=prefix)
        return Example(inputs.only(written), targets, weights * written, source=inputs.only(prefix))


def _separators(inputs: Rows, separator_id: int | None) -> Int[Array, "B S"]:
    """How many separators there are in each token's document, up to it."""
    count = jnp.cumsum(inputs.tokens == separator_id, axis=1)
    first = jnp.arange(inputs.tokens.shape[1]) - inputs.positions  # of its document
    before = jnp.pad(count, ((0, 0), (1, 0)))
    return count - jnp.take_along_axis(before, first, axis=1)


def make_objective(trajectory: Trajectory) -> Objective:
    text, apart = trajectory.text, trajectory.hyperparameters.documents == "apart"
    return Objective(
        name=trajectory.objective,
        encodes=trajectory.family == "encoder_decoder",
        vocab=text.vocab,
        eos_id=text.eos_id if apart else None,
        start_id=text.start_id,
        separator_id=text.separator_id,
    )


def loss(output: Output, example: Example, mesh: Mesh) -> Loss:
    """The weighted loss of what a model made of an example."""
    return Loss(summed_nats(output, example.targets, example.weights, mesh), jnp.sum(example.weights))

"""Weights of a trained model rounded to a few bits, and the loss that this adds on the text it is evaluated on.

Round to nearest, symmetric: a channel of weights w with absmax scale s = max |w| / (2^(b-1) - 1) becomes
s round(w / s), in float32 (Wu et al. 2020, arXiv:2004.09602, Sec. 3.1.2 and 4.1; so Kumar et al. 2024,
arXiv:2411.04330, App. D.1, have it, with "channel-based scaling"). Every matrix is rounded, embeddings and output layer
too, and each output has a scale of its own, or each group of so many inputs of an output; the scales stay in float32,
and so do the norms' scales, which are no matrices.

This is weight-only rounding after training, the plainest of what Kumar et al. 2024, Sec. 3.1 and App. F, measure. It is
no calibration on text (GPTQ, AWQ), rounds neither activations nor the cache of keys and values, and makes nothing
faster or smaller here: the rounded weights are put back as float32 and scored by the program that scored the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from analysis.errors import InputError
from lmscale.evaluate import Score, summarise, window_losses
from lmscale.study.typed import check

if TYPE_CHECKING:
    from lmscale.data.loader import EvaluationSet
    from lmscale.step import Step

# How many of a weight's first dimensions are inputs, by its own name or that of its module; the others are outputs
INPUTS = {"inward": 1, "query": 1, "out": 2, "up": 1, "down": 1, "kernel": 1}
# [V, D]: a row a channel. A lookup reads one row, and the output layer has one row an output
TABLES = ("embedding", "position_embedding", "head")
LAYERS = {"layers", "encoder_layers"}  # modules whose parameters have a leading axis of layers, a matrix each
LEAST_BITS, MOST_BITS = 2, 16  # two leave -1, 0 and 1; what sixteen add is below what float32 adds


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """To how many bits; `group`: inputs that share a scale, None where all of an output do."""

    bits: int
    group: int | None = None

    def __post_init__(self) -> None:
        check(LEAST_BITS <= self.bits <= MOST_BITS, "bits", self.bits, f"must lie from {LEAST_BITS} to {MOST_BITS}")
        check(self.group is None or self.group >= 2, "group", self.group, "must be at least 2 inputs, such as 128")

    @property
    def levels(self) -> int:
        """The largest integer, and minus the smallest."""
        return 2 ** (self.bits - 1) - 1

    @property
    def name(self) -> str:
        """int4, or int4_g128: what the metrics of scores.csv end in."""
        return f"int{self.bits}" + (f"_g{self.group}" if self.group else "")

    @property
    def metrics(self) -> tuple[str, str]:
        """The loss with rounded weights, and what rounding added to it."""
        return f"loss_nats_{self.name}", f"loss_added_{self.name}"


def round_columns(matrices: Float[Array, "L I O"], levels: Array | float, group: int | None) -> Float[Array, "L I O"]:
    """Each column of each matrix rounded to -levels ... levels times a scale of its own, or of each `group` of its
    rows (the last may be shorter). Ties go to even. A column of zeros stays.
    """
    layers, inputs, outputs = matrices.shape
    width = inputs if group is None else min(group, inputs)
    padding = -inputs % width
    parts = jnp.pad(matrices, ((0, 0), (0, padding), (0, 0))).reshape(layers, -1, width, outputs)
    scale = jnp.max(jnp.abs(parts), axis=-2, keepdims=True) / levels
    steps = jnp.clip(jnp.round(parts / jnp.where(scale > 0, scale, 1.0)), -levels, levels)
    return (steps * scale).reshape(layers, inputs + padding, outputs)[:, :inputs]


def round_weights(params: Any, levels: Array | float, group: int | None = None) -> Any:
    """The parameters of a model with every matrix rounded (`round_columns`), in their own shapes.

    Raises InputError for a matrix of which nothing says which dimensions are its inputs.
    """

    def one(path: Sequence[Any], weight: Array) -> Array:
        names = [str(key.key) for key in path]
        shape = weight.shape[1:] if LAYERS & set(names) else weight.shape
        if len(shape) < 2:
            return weight
        if names[-1] in TABLES:
            table = jnp.swapaxes(weight.reshape(-1, *shape), 1, 2)
            return jnp.swapaxes(round_columns(table, levels, group), 1, 2).reshape(weight.shape)
        name = names[-2] if names[-1] == "weight" else names[-1]
        if name not in INPUTS:
            raise InputError(
                f"params: {'/'.join(names)!r} {weight.shape} is a matrix of unknown inputs; say how many of its "
                "dimensions are (lmscale.scoring.quantise.INPUTS)"
            )
        count = INPUTS[name]
        matrices = weight.reshape(-1, math.prod(shape[:count]), math.prod(shape[count:]))
        return round_columns(matrices, levels, group).reshape(weight.shape)

    return jax.tree_util.tree_map_with_path(one, params)


def make_rounder(step: Step) -> Callable[[Any, Rounding], Any]:
    """`round_weights` compiled for the parameters of a step, laid out on its mesh as they are; once for all bits."""
    shardings = step.state_shardings.params
    compiled = {}

    def rounded(params: Any, rounding: Rounding) -> Any:
        if rounding.group not in compiled:
            compiled[rounding.group] = jax.jit(
                lambda params, levels: round_weights(params, levels, rounding.group),
                in_shardings=(shardings, None),
                out_shardings=shardings,
            )
        return compiled[rounding.group](params, np.float32(rounding.levels))

    return rounded


class Scorer:
    """Scores the models of one step with their weights rounded."""

    def __init__(self, step: Step):
        self.step, self.rounder = step, make_rounder(step)

    def __call__(self, params: Any, windows: EvaluationSet, roundings: Sequence[Rounding]) -> list[list[Score]]:
        """Of each rounding the loss and what it adds, in nats per token, each with its standard error.

        That of the loss added is paired: both losses are of the same text, so it is the ratio estimate over documents
        (lmscale.evaluate.summarise) of the differences themselves, in which what is hard to predict cancels.
        """
        exact, weights = window_losses(self.step, params, windows)
        scores = []
        for rounding in roundings:
            rounded, _ = window_losses(self.step, self.rounder(params, rounding), windows)
            pair = []
            for metric, sums in zip(rounding.metrics, (rounded, rounded - exact), strict=True):
                found = summarise(sums, weights, windows.documents, 0.0)
                pair.append(Score(metric=metric, value=found.loss_nats, stderr=found.loss_stderr))
            scores.append(pair)
        return scores

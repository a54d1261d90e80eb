"""The model families. `build` gives the Flax module of a shape; init/apply are pure functions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from lmscale.config import Remat
from lmscale.layers import Attention, FeedForward, RMSNorm, parameter
from lmscale.mesh import constrain
from lmscale.shapes import Shape

# Up to here layers are unrolled (15 % faster on a CPU); deeper ones are scanned, to compile once. So are those that are
# rematerialised or gathered over fsdp: unrolled, the compiler kept what was to be computed again, and the whole
# gradients of several layers at once (measured, XLA on CPUs)
UNROLL_DEPTH = 16


class Block(nn.Module):
    """Pre-norm transformer layer: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    shape: Shape
    mesh: Mesh

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"], _: None) -> tuple[Float[Array, "B S D"], None]:
        s = self.shape
        scale = 1.0 / (2 * s.depth)  # variance of the residual branches: Radford et al. 2019, Sec. 2.3
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        attention = Attention(
            s.heads, s.head_size, scale, s.positions == 0, on_cpu, self.mesh.size > 1, name="attention"
        )
        feedforward = FeedForward(s.feedforward, scale, name="feedforward")
        x = x + attention(RMSNorm(name="attention_norm")(x))
        x = x + feedforward(RMSNorm(name="feedforward_norm")(x))
        return constrain(x, self.mesh, "batch", None, None), None


class Decoder(nn.Module):
    """Decoder-only causal transformer: tokens to the logits of the token after each."""

    shape: Shape
    mesh: Mesh
    dtype: jnp.dtype
    remat: Remat = "none"

    @nn.compact
    def __call__(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S V"]:
        s = self.shape
        init = nn.with_logical_partitioning(nn.initializers.normal(s.width**-0.5), ("vocab", "embed"))
        embedding = parameter(self, "embedding", init, (s.vocab, s.width))
        table = constrain(embedding.astype(self.dtype), self.mesh, "vocab", None)  # gathered over fsdp, like any matrix
        x = table[tokens]
        if s.positions:  # as large as the tokens' at first
            init_positions = nn.with_logical_partitioning(nn.initializers.normal(s.width**-0.5), (None, "embed"))
            positions = parameter(self, "position_embedding", init_positions, (s.positions, s.width))
            x = x + constrain(positions.astype(self.dtype), self.mesh, None, None)[: tokens.shape[1]]
        x = x * jnp.asarray(s.width**0.5, self.dtype)
        x = constrain(x, self.mesh, "batch", None, None)
        unrolled = s.depth <= UNROLL_DEPTH and self.remat == "none" and self.mesh.shape["fsdp"] == 1
        layers = nn.scan(
            nn.remat(Block) if self.remat == "layer" else Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=s.depth,
            unroll=s.depth if unrolled else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = layers(s, self.mesh, name="layers")(x, None)
        x = RMSNorm(name="final_norm")(x)
        if not s.tied:
            table = parameter(self, "head", init, (s.vocab, s.width)).astype(self.dtype)
        rows = x.reshape(-1, s.width)  # a plain matrix product, as in Linear
        logits = jnp.matmul(rows, table.T, preferred_element_type=jnp.float32)
        logits = logits.reshape(*tokens.shape, s.vocab)
        return constrain(logits, self.mesh, "batch", None, "vocab")


FAMILIES: dict[str, Any] = {"decoder": Decoder}


def build(family: str, shape: Shape, mesh: Mesh, dtype: jnp.dtype, remat: Remat = "none") -> nn.Module:
    """The module of a family; `dtype` is that of its arithmetic (parameters are float32).

    With `remat` "layer" only what enters a layer is kept for the backward pass (Chen et al. 2016, arXiv:1604.06174).
    """
    return FAMILIES[family](shape, mesh, dtype, remat)

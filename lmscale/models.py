"""The model families. `build` gives the Flax module of a shape; init/apply are pure functions of an Example."""

from __future__ import annotations

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float

from lmscale.config import Remat
from lmscale.layers import WATCHED, Attention, CrossAttention, FeedForward, Recurrence, RMSNorm, parameter
from lmscale.mesh import constrain
from lmscale.network.attention import CUDNN_SAVED, EVERYTHING, SPLASH_SAVED, Sight, way_of
from lmscale.network.borders import Rows
from lmscale.network.cache import CACHE, Past, across, go_on, is_cached
from lmscale.network.output_layer import Output
from lmscale.objectives import Example
from lmscale.shapes import Shape

# Up to here layers are unrolled (15 % faster on a CPU, and on a GPU a third: a scan copies what it keeps); deeper ones
# are scanned, to compile once: for a TPU three layers unrolled took minutes to compile (docs/aot.md)
UNROLL_DEPTH = {"cpu": 16, "gpu": 64, "tpu": 1}


class Block(nn.Module):
    """Pre-norm transformer layer: x + attention(norm(x)), then x + feed-forward(norm(x)); in a decoder with an encoder
    x + cross-attention(norm(x)) between them.
    """

    shape: Shape
    mesh: Mesh
    causal: bool = True
    crossed: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S D"], sight: Sight | Past, source: Array | None, across: Sight | Past
    ) -> tuple[Float[Array, "B S D"], None]:
        s = self.shape
        scale = 1.0 / (2 * s.depth)  # variance of the residual branches: Radford et al. 2019, Sec. 2.3
        way, rotary = way_of(self.mesh.devices.flat[0], x.dtype, s.head_size), s.positions == 0
        attention = Attention(s.heads, s.head_size, scale, self.causal, rotary, way, self.mesh, name="attention")
        norm = of_norm(self.mesh)
        x = x + attention(norm(name="attention_norm")(x), sight)
        if self.crossed:
            cross = CrossAttention(s.heads, s.head_size, scale, way, self.mesh, name="cross_attention")
            x = x + cross(norm(name="cross_attention_norm")(x), source, across)
        x = x + FeedForward(s.feedforward, scale, name="feedforward")(norm(name="feedforward_norm")(x))
        return constrain(x, self.mesh, "batch", None, None), None


class RecurrentBlock(nn.Module):
    """x + LSTM(norm(x)): residual, so that deep ones train as shallow ones do (Wu et al. 2016, arXiv:1609.08144)."""

    shape: Shape
    mesh: Mesh

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"], fresh: Bool[Array, "B S"]) -> tuple[Float[Array, "B S D"], None]:
        x = x + Recurrence(name="recurrence")(RMSNorm(name="recurrence_norm")(x), fresh)
        return constrain(x, self.mesh, "batch", None, None), None


class Tables:
    """Tokens, and positions where they are learned, to vectors; the output layer's matrix. Parameters of a module."""

    def __init__(self, module: Family):
        s = self.shape = module.shape
        self.mesh, self.dtype = module.mesh, module.dtype
        init = nn.with_logical_partitioning(nn.initializers.normal(s.width**-0.5), ("vocab", "embed"))
        embedding = parameter(module, "embedding", init, (s.vocab, s.width))
        # gathered over fsdp, like any matrix
        self.embedding = self.head = constrain(embedding.astype(self.dtype), self.mesh, "vocab", None)
        if s.positions:  # as large as the tokens' at first
            init_positions = nn.with_logical_partitioning(nn.initializers.normal(s.width**-0.5), (None, "embed"))
            positions = parameter(module, "position_embedding", init_positions, (s.positions, s.width))
            self.positions = constrain(positions.astype(self.dtype), self.mesh, None, None)
        if not s.tied:
            self.head = parameter(module, "head", init, (s.vocab, s.width)).astype(self.dtype)

    def read(self, rows: Rows) -> Float[Array, "B S D"]:
        x = self.embedding[rows.tokens]
        if self.shape.positions:
            x = x + self.positions[rows.positions]
        x = x * jnp.asarray(self.shape.width**0.5, self.dtype)
        return constrain(x, self.mesh, "batch", None, None)


def of_norm(mesh: Mesh) -> Any:
    """RMSNorm; on a TPU made again in the backward pass, or its float32 of every layer is kept: twice the width, twice
    over, in place of an input that is kept anyway (docs/aot.md).
    """
    return nn.remat(RMSNorm) if mesh.devices.flat[0].platform == "tpu" else RMSNorm


def again(block: Any, remat: Remat, scanned: bool) -> Any:
    """A layer, of which all or a part is computed again in the backward pass."""
    if remat == "none":
        return block
    # the two passes of a scan are two loops: the compiler cannot take one layer's result for the other's
    return nn.remat(block, policy=is_product if remat == "products" else None, prevent_cse=not scanned)


def is_product(primitive: Any, *operands: Any, **settings: Any) -> bool:
    """What `products` keeps: results of matrix products with weights, and of fused attention."""
    fused = primitive.name.startswith(CUDNN_SAVED) or settings.get("name") == SPLASH_SAVED
    return fused or jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *operands, **settings)


class Family(nn.Module):
    """What the families share: embeddings, and layers that are unrolled or scanned."""

    shape: Shape
    mesh: Mesh
    dtype: jnp.dtype
    remat: Remat = "none"

    @property
    def unrolled(self) -> bool:
        """Layers gathered over fsdp are scanned, or the compiler holds the whole gradients of several at once; so are
        those computed again, but on a GPU, where the compiler then keeps no more (measured: XLA on CPUs and an H200).
        """
        platform = self.mesh.devices.flat[0].platform
        kept = self.remat == "none" or platform == "gpu"
        return kept and self.shape.depth <= UNROLL_DEPTH[platform] and self.mesh.shape["fsdp"] == 1

    def layers(self, block: Any, x: Array, *given: Any, name: str = "layers", **kind: Any) -> Float[Array, "B S D"]:
        s = self.shape
        stack = nn.scan(
            again(block, self.remat, scanned=not self.unrolled),
            variable_axes={"params": 0, CACHE: 0, WATCHED: 0},
            split_rngs={"params": True},
            in_axes=cast(Any, nn.broadcast),
            length=s.depth,
            unroll=s.depth if self.unrolled else 1,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return stack(s, self.mesh, **kind, name=name)(x, *given)[0]

    def sight(self, rows: Rows, prefix: Bool[Array, "B S"] | None = None) -> Sight | Past:
        """What a decoder's tokens see: of their rows alone, or of the cache that it goes on with."""
        return go_on(self, rows, prefix) if is_cached(self) else rows.sight_of(rows, prefix)


class Decoder(Family):
    """Decoder-only transformer: tokens to what foretells the token after each. Causal, but for an example's prefix."""

    @nn.compact
    def __call__(self, example: Example) -> Output:
        rows, tables = example.inputs, Tables(self)
        x = self.layers(Block, tables.read(rows), self.sight(rows, example.prefix), None, EVERYTHING)
        return Output(RMSNorm(name="final_norm")(x), tables.head)


class Encoder(Family):
    """Encoder-only transformer: every token sees all of its document; what it tells of the token at each place."""

    @nn.compact
    def __call__(self, example: Example) -> Output:
        rows, tables = example.inputs, Tables(self)
        x = self.layers(Block, tables.read(rows), rows.sight_of(rows), None, EVERYTHING, causal=False)
        return Output(RMSNorm(name="final_norm")(x), tables.head)


class EncoderDecoder(Family):
    """The full transformer (Vaswani et al. 2017): an encoder reads the source, a causal decoder looks at the result.
    Without a source it goes on with the one that the cache has.
    """

    @nn.compact
    def __call__(self, example: Example) -> Output:
        rows, source, tables, read = example.inputs, example.source, Tables(self), None
        if source is not None:
            sight = source.sight_of(source)
            read = self.layers(Block, tables.read(source), sight, None, EVERYTHING, name="encoder_layers", causal=False)
            read = RMSNorm(name="encoder_norm")(read)
        beyond = across(self, rows, source) if is_cached(self) else rows.sight_of(cast(Rows, source))
        x = self.layers(Block, tables.read(rows), self.sight(rows), read, beyond, crossed=True)
        return Output(RMSNorm(name="final_norm")(x), tables.head)


class Recurrent(Family):
    """LSTM layers (Jozefowicz et al. 2016, arXiv:1602.02410), whose memory is emptied at each document."""

    @nn.compact
    def __call__(self, example: Example) -> Output:
        rows, tables = example.inputs, Tables(self)
        x = self.layers(RecurrentBlock, tables.read(rows), rows.positions == 0)
        return Output(RMSNorm(name="final_norm")(x), tables.head)


FAMILIES: dict[str, type[Family]] = {
    "decoder": Decoder,
    "encoder": Encoder,
    "encoder_decoder": EncoderDecoder,
    "lstm": Recurrent,
}


def build(family: str, shape: Shape, mesh: Mesh, dtype: jnp.dtype, remat: Remat = "none") -> nn.Module:
    """The module of a family, from an Example to its Output; `dtype` is of its arithmetic (parameters are float32).

    With `remat` "layer" only what enters a layer is kept for the backward pass (Chen et al. 2016, arXiv:1604.06174),
    with "products" the results of its matrix products as well (Korthikanti et al. 2022, arXiv:2205.05198, Sec. 5).
    """
    return FAMILIES[family](shape, mesh, dtype, remat)

"""Flax modules shared by the families.

Shapes are written in one alphabet: B batch, S sequence, D width, H heads, K head size, F feed-forward, V vocabulary,
L layers. Parameters are float32; the arithmetic is that of the input.
"""

from __future__ import annotations

import math
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from lmscale.network.attention import Sight, Way, attention, attention_weights, over_cache
from lmscale.network.cache import CACHE, Past, keep_keys

ROPE_BASE = 10_000.0  # Su et al. 2021 (arXiv:2104.09864), Sec. 3.3
NORM_EPSILON = 1e-6  # Zhang & Sennrich 2019 as in T5
RECURRENT_STEPS = 8  # of a loop over a row, unrolled
WATCHED = "intermediates"  # Flax's collection of what is looked at, empty in training: attention_weights of each layer


def fan_in(shape: tuple[int, ...], axes: int, scale: float = 1.0) -> Initializer:
    """Normal with variance scale / (product of the first `axes` dimensions)."""
    return nn.initializers.normal((scale / math.prod(shape[:axes])) ** 0.5)


def parameter(module: nn.Module, name: str, init: Any, shape: tuple[int, ...]) -> Array:
    """A float32 parameter of a module (flax unboxes it, which its types do not say)."""
    return cast(Array, module.param(name, init, shape, jnp.float32))


def contract(x: Array, weight: Array, contracted: int) -> Array:
    """The last `contracted` dimensions of x against the first of a weight of any rank, in the arithmetic of x.

    Both are seen as matrices. An einsum over more dimensions computes the same, but XLA's CPU backend then transposes
    the larger operand of the weight's gradient, element by element: a quarter of a step's time.
    """
    inputs = math.prod(weight.shape[:contracted])
    product = x.reshape(-1, inputs) @ weight.astype(x.dtype).reshape(inputs, -1)
    return product.reshape(*x.shape[: x.ndim - contracted], *weight.shape[contracted:])


class Linear(nn.Module):
    """A weight of any rank: the last `contracted` dimensions of the input against its first ones.

    (nn.DenseGeneral with rank-3 logical names fails to initialise under a mesh.)
    """

    shape: tuple[int, ...]
    names: tuple[str | None, ...]
    contracted: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = fan_in(self.shape, self.contracted, self.scale)
        weight = parameter(self, "weight", nn.with_logical_partitioning(init, self.names), self.shape)
        return contract(x, weight, self.contracted)


class RMSNorm(nn.Module):
    """x / rms(x) * scale in float32: Zhang & Sennrich 2019 (arXiv:1910.07467)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        init = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        scale = parameter(self, "scale", init, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + NORM_EPSILON)
        return (x32 * inverse * scale).astype(x.dtype)


def rotate(x: Float[Array, "B S H K"], start: Int[Array, ""] | None = None) -> Float[Array, "B S H K"]:
    """Rotary position embedding: halves of the head turned by position / base^(2i/K) (Su et al. 2021). `start`: the
    position of the first, none where it is 0.
    """
    half = x.shape[-1] // 2
    frequency = ROPE_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    position = jnp.arange(x.shape[1], dtype=jnp.float32)
    angle = (position if start is None else start + position)[:, None] * frequency
    cos, sin = (f(angle)[None, :, None, :].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Attention(nn.Module):
    """Self-attention over H heads of size K."""

    heads: int
    head_size: int
    residual_scale: float
    causal: bool
    rotary: bool  # positions turn queries and keys
    way: Way  # how attention is computed
    mesh: Mesh

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"], sight: Sight | Past) -> Float[Array, "B S D"]:
        d, h, k = x.shape[-1], self.heads, self.head_size
        # heads come first among the outputs, so that seeing the weight as a matrix leaves them split over a mesh
        shape, names = (d, h, 3, k), ("embed", "heads", None, "kv")
        inward = parameter(self, "inward", nn.with_logical_partitioning(fan_in(shape, 1), names), shape)
        query, key, value = products(x, inward, self.mesh.size > 1)
        out = Linear((h, k, d), ("heads", "kv", "embed"), 2, self.residual_scale, name="out")
        if self.rotary:
            # by places in the row: what two tokens of a document do with each other depends on their distance alone
            start = sight.start if isinstance(sight, Past) else None
            query, key = rotate(query, start), rotate(key, start)
        if isinstance(sight, Past):
            return out(over_cache(query, *keep_keys(self, (key, value), sight.start, self.mesh), sight.seen))
        if self.is_mutable_collection(WATCHED):
            self.sow(WATCHED, "attention", attention_weights(query, key, sight, causal=self.causal))
        return out(attention(query, key, value, sight, causal=self.causal, way=self.way, mesh=self.mesh))


class CrossAttention(nn.Module):
    """Attention of a decoder to what an encoder read. Without positions, as in T5 (Raffel et al. 2020, Sec. 2.1)."""

    heads: int
    head_size: int
    residual_scale: float
    way: Way
    mesh: Mesh

    @nn.compact
    def __call__(
        self, x: Float[Array, "B S D"], source: Float[Array, "B T D"] | None, sight: Sight | Past
    ) -> Float[Array, "B S D"]:
        """`source` is None where the cache has what was made of it."""
        d, h, k = x.shape[-1], self.heads, self.head_size
        query = Linear((d, h, k), ("embed", "heads", "kv"), 1, name="query")(x)
        shape, names = (d, h, 2, k), ("embed", "heads", None, "kv")
        inward = parameter(self, "inward", nn.with_logical_partitioning(fan_in(shape, 1), names), shape)
        made = None if source is None else tuple(products(source, inward, self.mesh.size > 1))
        out = Linear((h, k, d), ("heads", "kv", "embed"), 2, self.residual_scale, name="out")
        if isinstance(sight, Past):
            return out(over_cache(query, *keep_keys(self, made, sight.start, self.mesh), sight.seen))
        assert made is not None
        key, value = made
        return out(attention(query, key, value, sight, causal=False, way=self.way, mesh=self.mesh))


def products(x: Float[Array, "B S D"], weight: Float[Array, "D H N K"], spread: bool) -> list[Array]:
    """[B, S, H, K] for each of the N matrices of a weight."""
    count = weight.shape[2]
    if spread:  # several products would each gather their weight and reduce a gradient of x over the devices
        together = contract(x, weight, 1)
        return [together[..., i, :] for i in range(count)]
    return [contract(x, weight[:, :, i], 1) for i in range(count)]  # faster on a CPU


class Recurrence(nn.Module):
    """Flax's LSTM cell along a row: Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000."""

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"], fresh: Bool[Array, "B S"]) -> Float[Array, "B S D"]:
        """`fresh` tokens begin a document: they find an empty memory. Others go on with what the cache has, if there is
        one.
        """
        batch, _, d = x.shape
        inward = nn.with_logical_partitioning(nn.initializers.lecun_normal(), ("embed", "mlp"))
        recurrent = nn.with_logical_partitioning(nn.initializers.orthogonal(), ("embed", "mlp"))
        bias = nn.with_logical_partitioning(nn.initializers.zeros, ("mlp",))

        def step(cell: nn.OptimizedLSTMCell, carry: Any, now: tuple[Array, Array]) -> tuple[Any, Array]:
            token, begins = now
            carry = jax.tree.map(lambda memory: jnp.where(begins[:, None], 0, memory), carry)
            return cell(carry, token)

        cell = nn.OptimizedLSTMCell(
            d, kernel_init=inward, recurrent_kernel_init=recurrent, bias_init=bias, dtype=x.dtype, name="cell"
        )
        along = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
            unroll=RECURRENT_STEPS,
        )
        empty = jnp.zeros((batch, d), x.dtype)
        if not self.has_variable(CACHE, "memory"):
            _, out = along(cell, (empty, empty), (x, fresh))
            return out
        kept = [self.variable(CACHE, name) for name in ("memory", "hidden")]
        last, out = along(cell, tuple(variable.value for variable in kept), (x, fresh))
        for variable, memory in zip(kept, last, strict=True):
            variable.value = memory
        return out


class FeedForward(nn.Module):
    """Two matrices with a GELU between (Vaswani et al. 2017; Hendrycks & Gimpel 2016, tanh form)."""

    hidden: int
    residual_scale: float

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        d, f = x.shape[-1], self.hidden
        up = Linear((d, f), ("embed", "mlp"), 1, name="up")
        down = Linear((f, d), ("mlp", "embed"), 1, self.residual_scale, name="down")
        return down(nn.gelu(up(x)))

"""Flax modules shared by the families.

Shapes are written in one alphabet: B batch, S sequence, D width, H heads, K head size, F feed-forward, V vocabulary,
L layers. Parameters are float32; `dtype` is that of the arithmetic.
"""

from __future__ import annotations

import math
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer
from jaxtyping import Array, Float

from lmscale.attention import causal_attention

ROPE_BASE = 10_000.0  # Su et al. 2021 (arXiv:2104.09864), Sec. 3.3
NORM_EPSILON = 1e-6  # Zhang & Sennrich 2019 as in T5


def fan_in(shape: tuple[int, ...], axes: int, scale: float = 1.0) -> Initializer:
    """Normal with variance scale / (product of the first `axes` dimensions)."""
    return nn.initializers.normal((scale / math.prod(shape[:axes])) ** 0.5)


def parameter(module: nn.Module, name: str, init: Any, shape: tuple[int, ...]) -> Array:
    """A float32 parameter of a module (flax unboxes it, which its types do not say)."""
    return cast(Array, module.param(name, init, shape, jnp.float32))


class Linear(nn.Module):
    """A weight of any rank: the last `contracted` dimensions of the input against its first ones.

    Both are seen as matrices. An einsum over more dimensions computes the same, but XLA's CPU backend then transposes
    the larger operand of the weight's gradient, element by element: a quarter of a step's time. (nn.DenseGeneral with
    rank-3 logical names fails to initialise under a mesh.)
    """

    shape: tuple[int, ...]
    names: tuple[str | None, ...]
    contracted: int
    scale: float = 1.0
    dtype: jnp.dtype = jnp.float32  # type: ignore[assignment]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = fan_in(self.shape, self.contracted, self.scale)
        weight = parameter(self, "weight", nn.with_logical_partitioning(init, self.names), self.shape)
        inputs = math.prod(self.shape[: self.contracted])
        product = x.reshape(-1, inputs) @ weight.astype(self.dtype).reshape(inputs, -1)
        return product.reshape(*x.shape[: x.ndim - self.contracted], *self.shape[self.contracted :])


class RMSNorm(nn.Module):
    """x / rms(x) * scale in float32: Zhang & Sennrich 2019 (arXiv:1910.07467)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        init = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        scale = parameter(self, "scale", init, (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + NORM_EPSILON)
        return (x32 * inverse * scale).astype(x.dtype)


def rotate(x: Float[Array, "B S H K"]) -> Float[Array, "B S H K"]:
    """Rotary position embedding: halves of the head turned by position / base^(2i/K) (Su et al. 2021)."""
    half = x.shape[-1] // 2
    frequency = ROPE_BASE ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None] * frequency
    cos, sin = (f(angle)[None, :, None, :].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class Attention(nn.Module):
    """Causal self-attention over H heads of size K with rotary positions."""

    heads: int
    head_size: int
    residual_scale: float
    dtype: jnp.dtype
    blocked: bool  # by blocks of queries, for a CPU (lmscale.attention)

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        d, h, k = x.shape[-1], self.heads, self.head_size

        # One product, not three: with heads split over a mesh, each would reduce its own gradient of x over devices.
        # Heads come first among its outputs, so that seeing the weight as a matrix leaves them split.
        inward = Linear((d, h, 3, k), ("embed", "heads", None, "kv"), 1, dtype=self.dtype, name="inward")(x)
        query, key, value = rotate(inward[..., 0, :]), rotate(inward[..., 1, :]), inward[..., 2, :]
        out = Linear((h, k, d), ("heads", "kv", "embed"), 2, self.residual_scale, dtype=self.dtype, name="out")
        return out(causal_attention(query, key, value, self.blocked))


class FeedForward(nn.Module):
    """Two matrices with a GELU between (Vaswani et al. 2017; Hendrycks & Gimpel 2016, tanh form)."""

    hidden: int
    residual_scale: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        d, f = x.shape[-1], self.hidden
        up = Linear((d, f), ("embed", "mlp"), 1, dtype=self.dtype, name="up")
        down = Linear((f, d), ("mlp", "embed"), 1, self.residual_scale, dtype=self.dtype, name="down")
        return down(nn.gelu(up(x)))

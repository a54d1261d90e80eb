"""Flax modules shared by the families.

Shapes are written in one alphabet: B batch, S sequence, D width, H heads, K head size, F feed-forward, V vocabulary,
L layers. Parameters are float32; `dtype` is that of the arithmetic.
"""

from __future__ import annotations

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import Initializer
from jaxtyping import Array, Float

ROPE_BASE = 10_000.0  # Su et al. 2021 (arXiv:2104.09864), Sec. 3.3
NORM_EPSILON = 1e-6  # Zhang & Sennrich 2019 as in T5


def fan_in(shape: tuple[int, ...], axes: int, scale: float = 1.0) -> Initializer:
    """Normal with variance scale / (product of the first `axes` dimensions)."""
    inputs = 1
    for size in shape[:axes]:
        inputs *= size
    return nn.initializers.normal((scale / inputs) ** 0.5)


def parameter(module: nn.Module, name: str, init: Any, shape: tuple[int, ...]) -> Array:
    """A float32 parameter of a module (flax unboxes it, which its types do not say)."""
    return cast(Array, module.param(name, init, shape, jnp.float32))


class Einsum(nn.Module):
    """A weight of any rank contracted by an einsum equation: the projections of attention and feed-forward.

    (nn.DenseGeneral with rank-3 logical names fails to initialise under a mesh.)
    """

    equation: str
    shape: tuple[int, ...]
    names: tuple[str | None, ...]
    contracted: int  # leading dimensions of the weight that are summed over
    scale: float = 1.0
    dtype: jnp.dtype = jnp.float32  # type: ignore[assignment]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = fan_in(self.shape, self.contracted, self.scale)
        weight = parameter(self, "weight", nn.with_logical_partitioning(init, self.names), self.shape)
        return jnp.einsum(self.equation, x, weight.astype(self.dtype))


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

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        d, h, k = x.shape[-1], self.heads, self.head_size

        # one product, not three: with heads split over a mesh, each would reduce its own gradient of x over the devices
        names = ("embed", None, "heads", "kv")
        inward = Einsum("bsd,dnhk->nbshk", (d, 3, h, k), names, 1, dtype=self.dtype, name="inward")
        query, key, value = inward(x)
        mixed = jax.nn.dot_product_attention(rotate(query), rotate(key), value, is_causal=True)
        out = Einsum(
            "bshk,hkd->bsd", (h, k, d), ("heads", "kv", "embed"), 2, self.residual_scale, dtype=self.dtype, name="out"
        )
        return out(mixed)


class FeedForward(nn.Module):
    """Two matrices with a GELU between (Vaswani et al. 2017; Hendrycks & Gimpel 2016, tanh form)."""

    hidden: int
    residual_scale: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        d, f = x.shape[-1], self.hidden
        up = Einsum("bsd,df->bsf", (d, f), ("embed", "mlp"), 1, dtype=self.dtype, name="up")
        down = Einsum("bsf,fd->bsd", (f, d), ("mlp", "embed"), 1, self.residual_scale, dtype=self.dtype, name="down")
        return down(nn.gelu(up(x)))

"""Attention within documents: by blocks of queries on a CPU; by a fused kernel on a GPU (cuDNN's; Dao et al. 2022,
arXiv:2205.14135) and on a TPU (lmscale.network.splash); jax's own elsewhere.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from lmscale.mesh import under_vmap

BLOCK = (
    64  # query rows of a block: small enough to leave most of the masked half out, large enough for a matrix product
)
BLOCKS_MAX = 8  # they are unrolled, so long sequences take longer blocks
CUDNN_HEAD_MAX = 128  # on all GPUs that have the kernel
# What the backward pass of a fused kernel reads of the forward one, as rematerialisation is told: the primitive of
# jax.nn.dot_product_attention on cuDNN, and a name that lmscale.network.splash gives
CUDNN_SAVED, SPLASH_SAVED = "dot_product_attention_fwd", "splash_attention"
Way = Literal["blocks", "cudnn", "splash", "plain"]


class Sight(NamedTuple):
    """Which keys a query sees, beside what `causal` says: those of its own document; a prefix from anywhere.

    None stands for what is the same everywhere: one document, no prefix. A number below 0 stands for no document.
    """

    queries: Int[Array, "B S"] | None = None  # the document of each query
    keys: Int[Array, "B T"] | None = None  # and of each key
    prefix: Bool[Array, "B T"] | None = None  # keys that their whole document sees, whatever their order

    @property
    def whole(self) -> bool:
        """Whether nothing is hidden but by order."""
        return self.queries is None and self.prefix is None

    def allowed(self, rows: slice, columns: slice, causal: bool) -> Bool[Array, ...] | None:
        """[B or 1, rows, columns] of the square; None where every query sees every key."""
        seen: Array | None = None
        if causal:
            seen = (jnp.arange(rows.start, rows.stop)[:, None] >= jnp.arange(columns.start, columns.stop))[None]
            if self.prefix is not None:
                seen = seen | self.prefix[:, None, columns]
        if self.queries is None or self.keys is None:
            return seen
        keys = self.keys[:, None, columns]
        own = (self.queries[:, rows, None] == keys) & (keys >= 0)
        return own if seen is None else own & seen


EVERYTHING = Sight()


def way_of(device: Any, dtype: Any, head_size: int) -> Way:
    """How attention is computed on a device, in this arithmetic, where the shapes of a call suit it.

    cuDNN's kernel takes 16-bit numbers and heads of a multiple of 8 up to 128, from NVIDIA's Ampere on (compute
    capability 8.0).
    """
    if device.platform == "cpu":
        return "blocks"
    if device.platform == "tpu":
        return "splash"
    halves = jnp.dtype(dtype).itemsize == 2
    if device.platform == "gpu" and halves and head_size % 8 == 0 and head_size <= CUDNN_HEAD_MAX:
        capability = str(getattr(device, "compute_capability", ""))  # of an AMD GPU a name
        major = capability.partition(".")[0]
        return "cudnn" if major.isdigit() and int(major) >= 8 else "plain"
    return "plain"


def attention(
    query: Float[Array, "B S H K"],
    key: Float[Array, "B T H K"],
    value: Float[Array, "B T H K"],
    sight: Sight = EVERYTHING,
    *,
    causal: bool,
    way: Way,
    mesh: Mesh | None = None,
) -> Float[Array, "B S H K"]:
    """softmax(query key^T / sqrt(K)) value over the keys that each query sees (Vaswani et al. 2017, Sec. 3.2.1).

    A query that sees none gets zeros. `mesh` is what the arrays lie on, where there is one: the kernel of a TPU is
    called on each device's part.
    """
    if way == "splash" and mesh is not None:
        from lmscale.network.splash import splash, suits  # Pallas is loaded where there is a TPU

        if suits(query, key, sight, mesh):
            return splash(query, key, value, sight, mesh, causal=causal)
    if way == "blocks":
        scaled = query * query.shape[-1] ** -0.5
        mixed = blocked_attention(causal, *(x.swapaxes(1, 2) for x in (scaled, key, value)), sight)
        return cast(Array, mixed).swapaxes(1, 2)
    even = query.shape[1] % 2 == 0 and key.shape[1] % 2 == 0  # or cuDNN has no gradient
    kernel = "cudnn" if way == "cudnn" and even else "xla"
    if sight.whole:
        return jax.nn.dot_product_attention(query, key, value, is_causal=causal, implementation=kernel)
    rows, columns = slice(0, query.shape[1]), slice(0, key.shape[1])
    ordered = causal and sight.prefix is None  # cuDNN then leaves out the half above the diagonal
    allowed = sight.allowed(rows, columns, causal and not ordered)
    assert allowed is not None
    mask = allowed[:, None]
    if kernel == "cudnn" and under_vmap():  # its rule for vmap takes masks that all have the heads of the queries
        mask = jnp.broadcast_to(mask, (*query.shape[:1], query.shape[2], *mask.shape[2:]))
    mixed = jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=ordered, implementation=kernel)
    return of_seeing(mixed, sight, key.shape[1], causal)


def of_seeing(mixed: Float[Array, "B S H K"], sight: Sight, keys: int, causal: bool) -> Float[Array, "B S H K"]:
    """What queries got, and zeros for those that see none of the `keys`."""
    own = sight.allowed(slice(0, mixed.shape[1]), slice(0, keys), causal)
    return mixed if own is None else jnp.where(jnp.any(own, axis=-1)[..., None, None], mixed, 0)


def over_cache(
    query: Float[Array, "B S H K"],
    key: Float[Array, "B H T K"],
    value: Float[Array, "B H T K"],
    seen: Bool[Array, "B S T"],
) -> Float[Array, "B S H K"]:
    """The same over keys and values as a cache has them, heads first, of which `seen` says which each query sees. What
    a query gets that sees none means nothing.
    """
    scores = _product(query.swapaxes(1, 2) * query.shape[-1] ** -0.5, key, 3, 3)
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, jnp.finfo(jnp.float32).min), axis=-1)
    return _product(weights.astype(value.dtype), value, 3, 2).swapaxes(1, 2).astype(query.dtype)


def attention_weights(
    query: Float[Array, "B S H K"], key: Float[Array, "B T H K"], sight: Sight, *, causal: bool
) -> Float[Array, "B H S T"]:
    """How `attention` weighs the keys for each query: positive, and together 1 (all 0 of a query that sees none)."""
    scores = _product((query * query.shape[-1] ** -0.5).swapaxes(1, 2), key.swapaxes(1, 2), 3, 3)
    seen = sight.allowed(slice(0, query.shape[1]), slice(0, key.shape[1]), causal)
    if seen is None:
        return jax.nn.softmax(scores, axis=-1)
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, jnp.finfo(jnp.float32).min), axis=-1)
    return jnp.where(seen[:, None], weights, 0.0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def blocked_attention(
    causal: bool,
    query: Float[Array, "B H S K"],
    key: Float[Array, "B H T K"],
    value: Float[Array, "B H T K"],
    sight: Sight,
) -> Float[Array, "B H S K"]:
    """The same of scaled queries, heads first. A causal block of queries is scored against the keys not after it alone.

    Its derivative is written out, because automatic differentiation divides, masks and transposes whole S x S squares:
    the exponentials are kept without their sums (as in Milakov & Gimelshein 2018, arXiv:1805.02867), the sums divide
    rows of K, and the gradients of keys and values are added up as [K, S], the faster product on a CPU.
    """
    return _forward(causal, query, key, value, sight)[0]


def _blocks(causal: bool, queries: int, keys: int, sight: Sight) -> list[tuple[int, int, int]]:
    """First and last (excluded) row of each block, and how many keys it is scored against."""
    ordered = causal and sight.prefix is None
    size = max(BLOCK, -(-queries // BLOCKS_MAX)) if ordered else queries
    stops = [(start, min(start + size, queries)) for start in range(0, queries, size)]
    return [(start, stop, stop if ordered else keys) for start, stop in stops]


def _product(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    """A matrix product for each of the leading [B, H]; sums are float32."""
    batch = ((0, 1), (0, 1))
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), batch), preferred_element_type=jnp.float32)


def _forward(causal: bool, query: Array, key: Array, value: Array, sight: Sight) -> tuple[Array, tuple]:
    mixed, kept = [], []
    for start, stop, seen in _blocks(causal, query.shape[2], key.shape[2], sight):
        scores = _product(query[:, :, start:stop], key[:, :, :seen], 3, 3)
        allowed = sight.allowed(slice(start, stop), slice(0, seen), causal)
        if allowed is not None:
            scores = jnp.where(allowed[:, None], scores, -jnp.inf)
        highest = jnp.max(scores, axis=-1, keepdims=True)
        if sight.queries is not None:  # of a query that sees no key
            highest = jnp.maximum(highest, jnp.finfo(jnp.float32).min)
        weights = jnp.exp(scores - highest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        if sight.queries is not None:
            total = jnp.where(total > 0, total, 1.0)
        weights = weights.astype(value.dtype)
        mixed.append((_product(weights, value[:, :, :seen], 3, 2) / total).astype(value.dtype))
        kept.append((weights, total))
    output = jnp.concatenate(mixed, axis=2)
    return output, (query, key, value, sight, output, kept)


def _backward(causal: bool, residuals: tuple, slope: Float[Array, "B H S K"]) -> tuple[Array, Array, Array, None]:
    """Gradients of query, key and value (Dao et al. 2022, arXiv:2205.14135, App. B.2)."""
    query, key, value, sight, output, kept = residuals
    length = key.shape[2]
    along = jnp.sum((slope * output).astype(jnp.float32), axis=-1, keepdims=True)  # sum of weight x its gradient
    query_slopes, key_slope, value_slope = [], 0.0, 0.0
    blocks = _blocks(causal, query.shape[2], length, sight)
    for (start, stop, seen), (weights, total) in zip(blocks, kept, strict=True):
        rows = (slope[:, :, start:stop] / total).astype(value.dtype)
        weight_slope = _product(rows, value[:, :, :seen], 3, 3)
        score_slope = (weights * (weight_slope - along[:, :, start:stop] / total)).astype(value.dtype)
        query_slopes.append(_product(score_slope, key[:, :, :seen], 3, 2))
        later = ((0, 0), (0, 0), (0, 0), (0, length - seen))  # keys after the block get nothing from it
        # written out as [K, rows]: XLA multiplies a matrix that it must turn itself at half the speed
        turned = jax.lax.optimization_barrier([jnp.swapaxes(x, 2, 3) for x in (query[:, :, start:stop], rows)])
        key_slope += jnp.pad(_product(turned[0], score_slope, 3, 2), later)
        value_slope += jnp.pad(_product(turned[1], weights, 3, 2), later)
    query_slope = jnp.concatenate(query_slopes, axis=2)
    key_slope, value_slope = jnp.swapaxes(key_slope, 2, 3), jnp.swapaxes(value_slope, 2, 3)
    return query_slope.astype(query.dtype), key_slope.astype(key.dtype), value_slope.astype(value.dtype), None


blocked_attention.defvjp(_forward, _backward)

"""Fused attention on TPUs: jax's Pallas kernel, which keeps no S x S square (Dao et al. 2022, arXiv:2205.14135) and
leaves out the blocks of keys that no query of a block sees.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as kernel
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lmscale.mesh import free_spec, parts_along
from lmscale.network.attention import SPLASH_SAVED, Sight, of_seeing

LANES = 128  # of the vector unit: rows of a block are a multiple
BLOCK_MAX = 512  # rows and columns of a block of scores: what MaxText runs with on all these generations


def block_of(sequence: int) -> int | None:
    """Rows of a block: the largest multiple of LANES up to BLOCK_MAX that divides a sequence, or None."""
    sizes = range(BLOCK_MAX, 0, -LANES)
    return next((size for size in sizes if sequence % size == 0), None)


def suits(query: Float[Array, "B S H K"], key: Float[Array, "B T H K"], sight: Sight, mesh: Mesh) -> bool:
    """Whether the kernel takes this: square scores in whole blocks, no prefix, rows and heads that the mesh divides."""
    batch, sequence, heads, _ = query.shape
    whole = batch % parts_along(mesh, "batch") == 0 and heads % parts_along(mesh, "heads") == 0
    return key.shape[1] == sequence and block_of(sequence) is not None and sight.prefix is None and whole


def splash(
    query: Float[Array, "B S H K"],
    key: Float[Array, "B S H K"],
    value: Float[Array, "B S H K"],
    sight: Sight,
    mesh: Mesh,
    *,
    causal: bool,
    interpret: bool = False,
) -> Float[Array, "B S H K"]:
    """Attention within the documents of a sight (it has no prefix); each device has its own rows and heads.

    Heads narrower than the matrix unit are filled up with zeros, which change no score. `interpret` runs the kernel's
    steps without a TPU.
    """
    head_size = query.shape[-1]
    scaled = query * jnp.asarray(head_size**-0.5, query.dtype)
    attend = partial(_attend, causal=causal, interpret=interpret)
    across = free_spec("batch", None, "heads", None)
    given: list[Any] = [scaled, key, value]
    specs = [across] * 3
    if sight.queries is not None:
        given += [sight.queries, sight.keys]
        specs += [free_spec("batch", None)] * 2
    mapped = jax.shard_map(attend, mesh=mesh, in_specs=tuple(specs), out_specs=across, check_vma=False)
    mixed = mapped(*given)
    if sight.queries is None:
        return mixed
    if causal:  # a row of a document sees itself; those of none find each other in the kernel
        return jnp.where((sight.queries >= 0)[..., None, None], mixed, 0)
    return of_seeing(mixed, sight, key.shape[1], causal)


def _attend(query: Array, key: Array, value: Array, *documents: Array, **how: bool) -> Array:
    """The same on one device."""
    _, sequence, heads, size = query.shape
    made = _kernel(sequence, heads, **how)
    wide = ((0, 0), (0, 0), (0, 0), (0, -size % LANES))
    first: list[Any] = [jnp.pad(x, wide).swapaxes(1, 2) for x in (query, key, value)]
    if documents:
        first.append(kernel.SegmentIds(*(x.astype(jnp.int32) for x in documents)))
    mixed = jax.vmap(made)(*first)
    return mixed.swapaxes(1, 2)[..., :size]


def _kernel(sequence: int, heads: int, *, causal: bool, interpret: bool) -> Any:
    block = block_of(sequence)
    assert block is not None
    square = (sequence, sequence)
    mask = kernel.CausalMask(square) if causal else kernel.FullMask(square)
    sizes = kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    return kernel.make_splash_mha(
        kernel.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=SPLASH_SAVED,
        interpret=interpret,
    )

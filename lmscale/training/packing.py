"""A small state as a few long arrays: orbax spends milliseconds on every array, whatever its size."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

PACKED_BYTES = 64 * 2**20  # at the most: what is packed is on the host twice


def is_packable(tree: Any) -> bool:
    """Whether a tree of arrays (or their ShapeDtypeStructs) lies on one device and is small."""
    leaves = jax.tree.leaves(tree)
    alone = all(len(leaf.sharding.device_set) == 1 for leaf in leaves)
    return (
        alone and jax.process_count() == 1 and sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) <= PACKED_BYTES
    )


def pack(tree: Any) -> dict[str, np.ndarray]:
    """The numbers of all arrays of a tree, one after another, by the name of their type."""
    found: dict[str, list[np.ndarray]] = {}
    for leaf in jax.tree.leaves(tree):
        found.setdefault(leaf.dtype.name, []).append(np.asarray(leaf).ravel())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def packed_like(like: Any) -> dict[str, np.ndarray]:
    """Arrays of the shapes and types that `pack` makes of a tree like this one."""
    sizes: dict[str, int] = {}
    for leaf in jax.tree.leaves(like):
        sizes[leaf.dtype.name] = sizes.get(leaf.dtype.name, 0) + leaf.size
    return {name: np.empty(size, name) for name, size in sizes.items()}


def unpack(packed: dict[str, np.ndarray], like: Any) -> Any:
    """The tree again, laid out as `like` (arrays or ShapeDtypeStructs with shardings), on whatever mesh that is."""
    taken = dict.fromkeys(packed, 0)

    def put(leaf: Any) -> jax.Array:
        name = leaf.dtype.name
        start = taken[name]
        taken[name] += leaf.size
        values = packed[name][start : taken[name]].reshape(leaf.shape)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: values[index])

    return jax.tree.map(put, like)

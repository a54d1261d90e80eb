"""The device mesh, and the one table that maps logical axes to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lmscale.config import MeshConfig
from lmscale.planning.layout import largest_part
from lmscale.study.typed import check

AXES = ("data", "fsdp", "tensor")
REPLICAS = "replicas"  # of a stack: an axis of a vmap, not of the mesh
RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "group": "data",  # the batch as groups x rows
    "row": "fsdp",
    "embed": "fsdp",
    "norm": None,
    "heads": "tensor",
    "kv": None,
    "mlp": "tensor",
    "vocab": "tensor",
    "layers": None,
}


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh over the first `config.devices` devices; others are left idle. Raises InputError if there are fewer.

    A job of several processes takes all devices of all of them, those of a process side by side: the tensor axis, which
    communicates most, stays within a process where it fits, and a process holds consecutive rows of a batch.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    check(
        jax.process_count() == 1 or config.devices == len(devices),
        "mesh",
        str(config),
        f"takes {config.devices} of the {len(devices)} devices ({devices[0].platform}) of {jax.process_count()} "
        f"processes; a job takes them all: choose a mesh of {len(devices)}, such as {len(devices)},1,1",
    )
    check(
        config.devices <= len(devices),
        "mesh",
        str(config),
        f"takes {config.devices} devices, and there are {len(devices)} here ({devices[0].platform}); "
        f"--mesh {largest_part(config, len(devices))} fits as well (on a CPU, "
        "XLA_FLAGS=--xla_force_host_platform_device_count=N makes N devices)",
    )
    return mesh_over(devices[: config.devices], config)


def mesh_over(devices: Sequence[Any], config: MeshConfig) -> Mesh:
    """The mesh over just these devices: the first ones along the tensor axis, which is the fastest."""
    grid = np.array(devices).reshape(config.data, config.fsdp, config.tensor)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def device_bytes(mesh: Mesh) -> float | None:
    """Memory of a device of the mesh, as the device itself says; None where it does not (CPUs)."""
    stats = mesh.local_devices[0].memory_stats()  # another process's devices do not say
    return float(stats["bytes_limit"]) if stats and "bytes_limit" in stats else None


def spec(*names: str | None) -> PartitionSpec:
    """Logical axis names (None: not split) to mesh axes. Raises KeyError on a name that RULES does not know, and
    ValueError where one mesh axis would split two dimensions of an array.
    """
    axes = [None if name is None else RULES[name] for name in names]
    used = [axis for entry in axes if entry for axis in ((entry,) if isinstance(entry, str) else entry)]
    if len(set(used)) != len(used):
        raise ValueError(f"logical axes {names} put one mesh axis on two dimensions: {axes}")
    return PartitionSpec(*axes)


def sharding(mesh: Mesh, *names: str | None) -> NamedSharding:
    return NamedSharding(mesh, spec(*names))


def constrain(x: jax.Array, mesh: Mesh, *names: str | None) -> jax.Array:
    """Tells the partitioner how an activation lies on the mesh.

    Inside a vmap over a mesh axis (of that axis_name and spmd_axis_name) nothing is left to split along that axis.
    """
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, free_spec(*names)))


def free_spec(*names: str | None) -> PartitionSpec:
    """The mesh axes of logical names, but for those of a vmap that is being traced."""
    return PartitionSpec(*(_without_mapped(entry) for entry in spec(*names)))


def parts_along(mesh: Mesh, name: str) -> int:
    """Into how many parts a logical axis is split, of what a vmap that is being traced leaves."""
    return math.prod(mesh.shape[axis] for axis in _without_mapped(RULES[name]) or ())


def _without_mapped(entry: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
    axes = (entry,) if isinstance(entry, str) else entry or ()
    return tuple(axis for axis in axes if not _mapped(axis)) or None


def under_vmap() -> bool:
    """Whether the models of a stack, or the groups of a data axis, are being traced as one."""
    return any(_mapped(axis) for axis in (REPLICAS, *AXES))


def _mapped(axis: str) -> bool:
    """Whether a vmap over this axis is being traced."""
    try:
        jax.lax.axis_size(axis)
    except NameError:
        return False
    return True


def unmapped_devices(mesh: Mesh) -> int:
    """Over how many devices an array is split at the most: all, but for the axes of a vmap that is being traced."""
    return math.prod(size for axis, size in mesh.shape.items() if not _mapped(axis))


def tree_shardings(mesh: Mesh, boxed: Any) -> Any:
    """Shardings for a tree whose leaves carry logical axis names (flax metadata boxes); bare leaves are replicated."""

    def leaf(names: PartitionSpec | None) -> NamedSharding:
        return sharding(mesh, *(names or ()))

    return jax.tree.map(leaf, nn.get_partition_spec(boxed), is_leaf=lambda x: isinstance(x, PartitionSpec) or x is None)


def local_rows(of: NamedSharding, rows: int) -> slice:
    """The rows of a batch [K, rows, S+1] that the devices of this process hold. Those of several may overlap."""
    held = [index[1].indices(rows) for index in of.addressable_devices_indices_map((1, rows, 1)).values() if index]
    return slice(min(start for start, _, _ in held), max(stop for _, stop, _ in held))


def place(local: np.ndarray, of: NamedSharding, axis: int, rows: int, first: int = 0) -> jax.Array:
    """An array on the mesh, `rows` long along `axis`, of which this process has `local`, from `first` on."""
    if of.is_fully_addressable:
        return jax.device_put(local, of)

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[axis].indices(rows)
        return local[(*index[:axis], slice(start - first, stop - first), *index[axis + 1 :])]

    shape = (*local.shape[:axis], rows, *local.shape[axis + 1 :])
    return jax.make_array_from_callback(shape, of, part)

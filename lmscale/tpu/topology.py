"""Devices of TPU slices that are not here: libtpu describes them and compiles for them on any Linux machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import MutableMapping
from typing import Any

from jax.sharding import Mesh

from analysis.errors import InputError
from lmscale.config import MeshConfig
from lmscale.mesh import mesh_over
from lmscale.study.typed import check
from lmscale.tpu.latency import hide_latency
from lmscale.tpu.slices import Slices

# So that libtpu neither looks for chips here nor asks a cloud about this host, and several processes may load it
WITHOUT_CHIPS = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def before_libtpu(environment: MutableMapping[str, str] = os.environ) -> None:
    """To be called before jax is imported. What the user has set stays. Raises InputError where libtpu is not here."""
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("libtpu: the compiler for TPUs is not installed; pip install 'lmscale[tpu]' (Linux)")
    for name, value in WITHOUT_CHIPS.items():
        environment.setdefault(name, value)
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    hide_latency(environment)  # as where it trains


def devices_of(slices: Slices) -> list[Any]:
    """The devices, a chip each: slice after slice, those of a slice in the order of their ids.

    Raises InputError where libtpu knows no such slice.
    """
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    options: dict[str, Any] = {"num_slices": slices.count} if slices.count > 1 else {}
    if slices.chips_each == 1:  # a host of one chip
        options["chips_per_host_bounds"] = (1, 1, 1)
    if slices.generation.name == "v4":  # both cores of a chip as one device, as jax has them by itself
        options["chip_config_name"] = "megacore"
    try:
        found = topologies.get_topology_desc(slices.topology, "tpu", **options).devices
    except JaxRuntimeError as error:
        reason = str(error).splitlines()[0].partition(": ")[2]
        known = ", ".join(f"{slices.generation.name}:{name}" for name in slices.generation.slices)
        raise InputError(f"topology: '{slices}' is not known to libtpu ({reason}); choose one of {known}") from None
    return sorted(found, key=lambda device: (getattr(device, "slice_index", 0) or 0, device.id))


def mesh_on(slices: Slices, config: MeshConfig) -> Mesh:
    """A mesh over the first chips of the slices; several slices are the outermost part of its data axis.

    Built from the list: jax's mesh_utils refuses some splits of a torus.
    """
    check_mesh_on(slices, config)
    return mesh_over(devices_of(slices)[: config.devices], config)


def check_mesh_on(slices: Slices, config: MeshConfig) -> None:
    """Raises InputError for a mesh that the slices cannot hold, alone or several side by side, and for one that would
    split fsdp or tensor over slices.
    """
    whole = slices.count == 1 and config.devices < slices.chips and slices.chips % config.devices == 0
    check(
        whole or config.devices == slices.chips,
        "mesh",
        str(config),
        f"takes {config.devices} devices, and {slices} has {slices.chips}; choose one of as many, such as "
        f"--mesh {slices.count},{slices.chips_each},1, or let --choose do it",
    )
    check(
        config.data % slices.count == 0,
        "mesh",
        str(config),
        f"would split a model over {slices.count} slices; make data a multiple of {slices.count}, such as "
        f"--mesh {slices.count},{slices.chips_each},1",
    )

"""The very step that lmscale.train calls, compiled for a TPU slice that is not here: what comes of it."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.sharding import Mesh

from analysis.errors import InputError
from lmscale.config import MeshConfig
from lmscale.plan import Trajectory
from lmscale.planning.layout import Placement
from lmscale.planning.out_of_memory import amounts, is_out_of_memory
from lmscale.planning.replicas import Stack
from lmscale.step import Step
from lmscale.store.files import write_atomic
from lmscale.store.places import user_cache
from lmscale.tpu.collectives import Collective, collectives
from lmscale.tpu.roofline import Work, expected_links, flops_per_chip, hbm_bytes_per_chip, link_bytes
from lmscale.tpu.slices import Slices

READER = 1  # raised when what is read from a compiled program changes: kept reports are then read again
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")  # that change what is compiled


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Collectives of one kind along the same axes of the mesh, of one step."""

    kind: str
    axes: tuple[str, ...]
    per_step: int
    per_layer: float  # those that layers make, a layer and microbatch
    bytes_per_layer: float  # of their results on a chip
    bytes_per_step: float
    overlapped: float  # share of the bytes that are moved while something else is computed


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler made of a step. Bytes are those of one chip; where it does not fit, what it asked for."""

    fits: bool
    bytes_per_chip: float | None
    ici_bytes: float
    dcn_bytes: float
    traffic: tuple[Traffic, ...]
    compile_seconds: float
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the models of a stack lie on the chips of a slice."""

    mesh: MeshConfig
    placement: Placement


def lowered(stack: Stack, mesh: Mesh, placement: Placement, steps_per_dispatch: int) -> Any:
    """The program of a call of the compiled step, before compilation. No array is made."""
    trajectory, width = stack.members[0], stack.width
    h = trajectory.hyperparameters
    step = Step(
        trajectory,
        mesh,
        microbatches=placement.microbatches,
        steps_per_dispatch=steps_per_dispatch,
        remat=placement.remat,
        replicas=width,
    )
    windows, rates = (steps_per_dispatch, h.batch_sequences, step.columns), (steps_per_dispatch,)
    count = jax.ShapeDtypeStruct((), np.int32)
    if width == 1:
        inputs = step.abstract_state, _array(windows, np.int32), _array(rates, np.float32), count
        return step.advance.lower(*inputs)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct((width, *x.shape), x.dtype), step.abstract_state)
    return step.advance_stack.lower(
        state, _array((width, *windows), np.int32), _array((width, *rates), np.float32), count
    )


def _array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def compile_for(slices: Slices, stack: Stack, mesh: Mesh, layout: Layout, steps_per_dispatch: int) -> Compiled:
    """Compiles a step, or reads what was found when the same program was compiled for the same slice before.

    Raises InputError where the compiler fails for another reason than the chips' memory.
    """
    program = lowered(stack, mesh, layout.placement, steps_per_dispatch)
    kept = user_cache() / "aot" / f"{_digest(program.as_text(), slices)}.json"
    try:
        found = json.loads(kept.read_text())
        traffic = tuple(Traffic(**{**row, "axes": tuple(row["axes"])}) for row in found.pop("traffic"))
        return Compiled(**{**found, "traffic": traffic, "cached": True})
    except (OSError, ValueError, TypeError, KeyError):
        pass
    began = time.monotonic()
    made = _compiled(program, stack.members[0], slices, layout, began)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, json.dumps(asdict(made), allow_nan=False))
    except OSError:  # a cache that cannot be written is done without
        pass
    return made


def _compiled(program: Any, trajectory: Trajectory, slices: Slices, layout: Layout, began: float) -> Compiled:
    try:
        compiled = program.compile()
    except (JaxRuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or not is_out_of_memory(error):
            raise _failure(error, trajectory) from None
        asked, _ = amounts(str(error))
        seconds = time.monotonic() - began
        return Compiled(
            fits=False, bytes_per_chip=asked, ici_bytes=0.0, dcn_bytes=0.0, traffic=(), compile_seconds=seconds
        )
    found = collectives(compiled.as_text())
    memory = compiled.memory_analysis()
    ici, dcn = link_bytes(found, slices, layout.mesh.devices)
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(
        fits=True,
        bytes_per_chip=float(held + memory.temp_size_in_bytes),
        ici_bytes=ici,
        dcn_bytes=dcn,
        traffic=traffic_of(found, layout, trajectory.shape.depth),
        compile_seconds=time.monotonic() - began,
    )


def _failure(error: BaseException, trajectory: Trajectory) -> InputError:
    if isinstance(error, MemoryError):
        why = "compiling it takes more memory than this machine has; use a larger one, or leave the size out (--sizes)"
    else:
        first = (str(error).splitlines() or [""])[0][:200]
        why = f"the compiler failed ({first}); try another --mesh or --remat, or leave the size out (--sizes)"
    return InputError(f"compile: {trajectory.shape}: {why}")


def _digest(text: str, slices: Slices) -> str:
    said = [READER, text, str(slices), *(version(name) for name in ("jax", "jaxlib", "libtpu"))]
    said += [os.environ.get(flag, "") for flag in FLAGS]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]


def traffic_of(found: Iterable[Collective], layout: Layout, depth: int) -> tuple[Traffic, ...]:
    """Collectives by kind and axes, those of most bytes first; single numbers are left out."""
    mesh = {"data": layout.mesh.data, "fsdp": layout.mesh.fsdp, "tensor": layout.mesh.tensor}
    groups: dict[tuple[str, tuple[str, ...]], list[Collective]] = defaultdict(list)
    for one in found:
        if any(array.dims for array in one.arrays):
            groups[one.kind, one.axes(mesh)].append(one)
    times = depth * layout.placement.microbatches
    rows = []
    for (kind, axes), members in groups.items():
        whole = sum(one.count * one.bytes for one in members)
        layers = [one for one in members if "layers/" in one.source]
        rows.append(
            Traffic(
                kind=kind,
                axes=axes,
                per_step=sum(one.count for one in members),
                per_layer=sum(one.count for one in layers) / times,
                bytes_per_layer=sum(one.count * one.bytes for one in layers) / times,
                bytes_per_step=float(whole),
                overlapped=sum(one.count * one.bytes for one in members if one.overlapped) / whole,
            )
        )
    return tuple(sorted(rows, key=lambda row: -row.bytes_per_step))


def work_of(compiled: Compiled, stack: Stack, layout: Layout, slices: Slices) -> Work:
    """What a step asks of a chip: FLOPs and bytes of memory by our own count, bytes of links as compiled.

    The compiler hands what crosses slices to the host, which its text does not count: at least the theory's bytes.
    """
    trajectory, placement = stack.members[0], layout.placement
    remat, count = placement.remat, placement.microbatches
    _, crossing = expected_links(trajectory, layout.mesh, count, remat, slices, stack.width)
    return Work(
        flops=flops_per_chip(trajectory, layout.mesh, remat, stack.width),
        hbm_bytes=hbm_bytes_per_chip(trajectory, layout.mesh, count, remat, stack.width),
        ici_bytes=compiled.ici_bytes,
        dcn_bytes=max(compiled.dcn_bytes, crossing),
    )

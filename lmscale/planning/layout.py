"""How the step of a trajectory is laid out on its devices: meshes that fit, microbatches, and what to change where it
does not fit. Imports no framework.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from analysis.errors import InputError
from lmscale.config import MeshConfig, Remat, RematChoice, Study
from lmscale.plan import Trajectory
from lmscale.planning.memory import FILLED, Memory, StepBytes, in_words, step_bytes
from lmscale.planning.replicas import Stack
from lmscale.shapes import shape_for

# On a CPU a microbatch's largest activations, [tokens, F] in float32, should stay in the caches, and its matrix
# products not become small: 256x6 with 4,096 tokens is 9 % faster in two parts, 2 % in four (docs/benchmarks.md)
CPU_ACTIVATION_BYTES = 2**23
CPU_MICROBATCH_TOKENS = 2048


def misfit(trajectory: Trajectory, mesh: MeshConfig, microbatches: int = 1) -> str | None:
    """Why a mesh does not divide a trajectory's arrays, or None where it does: nothing is ever padded."""
    shape, rows = trajectory.shape, trajectory.hyperparameters.batch_sequences
    if rows % (mesh.data * mesh.fsdp * microbatches):
        parts = f" and {microbatches} microbatches" if microbatches > 1 else ""
        return f"its batch of {rows} sequences is not divisible by data x fsdp = {mesh.data * mesh.fsdp}{parts}"
    for name, value, axis, devices in (
        ("width", shape.width, "fsdp", mesh.fsdp),
        *((name, value, "tensor", mesh.tensor) for name, value in shape.over_tensor.items()),
    ):
        if value % devices:
            return f"{name} {value} is not divisible by {axis} = {devices}"
    return None


def check_mesh(plan: Sequence[Trajectory], mesh: MeshConfig, microbatches: int = 1) -> None:
    """Raises InputError where a mesh or a number of microbatches does not divide the arrays of some size of the plan,
    naming a mesh that does.
    """
    for trajectory in plan:
        why = misfit(trajectory, mesh, microbatches)
        if why is None:
            continue
        fitting = nearest_mesh(plan, mesh)
        if misfit(trajectory, mesh) is None:
            rows = trajectory.hyperparameters.batch_sequences // (mesh.data * mesh.fsdp)
            mend = f"choose microbatches that divide the {rows} sequences of a device, or none, and they are chosen"
        else:
            mend = f"--mesh {fitting} fits every size"
        raise InputError(f"mesh: '{mesh}' does not fit size {trajectory.shape}: {why}; {mend}")


def nearest_mesh(plan: Sequence[Trajectory], mesh: MeshConfig) -> MeshConfig:
    """The mesh of most devices, at most as many as `mesh` has, that fits every size of a plan; the one most like it."""

    def distance(other: MeshConfig) -> float:
        pairs = ((mesh.data, other.data), (mesh.fsdp, other.fsdp), (mesh.tensor, other.tensor))
        return sum(abs(math.log(a / b)) for a, b in pairs)

    for devices in range(mesh.devices, 1, -1):
        found = [m for m in factorizations(devices) if all(misfit(t, m) is None for t in plan)]
        if found:
            return min(found, key=distance)
    return MeshConfig()


def largest_part(mesh: MeshConfig, devices: int) -> MeshConfig:
    """The mesh of most devices, at most `devices`, whose axes divide those of `mesh`: it fits what `mesh` fits."""
    parts = [
        MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
        for data in _divisors(mesh.data)
        for fsdp in _divisors(mesh.fsdp)
        for tensor in _divisors(mesh.tensor)
    ]
    return max((part for part in parts if part.devices <= devices), key=lambda part: part.devices)


def _divisors(number: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


def factorizations(devices: int) -> Iterator[MeshConfig]:
    """Every mesh of that many devices."""
    for data in _divisors(devices):
        for fsdp in _divisors(devices // data):
            yield MeshConfig(data=data, fsdp=fsdp, tensor=devices // (data * fsdp))


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How the step of a trajectory is laid out on its devices. Nothing of it changes the numbers (beyond rounding)."""

    microbatches: int
    remat: Remat
    bytes: StepBytes


def candidates(
    trajectory: Trajectory,
    mesh: MeshConfig,
    platform: str,
    *,
    microbatches: int | None,
    remat: RematChoice,
    replicas: int = 1,
) -> list[Placement]:
    """Layouts on a mesh in the order of preference: nothing computed again first, then the fewest microbatches."""
    rows = trajectory.hyperparameters.batch_sequences // (mesh.data * mesh.fsdp)
    counts = _divisors(rows)
    if platform == "cpu":
        fewest = cpu_microbatches(trajectory, mesh)
        counts = [count for count in counts if count >= fewest]
    remats: tuple[Remat, ...] = ("none", "products", "layer") if remat == "auto" else (remat,)
    return [
        Placement(microbatches=count, remat=what, bytes=step_bytes(trajectory, mesh, count, what, platform, replicas))
        for what in remats
        for count in ([microbatches] if microbatches is not None else counts)
    ]


def cpu_microbatches(trajectory: Trajectory, mesh: MeshConfig) -> int:
    """Into how many microbatches a CPU splits a batch for its caches' sake, whatever its memory."""
    rows = trajectory.hyperparameters.batch_sequences // (mesh.data * mesh.fsdp)
    tokens = rows * trajectory.hyperparameters.sequence
    activations = 4 * tokens * trajectory.shape.feedforward / mesh.tensor
    counts = [count for count in _divisors(rows) if count * CPU_MICROBATCH_TOKENS <= tokens] or [1]
    return next((count for count in counts if activations <= count * CPU_ACTIVATION_BYTES), counts[-1])


def place(trajectory: Trajectory, study: Study, memory: Memory | None, replicas: int = 1) -> Placement:
    """The first of the layouts that fills at most FILLED of a device. What the study fixes stays as it is, and where it
    fixes everything, or without a `memory` (an accelerator that was not asked), nothing has to fit. `replicas` models
    are trained in the step.

    Raises InputError with the bytes needed, the bytes there and changes that would fit.
    """
    platform = memory.platform if memory else "accelerator"
    if trajectory.family == "ngram":  # what it stores is bounded instead (lmscale.counting)
        return Placement(
            microbatches=1, remat="none", bytes=step_bytes(trajectory, study.mesh, 1, "none", platform, replicas)
        )
    found = candidates(
        trajectory, study.mesh, platform, microbatches=study.microbatches, remat=study.remat, replicas=replicas
    )
    if memory is None or (study.microbatches is not None and study.remat != "auto"):
        return found[0]
    for placement in found:
        if placement.bytes.total <= FILLED * memory.device_bytes:
            return placement
    least = min(found, key=lambda placement: placement.bytes.total)
    raise InputError(
        f"memory: a step of size {trajectory.shape} on mesh '{study.mesh}' takes at least "
        f"{in_words(least.bytes.total)} a device, and {FILLED:.0%} of {in_words(memory.device_bytes)} is to be filled; "
        f"{advice(trajectory, study, memory, FILLED * memory.device_bytes, replicas)}"
    )


def place_all(stacks: Iterable[Stack], study: Study, memory: Memory | None) -> dict[tuple, Placement]:
    """The layout of every stack's step, by its program. Raises InputError as `place` does."""
    of_program = {stack.program: stack for stack in stacks}
    return {program: place(s.members[0], study, memory, s.width) for program, s in of_program.items()}


def advice(trajectory: Trajectory, study: Study, memory: Memory, limit_bytes: float, replicas: int = 1) -> str:
    """Two changes after which a step of `replicas` models takes at most `limit_bytes` a device, those that leave its
    numbers alone first.
    """
    found = []
    for option, changed, mesh, remat, count in _changes(trajectory, study, memory, replicas):
        for placement in candidates(changed, mesh, memory.platform, microbatches=None, remat=remat, replicas=count):
            if placement.bytes.total <= limit_bytes:
                words = option.format(placement.microbatches)
                found.append(f"{words} ({in_words(placement.bytes.total)} a device)")
                break
    return "these would fit: " + ", or ".join(found[:2]) if found else "no smaller layout is known"


def _changes(
    trajectory: Trajectory, study: Study, memory: Memory, replicas: int
) -> Iterator[tuple[str, Trajectory, MeshConfig, RematChoice, int]]:
    """What to write, and the trajectory, mesh, rematerialisation and replicas it stands for."""
    mesh, fewer = study.mesh, replicas // 2
    while fewer >= 1:
        yield f"--replicas {fewer} --microbatches {{}}", trajectory, mesh, "none", fewer
        fewer //= 2
    yield "--microbatches {}", trajectory, mesh, "none", replicas
    yield "--remat products --microbatches {}", trajectory, mesh, "products", replicas
    yield "--remat layer --microbatches {}", trajectory, mesh, "layer", replicas
    if not memory.shared:
        for factor in (2, 4, 8, 16, 32, 64):
            wider = replace(mesh, fsdp=mesh.fsdp * factor)
            if misfit(trajectory, wider) is None:
                yield f"--mesh {wider} --microbatches {{}}", trajectory, wider, "auto", replicas
    shape = trajectory.shape
    params = shape.params / 2
    while True:
        try:
            smaller = shape_for(params, shape)
        except InputError:  # below the ladder
            return
        yield f"--sizes {smaller}", replace(trajectory, shape=smaller), mesh, "auto", replicas
        params /= 2

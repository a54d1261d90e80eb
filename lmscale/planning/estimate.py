"""How long a plan will take, from what the parts of its trajectories take: measured (lmscale.training.calibrate), or by
the peak of a device. Imports no framework.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.errors import InputError
from lmscale.plan import Run, Trajectory, cost
from lmscale.planning.accelerators import TERA, Accelerator
from lmscale.planning.assemble import Assembly
from lmscale.planning.memory import Memory
from lmscale.planning.order import in_order
from lmscale.planning.replicas import Stack, make_stacks
from lmscale.shapes import BACKWARD

START_SECONDS = 6.0  # from starting a worker to its first trajectory: importing jax, flax and orbax
UTILISATION = 0.4  # model FLOPs over peak; large models reach 0.21 to 0.46: Chowdhery et al. 2022, Table 3


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds of one trajectory's parts; of trajectories trained together, its share."""

    compile_seconds: float
    step_seconds: float
    evaluation_seconds: float
    checkpoint_seconds: float  # a save and a restore

    def run_seconds(self, trajectory: Trajectory, run: Run) -> float:
        """What a run adds: its part of the trunk, its cooldown, an evaluation, and its saves (branch point and final
        parameters, a third as large) and a restore.
        """
        h = trajectory.hyperparameters
        steps = cost(trajectory, run) / trajectory.shape.train_flops(h.batch_tokens, h.sequence)
        return self.step_seconds * steps + self.evaluation_seconds + 1.5 * self.checkpoint_seconds


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a sweep will take: the cost of each trajectory by id, and the whole."""

    costs: dict[str, Cost]
    workers: int
    seconds: float
    memory: Memory | None  # what the devices said they have, where the plan could not know
    source: str  # where, and how it is known


def seconds_to_end(pieces: Sequence[Stack], costs: Mapping[str, Cost], workers: int) -> float:
    """When the last of `workers` ends. One that is free takes the first piece (lmscale.planning.order) of a trajectory
    that no other has; it compiles each program once.
    """
    free_at, compiled, taken = [START_SECONDS] * workers, set(), dict[str, int]()
    taken_until = {piece.members[0].id: 0.0 for piece in pieces}
    left = list(pieces)
    while left:
        worker = free_at.index(min(free_at))
        now = free_at[worker]
        i = next((i for i, piece in enumerate(left) if taken_until[piece.members[0].id] <= now), None)
        if i is None:  # all that is left is with others
            i = min(range(len(left)), key=lambda i: taken_until[left[i].members[0].id])
            now = taken_until[left[i].members[0].id]
        piece = left.pop(i)
        first = piece.members[0]
        before, taken[first.id] = taken.get(first.id, 0), len(first.runs)
        spent = sum(costs[t.id].run_seconds(t, run) for t in piece.members for run in t.runs[before:])
        if (key := (worker, first.program, piece.width)) not in compiled:
            compiled.add(key)
            spent += sum(costs[t.id].compile_seconds for t in piece.members)
        free_at[worker] = taken_until[first.id] = now + spent
    return max(free_at)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Devices that are not here: an accelerator, and the share of its peak that steps are taken to reach."""

    name: str
    device: Accelerator
    utilisation: float


def by_peak(assembly: Assembly, peak: Peak, workers: int) -> Estimate:
    """What the plan takes on `workers` meshes of such devices, counting training and evaluation alone."""
    study, device = assembly.study, peak.device
    dtype = "float32" if study.recipe.compute_dtype == "float32" else "bfloat16"
    flops_per_second = device.flops(dtype) * peak.utilisation * study.mesh.devices
    costs = {}
    for t in assembly.plan:
        h = t.hyperparameters
        if t.family == "ngram":
            raise InputError(
                f"device: {peak.name!r} has no part in n-grams, which the host counts; leave it out, or their family"
            )
        evaluation = t.shape.train_flops(assembly.evaluated_tokens(t), h.sequence) / (1 + BACKWARD)
        costs[t.id] = Cost(
            compile_seconds=0.0,
            step_seconds=t.shape.train_flops(h.batch_tokens, h.sequence) / flops_per_second,
            evaluation_seconds=evaluation / flops_per_second,
            checkpoint_seconds=0.0,
        )
    pieces = in_order(make_stacks(assembly.plan, study.replicas, accelerator=True), study.target_flops, workers)
    devices = f"{workers * study.mesh.devices} x {peak.name}" if workers * study.mesh.devices > 1 else peak.name
    return Estimate(
        costs=costs,
        workers=workers,
        seconds=seconds_to_end(pieces, costs, workers),
        memory=None,
        source=f"on {devices}, if steps reach {peak.utilisation:.0%} of {device.flops(dtype) / TERA:,.0f} TFLOP/s "
        f"({dtype}; --utilisation), not counting compilation and checkpoints",
    )

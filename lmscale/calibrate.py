"""How long a plan will take: a short measurement of the very programs that the sweep runs. Trains nothing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from lmscale.assemble import Assembly
from lmscale.checkpoint import Checkpoints
from lmscale.compilation import use_cache
from lmscale.data.loader import EvaluationSet
from lmscale.evaluate import evaluate
from lmscale.layout import place
from lmscale.memory import Memory, study_memory
from lmscale.mesh import device_bytes, make_mesh
from lmscale.plan import Run, Trajectory, cost
from lmscale.replicas import make_stacks
from lmscale.step import Step, Together

START_SECONDS = 6.0  # from starting a worker to its first trajectory: importing jax, flax and orbax
MEASURED_SECONDS = 1.0  # steps are repeated for at least this long


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

    def seconds(self, trajectory: Trajectory) -> float:
        """Wall time of a whole trajectory."""
        return self.compile_seconds + sum(self.run_seconds(trajectory, run) for run in trajectory.runs)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a sweep will take on this machine: the cost of each trajectory by id, and the whole."""

    costs: dict[str, Cost]
    workers: int
    seconds: float
    memory: Memory | None  # what the devices said they have, where the plan could not know


def calibrate(trajectory: Trajectory, step: Step, held_out: EvaluationSet) -> Cost:
    """Times a trajectory's compiled programs on random tokens, and a checkpoint in a temporary folder."""
    h = trajectory.hyperparameters
    count = step.steps_per_dispatch
    shape = (count, h.batch_sequences, h.sequence + 1)
    windows = [np.random.default_rng(0).integers(0, trajectory.text.vocab, shape, dtype=np.int32)] * step.replicas
    rates = [np.zeros(count, np.float32)] * step.replicas
    began = time.monotonic()
    together = Together(step, [step.init()] * step.replicas)
    together.advance(windows, rates, count)
    evaluate(step.window_losses, together.model(0).params, held_out, step.row_devices)
    first = time.monotonic() - began

    began, calls = time.monotonic(), 0
    while calls == 0 or time.monotonic() - began < MEASURED_SECONDS:
        jax.block_until_ready(together.advance(windows, rates, count))
        calls += 1
    call_seconds = (time.monotonic() - began) / calls
    state = together.model(0)
    began = time.monotonic()
    evaluate(step.window_losses, state.params, held_out, step.row_devices)
    evaluation_seconds = time.monotonic() - began
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        began = time.monotonic()
        checkpoints.save(1, state, keep=True)
        checkpoints.restore(1, state)
        checkpoint_seconds = time.monotonic() - began
    return Cost(
        compile_seconds=max(0.0, first - call_seconds - evaluation_seconds) / step.replicas,
        step_seconds=call_seconds / count / step.replicas,
        evaluation_seconds=evaluation_seconds,
        checkpoint_seconds=checkpoint_seconds,
    )


def estimate_plan(assembly: Assembly, workers: int, memory: Memory | None, say: Callable[[str], None]) -> Estimate:
    """Measures every shape of a plan once, in a process that holds a worker's share of the cores."""
    use_cache(say)
    study, mesh = assembly.study, make_mesh(assembly.study.mesh)
    accelerator = mesh.devices.flat[0].platform != "cpu"
    stacks = make_stacks(assembly.plan, study.replicas, accelerator=accelerator)
    if memory is None:
        memory = study_memory(study, workers=workers, accelerator=True, device_bytes=device_bytes(mesh))
    windows = [len(s.windows.tokens) for s in (assembly.headline, *assembly.extra_sets)]
    sets = sum(windows) / windows[0]  # all of them, in headlines
    measured: dict[tuple, Cost] = {}
    costs = {}
    for stack in sorted(stacks, key=lambda stack: stack.members[0].shape.params):
        trajectory = stack.members[0]
        key = (trajectory.program, stack.width)
        if key not in measured:
            say(f"timing {trajectory.shape} ({trajectory.shape.params:,} params)")
            placement = place(trajectory, study, memory, stack.width)
            step = Step(
                trajectory,
                mesh,
                microbatches=placement.microbatches,
                steps_per_dispatch=study.steps_per_dispatch,
                remat=placement.remat,
                replicas=stack.width,
            )
            found = calibrate(trajectory, step, assembly.held_out)
            measured[key] = replace(found, evaluation_seconds=found.evaluation_seconds * sets)
        costs |= {member.id: measured[key] for member in stack.members}
    busy = [START_SECONDS] * workers
    for stack in stacks:  # each worker takes the largest that is left
        busy[busy.index(min(busy))] += sum(costs[member.id].seconds(member) for member in stack.members)
    return Estimate(costs=costs, workers=workers, seconds=max(busy), memory=memory)

"""How long a plan will take: a short measurement of the very programs that the sweep runs. Trains nothing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh

from lmscale.checkpoint import Checkpoints
from lmscale.counting import BLOCK_WINDOWS, CountStep
from lmscale.data.loader import EvaluationSet
from lmscale.evaluate import evaluate
from lmscale.mesh import device_bytes, make_mesh
from lmscale.ngram import estimate
from lmscale.plan import Trajectory
from lmscale.planning.assemble import Assembly
from lmscale.planning.estimate import Cost, Estimate, seconds_to_end
from lmscale.planning.layout import place
from lmscale.planning.memory import Memory, study_memory
from lmscale.planning.order import in_order
from lmscale.planning.replicas import Stack, make_stacks
from lmscale.step import Step, Together
from lmscale.training.compilation import use_cache

MEASURED_SECONDS = 1.0  # steps are repeated for at least this long


def calibrate(trajectory: Trajectory, step: Step, held_out: EvaluationSet) -> Cost:
    """Times a trajectory's compiled programs on random tokens, and a checkpoint in a temporary folder."""
    h = trajectory.hyperparameters
    count = step.steps_per_dispatch
    shape = (count, h.batch_sequences, step.columns)
    windows = [np.random.default_rng(0).integers(0, trajectory.text.vocab, shape, dtype=np.int32)] * step.replicas
    rates = [np.zeros(count, np.float32)] * step.replicas
    began = time.monotonic()
    together = Together(step, [step.init()] * step.replicas)
    together.advance(windows, rates, count)
    evaluate(step, together.model(0).params, held_out)
    first = time.monotonic() - began

    began, calls = time.monotonic(), 0
    while calls == 0 or time.monotonic() - began < MEASURED_SECONDS:
        jax.block_until_ready(together.advance(windows, rates, count))
        calls += 1
    call_seconds = (time.monotonic() - began) / calls
    state = together.model(0)
    began = time.monotonic()
    evaluate(step, state.params, held_out)
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


def calibrate_counts(assembly: Assembly, trajectory: Trajectory, mesh: Mesh) -> Cost:
    """Times counting the first windows of the text, and a model of these on the evaluation set."""
    step = CountStep(trajectory, mesh, None)
    windows = min(trajectory.runs[-1].steps, BLOCK_WINDOWS)
    began = time.monotonic()
    tokens = assembly.loader(trajectory).batches(0, windows)
    counts = step.make_counts(trajectory)
    counts.add(tokens.reshape(-1, tokens.shape[-1]))
    model = estimate(counts)
    counting_seconds = time.monotonic() - began
    began = time.monotonic()
    evaluate(cast(Any, step), model, assembly.held_out)
    return Cost(
        compile_seconds=0.0,
        step_seconds=counting_seconds / windows,
        evaluation_seconds=time.monotonic() - began,
        checkpoint_seconds=0.0,
    )


def estimate_plan(assembly: Assembly, workers: int, memory: Memory | None, say: Callable[[str], None]) -> Estimate:
    """Measures every shape of a plan once, in a process that holds a worker's share of the cores."""
    use_cache(say)
    study, mesh = assembly.study, make_mesh(assembly.study.mesh)
    accelerator = mesh.devices.flat[0].platform != "cpu"
    stacks = make_stacks(assembly.plan, study.replicas, accelerator=accelerator)
    if memory is None:
        memory = study_memory(study, workers=workers, accelerator=True, device_bytes=device_bytes(mesh))
    measured: dict[tuple, Cost] = {}
    costs = {}
    for stack in sorted(stacks, key=lambda stack: stack.members[0].shape.planned_params or 0):
        trajectory = stack.members[0]
        key = (trajectory.program, stack.width)
        if key not in measured:
            found = _measure(assembly, stack, mesh, memory, say)
            sets = assembly.evaluated_tokens(trajectory) / assembly.headline.read_tokens  # all of them, in headlines
            measured[key] = replace(found, evaluation_seconds=found.evaluation_seconds * sets)
        costs |= {member.id: measured[key] for member in stack.members}
    return Estimate(
        costs=costs,
        workers=workers,
        seconds=seconds_to_end(in_order(stacks, study.target_flops, workers), costs, workers),
        memory=memory,
        source=f"on this machine with {workers} workers, from a short calibration",
    )


def _measure(assembly: Assembly, stack: Stack, mesh: Mesh, memory: Memory | None, say: Callable[[str], None]) -> Cost:
    trajectory, study = stack.members[0], assembly.study
    if trajectory.family == "ngram":
        say(f"timing {trajectory.shape}")
        return calibrate_counts(assembly, trajectory, mesh)
    family = f"{trajectory.family} " * bool(study.further)
    say(f"timing {family}{trajectory.shape} ({trajectory.shape.params:,} params)")
    placement = place(trajectory, study, memory, stack.width)
    step = Step(
        trajectory,
        mesh,
        microbatches=placement.microbatches,
        steps_per_dispatch=study.steps_per_dispatch,
        remat=placement.remat,
        replicas=stack.width,
    )
    return calibrate(trajectory, step, assembly.held_out)

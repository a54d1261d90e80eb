"""Works on a study in this process: takes what nobody else has, a trajectory or a stack of them, the largest first.

This is `lmscale run`. A sweep starts several; any number may work on one results folder, for each trajectory is locked
by the process that trains it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import jax

from lmscale import STARTED, distributed
from lmscale.assemble import Assembly
from lmscale.compilation import use_cache
from lmscale.evaluate import NamedSet
from lmscale.lanes import Progress, Start, Training
from lmscale.layout import place
from lmscale.memory import study_memory
from lmscale.mesh import device_bytes, make_mesh
from lmscale.order import in_order
from lmscale.out_of_memory import OutOfMemory, explain, is_out_of_memory
from lmscale.plan import Run, Trajectory
from lmscale.progress import done_line
from lmscale.records import Workspace, unscored
from lmscale.replicas import Stack, make_stacks
from lmscale.scores import score_finished
from lmscale.step import Step
from lmscale.train import Interrupted, train


def work(assembly: Assembly, out: Path, *, events: bool, workers: int = 1, profile: range | None = None) -> bool:
    """Trains what is left of the plan; True if it was asked to stop.

    `events` prints a JSON line for each call of the compiled program, else a plain line for each finished run.
    `workers` processes share this machine; of every trajectory, the calls that hold a step of `profile` are traced.
    Raises InputError for an impossible mesh or a step that cannot fit; once all others are trained, OutOfMemory if the
    steps of some did not.
    """
    with ExitStack() as left_alone:  # the locks of those that did not fit, so that no other worker tries them as well
        return _work(assembly, out, events, workers, profile, left_alone)


def _work(
    assembly: Assembly, out: Path, events: bool, workers: int, profile: range | None, left_alone: ExitStack
) -> bool:
    study = assembly.study
    workspace = Workspace(out, study.name)
    distributed.decide(workspace.create)
    stop = Stop()
    tell = (stop.tell_sweep if events else _tell_person) if distributed.leads() else _tell_nobody
    use_cache(lambda line: tell({"event": "say", "line": line}))
    mesh = make_mesh(study.mesh)
    accelerator = mesh.devices.flat[0].platform != "cpu"
    memory = study_memory(study, workers=workers, accelerator=accelerator, device_bytes=device_bytes(mesh))
    failed: OutOfMemory | None = None
    steps: dict[tuple, Step] = {}  # compiled once for all trajectories of a program
    make = partial(_training, assembly, workspace, stop, tell, profile)
    began = STARTED
    stacks = in_order(make_stacks(assembly.plan, study.replicas, accelerator=accelerator), study.target_flops, workers)
    for stack, leavings in [*((stack, False) for stack in stacks), *((stack, True) for stack in stacks)]:
        if distributed.agree(stop.requested, due=False)[0]:
            return True
        with ExitStack() as locks:
            mine = distributed.decide(partial(_take, stack, workspace, locks, leavings, assembly.extra_sets))
            pending = [t for t in stack.members if t.id in mine]
            if not pending:
                continue
            placement = place(pending[0], study, memory, stack.width)
            key = (pending[0].program, stack.width)
            if key not in steps:
                steps[key] = Step(
                    pending[0],
                    mesh,
                    microbatches=placement.microbatches,
                    steps_per_dispatch=study.steps_per_dispatch,
                    remat=placement.remat,
                    replicas=stack.width,
                )
            trainings = [make(t, steps[key], len(pending), began) for t in pending]
            try:
                train(*trainings)
                if scored := sum(score_finished(t) for t in trainings):
                    tell({"event": "scored", "runs": scored})
            except Interrupted:
                return True
            except Exception as error:
                if not is_out_of_memory(error) or jax.process_count() > 1:  # of a job, the others wait in collectives
                    raise
                failed = explain(error, pending[0], study, placement, memory)
                tell({"event": "say", "line": str(failed)})
                left_alone.push(locks.pop_all())
            finally:
                for t in trainings:
                    t.telemetry.close()
            began = time.monotonic()
    if failed is not None:
        raise failed
    return False


def _training(
    assembly: Assembly,
    workspace: Workspace,
    stop: Stop,
    tell: Callable[[dict], None],
    profile: range | None,
    trajectory: Trajectory,
    step: Step,
    together: int,
    began: float,
) -> Training:
    """A trajectory with all that the loop wants; `together` are trained in one step."""

    def diverged(why: str, lost: list[Run]) -> None:
        line = f"{trajectory.id}: diverged, {why}; {len(lost)} runs are left out of fits"
        tell({"event": "diverged", "runs": len(lost), "line": line})

    return Training(
        trajectory=trajectory,
        step=step,
        loader=assembly.loader(trajectory),
        held_out=assembly.held_out,
        workspace=workspace,
        mesh=str(assembly.study.mesh),
        checkpoint_seconds=assembly.study.checkpoint_seconds,
        began=began,
        started=lambda start: tell(_start(trajectory, start)),
        report=lambda p: tell(_progress(trajectory, p, together)),
        done=lambda run, row: tell({"event": "done", "run": run.id, "row": row}),
        diverged=diverged,
        stop=lambda: stop.requested,
        say=lambda line: tell({"event": "say", "line": line}),
        extra_sets=assembly.extra_sets,
        logs=assembly.study.telemetry,
        profile=profile,
    )


def _start(trajectory: Trajectory, start: Start) -> dict:
    """The first step of a trajectory; worth a line where its program was not in this process before."""
    message = {"event": "start", "trajectory": trajectory.id}
    if start.program == "ready":
        return message
    how = {"compiled": "compiled", "cached": "read from the cache"}[start.program]
    return message | {"line": f"{trajectory.shape}: first step after {start.seconds:.1f} s, program {how}"}


def _progress(trajectory: Trajectory, p: Progress, together: int) -> dict:
    h, shape = trajectory.hyperparameters, trajectory.shape
    of = f", one of {together}" if together > 1 else ""
    return {
        "event": "progress",
        "run": p.run.id,
        "phase": f"{p.phase}{of}",
        "step": p.step,
        "flops": shape.train_flops(p.steps * h.batch_tokens, h.sequence),
        "loss_nats": p.train_loss_nats,
        "tokens_per_second": p.tokens_per_second,
        "share_of_peak": p.share_of_peak,
    }


def _tell_person(message: dict) -> None:
    if message["event"] == "done":
        print(done_line(message["row"]), flush=True)
    elif "line" in message:
        print(message["line"], flush=True)


def _tell_nobody(message: dict) -> None:
    """Of a job, process 0 speaks."""


class Stop:
    """Whether to save and stop: asked by SIGINT or SIGTERM (a second one is obeyed at once), or left by the sweep."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def tell_sweep(self, message: dict) -> None:
        """A line for the sweep that started this worker; without it there is nobody to work for."""
        try:
            print(json.dumps(message, allow_nan=False), flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.requested = True


def _take(
    stack: Stack, workspace: Workspace, locks: ExitStack, leavings: bool, sets: tuple[NamedSet, ...]
) -> list[str]:
    """The ids of the members of a stack that nobody else has and that have runs to train, or to score. One whose first
    member another process has is left to it at first, lest two that start together split it; later, `leavings` too.
    """
    mine: list[Trajectory] = []
    for trajectory in stack.members:
        if locks.enter_context(_lock(workspace.trajectory(trajectory.id))):
            mine.append(trajectory)
        elif not mine and not leavings:
            break
    return [t.id for t in mine if any(_is_left(workspace, run, sets) for run in t.runs)]


def _is_left(workspace: Workspace, run: Run, sets: tuple[NamedSet, ...]) -> bool:
    return workspace.record(run.id) is None or bool(unscored(workspace, run.id, sets))


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Whether this process owns the trajectory. The lock goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True

"""Works on a study in this process: takes what nobody else has, a piece of a trajectory or of a stack at a time.

This is `lmscale run`. A sweep starts several; any number, on any hosts, may work on one results folder, for each
trajectory is leased by the process that trains it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax

from analysis.errors import InputError
from lmscale import STARTED, attempts, distributed
from lmscale.assemble import Assembly
from lmscale.compilation import use_cache
from lmscale.config import Remat, Study
from lmscale.desk import Desk
from lmscale.lanes import Progress, Start, Training
from lmscale.layout import Placement, place
from lmscale.leases import Lease, LeaseLost
from lmscale.memory import Memory, study_memory
from lmscale.mesh import device_bytes, make_mesh
from lmscale.order import in_order
from lmscale.out_of_memory import OutOfMemory, explain, is_out_of_memory
from lmscale.plan import Run, Trajectory
from lmscale.progress import done_line
from lmscale.records import Workspace
from lmscale.replicas import make_stacks
from lmscale.scores import score_finished
from lmscale.step import Step
from lmscale.train import Interrupted, train

WAIT_SECONDS = 0.5  # between looks at leases whose holders may be dead


class GivenUp(Exception):
    """Trajectories whose attempts got no further; the message is the line for a person."""


class DiskFailure(Exception):
    """The disk did not take what was to be saved; the message is the line for a person."""


def work(
    assembly: Assembly,
    out: Path,
    *,
    events: bool,
    workers: int = 1,
    profile: range | None = None,
    sweep: str | None = None,
) -> bool:
    """Trains what is left of the plan; True if it was asked to stop.

    `events` prints a JSON line for each call of the compiled program, else a plain line for each finished run.
    `workers` processes share this machine; of every trajectory, the calls that hold a step of `profile` are traced.
    `sweep` names the sweep whose attempts are counted together. Raises InputError for an impossible mesh or a step that
    cannot fit, and DiskFailure; once all others are trained, OutOfMemory if the steps of some did not, or GivenUp.
    """
    study = assembly.study
    workspace = Workspace(out, study.name)
    distributed.decide(workspace.create)
    stop = Stop()
    tell = (stop.tell_sweep if events else _tell_person) if distributed.leads() else _tell_nobody
    use_cache(lambda line: tell({"event": "say", "line": line}))
    mesh = make_mesh(study.mesh)
    accelerator = mesh.devices.flat[0].platform != "cpu"
    memory = study_memory(
        study, workers=workers, accelerator=accelerator, device_bytes=device_bytes(mesh), hosts=distributed.hosts()
    )
    failed: OutOfMemory | None = None
    steps: dict[tuple, Step] = {}  # compiled once for all trajectories of a program
    make = partial(_training, assembly, workspace, stop, tell, profile)
    began = STARTED
    stacks = in_order(make_stacks(assembly.plan, study.replicas, accelerator=accelerator), study.target_flops, workers)
    placements: dict[tuple, Placement] = {}
    for stack in stacks:  # all, before anything is leased: one that cannot fit is refused at once
        if stack.program not in placements:
            placements[stack.program] = _placement(stack.members[0], study, memory, stack.width)
    desk = Desk(workspace, stacks, sweep or uuid.uuid4().hex[:8], assembly.extra_sets, tell)
    while True:
        taken = distributed.decide(desk.take)
        if distributed.agree(stop.requested, due=False)[0]:
            desk.give_back("interrupted")
            return True
        if taken is None:
            break
        if not taken[1]:
            time.sleep(WAIT_SECONDS)
            continue
        stack = stacks[taken[0]]
        pending = [t for t in stack.members if t.id in taken[1]]
        placement = placements[stack.program]
        try:
            if stack.program not in steps:
                steps[stack.program] = Step(
                    pending[0],
                    mesh,
                    microbatches=placement.microbatches,
                    steps_per_dispatch=study.steps_per_dispatch,
                    remat=placement.remat,
                    replicas=stack.width,
                )
            trainings = [make(t, steps[stack.program], len(pending), began, desk.leases.get(t.id)) for t in pending]
            try:
                train(*trainings)
                if scored := sum(score_finished(t) for t in trainings):
                    tell({"event": "scored", "runs": scored})
            finally:
                for t in trainings:
                    t.telemetry.close()
        except Interrupted:
            desk.give_back("interrupted")
            return True
        except LeaseLost as lost:  # whoever has it now goes on; nothing of ours was committed after that
            tell({"event": "say", "line": str(lost)})
            desk.give_back("interrupted", str(lost))
        except BaseException as error:
            line = " ".join(str(error).split())
            if is_out_of_memory(error):
                failed = explain(error, pending[0], study, placement, memory, stack.width)
                desk.give_back("failed", f"{attempts.MEMORY}: {failed}")
                if jax.process_count() > 1:  # the others wait in collectives
                    raise failed from error
                tell({"event": "say", "line": str(failed)})
                continue
            if attempts.is_disk(error):
                desk.give_back("failed", f"io: {line}")
                raise DiskFailure(f"out: {str(workspace.root)!r} cannot be written ({line})") from error
            asked = isinstance(error, InputError | KeyboardInterrupt)
            desk.give_back("interrupted" if asked else "failed", f"{type(error).__name__}: {line}")
            raise
        else:
            desk.give_back("done")
        began = time.monotonic()
    if failed is not None:
        raise failed
    if desk.given_up:
        raise GivenUp(f"{len(desk.given_up)} trajectories were given up; the next sweep tries them again")
    return False


def _placement(trajectory: Trajectory, study: Study, memory: Memory | None, replicas: int) -> Placement:
    """Where a step is laid out, as process 0 finds it: hosts may differ in memory, but not in their programs."""

    def chosen() -> tuple[int, Remat]:
        placement = place(trajectory, study, memory, replicas)
        return placement.microbatches, placement.remat

    microbatches, remat = distributed.decide(chosen)
    return place(trajectory, replace(study, microbatches=microbatches, remat=remat), memory, replicas)


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
    lease: Lease | None,
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
        lease=lease,
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

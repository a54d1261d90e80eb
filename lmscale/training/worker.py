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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from analysis.errors import InputError
from lmscale import STARTED
from lmscale.config import Remat, Study
from lmscale.counting import CountStep, count
from lmscale.mesh import device_bytes, make_mesh
from lmscale.plan import Run, Trajectory
from lmscale.planning.assemble import Assembly
from lmscale.planning.layout import Placement, place
from lmscale.planning.memory import Memory, counts_that_fit, host_memory, study_memory
from lmscale.planning.order import order_of, piece
from lmscale.planning.out_of_memory import OutOfMemory, explain, is_out_of_memory
from lmscale.planning.replicas import Stack, make_stacks
from lmscale.processes import distributed
from lmscale.records import Workspace
from lmscale.scoring.scores import score_finished
from lmscale.step import Step
from lmscale.store.full_disk import DiskFailure, is_full_disk, refusal
from lmscale.train import Interrupted, train
from lmscale.training.compilation import compiling, use_cache
from lmscale.training.lanes import Progress, Start, Training
from lmscale.watch.pacing import Ledger, Sparing
from lmscale.watch.progress import done_line
from lmscale.work import attempts
from lmscale.work.desk import Desk
from lmscale.work.leases import LeaseLost

SAVE_SHARE, SAVE_LEAST_SECONDS, SAVE_MOST_SECONDS = 0.01, 2.0, 60.0
WAIT_SECONDS = 0.5  # between looks at leases whose holders may be dead


class GivenUp(Exception):
    """Trajectories whose attempts got no further; the message is the line for a person."""


def work(
    assembly: Assembly,
    out: Path,
    *,
    events: bool,
    workers: int = 1,
    profile: range | None = None,
    sweep: str | None = None,
    sweep_workers: int | None = None,
) -> bool:
    """Trains what is left of the plan; True if it was asked to stop.

    `events` prints a JSON line for each call of the compiled program, else a plain line for each finished run.
    `workers` processes share this machine; of every trajectory, the calls that hold a step of `profile` are traced.
    `sweep` names the sweep whose attempts are counted together, `sweep_workers` how many workers it has. Raises
    InputError for an impossible mesh or a step that cannot fit, and DiskFailure; once all others are trained,
    OutOfMemory if the steps of some did not, or GivenUp.
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
    stacks = make_stacks(assembly.plan, study.replicas, accelerator=accelerator)
    # as process 0 finds it: hosts may round otherwise
    order = distributed.decide(lambda: order_of(stacks, study.target_flops, sweep_workers or workers))
    stacks = [piece(stacks[s], k) for s, k in order]
    placements: dict[tuple, Placement] = {}
    for stack in stacks:  # all, before anything is leased: one that cannot fit is refused at once
        if stack.program not in placements:
            placements[stack.program] = _placement(stack.members[0], study, memory, stack.width)
    desk = Desk(workspace, stacks, sweep or uuid.uuid4().hex[:8], assembly.sets, tell)
    worker = Worker(
        assembly=assembly,
        workspace=workspace,
        mesh=mesh,
        memory=memory,
        host=host_memory(study, workers),
        placements=placements,
        desk=desk,
        stop=stop,
        tell=tell,
        profile=profile,
    )
    try:
        stopped = worker.work_off(stacks)
    finally:
        desk.stop_waiting()
        tell({"event": "ledger", "seconds": worker.ledger.total})
    if not stopped and worker.failed is not None:
        raise worker.failed
    if not stopped and desk.given_up:
        raise GivenUp(f"{len(desk.given_up)} trajectories were given up; the next sweep tries them again")
    return stopped


def saves(study: Study) -> Sparing:
    """How often checkpoints are saved: as a study says, or so often that it takes a hundredth of the time. (What loses
    least is the square root of twice a save's time and the time between failures, Young 1974: with saves of 30 ms and a
    failure every two minutes 2.7 s; a hundredth gives 3.)
    """
    fixed = study.checkpoint_seconds
    if fixed is not None:
        return Sparing(least_seconds=fixed, most_seconds=fixed)
    return Sparing(SAVE_SHARE, least_seconds=SAVE_LEAST_SECONDS, most_seconds=SAVE_MOST_SECONDS)


def _placement(trajectory: Trajectory, study: Study, memory: Memory | None, replicas: int) -> Placement:
    """Where a step is laid out, as process 0 finds it: hosts may differ in memory, but not in their programs."""

    def chosen() -> tuple[int, Remat]:
        placement = place(trajectory, study, memory, replicas)
        return placement.microbatches, placement.remat

    microbatches, remat = distributed.decide(chosen)
    return place(trajectory, replace(study, microbatches=microbatches, remat=remat), memory, replicas)


@dataclass(kw_only=True)
class Worker:
    """This process at work on a study."""

    assembly: Assembly
    workspace: Workspace
    mesh: Mesh
    memory: Memory | None
    host: Memory  # its share of this machine's, whatever trains
    placements: dict[tuple, Placement]  # by program
    desk: Desk
    stop: Stop
    tell: Callable[[dict], None]
    profile: range | None
    steps: dict[tuple, Any] = field(default_factory=dict)  # compiled once for all trajectories of a program
    failed: OutOfMemory | None = None
    ledger: Ledger = field(default_factory=Ledger)
    began: float = STARTED  # when the time to the next trajectory's first step begins to count

    def work_off(self, stacks: Sequence[Stack]) -> bool:
        """Takes what there is until there is no more; True if it was asked to stop."""
        while True:
            try:
                taken = distributed.decide(self.desk.take)
            except OSError as error:
                if is_full_disk(error):
                    raise self.disk_failure(error) from error
                raise
            if distributed.agree(self.stop.requested, due=False)[0]:
                self.desk.give_back("interrupted")
                return True
            if taken is None:
                return False
            index, ids, alone = taken
            if not ids:
                time.sleep(WAIT_SECONDS)
                continue
            members = [t for t in stacks[index].members if t.id in ids]
            if alone is not None:  # a cooldown
                members = [replace(t, runs=t.runs[-1:], beyond=()) for t in members]
            if not self.train(stacks[index], members):
                return True
            self.began = time.monotonic()

    def train(self, stack: Stack, members: list[Trajectory]) -> bool:
        """Trains what was taken of a stack, and gives it back; False if it was asked to stop."""
        try:
            self._train(stack, members)
        except Interrupted:
            self.desk.give_back("interrupted")
            return False
        except LeaseLost as lost:  # whoever has it now goes on; nothing of ours was committed after that
            self.desk.give_back("interrupted", str(lost))
            if jax.process_count() > 1:  # the others, which look at no claims, are in the middle of a step
                raise
            self.tell({"event": "say", "line": str(lost)})
        except BaseException as error:
            line = " ".join(str(error).split())
            if is_out_of_memory(error):
                placement = self.placements[stack.program]
                self.failed = explain(error, members[0], self.assembly.study, placement, self.memory, stack.width)
                self.desk.give_back("failed", f"{attempts.MEMORY}: {self.failed}")
                if jax.process_count() > 1:  # the others wait in collectives
                    raise self.failed from error
                self.tell({"event": "say", "line": str(self.failed)})
                return True
            if is_full_disk(error):
                self.desk.give_back("failed", f"io: {line}")
                raise self.disk_failure(error) from error
            asked = isinstance(error, InputError | KeyboardInterrupt)
            self.desk.give_back("interrupted" if asked else "failed", f"{type(error).__name__}: {line}")
            raise
        else:
            self.desk.give_back("done")
        return True

    def disk_failure(self, error: BaseException) -> DiskFailure:
        return DiskFailure(
            f"out: {str(self.workspace.root)!r} cannot be written ({refusal(error)}); make room, and repeat the "
            "command, which goes on from the last checkpoint"
        )

    def _train(self, stack: Stack, members: list[Trajectory]) -> None:
        if members[0].family == "ngram":
            self.steps[stack.program] = CountStep(members[0], self.mesh, self._counts_max(members[0]))
        if stack.program not in self.steps:
            placement = self.placements[stack.program]
            with compiling(self.ledger, surely=True):  # the model is traced
                self.steps[stack.program] = Step(
                    members[0],
                    self.mesh,
                    microbatches=placement.microbatches,
                    steps_per_dispatch=self.assembly.study.steps_per_dispatch,
                    remat=placement.remat,
                    replicas=stack.width,
                )
        trainings = [self._training(t, self.steps[stack.program], len(members)) for t in members]
        try:
            if scored := self._finish(trainings):
                self.tell({"event": "scored", "runs": scored})
        finally:
            for t in trainings:
                t.telemetry.close()

    def _counts_max(self, trajectory: Trajectory) -> int:
        """How many counts an n-gram may store: as the study says, or as many as fit this worker's share of the host."""
        given = self.assembly.study.counts_max
        return counts_that_fit(trajectory, self.host) if given is None else given

    def _finish(self, trainings: list[Training]) -> int:
        """Brings every run to its record, and to all its scores; how many that had a record lacked some."""
        if trainings[0].trajectory.family == "ngram":
            return sum(count(t) for t in trainings)
        train(*trainings)
        return sum(score_finished(t) for t in trainings)

    def _training(self, trajectory: Trajectory, step: Any, together: int) -> Training:
        """A trajectory with all that the loop wants; `together` are trained in one step."""
        study, tell = self.assembly.study, self.tell

        def diverged(why: str, lost: list[Run]) -> None:
            line = f"{trajectory.id}: diverged, {why}; {len(lost)} runs are left out of fits"
            tell({"event": "diverged", "runs": [run.id for run in lost], "line": line})

        return Training(
            trajectory=trajectory,
            step=step,
            loader=self.assembly.loader(trajectory),
            held_out=self.assembly.held_out,
            workspace=self.workspace,
            mesh=str(study.mesh),
            saves=saves(study),
            ledger=self.ledger,
            began=self.began,
            started=lambda start: tell(_start(trajectory, start)),
            report=lambda p: tell(_progress(trajectory, p, together)),
            done=lambda run, row: tell({"event": "done", "run": run.id, "row": row}),
            diverged=diverged,
            stop=lambda: self.stop.requested,
            say=lambda line: tell({"event": "say", "line": line}),
            extra_sets=self.assembly.extra_sets_of(trajectory),
            logs=study.telemetry,
            profile=self.profile,
            # a CPU trains on the very cores that drawing takes: docs/data.md has what was measured
            draws_ahead=step.mesh.devices.flat[0].platform != "cpu",
            grip=self.desk.grips.get(trajectory.id),
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
            sys.stdout.write(json.dumps(message, allow_nan=False) + "\n")  # at once: libraries print between two writes
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.requested = True

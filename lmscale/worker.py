"""Works on a study in this process: takes one trajectory after another that nobody else has, the largest first.

This is `lmscale run`. A sweep starts several; any number may work on one results folder, for each trajectory is locked
by the process that trains it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmscale.assemble import Assembly
from lmscale.mesh import make_mesh
from lmscale.plan import Trajectory, largest_first
from lmscale.progress import done_line
from lmscale.records import Workspace, unscored, write_json
from lmscale.scores import score_finished
from lmscale.step import Step
from lmscale.train import Diverged, Interrupted, Progress, Training, record, train


def work(assembly: Assembly, out: Path, *, events: bool, profile: range | None = None) -> bool:
    """Trains what is left of the plan; True if it was asked to stop. Raises InputError for an impossible mesh.

    `events` prints a JSON line for each call of the compiled program, else a plain line for each finished run.
    Of every trajectory, the calls that hold a step of `profile` are traced.
    """
    study = assembly.study
    mesh = make_mesh(study.mesh)
    workspace = Workspace(out, study.name)
    workspace.create()
    stop = Stop()
    tell = stop.tell_sweep if events else _tell_person
    for trajectory in largest_first(assembly.plan):
        if stop.requested:
            return True
        with _lock(workspace.trajectory(trajectory.id)) as owned:
            pending = [run for run in trajectory.runs if workspace.record(run.id) is None]
            late = [r for r in trajectory.runs if unscored(workspace, r.id, assembly.extra_sets)]
            if not owned or not (pending or late):
                continue
            training = Training(
                trajectory=trajectory,
                step=Step(
                    trajectory, mesh, microbatches=study.microbatches, steps_per_dispatch=study.steps_per_dispatch
                ),
                loader=assembly.loader(trajectory),
                held_out=assembly.held_out,
                workspace=workspace,
                mesh=str(study.mesh),
                checkpoint_seconds=study.checkpoint_seconds,
                report=lambda p, trajectory=trajectory: tell(_progress(trajectory, p)),
                done=lambda run, row: tell({"event": "done", "run": run.id, "row": row}),
                stop=lambda: stop.requested,
                say=lambda line: tell({"event": "say", "line": line}),
                extra_sets=assembly.extra_sets,
                logs=study.telemetry,
                profile=profile if pending else None,
            )
            try:
                for error in _divergences(training):
                    line = f"{trajectory.id}: diverged, {error}; {len(error.lost)} runs are left out of fits"
                    tell({"event": "diverged", "runs": len(error.lost), "line": line})
                if late:
                    tell({"event": "scored", "runs": score_finished(training)})
            except Interrupted:
                return True
            finally:
                training.telemetry.close()
    return False


def _progress(trajectory: Trajectory, p: Progress) -> dict:
    h, shape = trajectory.hyperparameters, trajectory.shape
    return {
        "event": "progress",
        "run": p.run.id,
        "label": f"{shape} to {p.run.tokens / 1e6:.2f} M tokens, {p.phase}",
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


def _divergences(training: Training) -> Iterator[Diverged]:
    """Trains until every run has its record, yielding each divergence once the runs it cost are recorded as such."""
    while True:
        try:
            train(training)
            return
        except Diverged as error:
            for run in error.lost:
                folder = training.workspace.run(run.id)
                folder.mkdir(exist_ok=True)
                write_json(folder / "record.json", record(training, run, None))
            yield error


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

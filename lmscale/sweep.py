"""Runs a plan: skips what is done, resumes what is not, reports progress, rebuilds the tables."""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lmscale.assemble import Assembly
from lmscale.mesh import make_mesh
from lmscale.plan import Run, Trajectory
from lmscale.progress import Display, make_display
from lmscale.records import Workspace, write_json
from lmscale.step import Step
from lmscale.train import Diverged, Interrupted, Progress, Training, record, train


@dataclass(kw_only=True)
class Outcome:
    """What a sweep did, counted in runs (`locked`: trajectories that another sweep holds)."""

    finished: int = 0
    skipped: int = 0
    diverged: int = 0
    locked: int = 0
    interrupted: bool = False
    seconds: float = 0.0


def sweep(assembly: Assembly, out: Path) -> Outcome:
    """Trains every run of the plan that has no record yet. Raises InputError if `out` cannot be written."""
    began = time.monotonic()
    study = assembly.study
    mesh = make_mesh(study.mesh)
    workspace = Workspace(out, study.name)
    workspace.create()
    work = []
    outcome = Outcome()
    for trajectory in assembly.plan:
        pending = [run for run in trajectory.runs if workspace.record(run.id) is None]
        outcome.skipped += len(trajectory.runs) - len(pending)
        if pending:
            work.append((trajectory, pending))
    with make_display(sum(cost(t, run) for t, pending in work for run in pending)) as display, _signals() as stop:
        meter = Meter(display, workspace, outcome)
        for trajectory, pending in work:
            with _lock(workspace.trajectory(trajectory.id)) as owned:
                if not owned:
                    display.say(f"{trajectory.id}: another sweep is training it; skipped")
                    outcome.locked += 1
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
                    report=lambda progress, trajectory=trajectory: meter.report(trajectory, progress),
                    done=lambda run, row, trajectory=trajectory: meter.done(trajectory, run, row),
                    stop=lambda: stop.requested,
                    say=display.say,
                )
                try:
                    train(training)
                except Interrupted:
                    outcome.interrupted = True
                    break
                except Diverged as error:
                    display.say(f"{trajectory.id}: diverged, {error}; its unfinished runs are left out of fits")
                    outcome.diverged += _record_diverged(workspace, training, pending)
    workspace.export()
    outcome.seconds = time.monotonic() - began
    return outcome


def cost(trajectory: Trajectory, run: Run) -> float:
    """Training FLOPs that a run adds to those before it in its trajectory: its part of the trunk, and its cooldown."""
    before = max((r.branch_step for r in trajectory.runs if r.branch_step < run.branch_step), default=0)
    steps = run.branch_step - before + run.cooldown_steps
    h = trajectory.hyperparameters
    return trajectory.shape.train_flops(steps * h.batch_tokens, h.sequence)


@dataclass
class Meter:
    """Turns what the training loop reports into the display's FLOPs, and lines for finished runs."""

    display: Display
    workspace: Workspace
    outcome: Outcome
    finished: float = 0.0  # FLOPs of the runs that are done
    current: float = 0.0  # FLOPs spent on the run under way

    def report(self, trajectory: Trajectory, p: Progress) -> None:
        shape, h = trajectory.shape, trajectory.hyperparameters
        self.current += shape.train_flops(p.steps * h.batch_tokens, h.sequence)
        self.display.update(
            label=f"{shape} {shape.params:,} params, to {p.run.tokens / 1e6:.2f} M tokens, {p.phase}",
            flops=self.finished + min(self.current, cost(trajectory, p.run)),
            loss_nats=p.train_loss_nats,
            tokens_per_second=p.tokens_per_second,
        )

    def done(self, trajectory: Trajectory, run: Run, row: dict) -> None:
        self.finished += cost(trajectory, run)
        self.current = 0.0
        self.outcome.finished += 1
        self.display.say(
            f"done  {trajectory.shape!s:>12}  {row['params']:>13,} params  {row['tokens']:>15,} tokens  "
            f"loss {row['loss_nats']:.4f} +- {row['loss_stderr']:.4f} nats"
        )
        self.workspace.export()


def _record_diverged(workspace: Workspace, training: Training, pending: list[Run]) -> int:
    lost = [run for run in pending if workspace.record(run.id) is None]
    for run in lost:
        workspace.run(run.id).mkdir(exist_ok=True)
        write_json(workspace.run(run.id) / "record.json", record(training, run, None))
    return len(lost)


class _Stop:
    requested = False


@contextmanager
def _signals() -> Iterator[_Stop]:
    """SIGINT and SIGTERM ask for a stop at the next call of the compiled program; a second one is obeyed at once."""
    stop = _Stop()

    def ask(number: int, frame: object) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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

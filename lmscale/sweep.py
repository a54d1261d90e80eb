"""Runs a plan: starts workers on what is not done, shows their progress, rebuilds the tables. No framework."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from analysis.errors import InputError
from lmscale import INTERRUPTED, STARTED, USER_ERROR
from lmscale.executors.base import make_executor, unread
from lmscale.executors.process import Event, Events
from lmscale.plan import Run, Trajectory, cost
from lmscale.planning.assemble import Assembly
from lmscale.planning.layout import place_all
from lmscale.planning.replicas import make_stacks
from lmscale.records import Workspace, unscored
from lmscale.watch.pacing import Sparing
from lmscale.watch.progress import Display, done_line, make_display, run_words
from lmscale.watch.standing import Status, UnderWay, write_plan
from lmscale.watch.status_page import kept_fresh, refresh
from lmscale.watch.until import Goal, Verdict, Watch

KILLED = {  # how a process ends that Linux, or a library without exceptions, refuses memory
    -signal.SIGKILL: "it was killed, as Linux does when memory runs out: fewer --workers, or more --microbatches",
    -signal.SIGABRT: "it was aborted, as happens when memory runs out: fewer --workers, or more --microbatches",
}


@dataclass(kw_only=True)
class Outcome:
    """What a sweep did, counted in runs."""

    finished: int = 0
    skipped: int = 0  # were finished before
    diverged: int = 0  # now or before
    scored: int = 0  # finished before, and now scored on sets added since
    unscored: int = 0  # finished, but without scores on some set
    left: list[str] = field(default_factory=list)  # without a record: interrupted, failed, or with another sweep
    verdict: Verdict | None = None  # on the goal, where there is one
    interrupted: bool = False
    detached: str = ""  # where the workers were left, if they were
    failures: list[str] = field(default_factory=list)  # a line for each worker that ended badly
    seconds: float = 0.0
    workers: int = 0
    useful_seconds: float = 0.0  # of all workers: steps, compiling, evaluation
    restarts: int = 0  # of workers that crashed

    @property
    def engine_share(self) -> float | None:
        """What the engine itself took of the workers' time, from the sweep's start to its end; None where it is not
        known: a worker that is killed takes its count with it.
        """
        known = self.useful_seconds > 0 and self.restarts == 0
        return 1 - self.useful_seconds / (self.workers * self.seconds) if known else None


def sweep(
    assembly: Assembly,
    out: Path,
    arguments: list[str],
    workers: int | None,
    processes: int,
    goal: Goal | None = None,
    *,
    detach: bool = False,
) -> Outcome:
    """Trains every run of the plan that has no record yet, in workers of `processes` each (`lmscale run`), which run
    where the study's executor starts them. Runs that have a record are scored on the evaluation sets that they lack.
    Stops once a `goal` is reached. `detach` returns once the workers are started.

    Raises InputError if `out` cannot be written, a step cannot fit, the executor has not what is asked of it, or a
    worker finds its mesh impossible.
    """
    began = time.monotonic()
    study = assembly.study
    workspace = Workspace(out, study.name)
    workspace.create()
    grid = [(t, run, workspace.record(run.id)) for t in assembly.plan for run in t.runs]
    pending = [(t, run) for t, run, record in grid if record is None]
    late = [(t, run) for t, run, _ in grid if unscored(workspace, run.id, assembly.sets)]
    before = [record["row"]["status"] for _, _, record in grid if record is not None]
    outcome = Outcome(skipped=before.count("done"), diverged=before.count("diverged"))
    write_plan(workspace, assembly.plan, goal.words if goal else None)
    watch = Watch(goal, [record["row"] for _, _, record in grid if record is not None]) if goal else None
    if (pending or late) and not (watch and watch.reached):
        with make_executor(study, workspace.root) as executor:
            trajectories = {t.id: t for t, _ in pending + late}
            stacks = make_stacks(trajectories.values(), study.replicas, accelerator=executor.accelerator)
            count = outcome.workers = workers or executor.default_workers(len(stacks), processes)
            place_all(stacks, study, executor.memory(count, processes))
            told = [*arguments, "--sweep", uuid.uuid4().hex[:8], "--sweep-workers", str(count)]
            if detach:
                outcome.detached = executor.detach(told, count, processes)
            else:
                to_score = f", {len(late)} to score on sets added since" if late else ""
                begun = [f"{len(pending)} runs to train{to_score}, {len(trajectories)} trajectories, {count} workers"]
                if others := unread(study.executor):
                    names = ", ".join(f"executor.{name}" for name in others)
                    begun.append(f"{names}: not read by the executor {study.executor.name!r}")
                with make_display(sum(cost(t, run) for t, run in pending), count) as display:
                    meter = Meter(display, workspace, outcome, {run.id: (t, run) for t, run in pending}, watch)
                    outcome.interrupted = _follow(partial(executor.run, told, count, processes), meter, begun)
    outcome.left = [run_words(t, run) for t, run in pending if workspace.record(run.id) is None]
    outcome.unscored = sum(bool(unscored(workspace, run.id, assembly.sets)) for _, run, _ in grid)
    outcome.verdict = watch.close() if watch else None
    workspace.export()
    refresh(workspace)
    outcome.seconds = time.monotonic() - began
    return outcome


def _follow(run: Callable[[Callable[[], int]], Events], meter: Meter, begun: list[str]) -> bool:
    """Lets the workers of an executor work until they end, or are asked to; True if a person asked."""
    with kept_fresh(meter.workspace), _signals() as asked:
        for line in begun:
            meter.display.say(line)
        with closing(run(lambda: len(asked) + meter.enough())) as events:
            for event in events:
                meter.take(event)
        meter.close()
    return bool(asked)


@dataclass
class Meter:
    """Adds up what the workers report, in training FLOPs, and says what is finished."""

    display: Display
    workspace: Workspace
    outcome: Outcome
    runs: dict[str, tuple[Trajectory, Run]]  # those pending, by id
    watch: Watch | None = None
    settled: dict[str, Status] = field(default_factory=dict)  # of those, the runs that have a record now
    finished: float = 0.0  # FLOPs of those
    current: dict[str, float] = field(default_factory=dict)  # FLOPs spent on runs under way
    stepped: bool = False  # a worker has made its first step
    exports: Sparing = field(default_factory=Sparing)

    def take(self, event: Event) -> None:
        message = event.message
        if event.status is not None:
            self._ended(event)
            self._show(event.worker, None)
            return
        match message["event"]:
            case "progress" if message["run"] in self.runs:
                self.current[message["run"]] = self.current.get(message["run"], 0.0) + message["flops"]
                self._show(event.worker, self._doing(event.worker, message))
            case "done":
                self._settle(message["run"], message["row"])
                self.display.say(done_line(message["row"]))
                if self.exports.due:
                    with self.exports.timed():
                        self.workspace.export()
            case "diverged":
                for run in message["runs"]:
                    self._settle(run, None)
            case "scored":
                self.outcome.scored += message["runs"]
            case "ledger":
                self.outcome.useful_seconds += message["seconds"]
            case "restart":
                self.outcome.restarts += 1
            case "start" if not self.stepped:
                self.stepped = True
                self.display.say(f"first step {time.monotonic() - STARTED:.1f} s after the command")
        if "line" in message:
            self.display.say(message["line"])

    def close(self) -> None:
        """Runs that were finished by another sweep, or of which a worker could not say so any more."""
        for run in self.runs.keys() - self.settled.keys():
            if (record := self.workspace.record(run)) is not None:
                self._settle(run, record["row"] if record["row"]["status"] == "done" else None)

    def _settle(self, run: str, row: dict | None) -> None:
        """A run has its record: its row, or none if it diverged."""
        self.current.pop(run, None)
        if run not in self.runs or run in self.settled:
            return
        self.settled[run] = "diverged" if row is None else "done"
        self.finished += cost(*self.runs[run])
        if row is None:
            self.outcome.diverged += 1
        else:
            self.outcome.finished += 1
            if self.watch:
                self.watch.finished(row)

    def enough(self) -> bool:
        """Whether the goal is reached; says what the runs tell of it whenever that is new."""
        if self.watch is None:
            return False
        if (verdict := self.watch.poll()) is not None and verdict.half_width is not None:
            self.display.say(verdict.words)
        return self.watch.reached

    def _doing(self, worker: int, message: dict) -> UnderWay:
        trajectory, run = self.runs[message["run"]]
        return UnderWay(
            who=str(worker),
            shape=str(trajectory.shape),
            tokens=run.tokens,
            phase=message["phase"],
            step=message["step"],
            steps=run.steps,
            loss_nats=message["loss_nats"],
            tokens_per_second=message["tokens_per_second"],
            share_of_peak=message["share_of_peak"],
        )

    def _show(self, worker: int, doing: UnderWay | None) -> None:
        under_way = sum(min(spent, cost(*self.runs[run])) for run, spent in self.current.items())
        counts: dict[Status, int] = {
            "done": self.outcome.finished + self.outcome.skipped,
            "diverged": self.outcome.diverged,
            "running": len(self.current),
            "planned": len(self.runs) - len(self.settled) - len(self.current),
        }
        self.display.update(worker=worker, doing=doing, flops=self.finished + under_way, counts=counts)

    def _ended(self, event: Event) -> None:
        last = event.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        if event.status == USER_ERROR:
            raise InputError(last[0].removeprefix("lmscale: "))
        if event.status in KILLED:
            last[0] += f"; {KILLED[event.status]}"
        if event.status not in (0, INTERRUPTED, -signal.SIGTERM):
            self.outcome.failures.append(f"worker {event.worker} ended with status {event.status}: {last[0]}")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals received, of SIGINT and SIGTERM; the workers are then asked to save and stop."""
    received: list[int] = []
    both = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, frame: received.append(n)) for number in both}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

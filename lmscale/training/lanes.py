"""Trajectories on their way: what one is trained with, where it stands, and how it comes back from disk.

Where training goes on from, in this order: the run's own cooldown checkpoint; the trunk at its branch point; the newest
trunk checkpoint before that; the initial state of the seed, or of the run that the study begins from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analysis.errors import InputError
from lmscale.checkpoint import Checkpoints, CorruptCheckpoint
from lmscale.data.loader import EvaluationSet, Loader
from lmscale.evaluate import NamedSet
from lmscale.optim import learning_rates
from lmscale.plan import Run, Trajectory
from lmscale.planning.pretrained import Pretrained, digest_of
from lmscale.processes import distributed
from lmscale.records import Curve, Workspace
from lmscale.step import Step
from lmscale.store.files import write_json
from lmscale.study.typed import check
from lmscale.training.compilation import Origin, compiling
from lmscale.training.state import AnyState
from lmscale.training.telemetry import Telemetry
from lmscale.watch.pacing import Ledger, Sparing

if TYPE_CHECKING:
    from lmscale.work.desk import Grip


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the loop reports of a run after each call of the compiled program."""

    run: Run
    phase: str  # "trunk" or "cooldown"
    steps: int  # trained in this call
    step: int  # of the run, at its end
    train_loss_nats: float | None  # None of what is counted
    tokens_per_second: float  # of all the models trained together
    share_of_peak: float | None


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a trajectory came to its first step in this process."""

    seconds: float  # from the start of the process, or the end of the trajectories before
    program: Origin


@dataclass(kw_only=True)
class Training:
    """What the loop works with for one trajectory, and the hooks through which it talks to the sweep."""

    trajectory: Trajectory
    step: Step  # the same for all that are trained together
    loader: Loader
    held_out: EvaluationSet
    workspace: Workspace
    mesh: str
    saves: Sparing  # how often a checkpoint is saved between branch points
    report: Callable[[Progress], None]
    done: Callable[[Run, dict], None]  # a run has its record
    diverged: Callable[[str, list[Run]], None]  # why, and the runs that cannot be had any more; they have their records
    stop: Callable[[], bool]
    say: Callable[[str], None]
    started: Callable[[Start], None] = lambda start: None
    began: float = field(default_factory=time.monotonic)  # when the time to the first step begins to count
    start: Start | None = None
    ledger: Ledger = field(default_factory=Ledger)
    meshes: tuple[str, ...] = ()  # all that the trajectory was trained on, in their order; of a job, in process 0
    replicas: int = 0  # trained together in the last call
    step_seconds: list[float] = field(default_factory=list)  # of each call: wall time of a step, shared out to replicas
    extra_sets: tuple[NamedSet, ...] = ()  # scored beside the headline
    logs: tuple[str, ...] = ()  # the study's `telemetry`
    profile: range | None = None  # steps to trace
    draws_ahead: bool = False  # windows are drawn by a thread of its own
    grip: Grip | None = None  # the leases, where others may take the trajectory or a cooldown
    telemetry: Telemetry = field(init=False)

    def __post_init__(self) -> None:
        logs, profile = (self.logs, self.profile) if distributed.leads() else ((), None)
        devices = list(self.step.mesh.devices.flat)
        self.telemetry = Telemetry(
            self.trajectory, devices, str(self.step.dtype), self.workspace, logs, profile, self.say
        )

    @property
    def sets(self) -> tuple[NamedSet, ...]:
        """What a finished run is to have scores on beside its record."""
        if not self.held_out.slices:
            return self.extra_sets
        text = self.trajectory.text
        return (NamedSet(name=text.headline, label=text.eval_set, windows=self.held_out), *self.extra_sets)

    def fence(self) -> None:
        """To be called before anything is committed. Raises LeaseLost."""
        if self.grip is not None:
            self.grip.check()

    @property
    def helps(self) -> bool:
        """Whether the trunk is another worker's, and only a cooldown ours."""
        return distributed.decide(lambda: self.grip is not None and self.grip.helps)

    def takes(self, run: Run) -> bool:
        """Whether the cooldown of a run, which can begin, is ours."""
        return distributed.decide(lambda: self.grip is None or self.grip.takes(run))


@dataclass(kw_only=True)
class Lane:
    """One trajectory on its way along the trunk, or down a cooldown, to one run."""

    training: Training
    run: Run
    phase: Literal["trunk", "cooldown"]
    step: int
    state: AnyState | None  # None while it is trained, and once it is lost
    checkpoints: Checkpoints
    curve: Curve
    lost: bool = False  # diverged

    def windows(self, start: int, stop: int) -> np.ndarray:
        """Batches of the steps start .. stop-1 (of a job's process, its rows of them): int32 [stop - start, B, S+1]."""
        t = self.training
        return t.loader.batches(start, stop, t.step.rows)

    def flush(self) -> None:
        """To be called before a checkpoint or a record that the curve leads to is there."""
        self.training.fence()
        self.curve.flush()

    def rates(self, start: int, stop: int) -> np.ndarray:
        h = self.training.trajectory.hyperparameters
        length = self.run.steps if self.phase == "cooldown" or h.schedule != "wsd" else None
        return learning_rates(h, start, stop, steps=length, branch_step=self.run.branch_step)


def begin(t: Training) -> None:
    """Notes what the trajectory is, and the meshes it is trained on. Raises InputError where it was begun in another
    arithmetic: `auto` differs between CPUs and accelerators, and one curve must not change from one to the other.
    """
    folder = t.workspace.trajectory(t.trajectory.id)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trajectory.json"
    dtype = str(t.step.dtype)
    before = json.loads(path.read_text()) if path.exists() else {}
    begun, meshes = before.get("compute_dtype", dtype), before.get("meshes", [])
    check(
        begun == dtype,
        "recipe.compute_dtype",
        t.trajectory.hyperparameters.compute_dtype,
        f"is {dtype} here, but {t.trajectory.id} was begun in {begun}; go on where it was begun, or pass --out DIR",
    )
    for run in t.trajectory.runs:  # of one that was killed after its record was made
        if t.workspace.record(run.id) is not None:
            _cooldown(t, run).remove()
    t.meshes = tuple(dict.fromkeys([*meshes, t.mesh]))
    noted = {"id": t.trajectory.id, "compute_dtype": dtype, "meshes": t.meshes, **t.trajectory.identity}
    write_json(path, noted)


def has_branched(t: Training, run: Run) -> bool:
    """Whether the run's cooldown can begin, or go on, without the trunk: it is on disk at the branch point."""
    if run.branch_step == 0 or _cooldown(t, run).steps():
        return True
    return run.branch_step in _trunk(t).steps()


def resume_cooldown(t: Training, run: Run) -> Lane | None:
    """The run's cooldown as far as it is on disk, or from the trunk at its branch point; None if neither is whole."""
    found = _cooldown(t, run).restore_latest(t.step.abstract_state, run.steps)
    if found is None:
        if run.branch_step == 0:
            found = 0, _initial(t)
        else:
            found = _trunk(t).restore_latest(t.step.abstract_state, run.branch_step, run.branch_step)
    return None if found is None else _cool(t, run, *found)


def resume_trunk(t: Training, run: Run) -> Lane:
    """The trunk as far as it is on disk, not beyond the run's branch; its curve keeps what later runs still share."""
    trunk, curve = _trunk(t), Curve(t.workspace.trajectory(t.trajectory.id) / "trunk.jsonl")
    found = trunk.restore_latest(t.step.abstract_state, run.branch_step)
    step, state = found or (0, _initial(t))
    if not any(later > step for later in trunk.steps()) and distributed.leads():
        _truncate(t, curve, step)
    return Lane(training=t, run=run, phase="trunk", step=step, state=state, checkpoints=trunk, curve=curve)


def _initial(t: Training) -> AnyState:
    source = t.trajectory.pretrained
    params = None if source is None else _pretrained(t, source)
    with compiling(t.ledger):
        return t.step.init(t.trajectory.seed, params)


def _pretrained(t: Training, source: Pretrained) -> Any:
    """The final parameters of a run, on the mesh. Raises InputError where they are damaged, or not those that the plan
    was made with.
    """
    like = {"params": t.step.abstract_state.params}
    try:
        params = Checkpoints(source.final, t.say).restore(source.step, like)["params"]
        changed = distributed.decide(lambda: digest_of(source.folder, source.step)) != source.digest
        why = "have changed since the plan was made" if changed else None
    except CorruptCheckpoint as error:
        params, why = None, f"are damaged ({error})"
    if why is not None:
        raise InputError(f"start.run: the final parameters of {source.run_id!r} {why}; train it again, or name another")
    return params


def _trunk(t: Training) -> Checkpoints:
    return Checkpoints(t.workspace.trajectory(t.trajectory.id) / "checkpoints", t.say, t.fence)


def _cooldown(t: Training, run: Run) -> Checkpoints:
    return Checkpoints(t.workspace.run(run.id) / "checkpoints", t.say, t.fence)


def keep(trunk: Lane) -> None:
    """Keeps the trunk that has reached a run's branch point on disk: a larger token count, or another run, goes on from
    there, and whoever trains the cooldown.
    """
    trunk.flush()
    if trunk.step > 0 and trunk.step not in trunk.checkpoints.steps(kept=True):
        trunk.checkpoints.save(trunk.step, trunk.state, keep=True)
        trunk.checkpoints.prune(trunk.step)


def branch_off(trunk: Lane) -> Lane:
    """The cooldown of the run that the trunk has reached, which gives it its buffers."""
    state, trunk.state = trunk.state, None
    assert state is not None
    return _cool(trunk.training, trunk.run, trunk.step, state)


def _cool(t: Training, run: Run, step: int, state: AnyState) -> Lane:
    """The lane of a cooldown that stands at `step`; its curve begins after the branch point."""
    folder = t.workspace.run(run.id)
    own, curve = _cooldown(t, run), Curve(folder / "curve.jsonl")
    if distributed.leads():
        folder.mkdir(parents=True, exist_ok=True)
        _truncate(t, curve, step)
    return Lane(training=t, run=run, phase="cooldown", step=step, state=state, checkpoints=own, curve=curve)


def _truncate(t: Training, curve: Curve, step: int) -> None:
    t.fence()
    if damaged := curve.truncate(step):
        t.say(f"{curve.lines.path.name} of {t.trajectory.id}: {len(damaged)} damaged lines set aside")

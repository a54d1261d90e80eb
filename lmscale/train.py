"""The training loop: one trajectory, trunk and cooldowns, resumed wherever it stopped.

Where training goes on from, in this order: the run's own cooldown checkpoint; the trunk as it stands in memory; the
newest trunk checkpoint not beyond the run's branch point; the initial state of the seed.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lmscale import __version__
from lmscale.checkpoint import Checkpoints
from lmscale.data.loader import EvaluationSet, Loader
from lmscale.evaluate import Evaluation, NamedSet, evaluate, score_rows
from lmscale.optim import learning_rates
from lmscale.plan import Run, Trajectory
from lmscale.records import Curve, Workspace, write_json
from lmscale.scores import score
from lmscale.step import State, Step
from lmscale.telemetry import Call, Telemetry
from lmscale.typed import check


class Interrupted(Exception):
    """The user or the machine asked to stop; the state has been saved."""


class Diverged(Exception):
    """A loss is no longer finite; nothing of it has been saved. `lost` are the runs that cannot be had any more."""

    def __init__(self, message: str, lost: list[Run]):
        super().__init__(message)
        self.lost = lost


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the loop reports after each call of the compiled program."""

    run: Run
    phase: str  # "trunk" or "cooldown"
    steps: int  # trained in this call
    train_loss_nats: float
    tokens_per_second: float
    share_of_peak: float


@dataclass(kw_only=True)
class Training:
    """What the loop works with, and the hooks through which it talks to the sweep."""

    trajectory: Trajectory
    step: Step
    loader: Loader
    held_out: EvaluationSet
    workspace: Workspace
    mesh: str
    checkpoint_seconds: float
    report: Callable[[Progress], None]
    done: Callable[[Run, dict], None]  # a run has its record
    stop: Callable[[], bool]
    say: Callable[[str], None]
    extra_sets: tuple[NamedSet, ...] = ()  # scored beside the headline
    logs: tuple[str, ...] = ()  # the study's `telemetry`
    profile: range | None = None  # steps to trace
    step_seconds: list[float] = field(default_factory=list)  # of each call of the compiled program
    ended: float = 0.0  # when the last call was seen to be done
    telemetry: Telemetry = field(init=False)

    def __post_init__(self) -> None:
        devices = list(self.step.mesh.devices.flat)
        self.telemetry = Telemetry(
            self.trajectory, devices, str(self.step.dtype), self.workspace, self.logs, self.profile, self.say
        )


def train(t: Training) -> None:
    """Brings every run of the trajectory to its record. Raises Interrupted or Diverged."""
    folder = t.workspace.trajectory(t.trajectory.id)
    folder.mkdir(parents=True, exist_ok=True)
    begin(t, folder / "trajectory.json")
    trunk = Checkpoints(folder / "checkpoints", t.say)
    curve = Curve(folder / "trunk.jsonl")
    pending = [run for run in t.trajectory.runs if t.workspace.record(run.id) is None]
    position, state = -1, None  # the trunk in memory
    for run in sorted(pending, key=lambda run: run.branch_step):
        own = Checkpoints(t.workspace.run(run.id) / "checkpoints", t.say)
        resumed = own.restore_latest(t.step.abstract_state, run.steps)
        if resumed is None:
            if state is None or position > run.branch_step:
                position, state = resume_trunk(t, trunk, curve, run.branch_step)
            if position < run.branch_step:
                state = advance(t, run, state, position, run.branch_step, trunk, curve, decay=False)
                position = run.branch_step
            if position > 0 and position not in trunk.steps(kept=True):
                trunk.save(position, state, keep=True)  # a larger token count, or another run, goes on from here
                trunk.prune(position)
            resumed = position, state
            state = None  # its buffers are given to the cooldown; the trunk comes back from its checkpoint
        finish(t, run, own, *resumed)


def begin(t: Training, path: Path) -> None:
    """Notes what the trajectory is. Raises InputError where it was begun in another arithmetic: `auto` differs between
    CPUs and accelerators, and one curve must not change from one to the other.
    """
    dtype = str(t.step.dtype)
    begun = json.loads(path.read_text())["compute_dtype"] if path.exists() else dtype
    check(
        begun == dtype,
        "recipe.compute_dtype",
        t.trajectory.hyperparameters.compute_dtype,
        f"is {dtype} here, but {t.trajectory.id} was begun in {begun}; go on where it was begun, or pass --out DIR",
    )
    write_json(path, {"id": t.trajectory.id, "compute_dtype": dtype, **t.trajectory.identity})


def resume_trunk(t: Training, trunk: Checkpoints, curve: Curve, at_most: int) -> tuple[int, State]:
    """The trunk as far as it is on disk, not beyond `at_most`; its curve keeps what later runs still share."""
    found = trunk.restore_latest(t.step.abstract_state, at_most) or (0, t.step.init())
    if not any(step > found[0] for step in trunk.steps()):
        curve.truncate(found[0])
    return found


def finish(t: Training, run: Run, own: Checkpoints, start: int, state: State) -> None:
    """Cooldown, evaluation and record of one run, from its branch point or from its own checkpoint."""
    folder = t.workspace.run(run.id)
    folder.mkdir(parents=True, exist_ok=True)
    curve = Curve(folder / "curve.jsonl")
    curve.truncate(start if start > run.branch_step else -1)
    state = advance(t, run, state, start, run.steps, own, curve, decay=True)
    with t.telemetry.clock.waiting():
        result = evaluate(t.step.window_losses, state.params, t.held_out, t.step.row_devices)
    if not math.isfinite(result.loss_nats):
        raise Diverged(f"held-out loss {result.loss_nats} after step {run.steps}", [run])
    final = Checkpoints(folder / "final", t.say)
    final.remove()
    final.save(run.steps, {"params": state.params}, keep=True)
    made = record(t, run, result)
    write_json(folder / "record.json", made)
    t.telemetry.evaluated(run, t.trajectory.text.headline, result)
    score(t, run, state.params, t.extra_sets)
    t.telemetry.finished(run)
    own.remove()
    t.done(run, made["row"])


def advance(
    t: Training, run: Run, state: State, start: int, stop: int, checkpoints: Checkpoints, curve: Curve, *, decay: bool
) -> State:
    """Trains from step `start` to `stop`, a call of the compiled program at a time.

    Calls end at multiples of steps_per_dispatch, wherever training resumed, so curves do not depend on interruptions.
    Metrics are read one call late, so that the device never waits for the host.
    """
    h = t.trajectory.hyperparameters
    length = run.steps if decay or h.schedule == "cosine" else None
    saved_at = time.monotonic()
    waiting: _Call | None = None
    step = start
    while step < stop:
        end = min(stop, (step // t.step.steps_per_dispatch + 1) * t.step.steps_per_dispatch)
        rates = learning_rates(h, step, end, steps=length, branch_step=run.branch_step)
        windows = np.stack([t.loader.windows(s) for s in range(step, end)])
        count = end - step
        if waiting is not None and t.telemetry.profiler.covers(step, end):
            _account(t, run, curve, waiting)  # nothing else is in flight while a call is traced
            waiting = None
        inputs = (state, t.step.put(windows), np.pad(rates, (0, t.step.steps_per_dispatch - count)), np.int32(count))
        state, metrics = t.telemetry.call(t.step.advance, step, end, *inputs)
        if waiting is not None:
            _account(t, run, curve, waiting)
        phase = "cooldown" if decay else "trunk"
        waiting = _Call(end, count, phase, metrics, float(rates[-1]), t.telemetry.dispatched)
        step = end
        stopping = t.stop()
        if step < stop and (stopping or time.monotonic() - saved_at > t.checkpoint_seconds):
            _account(t, run, curve, waiting)  # the loss is seen to be finite before it is saved
            waiting = None
            checkpoints.save(step, state, keep=False)
            checkpoints.prune(step)
            saved_at = time.monotonic()
        if stopping and step < stop:
            raise Interrupted
    if waiting is not None:
        _account(t, run, curve, waiting)
    return state


@dataclass
class _Call:
    """A dispatched call whose metrics have not been read yet."""

    step: int
    count: int
    phase: str
    metrics: Any
    learning_rate: float  # of its last step
    dispatched: float  # time.monotonic()


def _account(t: Training, run: Run, curve: Curve, call: _Call) -> None:
    """Waits for a call, appends its line to the curve and reports. Raises Diverged on a loss that is not finite."""
    with t.telemetry.clock.waiting():
        losses = np.asarray(call.metrics.loss_nats)[: call.count].astype(np.float64)
    t.telemetry.clock.seen()
    norms = np.asarray(call.metrics.grad_norm)[: call.count].astype(np.float64)
    if not np.isfinite(losses).all() or not np.isfinite(norms).all():
        first = call.step - call.count + int(np.argmin(np.isfinite(losses) & np.isfinite(norms)))
        lost = [run] if call.phase == "cooldown" else [r for r in t.trajectory.runs if r.branch_step >= run.branch_step]
        raise Diverged(f"training loss or gradient not finite at step {first}", lost)
    now = time.monotonic()
    seconds = (now - max(call.dispatched, t.ended)) / call.count
    t.ended = now
    t.step_seconds.append(seconds)
    loss, norm = float(losses.mean()), float(norms.mean())
    tokens = call.step * t.trajectory.hyperparameters.batch_tokens
    new = curve.append({"step": call.step, "tokens": tokens, "train_loss_nats": loss, "grad_norm": norm})
    speed = t.telemetry.account(
        Call(
            run=run,
            phase=call.phase,
            first=call.step - call.count + 1,
            step=call.step,
            seconds=seconds,
            loss_nats=loss,
            grad_norm=norm,
            learning_rate=call.learning_rate,
        ),
        new=new,
    )
    t.report(
        Progress(
            run=run,
            phase=call.phase,
            steps=call.count,
            train_loss_nats=loss,
            tokens_per_second=speed.tokens_per_second,
            share_of_peak=speed.share_of_peak,
        )
    )


def record(t: Training, run: Run, result: Evaluation | None) -> dict:
    """The record of a run that finished, or (no result) diverged: its row of runs.csv, and how it was made."""
    trajectory, h, shape, text = t.trajectory, t.trajectory.hyperparameters, t.trajectory.shape, t.trajectory.text
    device = t.step.mesh.devices.flat[0]
    row = {
        "run_id": run.id,
        "study": trajectory.study,
        "trajectory": trajectory.id,
        "family": trajectory.family,
        "objective": trajectory.objective,
        "corpus": text.corpus,
        "tokenizer": text.tokenizer,
        "eval_set": text.eval_set,
        "vocab": shape.vocab,
        "params": shape.params,
        "params_embedding": shape.params_embedding,
        "tokens": run.tokens,
        "unique_tokens": t.loader.unique_tokens(run.steps),
        "epochs": run.tokens / t.loader.unique_tokens(run.steps),
        "trained_bytes": round(run.tokens * text.bytes_per_token),
        "flops": shape.train_flops(run.tokens, h.sequence),
        "flops_6nd": shape.flops_6nd(run.tokens),
        "flops_budget": None,
        "loss_nats": result.loss_nats if result else None,
        "loss_stderr": result.loss_stderr if result else None,
        "bits_per_byte": result.bits_per_byte if result else None,
        "width": shape.width,
        "depth": shape.depth,
        "heads": shape.heads,
        "sequence": h.sequence,
        "batch_tokens": h.batch_tokens,
        "learning_rate": h.learning_rate,
        "schedule": h.schedule,
        "cooldown_tokens": run.cooldown_steps * h.batch_tokens if h.schedule == "wsd" else None,
        "recipe": trajectory.recipe,
        "seed": trajectory.seed,
        "status": "done" if result else "diverged",
        "interventions": 0,
        "mesh": t.mesh,
        "device": f"{device.platform}:{device.device_kind}",
        "step_seconds": float(np.median(t.step_seconds)) if t.step_seconds else None,
    }
    return {
        "row": row,
        "scores": score_rows(run.id, text.headline, text.eval_set, result) if result else [],
        "telemetry": t.telemetry.record(t.step_seconds),
        "steps": run.steps,
        "branch_step": run.branch_step,
        "identity": trajectory.identity,
        "text": asdict(text),
        "compute_dtype": str(t.step.dtype),
        "microbatches": t.step.microbatches,
        "steps_per_dispatch": t.step.steps_per_dispatch,
        "versions": {"lmscale": __version__, "jax": jax.__version__, "python": platform.python_version()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

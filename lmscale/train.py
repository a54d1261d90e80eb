"""The training loop: one trajectory, or several of one program in lockstep; trunk, cooldowns, evaluation, record."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise

import jax
import numpy as np

from lmscale import __version__
from lmscale.checkpoint import Checkpoints
from lmscale.evaluate import Evaluation, evaluate, loss_scores, score_rows
from lmscale.plan import Run
from lmscale.processes import distributed
from lmscale.scoring.scores import score
from lmscale.shapes import Shape
from lmscale.step import Metrics, Together
from lmscale.store.files import as_json, create, sealed
from lmscale.training.compilation import compiling, programs
from lmscale.training.lanes import (
    Lane,
    Progress,
    Start,
    Training,
    begin,
    branch_off,
    has_branched,
    keep,
    resume_cooldown,
    resume_trunk,
)
from lmscale.training.prefetch import Windows, drawn
from lmscale.training.telemetry import Call
from lmscale.work.leases import LeaseLost


class Interrupted(Exception):
    """The user or the machine asked to stop; the state has been saved."""


def train(*replicas: Training) -> None:
    """Brings every run of the trajectories to its record. Raises Interrupted.

    Several are trained in lockstep, each with the files it would have alone; they share a program and run lengths
    (`lmscale.planning.replicas`). One that diverges leaves the others.
    """
    for t in replicas:
        distributed.decide(partial(begin, t))
        # they wait, and are waited for, together
        t.telemetry.clock, t.telemetry.profiler = replicas[0].telemetry.clock, replicas[0].telemetry.profiler
    for runs in zip(*(sorted(t.trajectory.runs, key=lambda run: run.branch_step) for t in replicas), strict=True):
        left = unrecorded(replicas[0], runs)
        cooling, ahead = [], []
        for t, run in zip(replicas, runs, strict=True):
            if run not in left:
                continue
            if not has_branched(t, run):
                ahead.append((t, run))
            elif t.takes(run):
                lane = resume_cooldown(t, run)
                if lane is not None:
                    cooling.append(lane)
                elif not t.helps:  # what was there is damaged
                    ahead.append((t, run))
        trunk = [resume_trunk(t, run) for t, run in ahead]
        advance(trunk, runs[0].branch_step)
        for lane in trunk:
            if not lane.lost:
                keep(lane)
        cooling += [branch_off(lane) for lane in trunk if not lane.lost and lane.training.takes(lane.run)]
        advance(cooling, runs[0].steps)
        for lane in cooling:
            if not lane.lost:
                finish(lane)


def unrecorded(t: Training, runs: Sequence[Run]) -> list[Run]:
    """Those of some runs that have no record yet; what process 0 finds is what counts."""
    found = distributed.decide(lambda: [run.id for run in runs if t.workspace.record(run.id) is None])
    return [run for run in runs if run.id in found]


def advance(lanes: Sequence[Lane], stop: int) -> None:
    """Trains lanes to step `stop`. Interrupted ones need not stand at one step: those behind go first, until they
    reach the next.
    """
    while behind := [lane for lane in lanes if not lane.lost and lane.step < stop]:
        start = min(lane.step for lane in behind)
        ahead = [lane.step for lane in behind if lane.step > start]
        ledger = lanes[0].training.ledger
        began, compiled = time.monotonic(), ledger.compile
        try:
            march([lane for lane in behind if lane.step == start], min([stop, *ahead]))
        finally:
            ledger.steps += time.monotonic() - began - (ledger.compile - compiled)


def march(lanes: Sequence[Lane], stop: int) -> None:
    """Trains lanes that stand at one step to step `stop`, a call of the compiled program at a time.

    Calls end at multiples of steps_per_dispatch, wherever training resumed, so curves do not depend on interruptions.
    Metrics are read one call late, so that the device never waits for the host.
    """
    t, step = lanes[0].training, lanes[0].step
    together = Together(t.step, [lane.state for lane in lanes if lane.state is not None])
    for lane in lanes:
        lane.state, lane.training.replicas = None, len(lanes)
    t.saves.postpone()
    size = t.step.steps_per_dispatch
    calls = list(pairwise([step, *range((step // size + 1) * size, stop, size), stop]))
    with drawn(partial(windows_of, lanes), calls, ahead=t.draws_ahead) as windows:
        march_through(lanes, together, windows, calls)
    for r, lane in enumerate(lanes):
        lane.step, lane.state = stop, None if lane.lost else together.model(r)


def march_through(
    lanes: Sequence[Lane], together: Together, windows: Iterator[Windows], calls: Sequence[tuple[int, int]]
) -> None:
    """The calls of a march, each on the next of `windows`."""
    t, ended = lanes[0].training, 0.0
    waiting: Dispatched | None = None
    for start, step in calls:
        if all(lane.lost for lane in lanes):
            break
        if waiting is not None and t.telemetry.profiler.covers(start, step):
            ended = account(lanes, waiting, ended)  # nothing else is in flight while a call is traced
            waiting = None
        call = dispatch(lanes, together, next(windows), start, step)
        if waiting is not None:
            ended = account(lanes, waiting, ended)
        waiting, last = call, step == calls[-1][1]
        stopping, due = distributed.agree(t.stop(), t.saves.due)
        if not last and (stopping or due):
            ended = account(lanes, waiting, ended)  # the losses are seen to be finite before they are saved
            waiting = None
            lose_broken(lanes, together, step)
            with t.saves.timed():
                save(lanes, together, step)
            t.ledger.steps -= t.saves.took
        if stopping and not last:
            raise Interrupted
    if waiting is not None:
        account(lanes, waiting, ended)
    lose_broken(lanes, together, calls[-1][1])


def windows_of(lanes: Sequence[Lane], start: int, stop: int) -> Windows:
    """What a call of lanes trains on."""
    return [lane.windows(start, stop) for lane in lanes]


@dataclass
class Dispatched:
    """A dispatched call whose metrics have not been read yet."""

    step: int
    count: int
    metrics: Metrics
    dispatched: float


def dispatch(lanes: Sequence[Lane], together: Together, windows: Windows, start: int, stop: int) -> Dispatched:
    """Calls the compiled program for the steps start .. stop-1; of a trajectory's first call, says how long it took."""
    before = programs()
    rates = [lane.rates(start, stop) for lane in lanes]
    call = partial(lanes[0].training.telemetry.call, start, stop)
    began = time.monotonic()  # before the call: one that is traced is awaited in it
    with compiling(lanes[0].training.ledger):
        metrics = together.advance(windows, rates, stop - start, call)
    if new := [lane.training for lane in lanes if lane.training.start is None]:
        start_up = Start(seconds=time.monotonic() - new[0].began, program=programs().since(before).origin)
        for t in new:
            t.start = start_up
        new[0].started(start_up)  # once for all that are trained together
    return Dispatched(stop, stop - start, metrics, began)


def account(lanes: Sequence[Lane], call: Dispatched, ended: float) -> float:
    """Waits for a call, notes it in every curve and reports it; a lane whose loss is not finite is lost.

    `ended` is when the call before was seen to be done; returns when this one was.
    """
    clock = lanes[0].training.telemetry.clock
    with clock.waiting():
        losses, norms = (np.atleast_2d(np.asarray(x))[:, : call.count].astype(np.float64) for x in call.metrics)
    clock.seen()
    now = time.monotonic()
    alive = [r for r, lane in enumerate(lanes) if not lane.lost]
    seconds = (now - max(call.dispatched, ended)) / call.count / max(1, len(alive))
    for r in alive:
        finite = np.isfinite(losses[r]) & np.isfinite(norms[r])
        if finite.all():
            note(lanes[r], call, losses[r].mean(), norms[r].mean(), seconds)
        else:
            step = call.step - call.count + int(np.argmin(finite)) + 1  # counted from 1
            lose(lanes[r], f"training loss or gradient not finite at step {step}")
    return now


def note(lane: Lane, call: Dispatched, loss_nats: float, grad_norm: float, step_seconds: float) -> None:
    """A call's line in the curve of a lane, and its report. Means over the steps of the call."""
    t, tokens = lane.training, call.step * lane.training.trajectory.hyperparameters.batch_tokens
    t.step_seconds.append(step_seconds)
    loss_nats, grad_norm = float(loss_nats), float(grad_norm)
    row = {"step": call.step, "tokens": tokens, "train_loss_nats": loss_nats, "grad_norm": grad_norm}
    t.fence()
    new = distributed.leads() and lane.curve.append(row)
    speed = t.telemetry.account(
        Call(
            run=lane.run,
            phase=lane.phase,
            first=call.step - call.count + 1,
            step=call.step,
            seconds=step_seconds,
            loss_nats=loss_nats,
            grad_norm=grad_norm,
            learning_rate=float(lane.rates(call.step - 1, call.step)[0]),
        ),
        new=new,
    )
    if t.grip is not None:
        t.grip.tell(
            run=lane.run.id,
            phase=lane.phase,
            step=call.step,
            steps=lane.run.steps,
            loss_nats=loss_nats,
            tokens_per_second=speed.tokens_per_second,
        )
    t.report(
        Progress(
            run=lane.run,
            phase=lane.phase,
            steps=call.count,
            step=call.step,
            train_loss_nats=loss_nats,
            tokens_per_second=speed.tokens_per_second,
            share_of_peak=speed.share_of_peak,
        )
    )


def lose_broken(lanes: Sequence[Lane], together: Together, step: int) -> None:
    """Loses the lanes whose parameters or optimiser state are not finite, though their losses still were."""
    for r, lane in enumerate(lanes):
        if lane.lost:
            continue
        with compiling(lane.training.ledger):
            sound = lane.training.step.is_finite(together.model(r))
        if not sound:
            lose(lane, f"parameters or optimiser state not finite after step {step}")


def save(lanes: Sequence[Lane], together: Together, step: int) -> None:
    """A checkpoint of every lane, as if each were trained alone; only then are those before removed."""
    alive = [(r, lane) for r, lane in enumerate(lanes) if not lane.lost]
    for r, lane in alive:
        lane.flush()
        lane.checkpoints.save(step, together.model(r), keep=False)
    for _, lane in alive:
        lane.checkpoints.prune(step)


def finish(lane: Lane) -> None:
    """Evaluation and record of a run that has come to its last step."""
    t, run = lane.training, lane.run
    folder = t.workspace.run(run.id)
    assert lane.state is not None
    params, lane.state = t.step.model_params(lane.state), None
    began = time.monotonic()
    with t.telemetry.clock.waiting():
        result = evaluate(t.step, params, t.held_out)
    t.ledger.evaluation += time.monotonic() - began
    if not math.isfinite(result.loss_nats):
        lose(lane, f"held-out loss {result.loss_nats} after step {run.steps}")
        return
    final = Checkpoints(folder / "final", t.say, t.fence)
    final.remove()
    final.save(run.steps, {"params": params}, keep=True)
    lane.flush()
    made = record(t, run, result)
    commit(t, run, made)
    lane.checkpoints.remove()
    t.telemetry.evaluated(run, t.trajectory.text.headline, loss_scores(result))
    score(t, run, params, t.extra_sets)
    t.telemetry.finished(run)
    t.done(run, made["row"])


def lose(lane: Lane, why: str) -> None:
    """Records a run that diverged, and those beyond it if it is the trunk that did. Nothing of it has been saved."""
    t = lane.training
    planned = (*t.trajectory.runs, *t.trajectory.beyond)
    beyond = [run for run in planned if run.branch_step >= lane.run.branch_step]
    lane.flush()
    lost = unrecorded(t, [lane.run] if lane.phase == "cooldown" else beyond)
    for run in lost:
        commit(t, run, record(t, run, None))
    lane.lost = True
    t.diverged(why, lost)


def commit(t: Training, run: Run, made: dict) -> None:
    """Writes the record of a run, once and for all. Raises LeaseLost if another process has."""
    if distributed.leads():
        t.fence()
        folder = t.workspace.run(run.id)
        folder.mkdir(parents=True, exist_ok=True)
        if not create(folder / "record.json", as_json(sealed(made))):
            raise LeaseLost(f"{run.id} was recorded by another process")


def record(t: Training, run: Run, result: Evaluation | None, shape: Shape | None = None) -> dict:
    """The record of a run that finished, or (no result) diverged: its row of runs.csv, and how it was made. `shape` is
    that of the plan, where the run has not told more of it.
    """
    trajectory, h, text = t.trajectory, t.trajectory.hyperparameters, t.trajectory.text
    shape = shape or trajectory.shape
    device, unique_tokens = t.step.mesh.devices.flat[0], t.loader.unique_tokens(run.steps)
    row = {
        "run_id": run.id,
        "study": trajectory.study,
        "trajectory": trajectory.id,
        "family": trajectory.kind,
        "objective": trajectory.objective,
        "corpus": text.corpus,
        "tokenizer": text.tokenizer,
        "eval_set": text.eval_set,
        "vocab": shape.vocab,
        "params": shape.params,
        "params_embedding": shape.params_embedding,
        "tokens": run.tokens,
        "unique_tokens": unique_tokens,
        "epochs": run.tokens / unique_tokens,  # over all parts; `parts` of the record has those of each
        "trained_bytes": round(run.tokens * text.bytes_per_token),
        "flops": shape.train_flops(run.tokens, h.sequence),
        "flops_6nd": shape.flops_6nd(run.tokens),
        "flops_budget": run.flops_budget,
        "loss_nats": result.loss_nats if result else None,
        "loss_stderr": result.loss_stderr if result else None,
        "bits_per_byte": result.bits_per_byte if result else None,
        "entropy_nats": text.entropy_nats,
        "width": shape.width,
        "depth": shape.depth,
        "heads": shape.heads,
        "order": None,
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
        "params_trained": trajectory.params_trained if trajectory.tuning else shape.params,
        "start": trajectory.pretrained.run_id if trajectory.pretrained else None,
        "pretrained_tokens": trajectory.pretrained_tokens,
    }
    return {
        "row": row,
        "scores": score_rows(run.id, text.headline, text.eval_set, loss_scores(result)) if result else [],
        "telemetry": t.telemetry.record(t.step_seconds),
        "meshes": list(t.meshes),
        "steps": run.steps,
        "branch_step": run.branch_step,
        "identity": trajectory.identity,
        "text": asdict(text),
        "parts": [
            {"name": name, "epochs": epochs}
            for name, epochs in zip(t.loader.names, t.loader.epochs(run.steps), strict=True)
        ],
        "compute_dtype": str(t.step.dtype),
        "microbatches": t.step.microbatches,
        "remat": t.step.remat,
        "steps_per_dispatch": t.step.steps_per_dispatch,
        "replicas": t.replicas,
        "start": asdict(t.start) if t.start else None,
        "versions": {"lmscale": __version__, "jax": jax.__version__, "python": platform.python_version()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }

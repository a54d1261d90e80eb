"""A trajectory of an n-gram: windows counted once, and at each token count the model that they make, evaluated.

Nothing is kept between runs but their records. Counting goes at some megabytes a second, so an interrupted trajectory,
and one whose runs are to be scored on a set added since, is counted again from its first window: the tables depend on
the windows alone, and so are the same to the bit.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from jax.sharding import Mesh

from lmscale.evaluate import evaluate, loss_scores
from lmscale.ngram import KneserNey, estimate
from lmscale.ngram_counts import NgramCounts
from lmscale.objectives import make_objective
from lmscale.plan import Run, Trajectory
from lmscale.records import unscored
from lmscale.scoring.scores import score
from lmscale.shapes import NgramShape
from lmscale.train import Interrupted, commit, record
from lmscale.training.lanes import Progress, Training, begin

BLOCK_WINDOWS = 4096  # counted between looks at whether to stop
HOST = "cpu:cpu"  # as jax calls it
# columns of runs.csv that an n-gram has no value for
ABSENT = ("width", "depth", "heads", "batch_tokens", "learning_rate", "schedule", "cooldown_tokens")


class CountStep:
    """What evaluation asks of a step (lmscale.step), of models that are counted. They are scored on the host."""

    microbatches, remat, steps_per_dispatch, row_devices = 1, "none", 1, 1
    dtype = np.dtype(np.float64)  # of its probabilities

    def __init__(self, trajectory: Trajectory, mesh: Mesh, counts_max: int | None):
        self.objective, self.mesh, self.counts_max = make_objective(trajectory), mesh, counts_max

    def make_counts(self, trajectory: Trajectory) -> NgramCounts:
        """None yet, of the trajectory's order."""
        shape = trajectory.shape
        assert isinstance(shape, NgramShape)
        return NgramCounts(
            order=shape.order, vocab=shape.vocab, eos_id=self.objective.eos_id, counts_max=self.counts_max
        )

    def token_losses(self, model: KneserNey, windows: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loss in nats and weight of each target of windows [B, S + 1]; weights [B, S]."""
        return model.token_nats(windows) * weights, weights


def count(t: Training) -> int:
    """Brings every run of a trajectory to its record, and to scores on all its sets.

    Returns how many runs that had a record were scored on sets added since. Raises Interrupted, and InputError where
    more counts are to be stored than may be.
    """
    begin(t)
    step = t.step
    assert isinstance(step, CountStep)
    counts = step.make_counts(t.trajectory)
    counted = scored = 0
    for run in t.trajectory.runs:
        missing = unscored(t.workspace, run.id, t.sets)
        recorded = t.workspace.record(run.id) is not None
        if recorded and not missing:
            continue
        began = time.monotonic()
        add(t, counts, counted, run)
        model = estimate(counts)
        t.ledger.steps += time.monotonic() - began
        counted = run.steps
        if recorded:
            score(t, run, model, missing)
            scored += 1
        else:
            finish(t, run, model)
    return scored


def add(t: Training, counts: NgramCounts, start: int, run: Run) -> None:
    """Counts the windows from step `start` to the end of a run. Raises Interrupted."""
    for first in range(start, run.steps, BLOCK_WINDOWS):
        if t.stop():
            raise Interrupted
        began, last = time.monotonic(), min(first + BLOCK_WINDOWS, run.steps)
        windows = t.loader.batches(first, last)
        counts.add(windows.reshape(-1, windows.shape[-1]))
        report(t, run, first, last, time.monotonic() - began)


def report(t: Training, run: Run, first: int, last: int, seconds: float) -> None:
    """Reports that windows were counted."""
    t.step_seconds.append(seconds / (last - first))
    speed = t.telemetry.speed(seconds / (last - first)).tokens_per_second
    if t.grip is not None:
        t.grip.tell(run=run.id, phase="counting", step=last, steps=run.steps, loss_nats=None, tokens_per_second=speed)
    t.report(
        Progress(
            run=run,
            phase="counting",
            steps=last - first,
            step=last,
            train_loss_nats=None,
            tokens_per_second=speed,
            share_of_peak=None,
        )
    )


def finish(t: Training, run: Run, model: KneserNey) -> None:
    """Evaluation and record of a run whose windows are counted."""
    began = time.monotonic()
    result = evaluate(t.step, model, t.held_out)
    t.ledger.evaluation += time.monotonic() - began
    shape = t.trajectory.shape
    assert isinstance(shape, NgramShape)
    made = record(t, run, result, replace(shape, counts=model.params))
    made["row"] |= dict.fromkeys(ABSENT) | {"order": shape.order, "device": HOST}
    made["telemetry"] |= {"share_of_peak": None}  # counting is no arithmetic
    made["discounts"] = [[*each.values, each.fallback] for each in model.discounts]
    commit(t, run, made)
    t.telemetry.evaluated(run, t.trajectory.text.headline, loss_scores(result))
    score(t, run, model, t.extra_sets)
    t.telemetry.finished(run)
    t.done(run, made["row"])

"""Bytes of checkpoints that a sweep leaves on the disk, and holds at the most. Imports no framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmscale.plan import Trajectory
from lmscale.planning.memory import FLOAT32, MOMENTS, moment_bytes

IN_FLIGHT = 2  # checkpoints of a trajectory under way beside those kept: the newest, and one that is being written


@dataclass(frozen=True, kw_only=True)
class DiskBytes:
    """Of a whole sweep. Curves, event files and prepared text come on top."""

    kept: float  # when it has ended: a checkpoint at every branch point of a trunk, the parameters of every run
    most: float  # while it trains


def disk_bytes(plan: Sequence[Trajectory], workers: int) -> DiskBytes:
    """What `workers` keep of a plan, and hold at the most. Numbers alone: folders of tiny models are larger by their
    metadata (some 10 kB each).
    """
    kept = 0.0
    for t in plan:
        if t.family == "ngram":  # counted again where it is asked for
            continue
        branches = {run.branch_step for run in t.runs} - {0}
        kept += state_bytes(t) * len(branches) + FLOAT32 * t.shape.params * len(t.runs)
    largest = sorted((state_bytes(t) for t in plan), reverse=True)[:workers]
    return DiskBytes(kept=kept, most=kept + IN_FLIGHT * sum(largest))


def state_bytes(trajectory: Trajectory) -> float:
    """A checkpoint: parameters, and both moments of those that are trained. An n-gram has none."""
    if trajectory.family == "ngram":
        return 0.0
    moments = MOMENTS * moment_bytes(trajectory) * trajectory.params_trained
    return float(FLOAT32 * trajectory.params_held + moments)

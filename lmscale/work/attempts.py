"""What became of each attempt at a trajectory, and when no further one is made. No framework.

    trajectories/<id>/attempts.jsonl    a line for each attempt that lived to say how it ended

An attempt that was killed leaves a claim (lmscale.work.leases) and no line. Whether it was of use is seen on the disk:
the next one begins further on.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Literal

from lmscale.plan import Run, Trajectory
from lmscale.records import Workspace
from lmscale.store.files import Lines
from lmscale.work.leases import Claim, Lease, claims

ATTEMPTS_MAX = 3  # of one sweep, that begin at one position
ATTEMPTS = "attempts.jsonl"
MEMORY = "memory"  # begins the reason of an attempt that did not fit
Ending = Literal["done", "diverged", "failed", "stalled", "interrupted"]


def position(workspace: Workspace, trajectory: Trajectory) -> str:
    """How far a trajectory is on the disk: runs recorded, and the newest checkpoints of trunk and cooldowns."""
    runs = (*trajectory.runs, *trajectory.beyond)
    folders = [workspace.trajectory(trajectory.id), *(workspace.run(run.id) for run in runs)]
    recorded = sum((folder / "record.json").exists() for folder in folders)
    return " ".join([str(recorded), *map(_newest, folders)])


def cooldown_position(workspace: Workspace, run: Run) -> str:
    """How far a cooldown is on the disk."""
    return _newest(workspace.run(run.id))


def _newest(folder: Path) -> str:
    """The newest whole checkpoint of a trunk or a run, by its name."""
    return max((path.parent.name for path in folder.glob("checkpoints/[0-9]*[0-9]/manifest.json")), default="")


def is_stuck(workspace: Workspace, run: Run, sweep: str) -> bool:
    """Whether the last attempts of this sweep at a cooldown got no further; then it is left to who has the trunk."""
    last = [c for c in claims(workspace.run(run.id)) if c.sweep == sweep][-ATTEMPTS_MAX:]
    now = cooldown_position(workspace, run)
    return len(last) == ATTEMPTS_MAX and all(claim.position == now for claim in last)


def given_up(workspace: Workspace, trajectory: Trajectory, sweep: str) -> str | None:
    """Why a trajectory is not tried again in this sweep, if it is not: its last attempts got no further."""
    folder = workspace.trajectory(trajectory.id)
    lines = Lines(folder / ATTEMPTS)
    endings = {line["attempt"]: line for line in lines.read()}
    last = [c for c in claims(folder) if c.sweep == sweep][-ATTEMPTS_MAX:]
    if last and (line := endings.get(last[-1].token)) and line["why"].startswith(f"{MEMORY}:"):
        return line["why"]  # it would not fit the second time either
    if len(last) < ATTEMPTS_MAX or any(c.position != position(workspace, trajectory) for c in last):
        return None
    said = [endings.get(claim.token) for claim in last]
    if any(line is not None and line["status"] not in ("failed", "stalled") for line in said):
        return None
    final = said[-1]
    if final is None:  # it was killed
        why = f"{ATTEMPTS_MAX} attempts were killed before they got any further"
        append(workspace, trajectory, last[-1], "stalled", why)
        return why
    return final["why"]


def end(workspace: Workspace, trajectory: Trajectory, lease: Lease, status: Ending, why: str = "") -> None:
    """Notes how an attempt ended and lets the trajectory go; a disk that is full does not hear of it."""
    with contextlib.suppress(OSError):
        append(workspace, trajectory, lease.claim, status, why, lease.seconds, lease.now["step"])
    lease.release()


def append(
    workspace: Workspace,
    trajectory: Trajectory,
    claim: Claim,
    status: Ending,
    why: str,
    seconds: float | None = None,
    step: int | None = None,
) -> None:
    row = {"attempt": claim.token, "owner": claim.owner, "status": status, "why": why, "step": step}
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    lines = Lines(workspace.trajectory(trajectory.id) / ATTEMPTS)
    lines.append({**row, "seconds": seconds, "finished": finished})
    lines.flush()

"""What a worker takes next, and on which lease. No framework.

    waiting/<nonce>.json    a worker that finds nothing free, though others have trajectories with several runs to go

Trunk and cooldowns are trained by one worker, unless another waits: then the trunk goes on from a branch point, and the
cooldown is left to who waits. Whoever trains a cooldown has the lease of its run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmscale.evaluate import NamedSet
from lmscale.plan import Run, Trajectory
from lmscale.planning.replicas import Stack
from lmscale.records import Workspace, unscored
from lmscale.store.files import modified, now, write_json
from lmscale.store.shelves import MANIFEST
from lmscale.work import attempts
from lmscale.work.leases import BEAT_SECONDS, LEASE_SECONDS, Lease, Leases, Owner, clock

WAITING = "waiting"
SOON: tuple[int, list[str], str | None] = (0, [], None)  # nothing now, but ask again


@dataclass(kw_only=True)
class Grip:
    """What a worker holds of one trajectory: its lease, or that of a cooldown which another's trunk has left it."""

    desk: Desk
    trajectory: Trajectory
    helps: bool  # the trunk is another's
    leases: list[Lease]

    def check(self) -> None:
        """To be called before anything is committed. Raises LeaseLost."""
        for lease in self.leases:
            lease.check()

    def tell(self, **doing: Any) -> None:
        """What it does now, for the next beat (leases.DOING)."""
        for lease in self.leases:
            lease.now |= doing

    def takes(self, run: Run) -> bool:
        """Whether the cooldown of a run, which can begin, is this worker's: not if another has it, or waits for it."""
        lease = self.desk.cooldown(self.trajectory, run)
        if lease is not None and lease not in self.leases:
            self.leases.append(lease)
        return lease is not None


@dataclass(frozen=True, kw_only=True)
class Held:
    """What others have: trajectories, and runs of which they train the cooldown."""

    trajectories: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)


class Desk:
    """The leases of this process; of a job, of process 0."""

    def __init__(
        self,
        workspace: Workspace,
        stacks: Sequence[Stack],
        sweep: str,
        sets: tuple[NamedSet, ...],
        tell: Callable[[dict], None],
    ):
        self.workspace, self.stacks, self.sweep, self.sets, self.tell = workspace, stacks, sweep, sets, tell
        self.trajectories, self.cooldowns = Leases(workspace.trajectory, sweep), Leases(workspace.run, sweep)
        self.grips: dict[str, Grip] = {}  # by trajectory
        self.given_up: set[str] = set()
        self.over: set[tuple[str, int]] = set()  # trajectories as far as a run, of which there is no more to do
        self.offered: set[str] = set()  # runs whose cooldown was left to who waits; nothing is offered twice
        self.left: set[str] = set()  # those that this process does not take yet
        self.beaten = 0.0  # when the beacon was last written
        self.beacon = workspace.root / WAITING / f"{self.trajectories.owner.nonce}.json"

    def take(self) -> tuple[int, list[str], str | None] | None:
        """Leases the first of the stacks that nobody else has and that has runs to train, or to score: its place among
        them, and the ids of those of its members that are leased; with a run, that cooldown alone. No ids: ask again
        soon, for somebody who has one may be dead, or leave a cooldown. None if there is no more to do.

        A stack whose first member another process has is left to it at first, lest two that start together split it.
        """
        for leavings in (False, True):
            held = Held()
            for place, stack in enumerate(self.stacks):
                if taken := self._take(stack, leavings, held):
                    self.stop_waiting()
                    return place, taken, None
        if (helped := self._help(held)) is not None:
            self.stop_waiting()
            return helped
        if any(len(self._untrained(stack.members)) > 1 for stack in self.stacks if self._all_held(stack, held)):
            self._wait()
            return SOON
        self.stop_waiting()
        if held.trajectories <= self.trajectories.alive and held.runs <= self.cooldowns.alive:
            return None
        return SOON

    def _take(self, stack: Stack, leavings: bool, held: Held) -> list[str]:
        for trajectory in stack.members:
            if not self._is_left(trajectory):
                continue
            if leavings:
                self.left -= {run.id for run in trajectory.runs}
            if self._is_with_others(trajectory, held):
                continue
            lease = None
            if not self.trajectories.is_held(trajectory.id):  # by one whose attempt may still succeed
                if self._is_given_up(trajectory):
                    continue
                lease = self.trajectories.take(trajectory.id, attempts.position(self.workspace, trajectory))
            if lease is not None:
                self.grips[trajectory.id] = Grip(desk=self, trajectory=trajectory, helps=False, leases=[lease])
                if not self._is_left(trajectory):  # its last holder finished it just now
                    self._let_go(self.grips.pop(trajectory.id), "done", "")
                continue
            held.trajectories.add(trajectory.id)
            if not self.grips and not leavings:
                break
        return list(self.grips)

    def _is_with_others(self, trajectory: Trajectory, held: Held) -> bool:
        """Whether all that is to be trained of it are cooldowns that others have, or that were left to who waits."""
        runs = self._untrained([trajectory])
        others = {run.id for run in runs if self.cooldowns.is_held(run.id)}
        held.runs.update(others)
        return bool(runs) and all(run.id in others | self.left for run in runs)

    def _help(self, held: Held) -> tuple[int, list[str], str] | None:
        """The first cooldown that can begin, of a trunk that another worker has."""
        for place, stack in enumerate(self.stacks):
            for trajectory in stack.members:
                run = trajectory.runs[-1]
                if trajectory.id not in held.trajectories or run not in self._untrained([trajectory]):
                    continue
                branch = self.workspace.trajectory(trajectory.id) / "checkpoints" / f"{run.branch_step:09d}" / MANIFEST
                if not branch.exists() or attempts.is_stuck(self.workspace, run, self.sweep):
                    continue
                lease = self.cooldowns.take(run.id, attempts.cooldown_position(self.workspace, run))
                if lease is not None:
                    self.grips[trajectory.id] = Grip(desk=self, trajectory=trajectory, helps=True, leases=[lease])
                    return place, [trajectory.id], run.id
        return None

    def cooldown(self, trajectory: Trajectory, run: Run) -> Lease | None:
        """The lease of a cooldown of ours; None where it is left to another."""
        ours = next((lease for lease in self.grips[trajectory.id].leases if lease.name == run.id), None)
        if ours is not None or run.id in self.left:
            return ours
        longer = [later for later in self._untrained([trajectory], beyond=True) if later.branch_step > run.branch_step]
        if longer and run.id not in self.offered and self._someone_waits():
            self.offered.add(run.id)
            self.left.add(run.id)
            return None
        lease = self.cooldowns.take(run.id, attempts.cooldown_position(self.workspace, run))
        if lease is not None and self.workspace.record(run.id) is not None:  # its last holder finished it just now
            lease.release()
            return None
        return lease

    def give_back(self, status: attempts.Ending, why: str = "") -> None:
        """Notes how the attempts at all that this process holds ended, and lets them go."""
        while self.grips:
            self._let_go(self.grips.popitem()[1], status, why)

    def _let_go(self, grip: Grip, status: attempts.Ending, why: str) -> None:
        runs = grip.trajectory.runs
        records = [self.workspace.record(run.id) for run in runs]
        if status == "done" and all(record is not None for record in records):
            # what of it could not be scored cannot be scored in a moment either
            self.over.add((grip.trajectory.id, len(runs)))
        if status == "done" and any(record is not None and record["row"]["status"] == "diverged" for record in records):
            status = "diverged"
        first, *rest = grip.leases
        for lease in rest:
            lease.release()
        if grip.helps:
            first.release()
        else:
            attempts.end(self.workspace, grip.trajectory, first, status, why)
        if status == "failed":
            self.given_up.add(grip.trajectory.id)  # by this process: another, or a later one, may have more luck

    def _untrained(self, members: Sequence[Trajectory], beyond: bool = False) -> list[Run]:
        runs = [run for t in members for run in (*t.runs, *(t.beyond if beyond else ()))]
        return [run for run in runs if self.workspace.record(run.id) is None]

    def _all_held(self, stack: Stack, held: Held) -> bool:
        return all(trajectory.id in held.trajectories for trajectory in stack.members)

    def _is_left(self, trajectory: Trajectory) -> bool:
        if (trajectory.id, len(trajectory.runs)) in self.over:
            return False
        left = any(
            self.workspace.record(run.id) is None or unscored(self.workspace, run.id, self.sets)
            for run in trajectory.runs
        )
        if not left:
            self.over.add((trajectory.id, len(trajectory.runs)))
        return left

    def _is_given_up(self, trajectory: Trajectory) -> bool:
        if trajectory.id in self.given_up:
            return True
        why = attempts.given_up(self.workspace, trajectory, self.sweep)
        if why is not None:
            self.given_up.add(trajectory.id)
            line = f"{trajectory.id}: given up, {why}; the next sweep tries it again"
            self.tell({"event": "given_up", "trajectory": trajectory.id, "line": line})
        return why is not None

    def _wait(self) -> None:
        if clock() > self.beaten + BEAT_SECONDS or not self.beacon.exists():
            self.beacon.parent.mkdir(exist_ok=True)
            write_json(self.beacon, {"owner": str(self.trajectories.owner)})
            self.beaten = clock()

    def stop_waiting(self) -> None:
        self.beacon.unlink(missing_ok=True)

    def _someone_waits(self) -> bool:
        """Whether another worker would take a cooldown."""
        others = [path for path in self.beacon.parent.glob("*.json") if path != self.beacon]
        read = now(self.workspace.root) if others else 0.0
        for path in others:
            try:
                owner = Owner.from_text(json.loads(path.read_text(encoding="utf-8"))["owner"])
                if not owner.is_gone and read - modified(path) < LEASE_SECONDS:
                    return True
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return False

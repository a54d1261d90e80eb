"""What a worker takes next, and on which lease. No framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lmscale import attempts
from lmscale.evaluate import NamedSet
from lmscale.leases import Lease, Leases
from lmscale.plan import Trajectory
from lmscale.records import Workspace, unscored
from lmscale.replicas import Stack


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
        self.office = Leases(workspace.trajectory, sweep)
        self.leases: dict[str, Lease] = {}  # by trajectory
        self.members: dict[str, Trajectory] = {}
        self.given_up: set[str] = set()
        self.over: set[tuple[str, int]] = set()  # trajectories as far as a run, of which there is no more to do

    def take(self) -> tuple[int, list[str]] | None:
        """Leases the first of the stacks that nobody else has and that has runs to train, or to score: its place among
        them, and the ids of those of its members that are leased. No ids: ask again soon, for somebody who has one may
        be dead. None if there is no more to do.

        One whose first member another process has is left to it at first, lest two that start together split it.
        """
        for leavings in (False, True):
            held: set[str] = set()
            for i, stack in enumerate(self.stacks):
                if taken := self._take(stack, leavings, held):
                    return i, taken
        return None if held <= self.office.alive else (0, [])

    def _take(self, stack: Stack, leavings: bool, held: set[str]) -> list[str]:
        for trajectory in stack.members:
            if not self._is_left(trajectory) or self._is_given_up(trajectory):
                continue
            lease = self.office.take(trajectory.id, attempts.position(self.workspace, trajectory))
            if lease is not None:
                self.leases[trajectory.id], self.members[trajectory.id] = lease, trajectory
                if not self._is_left(trajectory):  # its last holder finished it just now
                    self._let_go(trajectory.id, "done", "")
                continue
            held.add(trajectory.id)
            if not self.leases and not leavings:
                break
        return list(self.leases)

    def give_back(self, status: attempts.Ending, why: str = "") -> None:
        """Notes how the attempts at all that this process holds ended, and lets them go."""
        for trajectory in list(self.leases):
            self._let_go(trajectory, status, why)

    def _let_go(self, trajectory: str, status: attempts.Ending, why: str) -> None:
        lease, member = self.leases.pop(trajectory), self.members.pop(trajectory)
        records = [self.workspace.record(run.id) for run in member.runs]
        if status == "done":  # what of it could not be scored cannot be scored in a moment either
            self.over.add(_as_far_as(member))
            if any(record is not None and record["row"]["status"] == "diverged" for record in records):
                status = "diverged"
        attempts.end(self.workspace, member, lease, status, why)
        if status == "failed":
            self.given_up.add(trajectory)  # by this process: another, or a later one, may have more luck

    def _is_left(self, trajectory: Trajectory) -> bool:
        if _as_far_as(trajectory) in self.over:
            return False
        left = any(
            self.workspace.record(run.id) is None or unscored(self.workspace, run.id, self.sets)
            for run in trajectory.runs
        )
        if not left:
            self.over.add(_as_far_as(trajectory))
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


def _as_far_as(trajectory: Trajectory) -> tuple[str, int]:
    return trajectory.id, len(trajectory.runs)

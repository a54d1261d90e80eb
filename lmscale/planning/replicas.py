"""Which trajectories are trained together in one step: scheduling alone, no part of what they are. No framework."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmscale.plan import Trajectory, cost

STACK_FLOPS = 4e12  # of one step of a whole stack: about 10 ms of an accelerator, beside which launching costs little


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Trajectories of one program and one set of lengths, and for how many that program is compiled."""

    members: tuple[Trajectory, ...]
    width: int  # at least the number of members; 1: the plain program

    @property
    def program(self) -> tuple:
        """What its compiled step depends on."""
        return self.members[0].program, self.width


def default_replicas(trajectory: Trajectory, accelerator: bool) -> int:
    """How many models like this one fill an accelerator; a CPU is filled by one."""
    if trajectory.family == "ngram":
        return 1
    h = trajectory.hyperparameters
    flops = trajectory.shape.train_flops(h.batch_tokens, h.sequence)
    return max(1, int(STACK_FLOPS // flops)) if accelerator else 1


def make_stacks(plan: Iterable[Trajectory], replicas: int | None, accelerator: bool) -> list[Stack]:
    """The plan in the order in which workers take it, the largest first, so that none is left alone with the longest.

    `replicas` is the most that are trained together (None: as many as the hardware wants). Seeds and rates of a shape
    are dealt out evenly, so that all their stacks have one width, and one program.
    """
    groups: dict[tuple, list[Trajectory]] = {}
    for trajectory in plan:
        lengths = tuple((run.steps, run.branch_step) for run in trajectory.runs)
        groups.setdefault((trajectory.program, lengths), []).append(trajectory)
    stacks = []
    for group in groups.values():
        limit = replicas or default_replicas(group[0], accelerator)
        count = -(-len(group) // limit)
        width = -(-len(group) // count)
        stacks += [Stack(members=tuple(group[i : i + width]), width=width) for i in range(0, len(group), width)]
    return sorted(stacks, key=lambda stack: -sum(cost(t, run) for t in stack.members for run in t.runs))

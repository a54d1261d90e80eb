"""In which order workers take the runs of a plan: what tells most of the law per FLOP first, and nothing too late.

A stopped sweep should leave the most useful law. What a run tells is how much of the variance of log N* at the target
budget it takes away, by the linearised audit of a design (analysis.audit), runs being added one at a time: c-optimality
(Elfving 1952), greedily. Before the runs determine the law, each of its coordinates is known to about one. So that
workers also end together, the rest of a trajectory goes first once it would else be waited for.
Imports no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.audit import sensitivities
from analysis.laws import Array, Chinchilla
from lmscale.plan import cost
from lmscale.planning.replicas import Stack

Indices = NDArray[np.int64]
LAW = Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)  # Besiroglu et al. 2024, Table 1
RESIDUAL_SD = 0.005  # of log L; the quickstart's median absolute residual is 0.49 %
TARGET = 10.0  # the target budget over the largest run's 6ND, where the study names none
ROUNDING = 1e-9  # of sums that are equal


def in_order(stacks: Sequence[Stack], target_flops: float | None, workers: int) -> list[Stack]:
    """The pieces of the stacks in the order in which `workers` should start them (order_of)."""
    return [piece(stacks[s], k) for s, k in order_of(stacks, target_flops, workers)]


def piece(stack: Stack, k: int) -> Stack:
    """A stack as far as its token count k: its members have the runs up to there, and the longer ones in `beyond`."""
    members = (replace(t, runs=t.runs[: k + 1], beyond=t.runs[k + 1 :]) for t in stack.members)
    return replace(stack, members=tuple(members))


def order_of(stacks: Sequence[Stack], target_flops: float | None, workers: int) -> list[tuple[int, int]]:
    """In which order `workers` should start the pieces: of each the place of its stack, and k.

    `target_flops`: C of the N* to be told; None for TARGET times the largest run. Models whose parameters are not known
    before they are counted tell nothing of N*.
    """
    counted = [s for s, stack in enumerate(stacks) if stack.members[0].shape.planned_params is None]
    # seconds each, and counted again from the beginning by whoever comes back to them: first, and whole
    whole = [(s, len(stacks[s].members[0].runs) - 1) for s in sorted(counted, key=lambda s: _flops(stacks[s]))]
    places = [(s, k) for s, stack in enumerate(stacks) if s not in counted for k in range(len(stack.members[0].runs))]
    if not places:
        return whole
    found = [(stacks[s], k) for s, k in places]
    costs = np.array([sum(cost(t, t.runs[k]) for t in stack.members) for stack, k in found])
    pairs = [(stack.members[0].shape.params, stack.members[0].runs[k].tokens) for stack, k in found]
    params, tokens = np.array(pairs, np.float64).T
    target = target_flops or TARGET * 6.0 * float((params * tokens).max())
    jacobian, slope = sensitivities(params, tokens, LAW, target)
    kinds = sorted({t.fitted_with for stack, _ in found for t in stack.members})
    members = np.array([[sum(t.fitted_with == kind for t in stack.members) for kind in kinds] for stack, _ in found])
    design = Design(rows=jacobian / RESIDUAL_SD, slope=slope, members=members)
    first = np.cumsum([0, *(len(s.members[0].runs) for i, s in enumerate(stacks) if i not in counted)])
    return whole + [places[i] for i in _schedule(design, costs, first, workers)]


def _flops(stack: Stack) -> float:
    return sum(cost(t, run) for t in stack.members for run in t.runs)


@dataclass(kw_only=True)
class Design:
    """What runs tell of log N*. rows [n, K]: derivatives of log L of each piece over its standard deviation; slope [K],
    of log N*; members [n, G]: how many of its runs are fitted in each group (each group has a law of its own).
    """

    rows: Array
    slope: Array
    members: Indices

    def __post_init__(self) -> None:
        (n, size), groups = self.rows.shape, self.members.shape[1]
        self.covariance = np.repeat(np.eye(size)[None], groups, axis=0)
        self.variance = np.full(groups, self.slope @ self.slope)  # of log N*
        self.along = np.repeat((self.rows @ self.slope)[:, None], groups, axis=1)  # covariance with log N*
        self.spread = np.repeat((self.rows * self.rows).sum(axis=1)[:, None], groups, axis=1)  # variance of log L
        assert n == len(self.members)

    def gains(self, at: Indices) -> Array:
        """Shares of the variance that pieces `at` would take away, summed over groups."""
        count = self.members[at]
        return (count * self.along[at] ** 2 / ((1 + count * self.spread[at]) * self.variance)).sum(axis=1)

    def add(self, i: int) -> None:
        """Piece i has been trained: rank-one updates (Sherman & Morrison 1950)."""
        for g in np.flatnonzero(self.members[i]):
            weight = self.members[i, g] / (1 + self.members[i, g] * self.spread[i, g])
            turned = self.covariance[g] @ self.rows[i]
            answers, along = self.rows @ turned, self.along[i, g]
            self.covariance[g] -= weight * np.outer(turned, turned)
            self.variance[g] -= weight * along**2
            self.along[:, g] -= weight * along * answers
            self.spread[:, g] -= weight * answers**2


def _schedule(design: Design, costs: Array, first: Indices, workers: int) -> list[int]:
    """Pieces as workers that cost one a FLOP would start them; those of stack s are first[s] .. first[s + 1] - 1, one
    after another.
    """
    following, ends = first[:-1].copy(), first[1:]
    rest = np.add.reduceat(costs, first[:-1])  # of each stack, not begun
    taken_until, free_at = np.zeros(len(rest)), np.zeros(workers)
    order: list[int] = []
    while len(order) < len(costs):
        worker, left = int(np.argmin(free_at)), following < ends
        now = max(free_at[worker], taken_until[left].min())
        open_ = np.flatnonzero(left & (taken_until <= now))
        at = following[open_]
        best = int(np.argmax(design.gains(at) / costs[at]))
        # when all would end if nobody waited, and when the next choice is made if the best is taken now
        end = now + (rest.sum() + np.maximum(free_at - now, 0.0).sum()) / workers
        free_at[worker] = now + costs[at[best]]
        longest = int(np.argmax(rest[open_]))
        if rest[open_[longest]] > (end - free_at.min()) * (1 + ROUNDING):
            best = longest
        stack, piece = int(open_[best]), int(at[best])
        free_at[worker] = taken_until[stack] = now + costs[piece]
        rest[stack] -= costs[piece]
        following[stack] += 1
        design.add(piece)
        order.append(piece)
    return order

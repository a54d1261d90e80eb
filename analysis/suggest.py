"""The next runs that tell most of a target for their FLOPs: greedy choice, then exchange, on the linearised law.

A run is worth what it takes from the variance of the target (c-optimality: Elfving 1952; Pukelsheim 1993, Ch. 2).
That depends on the law, which is not linear: the logarithm of the variance is averaged over laws drawn from the prior
(Chaloner & Verdinelli 1995). Runs are added one at a time and then exchanged while that helps (Fedorov 1972, Ch. 3),
all within the budget, whose costs know that a trunk is trained once. Errors within a trajectory are shared
(analysis.solving.sandwich): ten token counts of one size are no ten runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.deciding.planned import Planned
from analysis.deciding.prior import Prior
from analysis.errors import InputError
from analysis.expected import form_at
from analysis.laws import Array
from analysis.solving.solve import HUBER_DELTA
from analysis.solving.targets import Target, require_interior, slopes

DRAWS = 24  # laws over which the criterion is averaged
PASSES = 12  # of exchanges over all chosen runs, at the most
THRIFT = (0.0, 0.5, 1.0)  # powers of the cost by which a gain is divided, one greedy start each
GAIN = 1e-6  # of a log variance: less is no improvement
KNOWN = 1.0  # sd of each coordinate before any run tells of it, so that a design may begin with none
SAME = 0.01  # token counts of one trajectory within 1 % are one run
NAMES = {"params": "N*", "loss": "loss"}

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Runs that could be trained: `runs` [m], numbered with the planned ones' trajectories; own_flops [m] is what each
    costs beyond its trunk, or all of it where it has none.
    """

    runs: Planned
    own_flops: Array

    def __len__(self) -> int:
        return len(self.runs)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One suggested run: its place among the candidates, its marginal FLOPs, and the standard error of the target (a
    logarithm; geometric mean over the laws) once it and those before it are trained.
    """

    index: int
    params: float
    tokens: float
    flops: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Choices in the order in which they tell most per FLOP. before: the standard error with the planned runs alone.

    candidates: how many could be chosen from; cheapest: FLOPs of the cheapest.
    """

    choices: tuple[Choice, ...]
    before: float
    budget_flops: float
    candidates: int

    @property
    def flops(self) -> float:
        return sum(choice.flops for choice in self.choices)

    @property
    def after(self) -> float:
        return self.choices[-1].standard_error

    @property
    def indices(self) -> Indices:
        return np.array([choice.index for choice in self.choices], np.int64)


def suggest(
    planned: Planned,
    candidates: Candidates,
    prior: Prior,
    *,
    flops: float,
    runs: int,
    budget_flops: float,
    target: Target = "params",
    seed: int = 0,
) -> Suggestion:
    """At most `runs` candidates for `budget_flops` that tell most of N* (or the loss) at `flops`, beside the planned.

    Raises InputError for less than one run, a budget below the cheapest candidate, and a law without an optimum.
    """
    if runs < 1:
        raise InputError(f"suggest: {runs} runs are none; ask for at least 1")
    require_interior(prior.law, flops)
    free = _new(planned, candidates)
    if not len(free):
        raise InputError("suggest: every candidate is planned already; widen the range of sizes or token counts")
    search = _Search.of(planned, candidates, prior, flops, target, seed)
    alone = search.marginal([], free)
    if not alone.min() <= budget_flops:
        raise InputError(
            f"budget: {budget_flops:.3g} FLOPs pay for none of the {len(free)} candidates; the cheapest takes "
            f"{alone.min():.3g}"
        )
    best: list[int] = []
    lowest = np.inf
    for thrift in THRIFT:
        chosen = search.exchange(search.greedy(free, runs, budget_flops, thrift), free, budget_flops)
        value = search.value(chosen)
        if value < lowest - GAIN:
            best, lowest = chosen, value
    return Suggestion(
        choices=tuple(search.ordered(best)),
        before=float(np.exp(0.5 * search.value([]))),
        budget_flops=float(budget_flops),
        candidates=len(free),
    )


def cost(planned: Planned, candidates: Candidates, chosen: Sequence[int]) -> float:
    """FLOPs of these candidates beside planned runs that are trained: each trunk goes on from the branch before it."""
    total, runs = 0.0, candidates.runs
    for trajectory in {int(runs.trajectory[i]) for i in chosen}:
        mine = [i for i in chosen if runs.trajectory[i] == trajectory]
        branches = sorted({0.0, *planned.trunk_flops[planned.trajectory == trajectory], *runs.trunk_flops[mine]})
        for i in mine:
            below = max((b for b in branches if b < runs.trunk_flops[i]), default=0.0)
            total += runs.trunk_flops[i] - below + candidates.own_flops[i]
    return float(total)


def _new(planned: Planned, candidates: Candidates) -> Indices:
    """Candidates that are no planned run."""
    runs = candidates.runs
    same = runs.trajectory[:, None] == planned.trajectory
    near = np.abs(np.log(runs.tokens[:, None] / planned.tokens)) < SAME
    return np.flatnonzero(~np.any(same & near, axis=1))


@dataclass(frozen=True, kw_only=True)
class _Search:
    """planned and candidates with the derivatives of log L [R, n or m, K] and of the target [R, K] at R laws drawn.

    alone [m]: FLOPs of each candidate by itself. own, together: moments of the errors (analysis.solving.sandwich).
    """

    planned: Planned
    candidates: Candidates
    base: Array
    rows: Array
    slope: Array
    alone: Array
    own: float
    together: float

    @classmethod
    def of(
        cls, planned: Planned, candidates: Candidates, prior: Prior, flops: float, target: Target, seed: int
    ) -> "_Search":
        everything = planned.joined(candidates.runs)
        form, runs = form_at(everything, prior)
        theta = prior.laws(form, DRAWS, np.random.default_rng([seed, 6]))
        if prior.samples is None and prior.spread == 0:
            theta = theta[:1]
        model = form.model(runs)
        jacobian = np.stack([model.jacobian(one)[1] for one in theta])
        own, together = prior.noise.moments(HUBER_DELTA)
        return cls(
            planned=planned,
            candidates=candidates,
            base=jacobian[:, : len(planned)],
            rows=jacobian[:, len(planned) :],
            slope=slopes(form, theta, flops)[NAMES[target]],
            alone=np.array([cost(planned, candidates, [i]) for i in range(len(candidates))]),
            own=own,
            together=together,
        )

    def state(self, chosen: Sequence[int]) -> tuple[Array, Array, Array, dict[int, Array]]:
        """With planned and chosen runs: inverse curvature [R, K, K], M [R, K, K] in the docstring of
        analysis.solving.sandwich, x = inverse . slope [R, K], and the sums of rows of every trajectory [R, K].
        """
        jacobian = np.concatenate([self.base, self.rows[:, list(chosen)]], axis=1)
        trajectory = np.concatenate([self.planned.trajectory, self.candidates.runs.trajectory[list(chosen)]])
        eye = np.eye(jacobian.shape[2])
        ridge = self.own / KNOWN**2
        gram = np.swapaxes(jacobian, 1, 2) @ jacobian
        middle = (self.own - self.together) * gram + ridge**2 * KNOWN**2 * eye
        sums = {int(t): jacobian[:, trajectory == t].sum(axis=1) for t in np.unique(trajectory)}
        for each in sums.values():
            middle = middle + self.together * each[:, :, None] * each[:, None, :]
        inverse: Any = np.linalg.inv(gram + ridge * eye)
        return inverse, middle, (inverse @ self.slope[:, :, None])[:, :, 0], sums

    def value(self, chosen: Sequence[int]) -> float:
        """Mean over the laws of the log variance of the target."""
        _, middle, x, _ = self.state(chosen)
        return float(np.mean(np.log(np.einsum("rk,rkl,rl->r", x, middle, x))))

    def values(self, chosen: Sequence[int], at: Indices) -> Array:
        """The same [len(at)] with each of the candidates `at` added, by rank-one updates (Sherman & Morrison 1950)."""
        inverse, middle, x, sums = self.state(chosen)
        rows = self.rows[:, at]
        turned = rows @ inverse
        share = (rows @ x[:, :, None]) / (1 + np.sum(turned * rows, axis=2, keepdims=True))
        moved = x[:, None] - share * turned
        along = np.sum(rows * moved, axis=2)
        zero = np.zeros_like(x)
        mates = np.stack([sums.get(int(t), zero) for t in self.candidates.runs.trajectory[at]], axis=1)
        beside = np.sum(mates * moved, axis=2)
        variance = np.einsum("rmk,rkl,rml->rm", moved, middle, moved, optimize=True)
        variance += (self.own - self.together) * along**2 + self.together * along * (2 * beside + along)
        return np.mean(np.log(variance), axis=0)

    def marginal(self, chosen: Sequence[int], at: Indices) -> Array:
        """FLOPs that each of the candidates `at` adds to the chosen."""
        runs, found = self.candidates.runs, self.alone[at].copy()
        asked = {int(t) for t in runs.trajectory[list(chosen)]}
        for k in np.flatnonzero(np.isin(runs.trajectory[at], list(asked))):
            i = int(at[k])
            mates = [j for j in chosen if runs.trajectory[j] == runs.trajectory[i]]
            with_it = cost(self.planned, self.candidates, [*mates, i])
            found[k] = with_it - cost(self.planned, self.candidates, mates)
        return found

    def greedy(self, free: Indices, runs: int, budget: float, thrift: float) -> list[int]:
        """The best of the gain over cost^thrift, one at a time, while runs and budget last."""
        chosen: list[int] = []
        left, value = budget, self.value([])
        while len(chosen) < runs:
            at = np.setdiff1d(free, chosen)
            if not len(at):
                break
            costs = self.marginal(chosen, at)
            gains = np.where(costs <= left, value - self.values(chosen, at), -np.inf)
            best = int(np.argmax(np.where(gains > 0, gains / costs**thrift, gains)))
            if not gains[best] > GAIN:
                break
            chosen.append(int(at[best]))
            left, value = left - costs[best], value - gains[best]
        return chosen

    def exchange(self, chosen: list[int], free: Indices, budget: float) -> list[int]:
        """Each chosen run for the best that its money buys, again and again while one of them helps."""
        value = self.value(chosen)
        for _ in range(PASSES):
            before = value
            for i in list(chosen):
                rest = [j for j in chosen if j != i]
                at = np.setdiff1d(free, rest)
                room = budget - cost(self.planned, self.candidates, rest)
                values = np.where(self.marginal(rest, at) <= room * (1 + 1e-12), self.values(rest, at), np.inf)
                best = int(np.argmin(values))
                if values[best] < value - GAIN:
                    chosen, value = [*rest, int(at[best])], float(values[best])
            if not value < before - GAIN:
                break
        return chosen

    def ordered(self, chosen: list[int]) -> list[Choice]:
        """The chosen as they tell most per FLOP, each after those before it."""
        taken: list[int] = []
        found = []
        runs = self.candidates.runs
        while len(taken) < len(chosen):
            at = np.array([i for i in chosen if i not in taken], np.int64)
            costs, values = self.marginal(taken, at), self.values(taken, at)
            now = self.value(taken)
            gains = now - values
            best = int(np.argmax(gains / np.where(gains > 0, costs, 1 / costs)))
            i = int(at[best])
            found.append(
                Choice(
                    index=i,
                    params=float(runs.params[i]),
                    tokens=float(runs.tokens[i]),
                    flops=float(costs[best]),
                    standard_error=float(np.exp(0.5 * values[best])),
                )
            )
            taken.append(i)
        return found

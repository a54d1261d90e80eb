"""The optima of a fit: every start descends, and every resample descends from what is distinct among their ends."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.laws import Array
from analysis.solving.form import Form, Runs
from analysis.solving.model import Model
from analysis.solving.solve import Loss, Solution, minimise
from analysis.uncertainty import Resampling

MINIMA = 4  # distinct optima of the full table from which every resample starts
APART = 0.05  # in a coordinate: further apart, two optima are distinct
RIVAL = 2.0  # times the best objective: a worse optimum is no rival in any resample
RESAMPLED_ELEMENTS = 4_000_000  # of a [resamples, runs] block, 32 MB
SCREENED = 5_000  # runs; of a longer table every start descends on a sample, and only the optima on all of it


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is fitted: a form, its model of the runs [n], the weight [n] of each in the objective, the loss summed."""

    form: Form
    model: Model
    runs: Runs
    weight: Array
    loss: Loss

    def solve(self, targets: Array, weights: Array, starts: Array) -> Solution:
        """`solve.minimise` in the form's box: targets of the loss and weights [1 or P, n], starts [P, K]."""
        return minimise(self.model, targets, weights, starts, self.form.lower, self.form.upper, loss=self.loss)

    def descend(self, starts: Array) -> Solution:
        """Where the starts [P, K] end on the runs as they were measured."""
        return self.solve(self.loss.target(self.runs.loss_nats)[None], self.weight[None], starts)

    def some(self, rows: NDArray[np.int64]) -> "Task":
        """The same on some of the runs."""
        unique = self.runs.unique_tokens
        runs = Runs(
            params=self.runs.params[rows],
            tokens=self.runs.tokens[rows],
            loss_nats=self.runs.loss_nats[rows],
            unique_tokens=None if unique is None else unique[rows],
        )
        model = self.form.model(runs)
        return Task(form=self.form, model=model, runs=runs, weight=self.weight[rows], loss=self.loss)


def search(task: Task, seed: int) -> Solution:
    """The end of every start; of a long table, on a sample first, and then its distinct optima on all runs."""
    runs, starts = len(task.runs.params), task.form.starts(task.runs)
    if runs <= SCREENED:
        return task.descend(starts)
    rows = np.random.default_rng([seed, 2]).choice(runs, SCREENED, replace=False)
    screened = task.some(rows).descend(starts)
    begin = screened.theta[distinct_optima(screened)]
    found = task.descend(begin)
    # Every start is reported at the optimum of all runs to which its end on the sample is nearest.
    home = np.argmin(np.abs(screened.theta[:, None] - begin[None]).max(axis=2), axis=1)
    return Solution(
        theta=found.theta[home],
        objective=found.objective[home],
        gradient=found.gradient[home],
        converged=found.converged[home],
        steps=found.steps[home],
    )


def distinct_optima(found: Solution) -> list[int]:
    """The best few optima that are apart from one another, the best first."""
    minima: list[int] = []
    for candidate in np.argsort(found.objective, kind="stable"):
        apart = all(np.abs(found.theta[candidate] - found.theta[m]).max() > APART for m in minima)
        rival = not minima or found.objective[candidate] <= RIVAL * found.objective[minima[0]]
        if apart and rival and len(minima) < MINIMA:
            minima.append(int(candidate))
    return minima


def refit(task: Task, found: Solution, resampling: Resampling, *, count: int, seed: int) -> tuple[Array, Array]:
    """theta [R, K] of every resample, each the best of its solutions from the distinct optima of the full table.

    With them the error [R] of a new run that each resample has.
    """
    form, loss, rng = task.form, task.loss, np.random.default_rng([seed, 0])
    optima = found.theta[distinct_optima(found)]
    fitted, jacobian = task.model.jacobian(optima[0])
    draws, errors = np.empty((count, len(form.names))), np.empty(count)
    block = max(1, RESAMPLED_ELEMENTS // len(fitted))
    # A run of weight w errs by a variance of 1/w: what is alike, and is resampled, is the error times sqrt(w).
    scale = np.sqrt(task.weight / task.weight.mean())
    residual = scale * (np.log(task.runs.loss_nats) - fitted)
    jacobian = scale[:, None] * jacobian[:, form.upper > form.lower]
    for first in range(0, count, block):
        part = slice(first, min(first + block, count))
        drawn = resampling.draw(residual, jacobian, count=part.stop - first, rng=rng)
        errors[part] = drawn.new_run
        log_losses = fitted + drawn.log_errors / scale
        targets = log_losses if loss.residual == "log" else np.exp(log_losses)
        own, lowest = draws[part], np.full(part.stop - first, np.inf)
        for optimum in optima:
            solved = task.solve(targets, drawn.weights * task.weight, np.repeat(optimum[None], len(own), axis=0))
            better = solved.objective < lowest
            own[better] = solved.theta[better]
            lowest = np.minimum(lowest, solved.objective)
        own[:] = np.clip(optima[0] + drawn.spread[:, None] * (own - optima[0]), form.lower, form.upper)
    return draws, errors

"""Many robust fits in one array computation: bounded Newton steps on sums of robust losses of residuals.

Every problem p of a batch minimises sum_i w_pi rho(L(theta_p)_i against its measured loss). Starts and resamples are
rows of one batch; derivatives come from the model; problems that have converged leave the batch. Many problems go most
of the way in single precision, where exponentials cost a quarter, and all end in double precision.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError, require_choice
from analysis.laws import Array
from analysis.solving.model import LogSumExp, Model

MAX_STEPS = 300
GRADIENT_TOLERANCE = 1e-10  # of delta x the sum of weights, the largest slope the objective can have
IDLE_GAIN, IDLE_STEPS = 1e-10, 12  # steps in a row that lower the objective by less than this part of it end a descent
ROUNDING, LOST = 1e-15, 1e12  # relative, of an objective; the damping at which a descent is given up
MARQUARDT = 1e-4  # damping per unit of lam above 1: small, because the valley of these fits is long and curved
CHUNK = 1 << 15  # elements of a [problems, runs] block: the dozen arrays of one block stay in the cache
EASE_NEAR, EASE_FAR = 0.05, 0.4  # refits begin near their optimum; far from it, long curved valleys punish haste
MANY = 64  # problems, from which a first descent in single precision pays
SINGLE_STEPS, SINGLE_TOLERANCE = 12, 1e-4  # of it: single precision resolves the gradient no better
HUBER_DELTA = 1e-3  # Hoffmann et al. 2022, Sec. 3.3
SQUARES_DELTA = 1e6  # no residual is larger: the Huber loss is then half its square
LAD_DELTA = 1e-7  # the objective is then delta x the sum of absolute residuals, to one part in 1e4 of a residual
TYPICAL = 1e-2  # a relative residual; the tolerance of the gradient of squares is set by it

Kind = Literal["huber", "mse", "lad"]
Residual = Literal["log", "nats"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is summed over runs: Huber(delta), half squares, or absolute values of log L_hat - log L or L_hat - L.

    Raises InputError for an unknown kind or residual and a delta that is not positive.
    """

    kind: Kind = "huber"
    delta: float = HUBER_DELTA
    residual: Residual = "log"

    def __post_init__(self) -> None:
        require_choice("loss", self.kind, Kind)
        require_choice("residual", self.residual, Residual)
        if not (np.isfinite(self.delta) and 0 < self.delta <= SQUARES_DELTA):
            raise InputError(f"delta: {self.delta} is no width of a Huber loss; give a positive number such as 1e-3")

    @property
    def corner(self) -> float:
        """The residual at which the loss turns from a square to a straight line."""
        return {"huber": self.delta, "mse": SQUARES_DELTA, "lad": LAD_DELTA}[self.kind]

    def target(self, loss_nats: Array) -> Array:
        return np.log(loss_nats) if self.residual == "log" else loss_nats

    def total(self, residuals: Array, weights: Array) -> float:
        """The objective as it is published: sums of absolute values are not multiplied by a delta."""
        size = np.abs(residuals)
        if self.kind == "lad":
            return float(weights @ size)
        return float(weights @ np.where(size <= self.corner, 0.5 * size**2, self.corner * (size - 0.5 * self.corner)))

    @property
    def description(self) -> str:
        name = {"huber": f"Huber, delta {self.delta:g},", "mse": "half squares", "lad": "absolute values"}[self.kind]
        return f"sum of {name} of {'log residuals' if self.residual == 'log' else 'residuals in nats'}"


@dataclass(frozen=True, kw_only=True)
class Solution:
    """theta [P, K]; objective [P]; gradient [P], its largest entry off the bounds; converged [P]; steps [P]."""

    theta: Array
    objective: Array
    gradient: Array
    converged: NDArray[np.bool_]
    steps: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _State:
    """objective [P], gradient [P, K], exact Hessian [P, K, K], and that of the quadratic bound of `_block`."""

    objective: Array
    gradient: Array
    hessian: Array
    bound: Array

    def take(self, keep: NDArray[np.bool_]) -> "_State":
        return _State(
            objective=self.objective[keep],
            gradient=self.gradient[keep],
            hessian=self.hessian[keep],
            bound=self.bound[keep],
        )


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """What the problems share: the model, the corner of the loss, its residual, the box."""

    model: Model
    corner: float
    residual: Residual
    lower: Array
    upper: Array

    def block(self, theta: Array, target: Array, weights: Array) -> _State:
        value, state = self.model.log_loss(theta)
        scale = None
        if self.residual == "nats":
            scale = np.exp(value)
            residual = scale - target
        else:
            residual = value - target
        corner = self.corner
        slope = np.clip(residual, -corner, corner)
        objective = np.sum(weights * slope * (residual - 0.5 * slope), axis=1)
        inside = weights * (slope == residual)
        # Outside its corner the loss is straight and tells Newton nothing about the runs it will cross on its way.
        # Reweighted least squares, corner/|r|, is a quadratic that bounds it from above, and is positive semidefinite.
        np.abs(residual, out=residual)
        np.maximum(residual, corner, out=residual)
        bound = weights * (corner / residual)
        slope *= weights
        if scale is not None:
            slope *= scale
            inside = inside * scale * scale + slope
            bound = bound * scale * scale
        return _State(
            objective=objective,
            gradient=self.model.gradient(slope, state),
            hessian=self.model.curvature(inside, slope, state),
            bound=self.model.curvature(bound, None, state),
        )

    def evaluate(self, theta: Array, target: Array, weights: Array) -> _State:
        rows = max(1, CHUNK // (target.shape[1] * self.model.arrays))
        blocks = []
        for first in range(0, len(theta), rows):
            part = slice(first, first + rows)
            own_target = target[part] if len(target) > 1 else target
            own_weights = weights[part] if len(weights) > 1 else weights
            blocks.append(self.block(theta[part], own_target, own_weights))
        if len(blocks) == 1:
            return blocks[0]
        return _State(
            objective=np.concatenate([b.objective for b in blocks]),
            gradient=np.concatenate([b.gradient for b in blocks]),
            hessian=np.concatenate([b.hessian for b in blocks]),
            bound=np.concatenate([b.bound for b in blocks]),
        )


def _solve(matrix: Array, right: Array) -> tuple[Array, NDArray[np.bool_]]:
    """x [P, K] of matrix x = right by Cholesky, and which matrices were positive definite."""
    rest, lower = matrix.copy(), np.zeros_like(matrix)
    good = np.ones(len(matrix), bool)
    for j in range(right.shape[1]):
        pivot = rest[:, j, j]
        good &= pivot > 1e-14 * np.abs(matrix[:, j, j])
        column = np.where(good[:, None], rest[:, j:, j], 0.0) / np.sqrt(np.where(good, pivot, 1.0))[:, None]
        column[:, 0] += ~good  # what is not positive definite goes on as the identity, so that nothing overflows
        lower[:, j:, j] = column
        rest[:, j + 1 :, j + 1 :] -= column[:, 1:, None] * column[:, None, 1:]
    x = right.copy()
    for j in range(right.shape[1]):
        x[:, j] /= lower[:, j, j]
        x[:, j + 1 :] -= lower[:, j + 1 :, j] * x[:, j, None]
    for j in reversed(range(right.shape[1])):
        x[:, j] /= lower[:, j, j]
        x[:, :j] -= lower[:, j, :j] * x[:, j, None]
    return x, good


@dataclass(kw_only=True)
class _Batch:
    """The problems not yet converged: their numbers in the whole batch, where they are, their damping lam [P].

    idle [P]: how many steps in a row were taken that gained nothing to speak of. ease: of lam, after a good step.
    """

    index: NDArray[np.int64]
    theta: Array
    lam: Array
    idle: NDArray[np.int64]
    ease: float
    target: Array
    weights: Array
    state: _State

    def keep(self, rows: NDArray[np.bool_]) -> None:
        self.index, self.theta = self.index[rows], self.theta[rows]
        self.lam, self.idle = self.lam[rows], self.idle[rows]
        self.target = self.target[rows] if len(self.target) > 1 else self.target
        self.weights = self.weights[rows] if len(self.weights) > 1 else self.weights
        self.state = self.state.take(rows)

    def slope(self, problem: _Problem) -> tuple[Array, NDArray[np.bool_]]:
        """The gradient [P, K] with zeros where it pushes against the box, and where it does."""
        gradient, lower, upper = self.state.gradient, problem.lower, problem.upper
        pinned = ((self.theta <= lower) & (gradient > 0)) | ((self.theta >= upper) & (gradient < 0)) | (lower == upper)
        return np.where(pinned, 0.0, gradient), pinned

    def advance(self, problem: _Problem) -> None:
        """One step of every problem: taken where it lowers the objective, otherwise damped more the next time."""
        slope, pinned = self.slope(problem)
        state, diagonal = self.state, np.arange(problem.model.size)
        # lam = 0 is Newton, 1 reweighted least squares, more is Marquardt's shortening of it, coordinate by coordinate.
        mix = np.minimum(self.lam, 1.0)[:, None, None]
        matrix = (1.0 - mix) * state.hessian + mix * state.bound
        scale = state.bound[:, diagonal, diagonal]
        marquardt = np.maximum(MARQUARDT * (self.lam - 1.0), 1e-12)[:, None]
        matrix[:, diagonal, diagonal] += marquardt * scale + 1e-14 * scale.max(axis=1)[:, None]
        matrix = np.where(pinned[:, :, None] | pinned[:, None, :], 0.0, matrix)
        matrix[:, diagonal, diagonal] += pinned
        step, good = _solve(matrix, -slope)
        step *= np.minimum(1.0, 1.0 / np.maximum(np.abs(step).max(axis=1), 1e-30))[:, None]
        theta = np.where(good[:, None], np.clip(self.theta + step, problem.lower, problem.upper), self.theta)
        moved = theta - self.theta
        trial = problem.evaluate(theta, self.target, self.weights)
        expected = -np.sum(slope * moved, axis=1) - 0.5 * np.einsum("pi,pij,pj->p", moved, matrix, moved)
        gained = state.objective - trial.objective
        accept = good & (gained >= 0) & (np.abs(moved).max(axis=1) > 0)
        ratio = gained / np.where(expected > 0, expected, np.inf)
        eased = np.where(ratio > 0.5, self.ease * self.lam, np.where(ratio < 0.1, 4.0 * self.lam, self.lam))
        eased = np.where(eased < 1e-7, 0.0, eased)
        # A gain that rounding hides cannot be looked for with shorter steps: nothing is left to do.
        hidden = good & (-np.sum(slope * step, axis=1) < ROUNDING * state.objective)
        self.lam = np.where(accept, eased, np.where(hidden, LOST, 6.0 * np.maximum(self.lam, 1e-3)))
        self.idle = np.where(accept, np.where(gained < IDLE_GAIN * state.objective, self.idle + 1, 0), self.idle)
        self.theta = np.where(accept[:, None], theta, self.theta)
        self.state = _State(
            objective=np.where(accept, trial.objective, state.objective),
            gradient=np.where(accept[:, None], trial.gradient, state.gradient),
            hessian=np.where(accept[:, None, None], trial.hessian, state.hessian),
            bound=np.where(accept[:, None, None], trial.bound, state.bound),
        )


def minimise(
    model: Model, target: Array, weights: Array, starts: Array, lower: Array, upper: Array, *, loss: Loss
) -> Solution:
    """Minimise every problem of a batch from its own start.

    target (`loss.target` of the measured losses) and weights [1, n] or [P, n]; starts [P, K]; lower, upper [K], equal
    where a coordinate is held fixed. A problem is converged when its gradient, off the bounds, is zero to
    GRADIENT_TOLERANCE, or when no step that floating point can resolve lowers it.
    """
    corners = [loss.corner]
    if loss.corner < HUBER_DELTA:  # towards a corner too sharp for Newton's method, in steps of ten
        corners = [*(10.0**-k for k in range(3, 12) if 10.0**-k > 1.5 * loss.corner), loss.corner]
    theta, damping = np.clip(starts, lower, upper), 1.0
    if len(starts) >= MANY and isinstance(model, LogSumExp):
        rough = _Problem(
            model=LogSumExp(_single(model.features)),
            corner=corners[0],
            residual=loss.residual,
            lower=_single(lower),
            upper=_single(upper),
        )
        near = _descend(
            rough, _single(target), _single(weights), _single(theta), damping,
            tolerance=SINGLE_TOLERANCE, most=SINGLE_STEPS, lost=1e4,
        )  # fmt: skip
        theta, damping = np.clip(near.theta.astype(np.float64), lower, upper), 0.0
    found = None
    for corner in corners:
        problem = _Problem(model=model, corner=corner, residual=loss.residual, lower=lower, upper=upper)
        found = _descend(problem, target, weights, theta, damping)
        theta = found.theta
    assert found is not None
    return found


def _single(array: Array) -> Any:
    return array.astype(np.float32)


def _descend(
    problem: _Problem,
    target: Array,
    weights: Array,
    theta: Array,
    damping: float,
    *,
    tolerance: float = GRADIENT_TOLERANCE,
    most: int = MAX_STEPS,
    lost: float = LOST,
) -> Solution:
    """Step until the gradient is below `tolerance` of its largest, or `most` steps, or a damping of `lost`."""
    problems = len(theta)
    batch = _Batch(
        index=np.arange(problems),
        theta=theta,
        lam=np.full(problems, damping, theta.dtype),
        idle=np.zeros(problems, np.int64),
        ease=EASE_NEAR if problems >= MANY else EASE_FAR,
        target=target,
        weights=weights,
        state=problem.evaluate(theta, target, weights),
    )
    out, objective, gradient = theta.copy(), np.empty(problems), np.empty(problems)
    converged, steps = np.zeros(problems, bool), np.zeros(problems, np.int64)
    for count in range(most + 1):
        slope, _ = batch.slope(problem)
        largest = np.abs(slope).max(axis=1)
        small = tolerance * min(problem.corner, TYPICAL) * batch.weights.sum(axis=1)
        # Stuck means that rounding or a flat valley, not a wrong step, ended it: the gradient must still be small.
        stuck = (batch.lam >= lost) | (batch.idle >= IDLE_STEPS)
        leave = (largest <= small) | stuck | (count == most)
        if leave.any():
            gone = batch.index[leave]
            out[gone], objective[gone], gradient[gone] = (
                batch.theta[leave],
                batch.state.objective[leave],
                largest[leave],
            )
            converged[gone] = (largest <= np.where(stuck, 1e4, 1.0) * small)[leave]
            steps[gone] = count
            if leave.all():
                break
            batch.keep(~leave)
        batch.advance(problem)
    return Solution(theta=out, objective=objective, gradient=gradient, converged=converged, steps=steps)

"""Many robust fits in one array computation: bounded Newton steps on sums of Huber losses of log residuals.

Every problem p of a batch minimises sum_i w_pi huber_delta(log L(theta_p)_i - y_pi) with
log L_i = log sum_t exp(features_ti . theta), the shape of the laws of laws.py. Starts and resamples are rows of one
batch; derivatives are exact; problems that have converged leave the batch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.laws import Array

MAX_STEPS = 300
GRADIENT_TOLERANCE = 1e-10  # of delta x the sum of weights, the largest slope the objective can have
MARQUARDT = 1e-4  # damping per unit of lam above 1: small, because the valley of these fits is long and curved
CHUNK = 1 << 15  # elements of a [problems, runs] block: the dozen arrays of one block stay in the cache


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


class _Terms:
    """The features, with the products that the Hessian needs laid out once so that it is a few matrix products."""

    def __init__(self, features: Array) -> None:
        self.count, _, self.size = features.shape
        self.active = [np.flatnonzero(np.any(f != 0, axis=0)) for f in features]
        self.columns = [np.ascontiguousarray(f[:, k]) for f, k in zip(features, self.active, strict=True)]
        self.pairs: list[tuple[int, int, NDArray[np.int64], NDArray[np.int64], Array]] = []
        for t in range(self.count):
            for u in range(t, self.count):
                i, j = (m.ravel() for m in np.meshgrid(self.active[t], self.active[u], indexing="ij"))
                product = (self.columns[t][:, :, None] * self.columns[u][:, None, :]).reshape(len(features[t]), -1)
                self.pairs.append((t, u, i, j, product))

    def log_loss(self, theta: Array) -> tuple[Array, list[Array]]:
        """log L [P, n] and the share of each term in L, T arrays [P, n]."""
        z = [theta[:, k] @ c.T for k, c in zip(self.active, self.columns, strict=True)]
        top = np.maximum.reduce(z)
        shares = [np.exp(term - top) for term in z]
        total = np.add.reduce(shares)
        for share in shares:
            share /= total
        return top + np.log(total), shares

    def gradient(self, slope: Array, shares: list[Array]) -> Array:
        gradient = np.zeros((slope.shape[0], self.size))
        for share, active, columns in zip(shares, self.active, self.columns, strict=True):
            gradient[:, active] += (slope * share) @ columns
        return gradient

    def quadratic(self, outer: Array, diagonal: Array | None, shares: list[Array]) -> Array:
        """sum_i outer_i J_i J_i' + diagonal_i sum_t share_ti G_ti G_ti', [P, K, K]."""
        matrix = np.zeros((outer.shape[0], self.size, self.size))
        for t, u, i, j, product in self.pairs:
            weight = outer * shares[t]
            weight *= shares[u]
            if t == u and diagonal is not None:
                weight += diagonal * shares[t]
            block = weight @ product
            matrix[:, i, j] += block
            if t != u:
                matrix[:, j, i] += block
        return matrix


def log_loss(features: Array, theta: Array) -> tuple[Array, Array]:
    """log L [n] and its Jacobian [n, K] at one theta [K]."""
    value, shares = _Terms(features).log_loss(theta[None])
    return value[0], np.einsum("tn,tnk->nk", np.concatenate(shares), features)


def _block(terms: _Terms, theta: Array, target: Array, weights: Array, delta: float) -> _State:
    value, shares = terms.log_loss(theta)
    residual = value - target
    size = np.abs(residual)
    inside = size <= delta
    slope = weights * np.clip(residual, -delta, delta)
    objective = np.sum(weights * np.where(inside, 0.5 * residual**2, delta * (size - 0.5 * delta)), axis=1)
    # Second derivatives of log L are sum_t share_t G_t G_t' - J J', hence the slopes in both places.
    hessian = terms.quadratic(weights * inside - slope, slope, shares)
    # Outside delta the Huber loss is straight and tells Newton nothing about the runs it will cross on its way.
    # Reweighted least squares, delta/|r|, is a quadratic that bounds it from above, and is positive semidefinite.
    bound = terms.quadratic(weights * (delta / np.maximum(size, delta)), None, shares)
    return _State(objective=objective, gradient=terms.gradient(slope, shares), hessian=hessian, bound=bound)


def _evaluate(terms: _Terms, theta: Array, target: Array, weights: Array, delta: float) -> _State:
    rows = max(1, CHUNK // target.shape[1])
    blocks = []
    for first in range(0, len(theta), rows):
        part = slice(first, first + rows)
        own_target = target[part] if len(target) > 1 else target
        own_weights = weights[part] if len(weights) > 1 else weights
        blocks.append(_block(terms, theta[part], own_target, own_weights, delta))
    return _State(
        objective=np.concatenate([b.objective for b in blocks]),
        gradient=np.concatenate([b.gradient for b in blocks]),
        hessian=np.concatenate([b.hessian for b in blocks]),
        bound=np.concatenate([b.bound for b in blocks]),
    )


def _solve(matrix: Array, right: Array) -> tuple[Array, NDArray[np.bool_]]:
    """x [P, K] of matrix x = right by Cholesky, and which matrices were positive definite."""
    size = right.shape[1]
    lower = np.zeros_like(matrix)
    good = np.ones(len(matrix), bool)
    for j in range(size):
        pivot = matrix[:, j, j] - np.sum(lower[:, j, :j] ** 2, axis=1)
        good &= pivot > 1e-14 * np.abs(matrix[:, j, j])
        root = np.sqrt(np.where(good, pivot, 1.0))
        lower[:, j, j] = root
        for i in range(j + 1, size):
            lower[:, i, j] = (matrix[:, i, j] - np.sum(lower[:, i, :j] * lower[:, j, :j], axis=1)) / root
    x = right.copy()
    for j in range(size):
        x[:, j] = (x[:, j] - np.sum(lower[:, j, :j] * x[:, :j], axis=1)) / lower[:, j, j]
    for j in reversed(range(size)):
        x[:, j] = (x[:, j] - np.sum(lower[:, j + 1 :, j] * x[:, j + 1 :], axis=1)) / lower[:, j, j]
    return x, good


@dataclass(kw_only=True)
class _Batch:
    """The problems not yet converged: their numbers in the whole batch, where they are, and their damping lam [P]."""

    index: NDArray[np.int64]
    theta: Array
    lam: Array
    target: Array
    weights: Array
    state: _State

    def keep(self, rows: NDArray[np.bool_]) -> None:
        self.index, self.theta, self.lam = self.index[rows], self.theta[rows], self.lam[rows]
        self.target = self.target[rows] if len(self.target) > 1 else self.target
        self.weights = self.weights[rows] if len(self.weights) > 1 else self.weights
        self.state = self.state.take(rows)

    def slope(self, lower: Array, upper: Array) -> tuple[Array, NDArray[np.bool_]]:
        """The gradient [P, K] with zeros where it pushes against the box, and where it does."""
        gradient = self.state.gradient
        pinned = ((self.theta <= lower) & (gradient > 0)) | ((self.theta >= upper) & (gradient < 0))
        return np.where(pinned, 0.0, gradient), pinned

    def advance(self, terms: _Terms, lower: Array, upper: Array, delta: float) -> None:
        """One step of every problem: taken where it lowers the objective, otherwise damped more the next time."""
        slope, pinned = self.slope(lower, upper)
        state, diagonal = self.state, np.arange(terms.size)
        # lam = 0 is Newton, 1 reweighted least squares, more is Marquardt's shortening of it, coordinate by coordinate.
        mix = np.minimum(self.lam, 1.0)[:, None, None]
        matrix = (1.0 - mix) * state.hessian + mix * state.bound
        scale = state.bound[:, diagonal, diagonal]
        marquardt = np.maximum(MARQUARDT * (self.lam - 1.0), 1e-12)[:, None]
        matrix[:, diagonal, diagonal] += marquardt * scale + 1e-14 * scale.max(axis=1)[:, None]
        matrix = np.where(pinned[:, :, None] | pinned[:, None, :], 0.0, matrix)
        matrix[:, diagonal, diagonal] += pinned
        step, good = _solve(matrix, -slope)
        step *= np.minimum(1.0, 1.0 / np.maximum(np.abs(step).max(axis=1), 1e-300))[:, None]
        theta = np.where(good[:, None], np.clip(self.theta + step, lower, upper), self.theta)
        moved = theta - self.theta
        trial = _evaluate(terms, theta, self.target, self.weights, delta)
        expected = -np.sum(slope * moved, axis=1) - 0.5 * np.einsum("pi,pij,pj->p", moved, matrix, moved)
        gained = state.objective - trial.objective
        accept = good & (gained >= 0) & (np.abs(moved).max(axis=1) > 0)
        ratio = gained / np.where(expected > 0, expected, np.inf)
        eased = np.where(ratio > 0.5, 0.2 * self.lam, np.where(ratio < 0.1, 4.0 * self.lam, self.lam))
        self.lam = np.where(accept, np.where(eased < 1e-7, 0.0, eased), 6.0 * np.maximum(self.lam, 1e-2))
        self.theta = np.where(accept[:, None], theta, self.theta)
        self.state = _State(
            objective=np.where(accept, trial.objective, state.objective),
            gradient=np.where(accept[:, None], trial.gradient, state.gradient),
            hessian=np.where(accept[:, None, None], trial.hessian, state.hessian),
            bound=np.where(accept[:, None, None], trial.bound, state.bound),
        )


def minimise(
    features: Array, target: Array, weights: Array, starts: Array, lower: Array, upper: Array, *, delta: float
) -> Solution:
    """Minimise every problem of a batch from its own start.

    features [T, n, K]; target (log losses) and weights [1, n] or [P, n]; starts [P, K]; lower, upper [K].
    A problem is converged when its gradient, off the bounds, is zero to GRADIENT_TOLERANCE, or when no step that
    floating point can resolve lowers it.
    """
    terms = _Terms(features)
    problems = len(starts)
    theta = np.clip(starts, lower, upper)
    batch = _Batch(
        index=np.arange(problems),
        theta=theta,
        lam=np.ones(problems),
        target=target,
        weights=weights,
        state=_evaluate(terms, theta, target, weights, delta),
    )
    out, objective, gradient = theta.copy(), np.empty(problems), np.empty(problems)
    converged, steps = np.zeros(problems, bool), np.zeros(problems, np.int64)
    for count in range(MAX_STEPS + 1):
        slope, _ = batch.slope(lower, upper)
        largest = np.abs(slope).max(axis=1)
        tolerance = GRADIENT_TOLERANCE * delta * batch.weights.sum(axis=1)
        # Stuck means that rounding, not a wrong step, ended it: the gradient must still be small.
        stuck = batch.lam > 1e12
        leave = (largest <= tolerance) | stuck | (count == MAX_STEPS)
        if leave.any():
            gone = batch.index[leave]
            out[gone], objective[gone], gradient[gone] = (
                batch.theta[leave],
                batch.state.objective[leave],
                largest[leave],
            )
            converged[gone] = (largest <= np.where(stuck, 1e4, 1.0) * tolerance)[leave]
            steps[gone] = count
            if leave.all():
                break
            batch.keep(~leave)
        batch.advance(terms, lower, upper, delta)
    return Solution(theta=out, objective=objective, gradient=gradient, converged=converged, steps=steps)

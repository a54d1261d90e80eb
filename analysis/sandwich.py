"""Resamples of a long table by linearising: the normal distribution of an M-estimator, in a moment for any length."""

import numpy as np

from analysis.form import Form, Runs
from analysis.laws import Array
from analysis.model import Model
from analysis.solve import Loss
from analysis.uncertainty import WEBB, Resampling


def sandwich(
    model: Model,
    form: Form,
    theta: Array,
    runs: Runs,
    weight: Array,
    loss: Loss,
    resampling: Resampling,
    *,
    count: int,
    seed: int,
) -> Array:
    """theta [R, K] drawn around the estimate theta [K] with the covariance H^-1 (sum_c s_c s_c') H^-1 (Huber 1967).

    s_c are the slopes of the objective in the runs of one trajectory (of one row, where rows are independent); with few
    trajectories these are multiplied by the weights of the wild bootstrap instead of being taken as normal.
    """
    rng = np.random.default_rng([seed, 0])
    value, state = model.log_loss(theta[None])
    scale = np.exp(value) if loss.residual == "nats" else np.ones_like(value)
    residual = (scale if loss.residual == "nats" else value) - loss.target(runs.loss_nats)
    slope = weight * np.clip(residual, -loss.corner, loss.corner) * scale
    inside = weight * (np.abs(residual) <= loss.corner) * scale**2 + (slope if loss.residual == "nats" else 0.0)
    free = np.flatnonzero((form.upper > form.lower) & (theta > form.lower) & (theta < form.upper))
    hessian = model.curvature(inside, slope, state)[0][np.ix_(free, free)]
    scores = slope[0][:, None] * model.jacobian(theta)[1][:, free]
    if resampling.kind == "rows":
        draws = rng.normal(size=(count, len(free))) @ np.linalg.cholesky(scores.T @ scores).T
    else:
        clusters = int(resampling.trajectory.max()) + 1
        together = np.zeros((clusters, len(free)))
        np.add.at(together, resampling.trajectory, scores)
        few = resampling.kind == "wild"
        flips = rng.choice(WEBB.ravel(), size=(count, clusters)) if few else rng.normal(size=(count, clusters))
        draws = flips @ together
    out = np.repeat(theta[None], count, axis=0)
    out[:, free] -= np.linalg.solve(hessian, draws.T).T
    return np.clip(out, form.lower, form.upper)

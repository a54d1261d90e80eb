"""Resamples of a long table by linearising: what a million rows tell is normal to every digit shown."""

import numpy as np

from analysis.laws import Array
from analysis.solving.search import Task
from analysis.uncertainty import Resampling, as_new


def linearised(task: Task, theta: Array, resampling: Resampling, *, count: int, seed: int) -> tuple[Array, Array]:
    """theta [R, K] drawn around the estimate theta [K], and the log error [R] of a new run in each.

    Covariance H^-1 (sum_c s_c s_c') H^-1 (Huber 1967), s_c being the slopes of the objective in the runs of one
    trajectory, or in one row where rows are independent. Few trajectories have too few slopes for that: of those the
    errors are drawn as `Resampling.variances` says, and carried over by one Newton step.
    """
    form, model, weight, loss = task.form, task.model, task.weight, task.loss
    rng = np.random.default_rng([seed, 0])
    value, state = model.log_loss(theta[None])
    residual = np.log(task.runs.loss_nats) - value[0]
    inside_box = (form.upper > form.lower) & (theta > form.lower) & (theta < form.upper)
    free = np.flatnonzero(inside_box)
    jacobian = model.jacobian(theta)[1][:, free]
    nats = np.exp(value) if loss.residual == "nats" else None

    def slopes(log_error: Array) -> Array:
        """Of the objective in log L of each run [n] that errs by log_error."""
        off = -log_error if nats is None else nats[0] * -np.expm1(log_error)
        return weight * np.clip(off, -loss.corner, loss.corner) * (1.0 if nats is None else nats[0])

    slope = slopes(residual)
    off = np.abs(residual if nats is None else nats[0] * np.expm1(residual))
    inside = weight * (off <= loss.corner) * (1.0 if nats is None else nats[0] ** 2)
    hessian = model.curvature((inside if nats is None else inside + slope)[None], slope[None], state)[0]
    hessian = hessian[np.ix_(free, free)]
    if resampling.kind == "effects":
        shared, own = resampling.variances(residual, jacobian, count=count, rng=rng)
        clusters = int(resampling.trajectory.max()) + 1
        pushed = np.empty((count, len(free)))
        for k in range(count):
            effects = np.sqrt(shared[k]) * rng.normal(size=clusters)
            pushed[k] = (
                slopes(effects[resampling.trajectory] + np.sqrt(own[k]) * rng.normal(size=len(slope))) @ jacobian
            )
        errors = np.sqrt(shared + own) * rng.normal(size=count)
    else:
        scores = slope[:, None] * jacobian
        if resampling.kind == "trajectories":
            together = np.zeros((int(resampling.trajectory.max()) + 1, len(free)))
            np.add.at(together, resampling.trajectory, scores)
            scores = together
        pushed = rng.normal(size=(count, len(free))) @ np.linalg.cholesky(scores.T @ scores).T
        errors = rng.choice(as_new(residual, jacobian), size=count)
    out = np.repeat(theta[None], count, axis=0)
    out[:, free] -= np.linalg.solve(hessian, pushed.T).T
    return np.clip(out, form.lower, form.upper), errors

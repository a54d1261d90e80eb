"""Fit a law to a table of runs: robustly, from many starts, with its resamples, in one batched computation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.errors import InputError
from analysis.identify import require_identifiable
from analysis.laws import FORMS, Array, Chinchilla, Form
from analysis.rows import numbers
from analysis.solve import Solution, log_loss, minimise
from analysis.table import Table
from analysis.uncertainty import Resampling, interval

HUBER_DELTA = 1e-3  # Hoffmann et al. 2022, Sec. 3.3
AGREE = 1e-9  # objectives of two starts closer than this, or than one part in a million, are one optimum
MINIMA = 4  # distinct optima of the full table from which every resample starts
RESAMPLED_ELEMENTS = 4_000_000  # of a [resamples, runs] block, 32 MB
FEW_RUNS = 30


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """loss_nats [n]; interval, [n] low and high, for the law itself, and new_run for the loss a new run would show."""

    loss_nats: Array
    interval: tuple[Array, Array]
    new_run: tuple[Array, Array]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted law and how far to trust it.

    law: parameters as numbers; samples: the same law, one value per resample [R, 1] (None without resamples).
    objective: sum of Huber losses of log residuals. gradient_norm: its largest slope, off the bounds.
    condition: of the Jacobian of log L with columns of unit length. agreement: share of `starts` that ended at the
    objective. residuals [n]: log measured - log predicted; errors [R]: of a new run, one for each of the samples.
    resampling: how intervals were made.
    intervals: 95 % of L0, A, B, alpha, beta and the exponents a, b of N* ~ C^a, D* ~ C^b.
    identifiable: whether the data determine the exponents at all; if not, `reason`. warnings: to be shown with any
    answer.
    """

    table: Table
    form: Form
    law: Chinchilla
    samples: Chinchilla | None
    delta: float
    objective: float
    gradient_norm: float
    condition: float
    starts: int
    agreement: float
    at_bounds: tuple[str, ...]
    residuals: Array
    errors: Array
    resampling: str
    intervals: dict[str, tuple[float, float]]
    identifiable: bool
    reason: str
    warnings: tuple[str, ...]
    seed: int

    @property
    def flops_max(self) -> float:
        """Largest compute that was fitted, as 6ND."""
        return float(self.table.flops_6nd.max())

    @property
    def residual_median(self) -> float:
        """Median absolute relative residual, as a fraction of the loss."""
        return float(np.median(np.abs(np.expm1(self.residuals))))

    @property
    def bootstrap(self) -> int:
        return 0 if self.samples is None else len(np.asarray(self.samples.alpha))

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> Prediction:
        """Loss of runs with their intervals (NaN without resamples); shapes [n] from params and tokens [n]."""
        params, tokens = np.atleast_1d(np.asarray(params, np.float64)), np.atleast_1d(np.asarray(tokens, np.float64))
        loss = self.law.predict(params, tokens)
        if self.samples is None:
            nothing = (np.full(loss.shape, np.nan), np.full(loss.shape, np.nan))
            return Prediction(loss_nats=loss, interval=nothing, new_run=nothing)
        curves = self.samples.predict(params, tokens)
        # Each sample keeps the error drawn with it: where the spread is known poorly, both are wide together.
        new_run = interval(curves * np.exp(self.errors)[:, None])
        return Prediction(loss_nats=loss, interval=interval(curves), new_run=new_run)


def fit(
    table: Table, law: str = Chinchilla.name, *, delta: float = HUBER_DELTA, bootstrap: int = 1000, seed: int = 0
) -> Fit:
    """Fit `law` to a table by the sum over runs of Huber(delta) of log L_hat - log L (Besiroglu et al. 2024, eq. 2).

    Raises InputError for an unknown law, a bad option, and a table that cannot tell the law's parameters.
    """
    if law not in FORMS:
        raise InputError(f"law: {law!r} is unknown; choose one of {', '.join(FORMS)}")
    if not (np.isfinite(delta) and delta > 0):
        raise InputError(f"delta: {delta} is no width of a Huber loss; give a positive number such as 1e-3")
    if bootstrap < 0 or bootstrap == 1:
        raise InputError(f"bootstrap: {bootstrap} resamples make no interval; give 0 for none or 1000")
    params, tokens, loss_nats = table.params, table.tokens, table.loss_nats
    form = FORMS[law].of(params, tokens, loss_nats)
    require_identifiable(params, tokens, free=len(form.names))

    features, target = form.features(params, tokens), np.log(loss_nats)
    starts = form.starts(params, tokens, loss_nats)
    found = minimise(features, target[None], np.ones((1, len(target))), starts, form.lower, form.upper, delta=delta)
    best = int(np.argmin(found.objective))
    theta, objective = found.theta[best], float(found.objective[best])
    if np.array_equal(theta, starts[best]) and found.gradient[best] > 0:
        raise InputError("fit: the optimiser never left its start; the losses or the counts are out of any usual range")
    fitted, jacobian = log_loss(features, theta)
    resampling = Resampling.of(params, table.trajectory, clustered=table.clustered)
    draws, errors = _resample(
        found, features, fitted, target - fitted, jacobian, resampling, form, delta, bootstrap, seed
    )
    result = form.law(theta)
    samples = None if draws is None else form.law(draws)
    at_bounds = _at_bounds(form, theta)
    agreement = float(np.mean(_same(found.objective, objective)))
    intervals = {} if samples is None else _intervals(samples)
    identifiable, reason = _told(form, at_bounds, draws)
    scale = np.linalg.norm(jacobian, axis=0)
    return Fit(
        table=table,
        form=form,
        law=result,
        samples=samples,
        delta=delta,
        objective=objective,
        gradient_norm=float(found.gradient[best]),
        condition=float(np.linalg.cond(jacobian / np.where(scale > 0, scale, 1.0))),
        starts=len(starts),
        agreement=agreement,
        at_bounds=at_bounds,
        residuals=target - fitted,
        errors=errors,
        resampling=resampling.description if bootstrap else "none",
        intervals=intervals,
        identifiable=identifiable,
        reason=reason,
        warnings=_warnings(table, form, found, best, agreement, at_bounds, draws, resampling, reason),
        seed=seed,
    )


def _same(objective: Array, best: float) -> Any:
    return objective <= best + AGREE + 1e-6 * best


def _resample(
    found: Solution,
    features: Array,
    fitted: Array,
    residual: Array,
    jacobian: Array,
    resampling: Resampling,
    form: Form,
    delta: float,
    bootstrap: int,
    seed: int,
) -> tuple[Array | None, Array]:
    """theta [R, K] of every resample, each the best of its solutions from the distinct optima of the full table.

    With them the error [R] of a new run that each resample has.
    """
    if bootstrap == 0:
        return None, np.empty(0)
    minima: list[int] = []
    for candidate in np.argsort(found.objective):
        different = [np.abs(found.theta[candidate] - found.theta[m]).max() > 0.05 for m in minima]
        if all(different) and len(minima) < MINIMA:
            minima.append(int(candidate))
    best, rng = found.theta[minima[0]], np.random.default_rng([seed, 0])
    draws, errors = np.empty((bootstrap, len(form.names))), np.empty(bootstrap)
    block = max(1, RESAMPLED_ELEMENTS // len(fitted))
    for first in range(0, bootstrap, block):
        count = min(block, bootstrap - first)
        drawn = resampling.draw(fitted, residual, jacobian, count=count, rng=rng)
        errors[first : first + count] = drawn.errors
        lowest = np.full(count, np.inf)
        for index in minima:
            start = np.repeat(found.theta[index][None], count, axis=0)
            solved = minimise(features, drawn.targets, drawn.weights, start, form.lower, form.upper, delta=delta)
            better = solved.objective < lowest
            draws[first : first + count][better] = solved.theta[better]
            lowest = np.minimum(lowest, solved.objective)
        own = draws[first : first + count]
        own[:] = np.clip(best + drawn.spread[:, None] * (own - best), form.lower, form.upper)
    return draws, errors


def _intervals(samples: Chinchilla) -> dict[str, tuple[float, float]]:
    values = {**samples.parameters, **samples.exponents}
    ends = {name: interval(np.asarray(value)[:, 0]) for name, value in values.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def _at_bounds(form: Form, theta: Array) -> tuple[str, ...]:
    near = 1e-9
    sides = (("lower", theta <= form.lower + near), ("upper", theta >= form.upper - near))
    return tuple(
        f"{name} at its {side} bound" for side, hit in sides for name, h in zip(form.names, hit, strict=True) if h
    )


def _told(form: Form, at_bounds: tuple[str, ...], draws: Array | None) -> tuple[bool, str]:
    """Whether the exponents are determined, and why not."""
    telling = [bound for bound in at_bounds if not bound.startswith("L0")]
    if telling:
        return False, f"{', '.join(telling)}: the runs do not determine the exponents"
    if draws is not None:
        low, high = interval(draws)
        for k, name in enumerate(form.names):
            if name != "L0" and low[k] <= form.lower[k] + 1e-9 and high[k] >= form.upper[k] - 1e-9:
                return False, f"the interval of {name} is the whole range allowed: the runs do not determine it"
    return True, ""


def _warnings(
    table: Table,
    form: Form,
    found: Solution,
    best: int,
    agreement: float,
    at_bounds: tuple[str, ...],
    draws: Array | None,
    resampling: Resampling,
    reason: str,
) -> tuple[str, ...]:
    warnings = [f"not identifiable: {reason}"] if reason else []
    warnings += [bound for bound in at_bounds if bound not in reason]
    if not found.converged[best]:
        warnings.append(f"the optimiser stopped with a gradient of {found.gradient[best]:.2g}")
    if agreement < 0.2:
        warnings.append(f"only {agreement:.0%} of the starts reached the best objective")
    if draws is not None:
        near = 1e-9
        for k, name in enumerate(form.names):
            share = float(np.mean((draws[:, k] <= form.lower[k] + near) | (draws[:, k] >= form.upper[k] - near)))
            if share >= 0.025:
                warnings.append(f"{share:.0%} of the resamples put {name} at the edge of the range allowed")
    trajectories = int(resampling.trajectory.max()) + 1
    if resampling.kind == "effects" and trajectories < 10:
        warnings.append(f"only {trajectories} trajectories: intervals from so few are approximate")
    if len(table) < FEW_RUNS:
        warnings.append(f"only {len(table)} runs were fitted: take this as a demonstration")
    if "params_embedding" in table.frame:
        share = float(np.max(numbers(table.frame, "params_embedding") / table.params))
        if share > 0.2:  # above it the count of parameters decides the exponent, Pearce & Song 2024, Sec. 3
            warnings.append(f"embeddings are up to {share:.0%} of the parameters: exponents depend on counting them")
    return tuple(warnings)

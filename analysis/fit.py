"""Fit a law to a table of runs: robustly, from many starts, with its resamples, in one batched computation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from analysis.errors import InputError
from analysis.laws import Array, Chinchilla, Law
from analysis.reading.excluded import ExcludedRows
from analysis.reading.rows import ROW, chosen, numbers, refuse_more_unique
from analysis.solving.form import Form, Runs
from analysis.solving.forms import form_of
from analysis.solving.identify import require_identifiable
from analysis.solving.linearised import linearised
from analysis.solving.search import Task, refit, search
from analysis.solving.solve import HUBER_DELTA, Kind, Loss, Residual
from analysis.solving.verdict import bounds_met, told, warnings_of
from analysis.table import Table
from analysis.uncertainty import Resampling, interval, require_resamples

AGREE = 1e-9  # objectives of two starts closer than this, or than one part in a million, are one optimum
ONE_COUNT = {"params": {"A", "alpha"}, "tokens": {"B", "beta"}}  # the terms that runs tell in which one count varies
RESAMPLED_RUNS = 20_000  # beyond, resamples of an estimate are normal to every digit shown, and drawn as such


class Options(TypedDict, total=False):
    """The options of `fit` that a hold-out test passes on; weights is a column, so that it can be split too."""

    loss: Kind
    delta: float
    residual: Residual
    weights: str | None
    fixed: Mapping[str, float] | None


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
    objective: the sum of losses of residuals (`loss` says which). gradient_norm: its largest slope, off the bounds.
    condition: of the Jacobian of log L with columns of unit length. agreement: share of `starts` that ended at the
    objective. residuals [n]: log measured - log predicted; weight [n], of each run in the objective; errors [R]: of the
    log loss of a new run, one for each of the samples. resampling: how intervals were made.
    intervals: 95 % of the law's parameters and of the exponents a, b of N* ~ C^a, D* ~ C^b.
    identifiable: whether the data determine the exponents at all; if not, `reason`. warnings: to be shown with any
    answer. fixed: parameters held at given values.
    """

    table: Table
    form: Form
    law: Law
    samples: Law | None
    loss: Loss
    fixed: Mapping[str, float]
    objective: float
    gradient_norm: float
    condition: float
    starts: int
    agreement: float
    at_bounds: tuple[str, ...]
    residuals: Array
    weight: Array
    errors: Array
    resampling: str
    intervals: dict[str, tuple[float, float]]
    identifiable: bool
    reason: str
    warnings: tuple[str, ...]
    bootstrap: int
    seed: int

    @property
    def flops_max(self) -> float:
        """Largest compute that was fitted, as 6ND."""
        return float(self.table.flops_6nd.max())

    @property
    def residual_median(self) -> float:
        """Median absolute relative residual, as a fraction of the loss."""
        return float(np.median(np.abs(np.expm1(self.residuals))))

    def predict(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike | None = None) -> Prediction:
        """Loss of runs with their intervals (NaN without resamples); shapes [n] from params and tokens [n]."""
        params, tokens = np.atleast_1d(np.asarray(params, np.float64)), np.atleast_1d(np.asarray(tokens, np.float64))
        counts = (params, tokens, *(() if unique_tokens is None else (np.asarray(unique_tokens, np.float64),)))
        if not all(np.all(np.isfinite(count) & (count > 0)) for count in counts):
            raise InputError("predict: parameters and tokens must be finite positive numbers; give counts such as 1e9")
        loss = self.law.predict(params, tokens, unique_tokens)
        if self.samples is None:
            nothing = (np.full(loss.shape, np.nan), np.full(loss.shape, np.nan))
            return Prediction(loss_nats=loss, interval=nothing, new_run=nothing)
        curves = self.samples.predict(params, tokens, unique_tokens)
        # Each sample keeps the error drawn with it: where the spread is known poorly, both are wide together.
        new_run = interval(curves * np.exp(self.errors)[:, None])
        return Prediction(loss_nats=loss, interval=interval(curves), new_run=new_run)


def fit(
    table: Table,
    law: str = Chinchilla.name,
    *,
    loss: Kind = "huber",
    delta: float = HUBER_DELTA,
    residual: Residual = "log",
    weights: str | ArrayLike | None = None,
    fixed: Mapping[str, float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit `law` to a table by the sum over runs of Huber(delta) of log L_hat - log L (Besiroglu et al. 2024, eq. 2).

    law: a key of analysis.solving.forms.FORMS. loss: huber, mse (half squares) or lad (absolute values), of residuals
    in log or in nats. weights: a column of the table, or [n], that multiplies each run's loss. fixed: parameters held
    at a value, such as {"alpha": 0.35}.
    Raises InputError for an unknown law, a bad option, and a table that cannot tell the law's parameters.
    """
    require_resamples(bootstrap, seed)
    table = suited(table, law)
    table, weight = _weighed(table, weights)
    measure = Loss(kind=loss, delta=delta, residual=residual)
    runs = Runs(params=table.params, tokens=table.tokens, loss_nats=table.loss_nats, unique_tokens=table.unique_tokens)
    form = form_of(law).of(runs, fixed)
    held = fixed or {}
    if not form.free:
        raise InputError("fix: every parameter is held, nothing is left to fit; leave one free")
    free = len(form.free)
    left = {*form.apart} & {*form.free}
    if len(left) > 1:
        alone = next((count for count, own in ONE_COUNT.items() if left <= own), None)
        counts = ("params", "tokens") if alone is None else (alone,)
        require_identifiable(runs.params, runs.tokens, free=free, counts=counts)
    elif len(table) <= free:
        raise InputError(f"runs: {len(table)} usable rows cannot fit {free} parameters; give at least one more")
    share = weight / weight.max()
    effective = float(share.sum() ** 2 / (share @ share))
    if effective <= free:
        raise InputError(
            f"weights: as uneven as these, {len(table)} runs tell no more than {effective:.1f} equal ones would, and "
            f"{free} parameters are fitted; give weights of one order of magnitude"
        )
    task = Task(form=form, model=form.model(runs), runs=runs, weight=weight, loss=measure)
    found = search(task, seed)
    best = int(np.argmin(found.objective))
    theta, lowest = found.theta[best], float(found.objective[best])
    if found.steps[best] == 0 and not found.converged[best]:
        raise InputError("fit: the optimiser never left its start; the losses or the counts are out of any usual range")
    fitted, jacobian = task.model.jacobian(theta)
    residuals = np.log(runs.loss_nats) - fitted
    resampling = Resampling.of(runs.params, table.trajectory, clustered=table.clustered)
    jacobian = jacobian[:, form.upper > form.lower]
    draws, errors = None, np.empty(0)
    if bootstrap and len(table) > RESAMPLED_RUNS:
        draws, errors = linearised(task, theta, resampling, count=bootstrap, seed=seed)
    elif bootstrap:
        draws, errors = refit(task, found, resampling, count=bootstrap, seed=seed)
    samples = None if draws is None else form.law(draws)
    at_bounds = bounds_met(form, theta)
    agreement = float(np.mean(found.objective <= lowest + AGREE + 1e-6 * lowest))
    condition = float(np.linalg.cond(jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)))
    intervals = {} if samples is None else _intervals(samples, form)
    identifiable, reason = told(form, at_bounds, draws, intervals.get("a"), condition, jacobian)
    shown = residuals if residual == "log" else runs.loss_nats - np.exp(fitted)
    return Fit(
        table=table,
        form=form,
        law=form.law(theta),
        samples=samples,
        loss=measure,
        fixed=dict(held),
        objective=measure.total(shown, weight),
        gradient_norm=float(found.gradient[best]),
        condition=condition,
        starts=len(found.theta),
        agreement=agreement,
        at_bounds=at_bounds,
        residuals=residuals,
        weight=weight,
        errors=errors,
        resampling=_described(resampling, draws, len(table)),
        intervals=intervals,
        identifiable=identifiable,
        reason=reason,
        warnings=warnings_of(table, form, found, best, agreement, at_bounds, draws, resampling, reason),
        bootstrap=bootstrap,
        seed=seed,
    )


def suited(table: Table, law: str) -> Table:
    """The rows of which this law can say something; the others are left out and listed.

    Raises InputError for an unknown law, where no row is left, and where one claims more unique tokens than tokens.
    """
    if not form_of(law).fits.models_repeats:
        return table
    table = table.needing("unique_tokens")
    refuse_more_unique(table.frame)
    return table


def _described(resampling: Resampling, draws: Array | None, runs: int) -> str:
    if draws is None:
        return "none"
    return resampling.description + (", linearised" if runs > RESAMPLED_RUNS else "")


def _weighed(table: Table, weights: str | ArrayLike | None) -> tuple[Table, Array]:
    """The runs that weigh anything, and their weights [n]; those of weight zero are left out and listed."""
    if weights is None:
        return table, np.ones(len(table))
    if isinstance(weights, str):
        if weights not in table.frame:
            raise InputError(f"weights: {weights!r} is no column of the table; choose one of its columns")
        weight = numbers(table.frame, weights)
    else:
        try:
            weight = np.asarray(weights, np.float64)
        except ValueError:
            weight = np.empty(0)
    good = weight.shape == (len(table),) and bool(np.all(np.isfinite(weight) & (weight >= 0)))
    if not good or not weight.any():
        name = weights if isinstance(weights, str) else "these"
        raise InputError(f"weights: {name} must be one finite number per run, none negative; leave weights out")
    if weight.all():
        return table, weight
    excluded, gone = ExcludedRows.of(table.excluded), chosen(table.frame, weight == 0)
    excluded.add(gone[ROW].to_numpy(np.int64), "weights", np.zeros(len(gone)), "a run of weight zero is no run")
    return replace(table.keep(weight > 0), excluded=excluded), weight[weight > 0]


def _intervals(samples: Law, form: Form) -> dict[str, tuple[float, float]]:
    """Of every parameter and exponent but those held."""
    held = {*form.names} - {*form.free}
    values = {name: value for name, value in {**samples.parameters, **samples.exponents}.items() if name not in held}
    ends = {name: interval(np.asarray(value)[:, 0]) for name, value in values.items() if np.ndim(value) == 2}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}

"""What a planned study will tell: many such studies simulated under a prior law, and all fitted in one batch.

Beside the linearised standard errors (analysis.solving.sandwich) these know that exponents are bounded, that log N* is
no linear function of the data, and that a fit of few runs is no large sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.deciding.planned import Planned
from analysis.deciding.prior import Prior
from analysis.errors import InputError
from analysis.laws import Array
from analysis.solving.form import Form, Runs
from analysis.solving.forms import form_of
from analysis.solving.identify import require_identifiable
from analysis.solving.sandwich import covariance
from analysis.solving.solve import HUBER_DELTA, Loss, minimise
from analysis.solving.targets import LOGARITHMS, quantities, require_interior, slopes
from analysis.solving.verdict import NEAR, SINGULAR
from analysis.solving.widening import resampling_of, widening
from analysis.uncertainty import interval

SIMULATIONS = 1000
MIDDLE = (0.158655, 0.841345)  # of a normal distribution: one standard deviation to either side
BOUNDED = ("L0", "alpha", "beta", "a")  # not below zero
MOST = {"a": 1.0}
FEW = 0.025  # of the simulated studies
FAR = 10.5  # times the largest run
MOST_SAID = 1e4
WIDE = 2.0  # high end of an interval of N* over its low end
FEW_TRAJECTORIES = 10  # as analysis.solving.verdict warns


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Of one quantity: its value under the prior law, the standard error to expect and its linearised form (of N*, D*
    and loss: of the logarithm), and the ends of the 95 % interval to expect.

    The standard error is half the width of the middle 68 % of the errors: a standard deviation where they are normal,
    and not that of a few studies in which an exponent is at its bound where they are not.
    """

    name: str
    value: float
    standard_error: float
    linearised: float
    interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A design of `runs` runs in `trajectories`, for the budget `flops`. rows: what is expected of every quantity.

    untold: share of the simulated studies whose exponents ended at a bound. warnings: to be shown with any answer.
    """

    flops: float
    runs: int
    trajectories: int
    largest_flops: float
    simulations: int
    rows: tuple[Expectation, ...]
    untold: float
    warnings: tuple[str, ...]

    def __getitem__(self, name: str) -> Expectation:
        return next(row for row in self.rows if row.name == name)


def expected(
    planned: Planned, prior: Prior, flops: float, *, simulations: int = SIMULATIONS, seed: int = 0
) -> Expected:
    """What a fit of the planned runs will tell of the law and its optimum at `flops`, by simulated studies.

    Each has a law of its own drawn from the prior. Raises InputError, with the reason, for a design that cannot tell
    the law, a law without an optimum, and a budget below the runs.
    """
    if simulations < 50:
        raise InputError(f"simulations: {simulations} tell no interval; give at least 50")
    form, runs = form_at(planned, prior)
    require_target(planned, prior, flops)
    require_identifiable(planned.params, planned.tokens, free=len(form.names))
    model, rng = form.model(runs), np.random.default_rng([seed, 4])
    _require_told(form, model.jacobian(form.theta(prior.law))[1])
    theta = prior.laws(form, simulations, rng)
    targets = model.log_loss(theta)[0] + prior.noise.draw(planned.trajectory, simulations, rng)
    ones = np.ones((1, len(planned)))
    found = minimise(model, targets, ones, theta, form.lower, form.upper, loss=Loss()).theta
    truth, told = quantities(form.law(theta), flops), quantities(form.law(found), flops)
    middle = {name: float(value) for name, value in quantities(prior.law, flops).items()}
    straight = linearised(form, runs, planned, prior, flops)
    at = form.theta(prior.law)[None]
    along = {name: slope[0] for name, slope in slopes(form, at, flops).items()}
    wider = widening(planned, prior.noise, model.jacobian(at[0])[1], targets - model.log_loss(found)[0], along, seed)
    rows = []
    for name, value in middle.items():
        errors = (told[name] - truth[name])[:, 0]
        low, high = (float(value + wider[name] * end) for end in interval(errors))
        low, high = (min(max(end, 0.0), MOST.get(name, np.inf)) if name in BOUNDED else end for end in (low, high))
        if name in LOGARITHMS:
            value, low, high = (float(np.exp(min(x, 690.0))) for x in (value, low, high))
        rows.append(
            Expectation(
                name=name,
                value=value,
                standard_error=float(np.diff(np.quantile(errors, MIDDLE))[0]) / 2,
                linearised=straight[name],
                interval=(low, high),
            )
        )
    telling = [name in form.telling for name in form.names]
    at_bound = (found <= form.lower + NEAR) | (found >= form.upper - NEAR)
    untold = float(np.mean(np.any(at_bound & telling, axis=1)))
    return Expected(
        flops=float(flops),
        runs=len(planned),
        trajectories=planned.trajectories,
        largest_flops=float(planned.flops.max()),
        simulations=simulations,
        rows=tuple(rows),
        untold=untold,
        warnings=_warnings(planned, rows, flops, untold),
    )


def form_at(planned: Planned, prior: Prior) -> tuple[Form, Runs]:
    """The coordinates of the prior's law for these runs, and the runs with the losses that it predicts."""
    loss = np.asarray(prior.law.predict(planned.params, planned.tokens), np.float64)
    runs = Runs(params=planned.params, tokens=planned.tokens, loss_nats=loss)
    return form_of(prior.law.name).of(runs), runs


def linearised(form: Form, runs: Runs, planned: Planned, prior: Prior, flops: float) -> Mapping[str, float]:
    """Standard errors by the delta method at the prior's law."""
    theta = form.theta(prior.law)
    jacobian = form.model(runs).jacobian(theta)[1]
    spread = covariance(jacobian, planned.trajectory, prior.noise, HUBER_DELTA)
    return {name: float(np.sqrt(s[0] @ spread @ s[0])) for name, s in slopes(form, theta[None], flops).items()}


def require_target(planned: Planned, prior: Prior, flops: float) -> None:
    """Raise InputError for a budget below the runs, and one at which the law has no optimum."""
    least = float(planned.flops.min())
    if flops < least:
        raise InputError(
            f"flops: {flops:.3g} lies below the smallest run, {least:.3g} FLOPs (6ND); give a budget to extrapolate to"
        )
    require_interior(prior.law, flops)


def _require_told(form: Form, jacobian: Array) -> None:
    scaled = jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    if not np.linalg.cond(scaled) <= SINGULAR:
        flat = np.abs(np.linalg.svd(scaled, full_matrices=False)[2][-1])
        one, other = (form.names[k] for k in np.argsort(-flat)[:2])
        raise InputError(
            f"runs: {one} and {other} trade for each other under this law; add runs of other sizes and token counts"
        )


def _warnings(planned: Planned, rows: list[Expectation], flops: float, untold: float) -> tuple[str, ...]:
    found = []
    by_name = {row.name: row for row in rows}
    low, high = by_name["a"].interval
    if not 0 < low <= high < 1:
        found.append("the interval of a is not within 0 to 1: these runs will not tell how N* grows")
    if untold >= FEW:
        found.append(f"in {untold:.0%} of the simulated studies an exponent ends at the bound of its range")
    reach = flops / float(planned.flops.max())
    if reach > FAR:
        found.append(f"{reach:.3g} x beyond the largest run: that the law holds so far is not in these intervals")
    low, high = by_name["N*"].interval
    if high > WIDE * low:
        factor = f"{high / low:.2g}" if high < MOST_SAID * low else f"more than {MOST_SAID:,.0f}"
        found.append(f"N* will be known within a factor of {factor} only")
    if resampling_of(planned).kind == "effects" and planned.trajectories < FEW_TRAJECTORIES:
        found.append(f"only {planned.trajectories} trajectories: intervals from so few are approximate")
    return tuple(found)

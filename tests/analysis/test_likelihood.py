"""Profile intervals against closed forms, a constrained fit by another solver, and the bootstrap."""

import numpy as np
import pytest
from scipy.stats import t as student

from analysis import InputError, fit, read
from analysis.likelihood import Problem, profile_likelihood, spread, trace
from analysis.solving.form import Runs
from analysis.solving.solve import minimise
from analysis.uncertainty import interval


def linear(design, target, contrast, *, delta=1e6, width=1e3):
    median = delta < 1  # of the target, for a design of one column of ones
    theta = np.array([np.median(target)]) if median else np.linalg.lstsq(design, target, rcond=None)[0]
    return Problem(
        residuals=lambda many: many @ design.T - target,
        quantity=lambda many: many @ contrast,
        theta=theta,
        lower=theta - width,
        upper=theta + width,
        delta=delta,
        weight=np.ones(len(target)),
    )


def test_least_squares_on_a_line_is_the_t_interval():
    rng = np.random.default_rng(0)
    design = np.column_stack([np.ones(20), np.linspace(-1, 2, 20)])
    target, contrast = design @ [1.0, 0.5] + 0.1 * rng.normal(size=20), np.array([0.3, 2.0])
    problem = linear(design, target, contrast)
    critical = float(student.ppf(0.975, 18)) ** 2
    curve = trace(problem, critical)
    residual = design @ problem.theta - target
    error = float(np.sqrt(contrast @ np.linalg.inv(design.T @ design) @ contrast))
    half = np.sqrt(critical) * spread(residual, 2) * error
    centre = float(contrast @ problem.theta)
    assert curve.ends == pytest.approx((centre - half, centre + half), abs=2e-3 * float(half))
    assert curve.open == (False, False)


def test_least_absolute_deviations_is_the_interval_of_a_median():
    target = np.random.default_rng(1).normal(size=2000)
    curve = trace(linear(np.ones((2000, 1)), target, np.ones(1), delta=1e-3), 1.96**2)
    low, high = np.sort(target)[[956, 1043]]  # order statistics: 1000 -+ 0.98 sqrt(2000)
    assert curve.ends[1] - curve.ends[0] == pytest.approx(high - low, rel=0.15)
    assert curve.ends[0] < np.median(target) < curve.ends[1]


def test_an_end_beyond_the_box_is_open():
    rng = np.random.default_rng(0)
    target = rng.normal(size=30)
    curve = trace(linear(np.ones((30, 1)), target, np.ones(1), width=0.1), 1.96**2)
    assert curve.open == (True, True)
    assert curve.ends == pytest.approx((target.mean() - 0.1, target.mean() + 0.1), abs=8e-3)


def test_spread_is_that_of_the_errors_and_ignores_outliers():
    errors = 0.01 * np.random.default_rng(2).normal(size=4000)
    assert spread(errors, 5) == pytest.approx(0.01, rel=0.03)
    errors[:200] = 5.0
    assert spread(errors, 5) == pytest.approx(0.01, rel=0.2)


def test_held_fits_are_those_of_the_batched_solver(branched):
    """alpha held by the solver's own box instead, from all of its starts."""
    fitted = fit(branched(), bootstrap=0)
    curve = profile_likelihood(fitted, "alpha")
    form, table = fitted.form, fitted.table
    runs = Runs(params=table.params, tokens=table.tokens, loss_nats=table.loss_nats)
    target, weights = np.log(table.loss_nats)[None], np.ones((1, len(table)))
    ratios = []
    for value, statistic in zip(curve.values, curve.statistic, strict=True):
        if statistic > 0.1:
            lower, upper = form.lower.copy(), form.upper.copy()
            lower[3] = upper[3] = value
            found = minimise(form.model(runs), target, weights, form.starts(runs), lower, upper, loss=fitted.loss)
            ratios.append(statistic / (found.objective.min() - fitted.objective))
    assert len(ratios) > 5
    np.testing.assert_allclose(ratios, ratios[0], rtol=5e-3)


@pytest.mark.parametrize("quantity", ["L0", "a", "params"])
def test_profile_and_bootstrap_agree(branched, quantity):
    fitted = fit(branched(seed=4), bootstrap=200)
    assert fitted.samples is not None
    budget = 10 * fitted.flops_max if quantity == "params" else None
    found = profile_likelihood(fitted, quantity, flops=budget)
    ends = interval(fitted.samples.optimum(budget).params[:, 0]) if budget else fitted.intervals[quantity]
    scale = np.log if budget else np.asarray
    low, high = scale(found.interval)
    assert low < scale(found.estimate) < high
    assert 0.6 < (high - low) / (scale(ends[1]) - scale(ends[0])) < 1.6
    assert "trajectory" in found.assumes


@pytest.mark.parametrize(
    ("quantity", "flops", "cause"), [("gamma", None, "quantity"), ("params", None, "flops"), ("alpha", 1e21, "flops")]
)
def test_bad_quantities_are_named(branched, quantity, flops, cause):
    with pytest.raises(InputError, match=cause):
        profile_likelihood(fit(branched(), bootstrap=0), quantity, flops=flops)


@pytest.mark.parametrize("quantity", ["alpha", "beta", "a"])
def test_besiroglu_by_profile_and_by_rows(reference, quantity):
    """Two methods with nothing in common but the objective; errors of this table differ in spread from row to row."""
    fitted = fit(read(reference / "epoch_chinchilla.csv", where={"besiroglu_excluded": "False"}), bootstrap=1000)
    found = profile_likelihood(fitted, quantity)
    low, high = fitted.intervals[quantity]
    assert 1 / 1.4 < (found.interval[1] - found.interval[0]) / (high - low) < 1.4
    assert abs(found.interval[0] - low) < 0.35 * (high - low)
    assert abs(found.interval[1] - high) < 0.35 * (high - low)


def test_held_parameters_stay_held_and_other_laws_have_profiles(branched, planted):
    held = fit(branched(), fixed={"alpha": planted.alpha}, bootstrap=0)
    assert profile_likelihood(held, "alpha").interval == (planted.alpha, planted.alpha)
    low, high = profile_likelihood(held, "beta").interval
    assert low < planted.beta < high
    equal = profile_likelihood(fit(branched(), "equal", bootstrap=0), "alpha")
    assert equal.interval[0] < equal.estimate < equal.interval[1]

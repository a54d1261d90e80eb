"""Power laws against numpy's polyfit and planted constants; resamples at once as one by one."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from analysis.errors import InputError
from analysis.profiles.powerlaw import Frontier, LossLaw, PowerLaw, loss_law, power_law, unexplained

FLOPS = np.geomspace(1e18, 1e22, 7)


def noisy(seed=0):
    rng = np.random.default_rng(seed)
    return 0.1 * FLOPS**0.5 * np.exp(0.1 * rng.normal(size=(5, 7))), rng.uniform(0.2, 3.0, size=(5, 7))


def test_weighted_least_squares_is_polyfit():
    values, weights = noisy()
    found = power_law(FLOPS, values, weights)
    for k in range(5):
        slope, constant = np.polyfit(np.log(FLOPS), np.log(values[k]), 1, w=np.sqrt(weights[k]))
        assert found.exponent[k, 0] == pytest.approx(slope, rel=1e-9)
        assert found.log_coefficient[k, 0] == pytest.approx(constant, rel=1e-9)
        alone = power_law(FLOPS, values[k], weights[k])
        assert (alone.exponent, alone.log_coefficient) == pytest.approx((slope, constant), rel=1e-9)


def test_missing_points_are_left_out_and_one_budget_gives_nothing():
    values, _ = noisy()
    values[0, 2:4] = np.nan
    values[1, 1:] = np.nan
    found = power_law(FLOPS, values)
    kept = [0, 1, 4, 5, 6]
    slope = np.polyfit(np.log(FLOPS[kept]), np.log(values[0, kept]), 1)[0]
    assert found.exponent[0, 0] == pytest.approx(slope, rel=1e-9)
    assert np.isnan(found.exponent[1, 0])


@pytest.mark.parametrize(("l0", "c"), [(1.8, 0.18), (0.0, 0.05), (0.6, 0.4)])
def test_loss_law_recovers_planted_constants(l0, c):
    losses = l0 + 3.0 * (FLOPS / FLOPS[0]) ** -c
    found = loss_law(FLOPS, losses)
    assert found.c == pytest.approx(c, rel=2e-3, abs=1e-4)
    assert pytest.approx(l0, abs=5e-3) == found.L0
    assert found(1e24) == pytest.approx(l0 + 3.0 * (1e24 / FLOPS[0]) ** -c, rel=3e-3)


def test_loss_law_of_noisy_optima_is_scipys():
    rng = np.random.default_rng(1)
    losses = (1.8 + 2.0 * (FLOPS / 1e20) ** -0.2) * np.exp(0.002 * rng.normal(size=7))
    best, _ = curve_fit(lambda x, l0, k, c: l0 + k * (x / 1e20) ** -c, FLOPS, losses, p0=(1.5, 2.0, 0.2), sigma=losses)
    found = loss_law(FLOPS, losses)
    assert found.c == pytest.approx(best[2], rel=2e-3)
    assert pytest.approx(best[0], rel=2e-3) == found.L0


def test_three_optima_tell_no_irreducible_loss():
    found = loss_law(FLOPS[:3], 3.0 * FLOPS[:3] ** -0.05)
    assert found.L0 == 0
    assert found.c == pytest.approx(0.05, rel=1e-3)


def test_unexplained_scatter_is_what_makes_chi_square_one():
    values, _ = noisy()
    sds = np.full(7, 0.02)
    ratio, extra = unexplained(FLOPS, values[0], sds)
    rest = np.log(values[0] / power_law(FLOPS, values[0])(FLOPS))
    assert ratio == pytest.approx(np.sqrt((rest**2).sum() / 5) / 0.02)  # equal sds: the plain line
    assert extra**2 + 0.02**2 == pytest.approx((rest**2).sum() / 5)
    assert unexplained(FLOPS, values[0], np.full(7, 10.0))[1] == 0.0


def test_frontier_round_trips_and_refuses_bad_budgets():
    frontier = Frontier(
        params=PowerLaw(log_coefficient=-2.0, exponent=0.5),
        tokens=PowerLaw(log_coefficient=0.2, exponent=0.5),
        loss=LossLaw(L0=1.8, log_k=7.0, c=0.17),
    )
    assert Frontier.from_numbers(frontier.numbers[0]) == frontier
    assert frontier.optimum(1e20).params == pytest.approx(np.exp(-2.0) * 1e10)
    for budget in (0.0, np.nan, -1.0, np.inf):
        with pytest.raises(InputError, match="flops"):
            frontier.optimum(budget)

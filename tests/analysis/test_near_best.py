"""Optimum, epsilon-range and waste of every law, against brute force and closed forms."""

import numpy as np
import pytest

from analysis import InputError, fit
from analysis.deciding.near_best import near_best, sizes_within, wasted
from analysis.laws import Chinchilla, EqualExponent
from analysis.multiplier import compute_for
from analysis.rivals import BrokenCompute, Coupled, Interaction, Kaplan, Repeats
from analysis.solving.forms import FORMS

EPSILON = 0.01
# law, unique tokens
CASES = {
    "chinchilla": (Chinchilla(A=482.0, B=2085.0, L0=1.8, alpha=0.348, beta=0.366), None),
    "equal": (EqualExponent(A=482.0, B=2085.0, L0=1.8, alpha=0.35), None),
    "coupled": (Coupled(A=482.0, B=2085.0, L0=1.8, alpha=0.348, beta=0.366, gamma=0.8), None),
    "kaplan": (Kaplan(N_c=6.4e13, D_c=1.8e13, alpha=0.076, beta=0.103), None),
    "interaction": (Interaction(A=482.0, B=2085.0, L0=1.8, alpha=0.348, beta=0.366, kappa=0.03), None),
    "broken": (
        BrokenCompute(L0=1.7, F=500.0, c0=0.15, c1=0.05, C_b=1e20, f=1.0, G=0.1, alpha=0.35, beta=0.37),
        None,
    ),
    "repeats": (Repeats(A=482.0, B=2085.0, L0=1.8, alpha=0.348, beta=0.366, R_D=15.4, R_N=5.3), None),
    "repeats, limited": (Repeats(A=482.0, B=2085.0, L0=1.8, alpha=0.348, beta=0.366, R_D=15.4, R_N=5.3), 3e9),
}
BUDGETS = np.array([1e19, 1e21])


def brute(law, budget, unique):
    """Best loss and the range within EPSILON of it, by scanning log N ever more finely; it knows nothing of the law."""

    def loss(log_n):
        return law.predict(np.exp(log_n), budget / 6 / np.exp(log_n), unique)

    low, high = 0.0, np.log(budget / 6)
    grid, best = np.zeros(1), 0
    for _ in range(12):
        grid = np.linspace(low, high, 2001)
        best = int(np.argmin(loss(grid)))
        low, high = grid[max(best - 2, 0)], grid[min(best + 2, 2000)]
    lowest, at = float(loss(grid[best])), float(grid[best])
    ends = []
    for far in (0.0, np.log(budget / 6)):
        left, right = far, at
        for _ in range(6):
            grid = np.linspace(left, right, 2001)
            last = int(np.flatnonzero(loss(grid) > lowest + EPSILON)[-1])
            left, right = grid[last], grid[last + 1]
        ends.append(np.exp(0.5 * (left + right)))
    return np.exp(at), lowest, ends


def test_every_law_is_tried_here():
    assert {law.name for law, _ in CASES.values()} == set(FORMS)


@pytest.mark.parametrize("name", CASES)
def test_optimum_and_range_are_those_of_brute_force(name):
    law, unique = CASES[name]
    best = law.optimum(BUDGETS, unique)
    low, high = sizes_within(law, BUDGETS, EPSILON, unique)
    for i, budget in enumerate(BUDGETS):
        size, loss, ends = brute(law, budget, unique)
        assert float(best.loss_nats[i]) == pytest.approx(loss, rel=1e-12)
        assert float(best.params[i]) == pytest.approx(size, rel=1e-6)
        assert float(low[i]) == pytest.approx(ends[0], rel=1e-6)
        assert float(high[i]) == pytest.approx(ends[1], rel=1e-6)


@pytest.mark.parametrize("name", ["chinchilla", "coupled", "broken", "repeats, limited"])
def test_compute_for_a_loss_is_the_inverse_of_the_frontier(name):
    law, unique = CASES[name]
    losses = law.optimum(BUDGETS, unique).loss_nats
    assert compute_for(law, losses, unique) == pytest.approx(BUDGETS, rel=1e-6)
    assert np.isinf(compute_for(law, np.array([0.5 * float(law.parameters["L0"])]), unique)).all()


def test_waste_is_that_of_the_closed_form():
    """Along Chinchilla's frontier L - L0 ~ C^-(alpha beta / (alpha + beta)) (Hoffmann et al. 2022, eq. 4)."""
    law, _ = CASES["chinchilla"]
    best = law.optimum(BUDGETS)
    excess, share = wasted(law, 3 * best.params, BUDGETS)
    loss = law.predict(3 * best.params, best.tokens / 3)
    assert excess == pytest.approx(loss - best.loss_nats, rel=1e-9)
    c = 0.348 * 0.366 / (0.348 + 0.366)
    assert 1 - share == pytest.approx(((loss - 1.8) / (best.loss_nats - 1.8)) ** (-1 / c), rel=1e-9)


def test_rows_of_a_fit(branched):
    fitted = fit(branched(), bootstrap=60)
    (row,) = near_best(fitted, [1e13], within_nats=0.02)
    best = fitted.law.optimum(1e13)
    assert row.params_low < float(best.params) < row.params_high
    for size in (row.params_low, row.params_high):
        assert float(fitted.law.predict(size, 1e13 / 6 / size)) == pytest.approx(float(best.loss_nats) + 0.02, rel=1e-9)
    assert [w.factor for w in row.wrong] == [0.25, 0.5, 2.0, 4.0]
    assert row.wrong[0].wasted > row.wrong[1].wasted > 0
    assert row.likely_wasted is not None
    assert 0 < row.likely_wasted < 1
    (bare,) = near_best(fit(branched(), bootstrap=0), [1e13])
    assert bare.likely_wasted is None
    assert bare.likely_excess_nats is None


@pytest.mark.parametrize("within", [0.0, -0.01, float("nan"), float("inf")])
def test_a_bad_epsilon_is_named(branched, within):
    with pytest.raises(InputError, match=r"^within: "):
        near_best(fit(branched(), bootstrap=0), [1e13], within_nats=within)


def test_where_every_size_is_as_good_the_ends_are_those_of_the_budget():
    law = Chinchilla(A=1e-6, B=1e-6, L0=1.8, alpha=0.3, beta=0.3)
    low, high = sizes_within(law, np.array([1e12]), EPSILON)
    assert low == pytest.approx(1)
    assert high == pytest.approx(1e12 / 6)

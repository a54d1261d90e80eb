"""Optima of a fit: consistent with the law, with ordered intervals, extrapolation marked."""

import math
from dataclasses import replace

import numpy as np
import pytest

from analysis import InputError, fit, optimal
from analysis.optimal import row_warnings
from analysis.rivals import Interaction


def test_rows(branched):
    fitted = fit(branched(), bootstrap=100)
    rows = optimal(fitted)
    assert [row.extrapolation for row in rows] == pytest.approx([1, 10, 100])
    for row in rows:
        assert 6 * row.params * row.tokens == pytest.approx(row.flops)
        assert row.loss_nats == pytest.approx(float(fitted.law.predict(row.params, row.tokens)))
        for ends in (row.params_interval, row.tokens_interval, row.loss_interval):
            assert ends is not None
            assert ends[0] < ends[1]
        assert row.params_interval is not None
        assert row.tokens_interval is not None
        for low, high in zip(row.params_interval, reversed(row.tokens_interval), strict=True):
            assert 6 * low * high == pytest.approx(row.flops)  # one budget at both ends
    widths = [math.log(row.params_interval[1] / row.params_interval[0]) for row in rows if row.params_interval]
    assert widths == sorted(widths)


def test_optimum_of_the_planted_law(branched, planted):
    (row,) = optimal(fit(branched(row=0.0, trajectory=0.0), bootstrap=0), [1e15])
    assert row.params == pytest.approx(float(planted.optimum(1e15).params), rel=1e-4)
    assert row.params_interval is None


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_budgets(branched, budget):
    with pytest.raises(InputError, match="flops"):
        optimal(fit(branched(), bootstrap=0), [budget])


def test_a_law_without_a_best_size_is_refused(branched):
    """kappa >= beta: a larger model learns so much more from a token that no size is the best."""
    fitted = fit(branched(), bootstrap=0)
    endless = Interaction(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.05, kappa=0.3)
    with pytest.raises(InputError, match=r"^flops: at 1e\+13 the fitted law 'interaction' has no best size"):
        optimal(replace(fitted, law=endless), [1e13])


def test_resamples_without_a_best_size_leave_no_interval(branched):
    fitted = fit(branched(), bootstrap=100)
    kappa = np.where(np.arange(100) < 10, 0.7, 0.0)[:, None]
    some = Interaction(A=np.full((100, 1), 30.0), B=4e3, L0=1.1, alpha=0.4, beta=0.6, kappa=kappa)
    (row,) = optimal(replace(fitted, samples=some), [1e13])
    assert row.params_interval is None
    assert row.loss_interval is None
    assert "no interval is given" in row_warnings([row], resampled=True)[0]


def test_where_the_budget_lies(branched):
    fitted = fit(branched(), bootstrap=0)
    low, high = fitted.table.flops_6nd.min(), fitted.flops_max
    rows = optimal(fitted, [low / 20, low, high, 3 * high])
    assert [row.where for row in rows] == ["20 x below", "within", "within", "3 x beyond"]
    assert "below the smallest run" in row_warnings(rows, resampled=True)[0]

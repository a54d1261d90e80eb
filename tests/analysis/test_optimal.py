"""Optima of a fit: consistent with the law, with ordered intervals, extrapolation marked."""

import math

import pytest

from analysis import InputError, fit, optimal


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

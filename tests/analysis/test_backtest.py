"""Held-out runs are those of largest compute, are not fitted, and are predicted."""

import pytest

from analysis import InputError, backtest


def test_the_largest_run_is_held_out_and_predicted(branched):
    table = branched()
    result = backtest(table, bootstrap=200)
    (row,) = result.rows
    assert row.flops == table.flops_6nd.max()
    assert len(result.fit.table) == 17
    assert row.run not in set(result.fit.table.frame["run_id"])
    assert row.relative_error == pytest.approx(row.predicted / row.measured - 1)
    assert result.mean_relative_error == result.max_relative_error == abs(row.relative_error) < 0.05
    assert row.interval is not None
    assert row.covered == (row.interval[0] <= row.measured <= row.interval[1])


def test_an_exact_law_is_predicted_exactly(branched):
    assert backtest(branched(row=0.0, trajectory=0.0), holdout=3, bootstrap=0).max_relative_error < 1e-6


def test_replicas_are_held_out_together(branched):
    assert len(backtest(branched(seeds=2), bootstrap=0).rows) == 2


@pytest.mark.parametrize("holdout", [0, 18, 14])
def test_too_much_held_out(branched, holdout):
    with pytest.raises(InputError):
        backtest(branched(), holdout=holdout, bootstrap=0)

"""Held-out runs are those of largest compute, are not fitted, and are predicted."""

import numpy as np
import pytest

from analysis import InputError, backtest, from_frame
from analysis.backtest import rolling


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


def test_a_share_is_held_out_by_compute(branched):
    table = branched()
    result = backtest(table, holdout=0.2, bootstrap=0)
    assert len(result.rows) == 4  # a fifth of 18 runs, and one that ties with the smallest of them
    with pytest.raises(InputError, match=r"holdout: 1\.5 of 18 runs"):
        backtest(table, holdout=1.5)


def test_the_planted_law_extrapolates_best(branched_frame):
    """Runs of Chinchilla's law, predicted by it and by Kaplan's form, which has no irreducible loss."""
    sizes, tokens = tuple(np.geomspace(2e4, 1e6, 6)), tuple(np.geomspace(5e5, 2e7, 6))
    table = from_frame(branched_frame(row=0.002, trajectory=0.0, sizes=sizes, tokens=tokens))
    origins, standings = rolling(table, ["kaplan", "chinchilla"], bootstrap=40)
    assert [standing.law for standing in standings] == ["chinchilla", "kaplan"]
    assert standings[0].mean_relative_error < 0.01
    assert len({origin.flops for origin in origins}) == 5
    first = origins[0]
    compute = np.sort(table.flops_6nd)
    assert first.flops == compute[first.fitted - 1]
    assert first.fitted + first.predicted == len(table)
    assert first.reach == pytest.approx(compute[-1] / first.flops)


def test_a_law_that_cannot_be_fitted_says_why(branched):
    table = branched(sizes=(2e4, 5e4, 1.1e5, 2.3e5))
    origins, standings = rolling(table, ["chinchilla", "broken"], bootstrap=0)
    assert {standing.law for standing in standings} >= {"chinchilla"}
    refused = [origin for origin in origins if origin.reason]
    assert any("usable rows cannot fit 8" in origin.reason for origin in refused)
    assert all(origin.mean_relative_error is None for origin in refused)

"""Resampling: which kind, that no size is lost, and that intervals cover."""

import numpy as np
import pytest

from analysis import fit, from_frame
from analysis.uncertainty import Resampling, interval


def of(table):
    return Resampling.of(table.params, table.trajectory, clustered=table.clustered)


def test_the_design_chooses_the_resampling(branched, branched_frame):
    assert of(branched()).kind == "wild"
    assert of(branched(seeds=3)).kind == "trajectories"
    assert of(from_frame(branched_frame().drop(columns=["trajectory", "run_id"]))).kind == "rows"


@pytest.mark.parametrize("seeds", [1, 3])
def test_no_resample_loses_a_size(branched, branched_frame, seeds):
    independent = from_frame(branched_frame(seeds=seeds).drop(columns=["trajectory", "run_id"]))
    for table in (independent, branched(seeds=3)):
        resampling, zeros = of(table), np.zeros(len(table))
        drawn = resampling.draw(zeros, zeros, zeros, free=5, count=500, rng=np.random.default_rng(0))
        for size in np.unique(table.params):
            assert (drawn.weights[:, table.params == size].sum(axis=1) > 0).all()
        if resampling.kind == "rows":
            assert (drawn.weights.sum(axis=1) == len(table)).all()


def test_trajectories_stay_whole(branched):
    table = branched(seeds=3)
    zeros = np.zeros(len(table))
    drawn = of(table).draw(zeros, zeros, zeros, free=5, count=50, rng=np.random.default_rng(0))
    for name in set(table.trajectory):
        own = drawn.weights[:, [t == name for t in table.trajectory]]
        assert (own == own[:, :1]).all()


def test_wild_resamples_move_a_trajectory_together(branched):
    table = branched()
    errors = np.random.default_rng(1).normal(size=len(table))
    drawn = of(table).draw(np.zeros(len(table)), errors, errors, free=5, count=40, rng=np.random.default_rng(0))
    ratio = drawn.targets / errors
    for name in set(table.trajectory):
        own = ratio[:, [t == name for t in table.trajectory]]
        np.testing.assert_allclose(own, own[:, :1] * np.ones_like(own), rtol=1e-12)


def test_errors_of_a_mean_have_its_known_leverage():
    residual = np.array([1.0, -1.0, 2.0, -2.0])
    resampling = Resampling.of(np.arange(4.0), list("abcd"), clustered=False)
    np.testing.assert_allclose(resampling.errors(residual, np.ones((4, 1))), residual / np.sqrt(0.75))


def test_interval_is_a_percentile():
    low, high = interval(np.arange(1001.0))
    assert (float(low), float(high)) == pytest.approx((25.0, 975.0))


def test_intervals_cover_in_a_branched_study(branched, planted):
    """A short form, 40 studies: nominal 95 %; residuals flipped as they are, a naive wild bootstrap, gave 65 %."""
    hits = []
    for seed in range(40):
        fitted = fit(branched(seed=seed), bootstrap=120, seed=seed)
        for name, truth in (("alpha", 0.4), ("beta", 0.6), ("a", 0.6)):
            low, high = fitted.intervals[name]
            hits.append(low <= truth <= high)
    assert np.mean(hits) >= 0.85

"""Resampling: which kind, that no size is lost, and that draws vary as known estimators do."""

import numpy as np
import pandas as pd
import pytest

from analysis import InputError, backtest, compare, envelope, fit, from_frame, isoflop, rolling
from analysis.curves import from_table
from analysis.uncertainty import Resampling, as_new, interval


def of(table):
    return Resampling.of(table.params, table.trajectory, clustered=table.clustered)


def independent(branched_frame, *, seeds=1):
    return from_frame(branched_frame(seeds=seeds).drop(columns=["trajectory", "run_id"]))


def draw(resampling, residual, *, count, free=5):
    """Resamples of a fit that absorbed nothing."""
    jacobian = np.zeros((len(residual), free))
    return resampling.draw(residual, jacobian, count=count, rng=np.random.default_rng(0))


def test_the_design_chooses_the_resampling(branched, branched_frame):
    assert of(branched()).kind == "effects"
    assert of(branched(seeds=3)).kind == "trajectories"
    assert of(independent(branched_frame)).kind == "residuals"
    assert of(independent(branched_frame, seeds=6)).kind == "rows"
    assert "random effect for each of 5 trajectories" in of(branched()).description


@pytest.mark.parametrize(
    ("options", "message"),
    [({"bootstrap": 1}, "bootstrap: 1 resamples make no interval"), ({"bootstrap": 2.5}, "bootstrap: 2.5 resamples"),
     ({"bootstrap": -1}, "bootstrap: -1 resamples"), ({"seed": -1}, "seed: -1 is no seed")],
)  # fmt: skip
def test_every_method_refuses_resamples_that_are_none(branched, options, message):
    table = branched()
    fitted = fit(table, bootstrap=0)
    for method in (fit, backtest, rolling, isoflop):
        with pytest.raises(InputError, match=message):
            method(table, **options)
    with pytest.raises(InputError, match=message):
        envelope(from_table(table), **options)
    with pytest.raises(InputError, match=message):
        compare(fitted, None, **options)


def test_no_resample_loses_a_size(branched, branched_frame):
    for table in (independent(branched_frame, seeds=6), branched(seeds=3)):
        resampling = of(table)
        drawn = draw(resampling, np.zeros(len(table)), count=500)
        for size in np.unique(table.params):
            assert (drawn.weights[:, table.params == size].sum(axis=1) > 0).all()
        if resampling.kind == "rows":
            assert (drawn.weights.sum(axis=1) == len(table)).all()


def test_trajectories_stay_whole(branched):
    table = branched(seeds=3)
    drawn = draw(of(table), np.zeros(len(table)), count=50)
    for name in set(table.trajectory):
        own = drawn.weights[:, [t == name for t in table.trajectory]]
        assert (own == own[:, :1]).all()


def test_trajectories_within_a_size_vary_as_their_mean_does():
    """The weighted mean of m = 3 values has the variance s^2 / m, though m - 1 are drawn."""
    values = np.array([1.0, 2.0, 6.0] * 5)
    names = [f"t{i}" for i in range(15) for _ in range(2)]
    resampling = Resampling.of(np.repeat(np.arange(5.0), 6), names, clustered=True)
    weights = draw(resampling, np.zeros(30), count=20_000).weights[:, ::2]
    means = (weights * values)[:, :3].sum(axis=1) / 3
    assert means.mean() == pytest.approx(3.0, abs=0.03)
    assert means.var() == pytest.approx(np.var(values[:3], ddof=1) / 3, rel=0.03)


def test_variances_are_those_of_the_one_way_layout():
    """200 trajectories of 4 rows: the analysis of variance gives own = MSW and shared = (MSB - MSW) / 4."""
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(200), 4)
    errors = 0.3 * rng.normal(size=200)[group] + 0.4 * rng.normal(size=800)
    residual = errors - errors.mean()
    means = residual.reshape(200, 4).mean(axis=1)
    within = float(((residual - means[group]) ** 2).sum() / 600)
    between = float(4 * (means**2).sum() / 199)
    resampling = Resampling.of(np.repeat(np.arange(20.0), 40), [f"{g:03d}" for g in group], clustered=True)
    shared, own = resampling.variances(residual, np.ones((800, 1)), count=4000, rng=rng)
    assert np.median(own) == pytest.approx(within, rel=0.02)
    assert np.median(shared) == pytest.approx((between - within) / 4, rel=0.05)


def test_few_trajectories_leave_their_variance_open():
    """Four trajectories of three rows, two of them spent on a line: shared errors of a tenth or of ten are possible."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(4), 3)
    jacobian = np.column_stack([np.ones(12), group.astype(float)])
    errors = rng.normal(size=4)[group] + rng.normal(size=12)
    resampling = Resampling.of(group.astype(np.float64), [str(g) for g in group], clustered=True)
    shared, own = resampling.variances(errors, jacobian, count=4000, rng=rng)
    ratios = [float(high / max(low, 1e-9)) for low, high in map(interval, (shared, own))]
    assert ratios[0] > 100 > ratios[1]


def test_residuals_of_few_rows_give_student_t(branched_frame):
    """The mean of 18 rows: percentiles of its refits are those of Student's t with 17 degrees of freedom."""
    table = independent(branched_frame)
    rng = np.random.default_rng(0)
    residual = rng.normal(size=18)
    residual -= residual.mean()
    drawn = of(table).draw(residual, np.ones((18, 1)), count=40_000, rng=rng)
    low, high = interval(drawn.log_errors.mean(axis=1))
    half = 2.1098 * np.std(residual, ddof=1) / np.sqrt(18)  # t(17), 97.5 %
    assert (-low, high) == pytest.approx((half, half), rel=0.03)


def test_rows_of_a_trajectory_err_together(branched):
    table = branched(seeds=2)
    group = np.unique(table.trajectory, return_inverse=True)[1]
    shared = np.random.default_rng(1).normal(size=10)[group]
    log_errors = draw(of(table), shared, count=400).log_errors
    correlation = np.asarray(np.corrcoef(log_errors, rowvar=False))
    together = group[:, None] == group
    assert correlation[together].min() > 0.8
    assert np.abs(correlation[~together]).max() < 0.25


def test_errors_of_a_mean_have_its_known_leverage():
    residual = np.array([1.0, -1.0, 2.0, -2.0])
    np.testing.assert_allclose(as_new(residual, np.ones((4, 1))), residual / np.sqrt(0.75))


def test_interval_holds_its_share_of_draws():
    assert [float(end) for end in interval(np.arange(1.0, 200.0))] == pytest.approx([5.0, 195.0])


def test_an_exact_table_has_no_spread(branched, planted):
    fitted = fit(branched(row=0.0, trajectory=0.0), bootstrap=20)
    low, high = fitted.intervals["alpha"]
    assert (low, high) == pytest.approx((planted.alpha, planted.alpha), abs=1e-4)


def _grid(planted, seed, runs=48):
    rng = np.random.default_rng(seed)
    params, tokens = np.repeat(np.geomspace(2e4, 1e6, 8), runs // 8), np.tile(np.geomspace(5e5, 2e7, runs // 8), 8)
    loss = planted.predict(params, tokens) * np.exp(0.003 * rng.normal(size=runs))
    return pd.DataFrame({"params": params, "tokens": tokens, "loss_nats": loss})


@pytest.mark.parametrize("clustered", [False, True])
def test_two_outliers_do_not_widen_the_intervals_of_a_robust_fit(planted, clustered):
    frame = _grid(planted, 0)
    if clustered:
        frame["trajectory"] = [f"t{i // 6}" for i in range(48)]
    clean = fit(from_frame(frame), bootstrap=200)
    frame.loc[[5, 30], "loss_nats"] *= 1.2
    spoilt = fit(from_frame(frame), bootstrap=200)
    widths = [high - low for low, high in (clean.intervals["alpha"], spoilt.intervals["alpha"])]
    assert widths[1] < 1.6 * widths[0]


def test_weights_enter_the_resamples(planted):
    """Runs that err ten times as much, weighed by 1/variance, hardly widen the interval; unweighed they do."""
    frame = _grid(planted, 1)
    rng = np.random.default_rng(2)
    frame.loc[::2, "loss_nats"] *= np.exp(0.03 * rng.normal(size=24))
    weights = np.where(np.arange(48) % 2, 1.0, 0.01)
    table = from_frame(frame)
    weighed = fit(table, weights=weights, loss="mse", bootstrap=200)
    plain = fit(table, loss="mse", bootstrap=200)
    half = fit(table.keep(np.arange(48) % 2 == 1), loss="mse", bootstrap=200)
    width = {name: f.intervals["alpha"][1] - f.intervals["alpha"][0]
             for name, f in (("weighed", weighed), ("plain", plain), ("half", half))}  # fmt: skip
    assert width["weighed"] < 1.3 * width["half"]
    assert width["plain"] > 2.5 * width["weighed"]


def test_runs_of_weight_zero_are_no_runs(planted):
    table = from_frame(_grid(planted, 3))
    weights = np.ones(48)
    weights[:6] = 0.0
    left = fit(table, weights=weights, bootstrap=50)
    assert left.intervals == fit(table.keep(weights > 0), bootstrap=50).intervals
    assert len(left.table) == 42
    assert [e.column for e in left.table.excluded] == ["weights"] * 6
    with pytest.raises(InputError, match="weights: as uneven as these"):
        fit(table, weights=np.where(np.arange(48) == 0, 1e300, 1.0), bootstrap=0)

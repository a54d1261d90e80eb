"""From compute to a task in two stages: planted links found again, the same as another library's, and refusals."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from planted_study import LAW, SIZES, TOKENS, sigmoid
from scipy.optimize import curve_fit

import analysis
from analysis.errors import InputError
from analysis.skills.links import fit_link
from analysis.skills.two_stage import fit_loss, held_out_scores, judge, two_stage
from analysis.uncertainty import Resampling


def grid(noise=0.0, seed=0, sizes=SIZES, tokens=TOKENS):
    rng = np.random.default_rng(seed)
    rows = [(f"{n:.0f}-{d:.0f}", f"{n:.0f}", n, d, float(LAW.predict(n, d)) * np.exp(noise * rng.normal()))
            for n in sizes for d in tokens]  # fmt: skip
    return analysis.from_frame(pd.DataFrame(rows, columns=["run_id", "trajectory", "params", "tokens", "loss_nats"]))


def linked(form, loss, error, *, chance=None, bootstrap=0):
    each = [str(i) for i in range(len(loss))]
    resampling = Resampling.of(np.arange(1.0, len(loss) + 1), each, clustered=False)
    return fit_link(form, loss, error, resampling, chance=chance, bootstrap=bootstrap, seed=0)


def test_planted_links_are_found_again():
    loss = np.linspace(1.6, 3.4, 12)
    found = linked("exponential", loss, 0.8 - 3.0 * np.exp(-1.1 * loss)).link.parameters
    assert found == pytest.approx({"eps": 0.8, "k": 3.0, "gamma": 1.1}, rel=1e-4)
    found = linked("sigmoid", loss, 1 - sigmoid(loss), chance=0.25).link.parameters
    assert found == pytest.approx({"top": 0.9, "slope": 4.0, "middle": 2.2}, rel=1e-4)


def test_noisy_links_are_those_of_scipy():
    rng = np.random.default_rng(1)
    loss = np.linspace(1.6, 3.4, 20)
    error = 1 - sigmoid(loss) + 0.02 * rng.normal(size=20)
    theirs, _ = curve_fit(lambda x, e, k, g: e - k * np.exp(-g * x), loss, error, p0=(0.8, 2, 1), maxfev=20_000)
    assert list(linked("exponential", loss, error).link.parameters.values()) == pytest.approx(theirs, rel=1e-3)
    theirs, _ = curve_fit(lambda x, t, s, m: 1 - sigmoid(x, top=t, slope=s, middle=m), loss, error, p0=(0.9, 3, 2))
    assert list(linked("sigmoid", loss, error, chance=0.25).link.parameters.values()) == pytest.approx(theirs, rel=1e-3)


def test_the_interval_of_a_link_holds_the_truth_as_often_as_it_says():
    inside, loss = 0, np.linspace(1.6, 3.4, 15)
    for seed in range(24):
        error = 1 - sigmoid(loss) + 0.02 * np.random.default_rng(seed).normal(size=15)
        samples = linked("sigmoid", loss, error, chance=0.25, bootstrap=100).samples
        assert samples is not None
        low, high = np.quantile(samples.predict(np.array([1.9])), [0.025, 0.975])
        inside += low <= 1 - sigmoid(1.9) <= high
    assert inside >= 20  # of 24 at 95 %: fewer is 1 in 170


def test_larger_runs_are_predicted_from_smaller_ones():
    table = grid(0.004)
    rng = np.random.default_rng(2)
    scores = rng.binomial(1000, sigmoid(LAW.predict(table.params, table.tokens))) / 1000
    fitted = partial(fit_loss, bootstrap=200)
    stages = two_stage(fitted(table), table, scores, form="sigmoid", chance=0.25)
    rows = held_out_scores(stages, fitted, 3)
    assert len(rows) == 3
    assert min(row.flops for row in rows) >= np.sort(table.flops_6nd)[-3] * 0.999
    assert max(abs(row.error) for row in rows) < 0.05
    assert all(row.covered for row in rows)


def test_no_resamples_no_interval():
    table = grid(0.004)
    stages = two_stage(fit_loss(table, bootstrap=0), table, sigmoid(table.loss_nats), form="sigmoid", chance=0.25)
    (row, *_) = judge(stages, table, sigmoid(table.loss_nats))
    assert row.interval is None
    assert row.covered is None
    assert stages.at_loss([2.0])[1] is None


def test_runs_of_one_token_count_are_fitted_against_size_alone():
    table = grid(0.003, sizes=np.geomspace(2e4, 2e6, 8), tokens=(4e6,))
    fitted = fit_loss(table, bootstrap=200)
    theirs, _ = curve_fit(lambda n, e, a, x: e + a * (n / 1e5) ** -x, table.params, table.loss_nats, p0=(1.5, 0.3, 0.4))
    n = np.array([1e7])
    ours = fitted.predict(n, np.array([4e6]))
    assert ours.loss_nats == pytest.approx(theirs[0] + theirs[1] * (n / 1e5) ** -theirs[2], rel=0.01)
    assert ours.interval[0][0] < float(LAW.predict(1e7, 4e6)) < ours.interval[1][0]
    with pytest.raises(InputError, match="params: all 4 runs have"):  # neither count varies
        analysis.fit(grid(0.01, sizes=(2e4,)), fixed={"B": 1e-3, "beta": 2.0}, bootstrap=0)


@pytest.mark.parametrize(
    ("scores", "chance", "message"),
    [
        (lambda z: 0.2 + 0.05 * z, 0.25, "scores: none is above chance, 0.25"),
        (lambda z: 0 * z + 0.6, 0.25, "scores: all are 0.6: no law of a score that does not change"),
        (lambda z: 0.8 - 0.3 * z, 0.25, "scores: they fall as the loss does"),
        (lambda z: 0.5 + 0.02 * np.sin(40 * z), 0.25, "scores: no dependence on the loss is told from none"),
        (lambda z: 50 + 20 * z, 0.25, "scores: 50 is no share from 0 to 1; per cent"),
        (lambda z: 0.3 + 0.3 * z, None, "chance: a sigmoid begins there and it is not known"),
    ],
)
def test_scores_that_tell_no_law_are_refused(scores, chance, message):
    table = grid(0.004)
    z = (table.loss_nats.max() - table.loss_nats) / np.ptp(table.loss_nats)
    with pytest.raises(InputError, match=message):
        two_stage(fit_loss(table, bootstrap=0), table, scores(z), form="sigmoid", chance=chance)


def test_too_few_runs_and_unknown_forms_are_refused():
    table = grid(0.004)
    fitted, few = fit_loss(table, bootstrap=0), table.keep(np.arange(len(table)) < 3)
    with pytest.raises(InputError, match="runs: 3 cannot fit a link of 3 parameters"):
        two_stage(fitted, few, np.array([0.3, 0.4, 0.5]), form="exponential", chance=None)
    with pytest.raises(InputError, match="form: 'cubic' is unknown; choose one of exponential, sigmoid"):
        two_stage(fitted, few, np.array([0.3, 0.4, 0.5]), form="cubic", chance=None)
    stages = two_stage(fitted, table, sigmoid(table.loss_nats), form="exponential", chance=None)
    with pytest.raises(InputError, match="holdout: 99 of 20 runs"):
        held_out_scores(stages, partial(fit_loss, bootstrap=0), 99)

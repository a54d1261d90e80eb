"""Approach 2: planted optima recovered and covered, published exponents reproduced, bad profiles refused by name."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from planted_runs import LAW, bare, profiles

from analysis.errors import InputError
from analysis.isoflop import isoflop
from analysis.profiles.budgets import group
from analysis.recipes import PORIAN_COLUMNS, PORIAN_SETUPS, llama3, porian, porian_setup
from analysis.table import Table, from_frame, read

BUDGETS = np.geomspace(1e18, 1e21, 8)
TRUE_A = LAW.exponents["a"]


@pytest.mark.parametrize(("method", "tolerance"), [("parabola", 1e-3), ("akima", 3e-3)])
def test_planted_exponents_without_noise(method, tolerance):
    found = isoflop(profiles(BUDGETS), method=method, noise=1e-4, bootstrap=50)
    assert len(found.accepted) == 8
    assert found.frontier.params.exponent == pytest.approx(TRUE_A, abs=tolerance)
    assert found.frontier.tokens.exponent == pytest.approx(1 - TRUE_A, abs=tolerance)
    best, here = LAW.optimum(1e22), found.frontier.optimum(1e22)
    assert here.params == pytest.approx(float(best.params), rel=0.05)
    assert here.loss_nats == pytest.approx(float(best.loss_nats), rel=2e-3)


def test_intervals_cover_the_planted_law():
    """Of 40 studies at 95 %, 34 or fewer hits would happen once in a hundred times; the seeds are fixed."""
    hits = np.zeros(3)
    for seed in range(40):
        found = isoflop(profiles(BUDGETS, noise=0.002, shift=0.4, seed=seed), bootstrap=150, seed=seed)
        assert found.samples is not None
        best, drawn = LAW.optimum([1e22]), found.samples.optimum([1e22])
        values = [
            (found.samples.params.exponent, TRUE_A),
            (drawn.params, best.params),
            (drawn.loss_nats, best.loss_nats),
        ]
        for k, (draws, truth) in enumerate(values):
            low, high = np.percentile(draws, [2.5, 97.5])
            hits[k] += low <= float(np.squeeze(truth)) <= high
    assert (hits >= 35).all(), hits


def test_estimated_noise_is_the_planted_one():
    found = isoflop(profiles(BUDGETS, sizes=15, noise=0.004), bootstrap=20)
    assert found.noise_relative == pytest.approx(0.004, rel=0.2)
    assert found.noise_freedom == sum(int(p.used.sum()) - 3 for p in found.accepted)


def test_scatter_beyond_noise_widens_the_intervals():
    frame = bare(profiles(BUDGETS, noise=0.0005))
    rng = np.random.default_rng(0)
    for rows in group(from_frame(frame)).budgets:  # optima moved by .2 in log N, as a badly tuned budget would
        move = np.exp(0.2 * rng.normal())
        frame.loc[rows.rows, "params"] *= move
        frame.loc[rows.rows, "tokens"] /= move
    included, ignored = (isoflop(from_frame(frame), scatter=s, bootstrap=300) for s in ("include", "ignore"))
    assert included.scatter == pytest.approx(0.2, rel=0.5)
    assert any("scatter" in warning for warning in included.warnings)
    widths = [np.ptp(found.intervals["a"]) for found in (included, ignored)]
    assert widths[0] > 5 * widths[1]
    assert included.intervals["a"][0] < TRUE_A < included.intervals["a"][1]


def test_resampled_budgets_and_equal_weights_answer_alike():
    table = profiles(BUDGETS, noise=0.002)
    usual, redrawn, equal = isoflop(table), isoflop(table, resample="budgets"), isoflop(table, weights="equal")
    assert redrawn.frontier == usual.frontier
    assert "replacement" in redrawn.resampling
    assert equal.frontier.params.exponent == pytest.approx(usual.frontier.params.exponent, abs=0.01)


def test_declared_budgets_are_not_merged_and_chains_are_refused():
    close = [1e18, 1.05e18, 1e19, 1e20]
    assert [b.flops for b in group(profiles(close, declared=True)).budgets] == close
    assert len(group(profiles(close)).budgets) == 3  # within 10 %: one budget by FLOPs, its spread shown
    assert group(profiles(close)).budgets[0].spread == pytest.approx(1.05)
    chain = [1e18 * 1.08**k for k in range(6)] + [1e20, 1e21, 1e22]
    found = isoflop(profiles(chain), noise=1e-3, bootstrap=20)
    assert "run together" in found.profiles[0].reason
    assert len(found.accepted) == 3
    named = isoflop(profiles(chain), budgets=[1e18, 1e20, 1e21], tolerance=0.05, noise=1e-3, bootstrap=20)
    assert named.grouping.left_over == 9 * 6
    assert [profile.flops for profile in named.accepted] == [1e18, 1e20, 1e21]


def test_replicas_are_averaged_or_the_best_is_taken():
    frame = bare(profiles(BUDGETS))
    twice = from_frame(pd.concat([frame, frame.assign(loss_nats=frame["loss_nats"] * 1.02)]))
    plain = isoflop(from_frame(frame), bootstrap=0).frontier
    best, mean = (isoflop(twice, same_size=s, bootstrap=0).frontier for s in ("best", "mean"))
    assert best.optimum(1e20).loss_nats == pytest.approx(plain.optimum(1e20).loss_nats, rel=1e-9)
    assert mean.optimum(1e20).loss_nats == pytest.approx(plain.optimum(1e20).loss_nats * 1.02**0.5, rel=1e-4)


def test_exact_flops_and_6nd():
    frame = bare(profiles(BUDGETS, noise=0.001))
    frame = frame.assign(flops=6 * frame["params"] * frame["tokens"] * 1.25)
    given, six = (isoflop(from_frame(frame), compute=c, bootstrap=0) for c in ("given", "6nd"))
    assert given.points[0] == pytest.approx(1.25 * six.points[0])
    assert given.frontier.params.exponent == pytest.approx(six.frontier.params.exponent)


def bent(change) -> Table:
    """Four good budgets and a first one changed by `change(frame of that budget)`."""
    frame = bare(profiles(BUDGETS[::2]))
    return from_frame(pd.concat([change(frame.iloc[:9].copy()), frame.iloc[9:]]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: f.iloc[:3], "3 sizes, a profile needs 4"),
        (lambda f: f.iloc[5:], "smallest size: no interior minimum"),
        (lambda f: f.iloc[:4], "largest size: no interior minimum"),
        (lambda f: f.assign(loss_nats=[3.6, 3.5, 3.4, 3.39, 3.49, 3.5, 3.49, 3.45, 3.41]).iloc[2:], "not convex"),
    ],
)
def test_bad_profiles_are_listed_with_their_reason(change, why):
    found = isoflop(bent(change), noise=1e-3, bootstrap=50)
    assert why in found.profiles[0].reason
    assert found.profiles[0].optimum is None
    assert len(found.accepted) == 3


def test_a_noisy_flat_profile_is_dropped():
    found = isoflop(
        bent(lambda f: f.assign(loss_nats=3 + 1e-4 * np.cosh(np.linspace(-2, 2, 9)))), noise=0.02, bootstrap=200
    )
    assert "of its perturbed profiles" in found.profiles[0].reason


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "spline"}, "method"),
        ({"window": 1.0}, "window"),
        ({"window": float("nan")}, "window"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"noise": -1.0}, "noise"),
        ({"bootstrap": 1}, "bootstrap"),
        ({"scatter": "much"}, "scatter"),
        ({"budgets": [0.0]}, "budgets"),
        ({"budgets": [1e3]}, "budgets"),
        ({"budgets": [1e18]}, "flops: all runs are of one budget"),
        ({"budgets": [1e18, 5e30]}, "flops: 1 of 2 budgets"),
    ],
)
def test_mistakes_are_one_line(options, named):
    with pytest.raises(InputError, match=named) as caught:
        isoflop(profiles(BUDGETS), **options)
    assert "\n" not in str(caught.value)


def test_two_budgets_give_no_interval():
    found = isoflop(profiles(BUDGETS[:2], noise=0.001), bootstrap=50)
    assert found.samples is None
    assert not found.intervals
    assert any("no interval" in warning for warning in found.warnings)


def test_a_column_of_budgets_that_all_differ_is_grouped_at_once():
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(np.log([[1e7], [1e9]]), np.log([[1e10], [1e11]]), (2, 50_000)))
    frame = pd.DataFrame({"params": n, "tokens": d, "loss_nats": LAW.predict(n, d), "flops_budget": 6 * n * d})
    table = from_frame(pd.concat([frame, frame.iloc[:1] * 1.000001, frame.iloc[1:2].assign(flops_budget=np.nan)]))
    clock = time.process_time()
    found = group(table)
    assert time.process_time() - clock < 5
    assert (len(found.budgets), found.left_over) == (50_001, 1)
    assert all(budget.rows.size == 1 for budget in found.budgets)
    assert sorted(int(budget.rows[0]) for budget in found.budgets) == list(range(50_001))


def test_a_thousand_resamples_of_twelve_budgets_take_about_a_second():
    table = profiles(np.geomspace(1e17, 1e21, 12), sizes=11, noise=0.002)
    for method in ("parabola", "akima"):
        start = time.process_time()
        isoflop(table, method=method, bootstrap=1000)
        assert time.process_time() - start < 2.0


def porian_rows(folder, name: str, setup: str) -> pd.DataFrame:
    frame = pd.read_csv(folder / name)
    rows = frame["source"] == "summary_df"
    for column, value in zip(PORIAN_COLUMNS, PORIAN_SETUPS[setup], strict=True):
        rows &= frame[column] == value
    return pd.DataFrame(frame[rows])


@pytest.mark.parametrize("setup", PORIAN_SETUPS)
def test_porian_et_al(reference, setup):
    expected = json.loads((reference / "expected.json").read_text())["porian_refinedweb.csv"]
    exponents = dict(zip(PORIAN_SETUPS, expected["n_exponent_by_config_author_recipe"].values(), strict=True))
    found = porian(porian_setup(reference / "porian_refinedweb.csv", setup))
    fits = porian_rows(reference, "porian_refinedweb_fits.csv", setup).set_index("fit")["n_exponent"]
    assert found.frontier.params.exponent == pytest.approx(exponents[setup], abs=0.01)
    assert found.frontier.params.exponent == pytest.approx(fits["bs_median_weighted"], abs=0.01)
    assert found.intervals["a"] == pytest.approx(expected["published_95_percent"][setup], abs=0.01)
    optima = porian_rows(reference, "porian_refinedweb_optima.csv", setup).dropna()
    mine = {profile.flops: profile for profile in found.accepted}
    assert sorted(mine) == pytest.approx(sorted(optima["C"]))
    for flops, params, sd in zip(optima["C"], optima["N_opt"], optima["logN_std"], strict=True):
        here = mine[flops].optimum
        assert here is not None
        assert here[0] == pytest.approx(params, rel=0.02)  # one point of the grid is 1.5 %
        assert mine[flops].sd_log_params == pytest.approx(sd, rel=0.1)


def test_llama3(reference):
    expected = json.loads((reference / "expected.json").read_text())["llama3_isoflop.csv"]["approach2"]
    found = llama3(read(reference / "llama3_isoflop.csv"))
    best = found.frontier.optimum(3.8e25)
    assert found.frontier.params.exponent == pytest.approx(expected["N_exp"], abs=1e-4)
    assert found.frontier.tokens.exponent == pytest.approx(expected["D_exp"], abs=1e-4)
    assert found.frontier.tokens.coefficient == pytest.approx(expected["D_coef"], rel=0.01)
    assert best.params == pytest.approx(expected["N*(3.8e25)"], rel=0.01)
    assert best.tokens == pytest.approx(expected["D*(3.8e25)"], rel=0.01)

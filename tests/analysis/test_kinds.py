"""Kinds of scaling: planted ones named, and no turn seen where there is none."""

from dataclasses import replace

import numpy as np
import pytest
from planted_abilities import ladder
from planted_study import planted_study

import analysis
from analysis.skills.abilities import Ability, Metric, read_abilities
from analysis.skills.kinds import scaling_kinds, two_lines

SD = 0.02


def ability(name, scores, *, metric="accuracy", noise=SD, seed=0):
    scores = np.asarray(scores) + noise * np.random.default_rng(seed).normal(size=len(scores))
    nothing = np.full(len(scores), np.nan)
    value = Metric(name=metric, value=scores, stderr=nothing, low=nothing, high=nothing, chance=None)
    return Ability(task=name, table=ladder(len(scores)), metrics={metric: value}, items=0)


def kinds(*abilities, against="flops"):
    return {found.task: found for found in scaling_kinds(abilities, against)}


def test_planted_kinds_are_named():
    x = np.linspace(0, 1, 20)
    u = 4 * (x - 0.5) ** 2
    found = kinds(
        ability("rise", 0.3 + 0.4 * x),
        ability("fall", 0.7 - 0.4 * x),
        ability("flat", 0.5 + 0 * x),
        ability("valley", 0.4 + 0.2 * u),
        ability("hill", 0.6 - 0.2 * u),
        ability("errors", 0.3 + 0.4 * x, metric="token_edit_distance"),  # more of it is worse
    )
    assert {name: each.kind for name, each in found.items()} == {
        "rise": "rising", "fall": "falling", "flat": "flat", "valley": "U-shaped", "hill": "inverted-U",
        "errors": "falling",
    }  # fmt: skip
    assert found["rise"].interval[0] < 0.4 < found["rise"].interval[1]
    turn = found["valley"].turn
    assert turn is not None
    x = np.log(ladder(20).flops_6nd)
    assert x[6] < turn.scale < x[13]
    assert turn.before_interval[1] < 0 < turn.after_interval[0]


def test_every_kind_in_a_study_whose_runs_differ_in_shape(tmp_path):
    planted_study(tmp_path)
    table = analysis.read(tmp_path)
    found = {each.task: each.kind for each in scaling_kinds(read_abilities(tmp_path, table), "flops")}
    assert found == {"lookup": "rising", "guess": "flat", "redefine": "falling", "unlearn": "U-shaped", "flat": "flat"}


@pytest.mark.parametrize("shape", ["straight", "hinge", "saturating", "sigmoid"])
def test_a_bend_is_no_turn(shape):
    """What a parabola would have to call a turn: flat at chance and then rising, or rising and then flat."""
    x = np.linspace(0, 6, 20)
    y = {"straight": 0.1 * x, "hinge": 0.4 * np.maximum(x - 3, 0) / 3, "saturating": 0.4 * (1 - np.exp(-x)),
         "sigmoid": 0.6 / (1 + np.exp(-3 * (x - 4)))}[shape]  # fmt: skip
    seen = 0
    for seed in range(24):
        turn = two_lines(x, y + SD * np.random.default_rng(seed).normal(size=20), [str(i) for i in range(20)])
        seen += turn is not None and turn.p_value < 0.05
    assert seen <= 4  # of 24 at 5 %: more is 1 in 170
    parabola = np.polyfit(x, y, 2)
    if shape == "hinge":
        assert parabola[0] > 0
        assert 0 < -parabola[1] / (2 * parabola[0]) < 6  # which turns within the data


def test_a_rise_over_a_grid_of_sizes_and_tokens_is_no_turn():
    """Scales that are no even ladder, and differ in shape; errors of 100 items, runs of four trajectories."""
    n, d = np.repeat([33e3, 68e3, 165e3, 252e3], 5), np.tile([0.2e6, 0.4e6, 0.8e6, 1.6e6, 3.3e6], 4)
    x, shape = np.log(6 * n * d), np.log(d / n)
    share, groups = 0.3 + 0.5 * (x - x.min()) / np.ptp(x), [str(size) for size in n]
    seen = 0
    for seed in range(40):
        y = np.random.default_rng(seed).binomial(100, share) / 100
        turn = two_lines(x, y, groups, (shape - shape.mean())[:, None])
        seen += turn is not None and turn.p_value < 0.05
    assert seen <= 6  # of 40 at 5 %: more is 1 in 300


def test_many_tasks_need_more_to_be_named():
    x = np.linspace(0, 1, 12)
    weak = ability("weak", 0.5 + 0.1 * x, seed=3)
    alone = kinds(weak)["weak"]
    among = kinds(weak, *(ability(f"noise{i}", 0.5 + 0 * x, noise=0.06, seed=10 + i) for i in range(12)))["weak"]
    assert among.p_trend == alone.p_trend
    assert among.p_trend_adjusted >= 12 * alone.p_trend * 0.999
    assert alone.kind == "rising"
    assert among.kind != "rising"
    assert among.reason


def test_too_little_is_said():
    few = kinds(ability("few", [0.2, 0.4, 0.6]))["few"]
    assert (few.kind, few.reason) == ("not told", "3 scales, fewer than 4")
    same = kinds(ability("same", [0.5] * 6, noise=0.0))["same"]
    assert (same.kind, same.change) == ("flat", 0.0)
    noisy = kinds(ability("noisy", [0.5] * 8, noise=0.3))["noisy"]
    assert noisy.kind == "not told"
    assert "either sign" in noisy.reason
    one = ability("one", np.linspace(0.2, 0.8, 8))
    grouped = replace(one, table=replace(one.table, clustered=True, frame=one.table.frame.assign(trajectory="a")))
    assert kinds(grouped)["one"].reason == "runs of fewer than three trajectories"

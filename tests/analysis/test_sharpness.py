"""The test of jumps: smooth abilities and true steps told apart, metrics that jump by themselves, refusals.

tests/soak/sharpness.py does it over a hundred sets of each.
"""

from dataclasses import replace

import numpy as np
import pytest
from planted_abilities import SMOOTH, answered, ladder, planted_task

from analysis.errors import InputError
from analysis.skills.abilities import Ability
from analysis.skills.sharpness import LEAST_DRAWS, every_sharpness, sharpness

DRAWS = 250


def test_smooth_abilities_and_steps_are_told_apart():
    names = [*SMOOTH, *SMOOTH]
    smooth = [sharpness(planted_task(k, scales=12, items=400, seed=i), draws=DRAWS) for i, k in enumerate(names)]
    steps = [sharpness(planted_task("step", scales=12, items=400, seed=i), draws=DRAWS) for i in range(6)]
    assert {each.verdict for each in smooth} <= {"smooth", "made by the metric"}
    assert {each.verdict for each in steps} == {"sharp"}


def test_a_jump_that_a_long_answer_makes_is_the_metrics():
    """p of a token grows in a line; all of 100 tokens are right only at the end (Schaeffer et al. 2023)."""
    table, log_p = ladder(14), np.log(np.linspace(0.5, 0.99, 14))
    metrics = answered(log_p, answer=100, items=2000, rng=np.random.default_rng(0))
    found = sharpness(Ability(task="long", table=table, metrics=metrics, items=2000), draws=DRAWS)
    assert found.main.verdict == "sharp"  # by itself it looks like one
    assert found.continuous is not None
    assert found.continuous.verdict == "smooth"
    assert found.verdict == "made by the metric"
    assert found.p_link is not None
    assert found.p_link > 0.05  # the smooth ability makes such a jump through its link


def test_a_step_is_found_where_it_is():
    table = ladder(12)
    x = np.log(table.flops_6nd)
    log_p = np.where(np.arange(12) > 6, -0.05, -1.5)
    metrics = answered(log_p, answer=4, items=400, rng=np.random.default_rng(1))
    found = sharpness(Ability(task="step", table=table, metrics=metrics, items=400), draws=DRAWS)
    assert found.verdict == "sharp"
    assert found.continuous is not None
    assert x[6] < found.continuous.at < x[7]
    assert found.continuous.share > 0.9
    assert found.p_link is not None
    assert found.p_link < 0.05  # no smooth ability makes such a jump through any link


def test_noise_and_nothing_are_no_jump():
    table, rng = ladder(10), np.random.default_rng(2)
    flat = Ability(task="flat", table=table, metrics=answered(np.full(10, -1.0), answer=2, items=400, rng=rng),
                   items=400)  # fmt: skip
    assert sharpness(flat, draws=DRAWS).verdict == "no change"
    constant = replace(flat.main, value=np.zeros(10), stderr=np.zeros(10))
    alone = Ability(task="zero", table=table, metrics={"exact_match": constant}, items=400)
    assert sharpness(alone, draws=DRAWS).verdict == "no change"


def test_without_a_continuous_metric_a_jump_stays_open():
    task = planted_task("step", scales=12, items=2000, seed=0)
    alone = replace(task, metrics={"exact_match": task.main})
    found = sharpness(alone, draws=DRAWS)
    assert found.main.verdict == "sharp"
    assert found.continuous is None
    assert found.verdict == "not told"


def test_too_few_scales_and_draws_are_refused():
    task = planted_task("power", scales=6, items=400, seed=0)
    with pytest.raises(InputError, match="runs: 6 scales tell no jump from a smooth rise; give at least 7"):
        sharpness(task, draws=DRAWS)
    with pytest.raises(InputError, match=f"bootstrap: 10 draws tell no p-value .*; give at least {LEAST_DRAWS}"):
        sharpness(task, draws=10)
    found, refused = every_sharpness([task], "flops", draws=DRAWS, seed=0)
    assert not found
    assert "6 scales" in refused["power"]

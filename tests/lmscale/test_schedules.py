"""Schedules against their definitions, and several of them in one study."""

import dataclasses

import numpy as np
import optax
import pytest

import analysis
from analysis.errors import InputError
from lmscale.optim import learning_rates
from lmscale.train import train

KINDS = ("wsd", "cosine", "linear")


def test_linear_is_a_straight_line_to_zero_after_the_warmup(make_assembly):
    (trajectory,) = make_assembly(recipe={"schedule": "linear"}, tokens=(128 * 40,)).plan
    h, (run,) = trajectory.hyperparameters, trajectory.runs
    assert run.branch_step == 0
    rates = learning_rates(h, 0, 40, steps=40, branch_step=run.branch_step)
    warm = h.warmup_steps
    line = optax.linear_schedule(h.learning_rate, 0.0, 40 - warm + 1, warm - 1)
    expected = np.asarray([line(step) for step in range(warm, 41)])
    np.testing.assert_allclose(rates[warm:], expected[:-1], rtol=1e-5)
    np.testing.assert_allclose(rates[:warm], h.learning_rate * np.arange(1, warm + 1) / warm, rtol=1e-6)
    assert expected[-1] == 0


def test_linear_is_a_cooldown_that_begins_when_the_warmup_ends(make_assembly):
    linear = make_assembly(recipe={"schedule": "linear"}).plan[0].hyperparameters
    trunk = dataclasses.replace(linear, schedule="wsd")
    cooled = learning_rates(trunk, 0, 40, steps=40, branch_step=linear.warmup_steps)
    np.testing.assert_array_equal(learning_rates(linear, 0, 40, steps=40, branch_step=0), cooled)


def test_a_study_of_several_schedules_holds_the_runs_of_each_alone(make_assembly):
    mixed = make_assembly(schedules=KINDS).plan
    alone = [t for kind in KINDS for t in make_assembly(recipe={"schedule": kind}).plan]
    assert {run.id for t in mixed for run in t.runs} == {run.id for t in alone for run in t.runs}
    assert [len(t.runs) for t in mixed if t.hyperparameters.schedule == "wsd"] == [2]
    assert len({t.recipe for t in mixed}) == 3
    assert len({t.program for t in mixed}) == 1


def test_runs_of_several_schedules_are_not_fitted_together(make_assembly, make_training):
    assembly = make_assembly(schedules=KINDS, tokens=(128 * 20,))
    trainings = [make_training(assembly, index=index) for index in range(len(assembly.plan))]
    for t in trainings:
        train(t)
    trainings[0].workspace.export()
    table = trainings[0].workspace.root / "runs.csv"
    with pytest.raises(InputError, match="recipe"):
        analysis.read(table)
    apart = analysis.read(table, by="schedule")
    assert sorted(apart.frame["schedule"]) == ["cosine", "linear", "wsd"]
    cooldowns = {
        record["row"]["schedule"]: record["row"]["cooldown_tokens"] for record in trainings[0].workspace.records()
    }
    assert cooldowns == {"wsd": 128 * 4, "cosine": None, "linear": None}
    assert len(set(apart.loss_nats)) == 3

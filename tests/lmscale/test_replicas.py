"""Models trained together: each as it is alone, in files of its own, whatever becomes of the others."""

import json

import jax
import numpy as np
import pytest

from lmscale.checkpoint import Checkpoints
from lmscale.config import PowerRule, Size
from lmscale.plan import INPUTS
from lmscale.planning.replicas import make_stacks
from lmscale.records import Curve, Workspace
from lmscale.step import Together
from lmscale.train import Interrupted, train
from lmscale.training.lanes import Training, resume_trunk
from lmscale.training.worker import work
from lmscale.work.leases import Leases

STEPS = 100
GRID = {"tokens": (128 * STEPS,), "seeds": (0, 1), "steps_per_dispatch": 8}


@pytest.fixture(scope="module")
def step_cache():
    return {}


@pytest.fixture
def trainings(make_training, tmp_path, step_cache):
    """trainings(assembly, which, name, ...): of some trajectories of a plan, over compiled steps that tests share."""

    def make(assembly, which, name, replicas=3, **settings) -> list[Training]:
        made = [make_training(assembly, out=tmp_path / name, index=index, **settings) for index in which]
        key = (made[0].trajectory.program, made[0].mesh, replicas)
        for t in made:
            t.step = step_cache.setdefault(key, t.step)
        return made

    return make


@pytest.fixture
def two_rates(make_assembly):
    """Two seeds at two rates: four trajectories, of which tests take three."""
    return make_assembly(rate_multipliers=(1.0, 0.5), replicas=3, **GRID)


def outcome(t: Training) -> tuple[np.ndarray, np.ndarray, dict]:
    """Training losses along the curve, all parameters in one vector, and the record of the longest run."""
    run = t.trajectory.runs[-1]
    record = t.workspace.record(run.id)
    assert record is not None
    trunk = Curve(t.workspace.trajectory(t.trajectory.id) / "trunk.jsonl").read()
    rows = trunk + Curve(t.workspace.run(run.id) / "curve.jsonl").read()
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    like = {"params": t.step.abstract_state.params}
    final = Checkpoints(t.workspace.run(run.id) / "final").restore(run.steps, like)
    flat = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(final)])
    return np.array([row["train_loss_nats"] for row in rows]), flat, record


def assert_same(one: Training, other: Training) -> None:
    (losses1, params1, record1), (losses2, params2, record2) = outcome(one), outcome(other)
    assert one.trajectory.id == other.trajectory.id
    np.testing.assert_allclose(losses1, losses2, rtol=1e-5)
    np.testing.assert_allclose(params1, params2, rtol=1e-5, atol=1e-5)
    assert record1["row"]["loss_nats"] == pytest.approx(record2["row"]["loss_nats"], rel=1e-5)
    timing = {"step_seconds"}
    drop = timing | {"loss_nats", "loss_stderr", "bits_per_byte"}
    assert {k: v for k, v in record1["row"].items() if k not in drop} == {
        k: v for k, v in record2["row"].items() if k not in drop
    }


def alone(trainings, assembly, which) -> list[Training]:
    made = trainings(assembly, which, "alone")
    for t in made:
        train(t)
    return made


def test_replicas_equal_their_solo_runs(two_rates, trainings):
    solo = alone(trainings, two_rates, (0, 1, 2))
    together = trainings(two_rates, (0, 1, 2), "together")
    train(*together)
    for one, other in zip(solo, together, strict=True):
        assert_same(one, other)
    assert [outcome(t)[2]["replicas"] for t in (*solo, *together)] == [1, 1, 1, 3, 3, 3]
    rows = [outcome(t)[2]["row"] for t in together]
    assert sorted({row["learning_rate"] for row in rows}) == [0.005, 0.01]
    assert len({row["recipe"] for row in rows}) == 2  # runs of two rates are not fitted together
    assert len({row["loss_nats"] for row in rows}) == 3

    # interrupted at any call, by itself or with others, and gone on with in any company
    cut = trainings(two_rates, (0, 1, 2), "cut", stop=stop_after(4))
    with pytest.raises(Interrupted):
        train(*cut)
    ahead = trainings(two_rates, (1,), "cut", stop=stop_after(3))
    with pytest.raises(Interrupted):
        train(*ahead)
    positions = [Checkpoints(t.workspace.trajectory(t.trajectory.id) / "checkpoints").steps() for t in cut]
    assert positions == [[32], [56], [32]]
    down = trainings(two_rates, (2,), "cut", stop=stop_after(8))
    with pytest.raises(Interrupted):
        train(*down)
    assert [len(list((t.workspace.run(t.trajectory.runs[0].id)).glob("checkpoints/*"))) for t in down] == [1]
    again = trainings(two_rates, (0, 1, 2), "cut")
    train(*again)
    for one, other in zip(solo, again, strict=True):
        assert_same(one, other)


def stop_after(calls: int):
    """Asks to stop at the given call of the compiled program."""
    left = iter(range(calls - 1, -1, -1))
    return lambda: next(left) == 0


def test_a_stack_resumed_as_it_was_is_the_same_to_the_bit(two_rates, trainings):
    whole = trainings(two_rates, (0, 1, 2), "whole")
    parts = trainings(two_rates, (0, 1, 2), "parts", draws_ahead=True)  # nor does who draws their windows matter
    train(*whole)
    for t in parts:
        t.stop = stop_after(11)  # in the cooldown
    with pytest.raises(Interrupted):
        train(*parts)
    for t in parts:
        t.stop = lambda: False
    train(*parts)
    for one, other in zip(whole, parts, strict=True):
        for mine, theirs in zip(outcome(one)[:2], outcome(other)[:2], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_one_that_diverges_leaves_the_others(make_assembly, trainings):
    assembly = make_assembly(rate_multipliers=(1.0, 1e30), replicas=3, **GRID)
    assert [t.hyperparameters.learning_rate for t in assembly.plan] == [1e-2, 1e28, 1e-2, 1e28]
    lost = []
    solo = alone(trainings, assembly, (0, 2))
    first, wild, last = trainings(
        assembly, (0, 1, 2), "together", diverged=lambda why, runs: lost.append((why, runs)), checkpoint_seconds=0.0
    )
    train(first, wild, last)
    assert_same(solo[0], first)
    assert_same(solo[1], last)
    ((why, runs),) = lost
    assert "not finite at step" in why
    assert runs == list(wild.trajectory.runs)
    record = wild.workspace.record(runs[0].id)
    assert record is not None
    assert (record["row"]["status"], record["row"]["loss_nats"]) == ("diverged", None)
    assert Checkpoints(wild.workspace.trajectory(wild.trajectory.id) / "checkpoints").steps() == []
    assert not (wild.workspace.run(runs[0].id) / "final").exists()


def first_losses(made: list[Training]) -> tuple[np.ndarray, Together]:
    """Losses [R, 24] of the first steps of models trained together."""
    lanes = [resume_trunk(t, t.trajectory.runs[0]) for t in made]
    together = Together(made[0].step, [lane.state for lane in lanes if lane.state is not None])
    calls = []
    for start in range(0, 24, 8):
        windows = [lane.windows(start, start + 8) for lane in lanes]
        rates = [lane.rates(start, start + 8) for lane in lanes]
        calls.append(np.atleast_2d(np.asarray(together.advance(windows, rates, 8).loss_nats)))
    return np.concatenate(calls, axis=1), together


def test_replicas_on_a_mesh_reach_the_losses_of_one_device(make_assembly, trainings, eight):
    settings = GRID | {"rate_multipliers": (1.0, 0.5), "replicas": 3}
    solo = [first_losses([t]) for t in trainings(make_assembly(**settings), (0, 1, 2), "one")]
    losses, together = first_losses(trainings(make_assembly(mesh=eight, **settings), (0, 1, 2), "many"))
    np.testing.assert_allclose(losses, np.concatenate([one for one, _ in solo]), rtol=1e-5)
    stack, lane, alone = (
        state.params["layers"]["feedforward"]["up"]["weight"]
        for state in (together.state, together.model(2), solo[2][1].model(0))
    )
    assert stack.shape == (3, 2, 16, 64)
    assert stack.addressable_shards[0].data.shape == (3, 2, 8, 32)  # width over fsdp, feed-forward over tensor
    assert lane.addressable_shards[0].data.shape == (2, 8, 32)
    np.testing.assert_allclose(lane, alone, atol=1e-4)


def test_stacks_are_of_one_shape_and_one_width(make_assembly):
    plan = make_assembly(
        sizes=(Size(width=16, depth=2), Size(width=32, depth=2)), seeds=(0, 1, 2), rate_multipliers=(0.5, 1.0, 2.0)
    ).plan
    stacks = make_stacks(plan, 4, accelerator=False)
    assert [(s.members[0].shape.width, len(s.members), s.width) for s in stacks] == [(32, 3, 3)] * 3 + [(16, 3, 3)] * 3
    assert sorted(t.id for s in stacks for t in s.members) == sorted(t.id for t in plan)
    assert [(len(s.members), s.width) for s in make_stacks(plan, 5, accelerator=False)][:2] == [(5, 5), (4, 5)]
    assert {s.width for s in make_stacks(plan, None, accelerator=False)} == {1}
    assert {s.width for s in make_stacks(plan, None, accelerator=True)} == {9}  # these fill no accelerator


def test_what_is_an_input_of_the_step_is_no_part_of_its_program(make_assembly):
    base = make_assembly().plan[0]
    changed = {
        "seeds": (3,),
        "rate_multipliers": (2.0,),
        "tokens": (128 * 60,),
        "recipe": {"schedule": "cosine", "warmup_tokens": 128, "cooldown_fraction": 0.3, "cooldown_steps_min": 3},
    }
    for name, value in changed.items():
        other = make_assembly(**{name: value}).plan[0]
        assert other.program == base.program, name
        assert other.id != base.id or name == "tokens"
    for recipe in ({"beta2": 0.9}, {"sequence": 32}, {"batch_tokens": PowerRule(value=256)}, {"clip_norm": 2.0}):
        assert make_assembly(recipe=recipe).plan[0].program != base.program
    assert "learning_rate" in INPUTS


def test_a_rate_by_multiplier_is_the_rate_written_in_the_recipe(make_assembly):
    swept = make_assembly(rate_multipliers=(0.5, 1.0)).plan
    written = make_assembly(recipe={"learning_rate": PowerRule(value=5e-3)}).plan
    assert [(swept[0].id, swept[0].recipe)] == [(written[0].id, written[0].recipe)]
    assert (swept[1].id, swept[1].recipe) == (make_assembly().plan[0].id, make_assembly().plan[0].recipe)


def test_a_worker_takes_the_members_that_nobody_else_has(make_assembly, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lmscale.training.worker.signal.signal", lambda number, handler: None)
    small = {"sizes": (Size(width=16, depth=1),), "tokens": (128 * 20,), "seeds": (0, 1)}
    assembly = make_assembly(rate_multipliers=(1.0, 0.5), replicas=4, **small)
    lease = Leases(Workspace(tmp_path, "test").trajectory, "another").take(assembly.plan[1].id, "")
    assert lease is not None
    assert work(assembly, tmp_path, events=True) is False
    lease.release()
    records = [tmp_path / "test" / "runs" / t.runs[0].id / "record.json" for t in assembly.plan]
    assert [path.exists() for path in records] == [True, False, True, True]
    assert {json.loads(path.read_text())["replicas"] for path in records if path.exists()} == {3}
    messages = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    starts = [message for message in messages if message["event"] == "start"]
    assert ["first step after" in message["line"] for message in starts] == [True]
    work(assembly, tmp_path, events=False)
    assert json.loads(records[1].read_text())["replicas"] == 1

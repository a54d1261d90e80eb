"""Trunk and cooldowns: resumed bitwise, branched as from scratch, continued for a larger count, never repeated."""

import json
import math
import re

import jax
import numpy as np
import pytest
from small import Stop

from lmscale.checkpoint import Checkpoints
from lmscale.config import PowerRule
from lmscale.optim import learning_rates
from lmscale.records import Curve
from lmscale.train import Interrupted, train
from lmscale.training.lanes import Training


def results(t: Training) -> dict[int, tuple]:
    """Everything that must not depend on how a run came about, exactly, by token count."""
    found = {}
    for run in t.trajectory.runs:
        record = t.workspace.record(run.id)
        assert record is not None
        row = record["row"]
        final = Checkpoints(t.workspace.run(run.id) / "final").restore(
            run.steps, {"params": t.step.abstract_state.params}
        )
        params = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(final)]
        curve = (t.workspace.run(run.id) / "curve.jsonl").read_text()
        found[row["tokens"]] = (row["loss_nats"].hex(), row["loss_stderr"].hex(), params, curve)
    return found


def trunk_curve(t: Training) -> str:
    return (t.workspace.trajectory(t.trajectory.id) / "trunk.jsonl").read_text()


@pytest.fixture(scope="module")
def step_cache():
    """One compiled step per program and mesh: these tests train the same small model many times."""
    return {}


@pytest.fixture
def training(make_training, tmp_path, step_cache):
    def make(assembly, name="out", **settings):
        t = make_training(assembly, out=tmp_path / name, **settings)
        t.step = step_cache.setdefault((t.trajectory.program, t.mesh), t.step)
        return t

    return make


def test_training_learns_and_writes_records(make_assembly, training):
    done = []
    t = training(make_assembly(), done=lambda run, row: done.append(row["tokens"]))
    train(t)
    assert done == [2560, 5120]
    short, long = (t.workspace.record(run.id)["row"] for run in t.trajectory.runs)
    assert math.log(4) < long["loss_nats"] < short["loss_nats"] < math.log(32)  # the source has log 4 nats a token
    assert short["flops"] == 3 * t.trajectory.shape.forward_flops_per_token(16) * 2560
    assert short["unique_tokens"] == short["tokens"]
    assert t.workspace.export() == 2


def test_resumed_equals_uninterrupted_bitwise(make_assembly, training):
    """Stopped at each call of the program in turn."""
    assembly = make_assembly()
    whole = training(assembly, "whole")
    train(whole)
    wanted, curve = results(whole), trunk_curve(whole)
    call = 0
    while True:
        call += 1
        parts = training(assembly, f"parts{call}", stop=Stop(call))
        try:
            train(parts)
        except Interrupted:
            parts.stop = lambda: False
            train(parts)
            assert results(parts) == wanted, call
            assert trunk_curve(parts) == curve, call
        else:
            break  # it was asked when there was nothing left to do
    assert call > 14  # of three steps: 16 + 4, 16 + 8


def test_branched_equals_from_scratch_bitwise(make_assembly, training):
    both = training(make_assembly(), "both")
    train(both)
    alone = training(make_assembly(tokens=(128 * 40,)), "alone")
    train(alone)
    assert both.trajectory.id == alone.trajectory.id
    branched, scratch = results(both)[5120], results(alone)[5120]
    assert branched[:3] == scratch[:3]


def test_a_larger_count_continues_the_trunk(make_assembly, training):
    first = training(make_assembly(tokens=(128 * 20,)), "grown")
    train(first)
    steps = []
    grown = training(make_assembly(), "grown", report=lambda p: steps.append(p.steps))
    train(grown)
    assert sum(steps) == 40 - 16  # from the branch point of the first run at step 16, not from the start
    whole = training(make_assembly(), "whole")
    train(whole)
    assert [r[:3] for r in results(grown).values()] == [r[:3] for r in results(whole).values()]


def test_a_smaller_count_added_later_walks_the_trunk_again(make_assembly, training):
    first = training(make_assembly(tokens=(128 * 40,)), "shrunk")
    train(first)
    before = trunk_curve(first)
    both = training(make_assembly(), "shrunk")
    train(both)
    assert trunk_curve(both) == before
    whole = training(make_assembly(), "whole")
    train(whole)
    assert results(both)[2560][:3] == results(whole)[2560][:3]


def test_a_finished_run_is_not_trained_again(make_assembly, training):
    train(training(make_assembly()))
    steps = []
    train(training(make_assembly(), report=lambda p: steps.append(p.steps)))
    assert steps == []


def test_a_damaged_checkpoint_is_set_aside(make_assembly, training):
    assembly, said = make_assembly(), []
    t = training(assembly, "damaged", stop=Stop(4), checkpoint_seconds=0.0, say=said.append)
    with pytest.raises(Interrupted):
        train(t)
    folder = t.workspace.trajectory(t.trajectory.id) / "checkpoints"
    newest = max(p for p in folder.iterdir() if p.name.isdigit())
    victim = max(
        (p for p in newest.rglob("*") if p.is_file() and p.name != "manifest.json"), key=lambda p: p.stat().st_size
    )
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    t.stop = lambda: False
    train(t)
    assert any("set aside" in line for line in said)
    whole = training(assembly, "whole")
    train(whole)
    assert results(t) == results(whole)


def test_divergence_is_named_and_never_saved(make_assembly, training):
    lost = []
    t = training(
        make_assembly(recipe={"learning_rate": PowerRule(value=1e38)}),
        "diverged",
        checkpoint_seconds=0.0,
        diverged=lambda why, runs: lost.append((why, runs)),
    )
    train(t)
    ((why, runs),) = lost
    assert re.search(r"not finite at step [12]$", why)
    assert runs == list(t.trajectory.runs)
    assert Checkpoints(t.workspace.trajectory(t.trajectory.id) / "checkpoints").steps() == []
    assert [t.workspace.record(run.id)["row"]["status"] for run in runs] == ["diverged", "diverged"]


def test_cosine_runs_are_trajectories_of_their_own(make_assembly, training):
    assembly = make_assembly(recipe={"schedule": "cosine"})
    assert [len(t.runs) for t in assembly.plan] == [1, 1]
    assert len({t.id for t in assembly.plan}) == 2
    t = training(assembly, "cosine")
    train(t)
    parts = training(assembly, "cosine-parts", stop=Stop(2))
    with pytest.raises(Interrupted):
        train(parts)
    parts.stop = lambda: False
    train(parts)
    assert results(parts) == results(t)


def test_eight_devices_reach_the_loss_of_one(make_assembly, training, eight):
    one, many = training(make_assembly(), "one"), training(make_assembly(mesh=eight), "many")
    assert one.trajectory.id == many.trajectory.id  # the mesh is not part of a run's identity
    train(one)
    train(many)
    for tokens, result in results(one).items():
        assert float.fromhex(results(many)[tokens][0]) == pytest.approx(float.fromhex(result[0]), rel=1e-5)


def test_schedules_match_their_formulas(make_assembly):
    h = make_assembly().plan[0].hyperparameters
    assert h.warmup_steps == 4
    trunk = learning_rates(h, 0, 30, steps=None, branch_step=0)
    np.testing.assert_allclose(trunk[:5], h.learning_rate * np.array([0.25, 0.5, 0.75, 1, 1]), rtol=1e-6)
    assert (trunk[4:] == np.float32(h.learning_rate)).all()
    cooled = learning_rates(h, 0, 20, steps=20, branch_step=16)
    np.testing.assert_array_equal(cooled[:16], trunk[:16])
    np.testing.assert_allclose(cooled[16:], h.learning_rate * np.array([4, 3, 2, 1]) / 5, rtol=1e-6)


def test_a_torn_line_ends_a_curve(tmp_path):
    curve = Curve(tmp_path / "curve.jsonl")
    curve.append({"step": 1})
    curve.append({"step": 2})
    with open(curve.lines.path, "a") as file:
        file.write('{"step": 3, "tra')
    assert [row["step"] for row in Curve(curve.lines.path).read()] == [1, 2]
    fresh = Curve(curve.lines.path)
    fresh.truncate(1)
    fresh.append({"step": 2})
    assert [json.loads(line)["step"] for line in curve.lines.path.read_text().splitlines()] == [1, 2]

"""The faults that a sweep survives, a few of each; `make soak` does many (tests/soak/sweep.py)."""

import time

import faults
import file_faults
import numpy as np
import pytest
import workers

from lmscale import GIVEN_UP
from lmscale.checkpoint import Checkpoints
from lmscale.records import Workspace
from lmscale.step import State
from lmscale.store.files import Lines
from lmscale.work.attempts import ATTEMPTS


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return workers.make_study(tmp_path_factory.mktemp("study"))


@pytest.mark.long
def test_kills_change_no_bit(study, tmp_path):
    print(faults.kills(study, 3, 11, tmp_path))


def test_corrupt_checkpoints_are_seen(tmp_path):
    print(file_faults.corruptions(60, 5, tmp_path))


def test_launchers_commit_once(tmp_path):
    print(faults.launchers(4, 3, 7, tmp_path))


@pytest.mark.long
def test_a_full_disk_is_one_line_and_loses_nothing(study, tmp_path):
    print(file_faults.full_disk(study, [3000, 9000], tmp_path))


@pytest.mark.long
def test_a_full_file_system_is_one_line_and_loses_nothing(study, tmp_path, without_engine):
    try:
        print(file_faults.full_mount(study, [300], tmp_path))
    except PermissionError as error:
        without_engine("tmpfs", str(error))


@pytest.mark.long
def test_a_clock_that_jumps_changes_no_bit(study, tmp_path):
    print(faults.clocks(study, [-faults.DAY], tmp_path))  # the worse: what is new looks old


@pytest.mark.long
def test_a_trajectory_that_kills_its_workers_is_given_up(study, tmp_path):
    """Killed before the first save three times in one sweep; another sweep tries it again."""
    workers.share_text(study, tmp_path)
    for _ in range(3):
        worker = workers.Worker(workers.command(study, tmp_path, "--sweep", "one", "--checkpoint-seconds", "1e9"))
        assert worker.wait_for("start")
        worker.kill()
        worker.end()
    worker = workers.Worker(workers.command(study, tmp_path, "--sweep", "one"))
    assert worker.end() == GIVEN_UP
    (said,) = [e for e in worker.events if e["event"] == "given_up"]
    assert "3 attempts were killed before they got any further" in said["line"]
    folder = Workspace(tmp_path, "small").trajectory(said["trajectory"])
    assert Lines(folder / ATTEMPTS).read()[-1]["status"] == "stalled"
    assert workers.Worker(workers.command(study, tmp_path, "--sweep", "two")).end() == 0
    assert workers.digits(Workspace(tmp_path, "small")) == workers.uninterrupted(study)


@pytest.mark.long
def test_another_mesh_goes_on_from_the_same_state(tmp_path):
    pairs = [("8,1,1", "2,2,2"), ("2,2,2", "1,1,1"), ("1,1,1", "1,8,1")]
    print(faults.mesh_changes(pairs, tmp_path))


@pytest.mark.long
def test_a_sweep_starts_a_killed_worker_again(study, tmp_path):
    workers.share_text(study, tmp_path)
    sweep, workspace = workers.start_sweep(study, tmp_path), Workspace(tmp_path, "small")
    while not list(workspace.root.glob("trajectories/*/trunk.jsonl")):
        assert sweep.poll() is None
        time.sleep(0.02)
    workers.kill_holder(workspace)
    said, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, said
    assert "worker 0 was killed; started again, it goes on from its checkpoints" in said
    assert workers.digits(workspace) == workers.uninterrupted(study)


@pytest.mark.parametrize("where", ["parameters", "optimizer", "windows", "last call"])
def test_what_is_not_finite_is_never_saved(make_assembly, make_training, where, monkeypatch):
    """A number that is not finite, put into the state while the loss still is, or into what makes the gradient."""
    from lmscale.train import train

    t = make_training(make_assembly())
    advance, calls, last = t.step.advance, [0], 18  # three steps a call: 8 for the first run, then 6 and 4

    def poisoned(state, windows, rates, count):
        calls[0] += 1
        if calls[0] == (last if where == "last call" else 3):
            if where == "windows":
                rates = np.full_like(rates, np.nan)
            else:
                state = _poison(state, where)
        return advance(state, windows, rates, count)

    monkeypatch.setattr(t.step, "advance", poisoned)
    train(t)
    rows = [t.workspace.record(run.id)["row"] for run in t.trajectory.runs]
    assert "diverged" in {row["status"] for row in rows}
    assert all(row["loss_nats"] is None for row in rows if row["status"] == "diverged")
    kept = Checkpoints(t.workspace.trajectory(t.trajectory.id) / "checkpoints")
    assert kept.steps() == ([] if where != "last call" else [16, 32])  # those of before
    for step in kept.steps():
        assert t.step.is_finite(kept.restore(step, t.step.abstract_state))


def _poison(state: State, where: str) -> State:
    import jax

    part = state.params if where == "parameters" else state.optimizer
    leaves, tree = jax.tree.flatten(part)
    place = max(range(len(leaves)), key=lambda i: leaves[i].size)
    leaves[place] = leaves[place].at[(0,) * leaves[place].ndim].set(np.nan)
    part = jax.tree.unflatten(tree, leaves)
    return state._replace(params=part) if where == "parameters" else state._replace(optimizer=part)

"""What a worker takes: pieces in their order, what the dead have left, and cooldowns of another's trunk."""

import signal
import time

import pytest
import workers

from lmscale.planning.order import in_order
from lmscale.planning.replicas import make_stacks
from lmscale.records import RUN_COLUMNS, Workspace
from lmscale.store.shelves import MANIFEST
from lmscale.train import commit
from lmscale.work.desk import WAITING, Desk
from lmscale.work.leases import claims


@pytest.fixture
def desks(make_assembly, tmp_path):
    """make(count, **changes of the study): the desks of as many workers of one sweep, and what they share."""

    def make(count: int = 2, **changes):
        assembly = make_assembly(tokens=(2048, 4096, 8192), **changes)
        workspace = Workspace(tmp_path, "test")
        workspace.create()
        stacks = in_order(make_stacks(assembly.plan, 1, accelerator=False), None, count)
        return [Desk(workspace, stacks, "s", (), said.append) for _ in range(count)], stacks, workspace

    said: list[dict] = []
    return make


def branch(workspace, trajectory, run) -> None:
    """The trunk is at the run's branch point, on disk."""
    branch = workspace.trajectory(trajectory.id) / "checkpoints" / f"{run.branch_step:09d}"
    branch.mkdir(parents=True)
    (branch / MANIFEST).write_text("{}")


@pytest.fixture
def record(make_assembly, make_training):
    """record(workspace, run): a run is finished."""

    def write(workspace, run) -> None:
        row = dict.fromkeys(RUN_COLUMNS) | {"run_id": run.id, "status": "done"}
        t = make_training(make_assembly())
        t.workspace = workspace
        commit(t, run, {"row": row, "scores": [], "steps": run.steps, "branch_step": run.branch_step})

    return write


def test_pieces_are_taken_in_their_order_and_only_once(desks, record):
    (one, other), stacks, workspace = desks()
    for index, stack in enumerate(stacks):
        (member,) = stack.members
        assert one.take() == (index, [member.id], None)
        # it waits for a cooldown; of the last none is left to it, and it has seen that one is alive
        assert other.take() == ((0, [], None) if index < len(stacks) - 1 else None)
        record(workspace, member.runs[-1])
        one.give_back("done")
    assert one.take() is None
    assert other.take() is None


def test_a_cooldown_is_left_to_who_waits(desks, record):
    (one, other), stacks, workspace = desks()
    (trajectory,) = stacks[-1].members
    first, second, third = trajectory.runs
    assert one.take() == (0, [trajectory.id], None)
    grip = one.grips[trajectory.id]
    branch(workspace, trajectory, first)
    assert grip.takes(first)  # nobody waits
    assert other.take() == (0, [], None)
    assert len(list((workspace.root / WAITING).iterdir())) == 1
    assert grip.takes(first)  # it has been begun
    record(workspace, first)
    one.give_back("done")

    assert one.take() == (1, [trajectory.id], None)
    branch(workspace, trajectory, second)
    assert not one.grips[trajectory.id].takes(second)
    assert other.take() == (1, [trajectory.id], second.id)
    assert other.grips[trajectory.id].helps
    assert not list((workspace.root / WAITING).iterdir())
    one.give_back("done")
    assert one.take() == (2, [trajectory.id], None)  # the trunk goes on
    assert not one.grips[trajectory.id].takes(second)
    branch(workspace, trajectory, third)
    assert one.grips[trajectory.id].takes(third)
    record(workspace, third)
    one.give_back("done")
    assert one.take() == (0, [], None)  # until it is known that the other lives
    record(workspace, second)
    other.give_back("done")
    assert one.take() is None
    assert other.take() is None


def test_the_last_cooldown_is_left_to_nobody(desks):
    (one, other), stacks, _ = desks()
    (trajectory,) = stacks[-1].members
    one.take()
    assert other.take() == (0, [], None)
    assert one.grips[trajectory.id].takes(trajectory.runs[-1]), "nothing of the trunk would go on meanwhile"


def test_what_nobody_took_is_trained_in_the_end(desks, record):
    (one, other), stacks, workspace = desks()
    (trajectory,) = stacks[-1].members
    first, second, third = trajectory.runs
    one.take()
    other.take()
    branch(workspace, trajectory, first)
    assert not one.grips[trajectory.id].takes(first)
    other.stop_waiting()  # it ends before it could take it
    one.give_back("done")
    for index, run in ((1, second), (2, third)):
        assert one.take() == (index, [trajectory.id], None)
        branch(workspace, trajectory, run)
        assert not one.grips[trajectory.id].takes(first)
        assert one.grips[trajectory.id].takes(run)
        record(workspace, run)
        one.give_back("done")
    assert one.take() == (0, [trajectory.id], None)
    assert one.grips[trajectory.id].takes(first)


def test_a_cooldown_that_was_let_go_goes_back_to_the_trunk(desks, record):
    (one, other), stacks, workspace = desks()
    (trajectory,) = stacks[-1].members
    first = trajectory.runs[0]
    one.take()
    other.take()
    branch(workspace, trajectory, first)
    assert not one.grips[trajectory.id].takes(first)
    assert other.take() == (0, [trajectory.id], first.id)
    for run in trajectory.runs[1:]:
        record(workspace, run)
    one.give_back("done")
    assert one.take() == (0, [], None)
    for lease in other.grips[trajectory.id].leases:
        lease.release()
    assert one.take() == (0, [trajectory.id], None)
    assert one.grips[trajectory.id].takes(first)


def test_an_attempt_under_way_is_not_given_up(desks):
    """Two that were killed, and a third that has not come far yet: whether it will, another cannot tell."""
    desk, other = desks()[0]
    for _ in range(2):
        assert desk.take() is not None
        for grip in desk.grips.values():
            grip.leases[0].release()
        desk.grips.clear()
    assert desk.take() is not None
    assert other.take() == (0, [], None)
    assert other.given_up == set()


def test_a_cooldown_that_was_recorded_meanwhile_is_not_taken(desks, record):
    (one, _), stacks, workspace = desks()
    (trajectory,) = stacks[-1].members
    one.take()
    record(workspace, trajectory.runs[0])
    assert not one.grips[trajectory.id].takes(trajectory.runs[0])


@pytest.mark.long
def test_two_workers_share_one_trunk_and_change_no_bit(tmp_path):
    """Real processes on one size: whoever has no trunk trains cooldowns of the other's."""
    study = workers.make_study(tmp_path / "study", steps=(256, 512, 768, 1024))
    alone = workers.uninterrupted(study)
    out = tmp_path / "both"
    workers.share_text(study, out)
    workspace = Workspace(out, "small")
    first = workers.Worker(workers.command(study, out))
    assert first.wait_for("start")
    first.process.send_signal(signal.SIGSTOP)  # until the other waits
    second = workers.Worker(workers.command(study, out))
    while not list(workspace.root.glob(f"{WAITING}/*.json")):
        assert second.process.poll() is None
        time.sleep(0.02)
    first.process.send_signal(signal.SIGCONT)
    assert [worker.end() for worker in (first, second)] == [0, 0], [first.errors, second.errors]
    assert workers.digits(workspace) == alone
    cooldowns = {claim.owner for run in alone for claim in claims(workspace.run(run))}
    assert len(cooldowns) == 2, "one has trained all"
    assert sorted(first.acknowledged + second.acknowledged) == sorted(alone)
    assert not list((workspace.root / WAITING).iterdir())

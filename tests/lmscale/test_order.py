"""The order of a plan: all of it once, the law told soon, no worker waited for, and the numbers those of any order."""

import dataclasses
import json

import numpy as np
import pytest

from analysis import audit
from analysis.audit import sensitivities
from analysis.errors import InputError
from lmscale.cli import main
from lmscale.config import Size
from lmscale.plan import cost
from lmscale.planning.order import LAW, RESIDUAL_SD, Design, in_order
from lmscale.planning.replicas import make_stacks
from lmscale.records import Workspace
from lmscale.train import train

SIZES = tuple(Size(width=width, depth=depth) for width, depth in ((16, 1), (24, 2), (32, 2), (40, 3), (48, 3)))
TOKENS = tuple(128 * steps for steps in (20, 40, 80, 160))


def stacks_of(assembly):
    return make_stacks(assembly.plan, None, accelerator=False)


def added(piece) -> float:
    """FLOPs of the run that a piece adds to those before it."""
    return sum(cost(t, t.runs[-1]) for t in piece.members)


def test_every_run_comes_once_after_those_before_it(make_assembly):
    assembly = make_assembly(sizes=SIZES, tokens=TOKENS, seeds=(0, 1), rate_multipliers=(1.0, 2.0))
    pieces = in_order(stacks_of(assembly), None, workers=2)
    told = sorted(t.runs[-1].id for p in pieces for t in p.members)
    assert told == sorted(run.id for t in assembly.plan for run in t.runs)
    assert len(pieces) == 5 * 4 * 2 * 2
    whole = {t.id: t.runs for t in assembly.plan}
    seen: dict[str, int] = {}
    for piece in pieces:
        (t,) = piece.members
        assert len(t.runs) == seen.get(t.id, 0) + 1
        assert (*t.runs, *t.beyond) == whole[t.id]
        seen[t.id] = len(t.runs)


def test_information_added_one_run_at_a_time_is_that_of_the_whole_design():
    random = np.random.default_rng(0)
    rows, slope, members = random.normal(size=(12, 5)), random.normal(size=5), random.integers(0, 3, (12, 2))
    design = Design(rows=rows, slope=slope, members=members)
    chosen = [3, 0, 7, 11, 5]
    for i in chosen:
        expected = design.gains(np.array([i]))[0]
        before = design.variance.copy()
        design.add(i)
        assert expected == pytest.approx(float(((before - design.variance) / before).sum()), rel=1e-9)
    for g in range(2):
        information = np.eye(5) + sum(members[i, g] * np.outer(rows[i], rows[i]) for i in chosen)
        assert design.variance[g] == pytest.approx(slope @ np.linalg.inv(information) @ slope, rel=1e-9)


def test_an_early_stop_leaves_more_of_the_law_than_the_largest_first(make_assembly):
    """By the audit of the runs that one worker has finished after shares of the whole compute."""
    stacks = stacks_of(make_assembly(sizes=SIZES, tokens=TOKENS))
    largest_first = [(t, run) for stack in stacks for t in stack.members for run in t.runs]
    told = [(t, t.runs[-1]) for piece in in_order(stacks, 1e13, workers=1) for t in piece.members]
    whole = sum(cost(t, run) for t, run in told)
    for share in (0.3, 0.5, 0.7):
        assert factor(told, share * whole) < 0.9 * factor(largest_first, share * whole)
    assert factor(told, whole) == pytest.approx(factor(largest_first, whole))


def factor(order, flops: float) -> float:
    """Of the 95 % interval of N* at 1e13 FLOPs, high over low, from the runs that fit into a compute."""
    spent, cells = 0.0, []
    for t, run in order:
        spent += cost(t, run)
        if spent <= flops * (1 + 1e-9):
            cells.append((t.shape.params, run.tokens))
    params, tokens = np.array(cells, np.float64).T
    try:
        return audit(params, tokens, LAW, residual_sd=RESIDUAL_SD, flops=1e13).factor
    except InputError:  # no law at all
        return np.inf


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_workers_end_together(make_assembly, workers):
    """As soon as they could: bounded below by all the work shared out, and by the longest trajectory."""
    stacks = stacks_of(make_assembly(sizes=SIZES, tokens=TOKENS))
    pieces = in_order(stacks, None, workers)
    free_at, taken_until = [0.0] * workers, {}
    for piece in pieces:
        worker, name = free_at.index(min(free_at)), piece.members[0].id
        free_at[worker] = taken_until[name] = max(free_at[worker], taken_until.get(name, 0.0)) + added(piece)
    chains = [sum(cost(t, run) for t in s.members for run in t.runs) for s in stacks]
    assert max(free_at) <= 1.05 * max(sum(chains) / workers, max(chains))


def test_a_target_moves_the_order_and_seeds_are_spread(make_assembly):
    assembly = make_assembly(sizes=SIZES, tokens=TOKENS)
    orders = [
        [(p.members[0].shape.width, len(p.members[0].runs)) for p in in_order(stacks_of(assembly), target, 1)]
        for target in (1e9, 1e18)
    ]
    assert orders[0] != orders[1]
    jacobian, slope = sensitivities(np.array([1e6, 1e7]), np.array([1e8, 1e8]), LAW, 1e18)
    assert jacobian.shape == (2, 5)
    assert slope.shape == (5,)
    assert in_order([], None, 1) == []


def test_a_trajectory_trained_piece_by_piece_is_that_trained_at_once(make_assembly, make_training, tmp_path):
    assembly = make_assembly()
    whole = make_training(assembly, out=tmp_path / "whole")
    train(whole)
    pieces = make_training(assembly, out=tmp_path / "pieces")
    for piece in in_order(stacks_of(assembly), None, 1):
        part = make_training(assembly, out=tmp_path / "pieces")
        part.trajectory = piece.members[0]
        train(part)
    for run in whole.trajectory.runs:
        a, b = (t.workspace.record(run.id) for t in (whole, pieces))
        assert a["row"]["loss_nats"] == b["row"]["loss_nats"]
        assert (whole.workspace.run(run.id) / "curve.jsonl").read_text() == (
            pieces.workspace.run(run.id) / "curve.jsonl"
        ).read_text()


def test_a_trunk_that_diverges_takes_the_longer_runs_with_it(make_assembly, make_training):
    assembly = make_assembly(rate_multipliers=(1e40,))
    t = make_training(assembly)
    whole = t.trajectory
    t.trajectory = dataclasses.replace(whole, runs=whole.runs[:1], beyond=whole.runs[1:])
    lost = []
    t.diverged = lambda why, runs: lost.extend(runs)
    train(t)
    assert [run.id for run in lost] == [run.id for run in whole.runs]
    assert [t.workspace.record(run.id)["row"]["status"] for run in whole.runs] == ["diverged"] * 2


def test_a_worker_follows_the_order(study, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "shards").symlink_to(study.parent / "out" / "shards")
    grid = ["--sizes", "16x1,24x1,32x1", "--tokens", "16384,32768"]
    assert main(["sweep", str(study), "--out", str(out), "--workers", "1", *grid]) == 0
    folder = Workspace(out, "small")
    finished = [json.loads(p.read_text()) for p in folder.root.glob("runs/*/record.json")]
    by_time = sorted(folder.root.glob("runs/*/record.json"), key=lambda p: p.stat().st_mtime_ns)
    from lmscale.planning.assemble import assemble
    from lmscale.study.studies import load_study, override

    assembly = assemble(override(load_study(str(study)), grid), out, print)
    pieces = in_order(stacks_of(assembly), None, 1)
    assert [p.parent.name for p in by_time] == [t.runs[-1].id for piece in pieces for t in piece.members]
    assert len(finished) == 6
    widths = [piece.members[0].shape.width for piece in pieces]
    assert widths != sorted(widths)  # not one size after the other
    assert widths != sorted(widths, reverse=True)

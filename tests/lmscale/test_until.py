"""Stopping once the law is known: on planted laws, in the thread of a sweep, and in real sweeps."""

import json
import time

import numpy as np
import pytest

from analysis import Chinchilla
from analysis.errors import InputError
from lmscale.cli import main
from lmscale.planning.assemble import assemble
from lmscale.records import RUN_COLUMNS, Workspace
from lmscale.store.files import sealed, write_json
from lmscale.study.studies import load_study, override
from lmscale.watch.pacing import SHARE, Sparing
from lmscale.watch.until import Goal, Watch, judge

LAW = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6)


def rows(noise: float, seed: int = 0) -> list[dict]:
    """A branched grid of a planted law, in the order of its compute."""
    random, found = np.random.default_rng(seed), []
    for params in (2e4, 5e4, 1.2e5, 3e5, 7e5):
        for tokens in (5e5, 1e6, 2e6, 4e6):
            loss = float(LAW.predict(params, tokens)) * float(np.exp(noise * random.normal()))
            row = dict.fromkeys(RUN_COLUMNS) | {"run_id": f"{params}-{tokens}", "trajectory": f"{params}"}
            found.append(
                row
                | {
                    "params": params,
                    "tokens": tokens,
                    "loss_nats": loss,
                    "flops": 6 * params * tokens,
                    "status": "done",
                }
            )
    return found


def test_a_goal_is_read():
    goal = Goal.from_text("N*@1e15 within 25 %")
    assert (goal.flops, goal.within, goal.words) == (1e15, 0.25, "N*@1e15 within 25 %")
    assert Goal.from_text(" N* @ 2.5E+12 within 7.5% ").flops == 2.5e12


@pytest.mark.parametrize(
    "text",
    ["", "N*", "N*@1e15", "N@1e15 within 25 %", "N*@1e15 within 25", "N*@ within 25 %", "N*@1e15 within -5 %",
     "N*@0 within 5 %", "N*@1e15 within 0 %", "N*@1e15 within 250 %", "N*@1e999 within 5 %", "D*@1e15 within 25 %",
     "N*@1e15 within 25 % or so", "N*@__import__('os') within 5 %"],
)  # fmt: skip
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match=r"^until: .*'N\*@1e15 within 25 %'"):
        Goal.from_text(text)


def test_a_verdict_is_the_interval_of_the_fit():
    exact, noisy = (judge(Goal.from_text("N*@1e13 within 30 %"), rows(noise)) for noise in (1e-6, 0.05))
    assert exact.reached
    assert exact.half_width is not None
    assert exact.half_width < 1e-3
    assert f"is {float(LAW.optimum(1e13).params):.3g}" in exact.words
    assert not noisy.reached
    few = judge(Goal.from_text("N*@1e13 within 30 %"), rows(0.001)[:8])
    assert (few.reached, few.half_width) == (False, None)
    assert few.words.startswith("no law yet (params: only 2 values")


def test_a_watch_says_when_it_is_enough_and_not_before():
    goal, found, after = Goal.from_text("N*@1e13 within 20 %"), rows(0.002), None
    watch = Watch(goal, found[:9])
    for count, row in enumerate(found[9:], 10):
        watch.finished(row)
        watch.sparing.next = 0.0  # without waiting for twenty times what a fit takes
        while watch.asked is not None or watch.judged < len(watch.rows):
            watch.poll()
            if watch.reached:
                break
            time.sleep(0.01)
        if watch.reached:
            after = count
            break
    watch.close()
    assert after is not None
    assert 9 < after < len(found)
    assert judge(goal, found[:after]).reached
    assert not judge(goal, found[: after - 1]).reached


def test_work_beside_the_training_takes_a_twentieth_of_the_time():
    sparing = Sparing()
    assert sparing.due
    began = time.monotonic()
    with sparing.timed():
        time.sleep(0.02)
    assert not sparing.due
    assert sparing.next - began == pytest.approx(0.02 / SHARE, rel=0.5)
    assert sparing.next - began >= 0.02 / SHARE


GRID = ["--sizes", "16x1,24x1,32x1,40x1", "--tokens", "16384,24576,32768", "--allow-collinear", "false"]


def record(run, trajectory, loss: float) -> dict:
    """The record of a run as training would have written it, with a planted loss."""
    row = dict.fromkeys(RUN_COLUMNS) | {
        "run_id": run.id,
        "study": "small",
        "trajectory": trajectory.id,
        "family": trajectory.family,
        "objective": trajectory.objective,
        "corpus": trajectory.text.corpus,
        "tokenizer": trajectory.text.tokenizer,
        "eval_set": trajectory.text.eval_set,
        "recipe": trajectory.recipe,
        "params": trajectory.shape.params,
        "tokens": run.tokens,
        "flops": trajectory.shape.train_flops(run.tokens, 32),
        "flops_6nd": trajectory.shape.flops_6nd(run.tokens),
        "loss_nats": loss,
        "status": "done",
    }
    return {"row": row, "scores": [], "steps": run.steps, "branch_step": run.branch_step}


def plant(out, plan, law, missing: set[str], noise: float = 0.0) -> None:
    workspace, random = Workspace(out, "small"), np.random.default_rng(0)
    workspace.create()
    for t in plan:
        for run in t.runs:
            if run.id not in missing:
                workspace.run(run.id).mkdir(parents=True)
                loss = float(law.predict(t.shape.params, run.tokens)) * float(np.exp(noise * random.normal()))
                made = record(run, t, loss)
                write_json(workspace.run(run.id) / "record.json", sealed(made))


def set_up(study, tmp_path, *grid):
    out = tmp_path / "out"
    out.mkdir()
    (out / "shards").symlink_to(study.parent / "out" / "shards")
    return out, assemble(override(load_study(str(study)), [*GRID, *grid]), out, print).plan


def test_a_sweep_that_knows_enough_trains_nothing(study, tmp_path, capsys):
    out, plan = set_up(study, tmp_path)
    last = plan[-1].runs[-1]
    plant(out, plan, LAW, {last.id})
    asked = ["sweep", str(study), "--out", str(out), *GRID, "--until", "N*@1e12 within 10 %"]
    capsys.readouterr()
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "0 runs trained, 11 were done before" in printed
    assert "stopped: N* at 1e+12 FLOPs is" in printed
    assert "1 runs are not trained: 40x1x2 to 0.03 M tokens" in printed
    assert json.loads((out / "small" / "sweep.json").read_text())["until"] == "N*@1e12 within 10 %"
    assert (out / "small" / "runs.csv").read_text().count("\n") == 12


def test_a_sweep_stops_when_a_run_that_it_trained_tells_the_law(study, tmp_path, capsys):
    """Two sizes are planted, from which no law can be told; the law is planted through the loss that the first run of
    the third will have, so that this run tells it. The others would train for minutes.
    """
    long = ["--sizes", "16x1,24x1,32x1", "--tokens", "16384,24576,32768,4194304", "--corpus.allow-repeats", "true"]
    out, plan = set_up(study, tmp_path, *long)
    first = plan[-1].runs[0]
    one = ["sweep", str(study), "--out", str(out), "--sizes", "32x1", "--tokens", "16384", "--workers", "1"]
    assert main([*one, "--name", "small"]) == 0
    (trained,) = Workspace(out, "small").records()
    loss = trained["row"]["loss_nats"]
    (Workspace(out, "small").run(first.id) / "record.json").unlink()
    term = float(LAW.predict(plan[-1].shape.params, first.tokens)) - LAW.L0
    scale = (loss - 0.5) / term
    law = Chinchilla(A=30.0 * scale, B=4e3 * scale, L0=0.5, alpha=0.4, beta=0.6)
    plant(out, plan, law, {run.id for t in plan for run in t.runs if t is plan[-1] or run.tokens > 1e6})
    capsys.readouterr()
    asked = ["sweep", str(study), "--out", str(out), *GRID, *long, "--workers", "1", "--until", "N*@1e11 within 5 %"]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "stopped: N* at 1e+11 FLOPs is" in printed
    left = [run for t in plan for run in t.runs if Workspace(out, "small").record(run.id) is None]
    assert 3 <= len(left) <= 5
    assert f"{len(left)} runs are not trained: " in printed
    assert not [run for run in left if run.id == first.id]


def test_a_goal_that_is_not_reached_is_said(study, tmp_path, capsys):
    out, plan = set_up(study, tmp_path)
    last = plan[0].runs[0]
    plant(out, plan, LAW, {last.id}, noise=0.02)
    asked = ["sweep", str(study), "--out", str(out), *GRID, "--workers", "1", "--until", "N*@1e12 within 0.001 %"]
    capsys.readouterr()
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "1 runs trained, 11 were done before" in printed
    assert "stopped" not in printed
    assert "no law yet" in printed or "known within" in printed
    assert "not trained" not in printed


def test_bad_goals_cost_nothing(study, capsys):
    asked = ["sweep", str(study), "--out", str(study.parent / "out"), "--until"]
    for more, words in (
        (["N*@soon"], "until: 'N*@soon' is not understood"),
        (["N*@1e12 within 5 %", "--schedules", "wsd,cosine"], "asks for one law, but the study fits 2"),
    ):
        capsys.readouterr()
        assert main([*asked, *more]) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert len(captured.err.strip().splitlines()) == 1

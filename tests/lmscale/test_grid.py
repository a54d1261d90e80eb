"""The three ways to write a grid, what is left out of it, and the grids from which no law can be told."""

import json

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.errors import InputError
from analysis.profiles.budgets import group
from lmscale.cli import main
from lmscale.config import Corpus, Size
from lmscale.planning.grid import require_law
from lmscale.train import train

SIZES = (Size(width=16, depth=1), Size(width=24, depth=2), Size(width=32, depth=3))
TOKENS = (128 * 20, 128 * 40, 128 * 80)
LONG = {"corpus": Corpus(allow_repeats=True)}


def test_tokens_per_param_are_met_to_half_a_batch(make_assembly):
    plan = make_assembly(sizes=SIZES, tokens=(), tokens_per_param=(1.0, 2.0), **LONG).plan
    for trajectory in plan:
        for run, ratio in zip(trajectory.runs, (1.0, 2.0), strict=True):
            assert abs(run.tokens - ratio * trajectory.shape.params) <= 64
            assert run.flops_budget is None
    assert len({run.tokens for t in plan for run in t.runs}) == 6


def test_budgets_are_met_to_half_a_batch_and_trunks_branch(make_assembly):
    budgets = (4e8, 8e8)
    plan = make_assembly(sizes=SIZES, tokens=(), flops_budgets=budgets, **LONG).plan
    for trajectory in plan:
        assert [run.flops_budget for run in trajectory.runs] == list(budgets)
        for run in trajectory.runs:
            assert abs(6 * trajectory.shape.params * run.tokens - run.flops_budget) <= 6 * trajectory.shape.params * 64
        short, long = trajectory.runs
        assert 0 < short.branch_step < long.branch_step
        assert trajectory.train_steps == long.steps + short.cooldown_steps


def test_a_record_names_its_budget_and_the_analysis_groups_by_it(make_assembly, make_training, tmp_path):
    t = make_training(make_assembly(tokens=(), flops_budgets=(1e8, 2e8)))
    train(t)
    t.workspace.export()
    table = analysis.read(t.workspace.root / "runs.csv")
    found = group(table)
    assert found.description == "by the column flops_budget"
    assert [budget.flops for budget in found.budgets] == [1e8, 2e8]


def test_a_range_of_tokens_per_param_leaves_cells_out(make_assembly):
    budgets, limits = (4e8, 8e8, 1.6e9), (0.5, 8.0)
    plan = make_assembly(sizes=SIZES, tokens=(), flops_budgets=budgets, tokens_per_param_range=limits, **LONG).plan
    kept = {(t.shape.params, run.flops_budget) for t in plan for run in t.runs}
    every = {(t.shape.params, c) for t in make_assembly(sizes=SIZES).plan for c in budgets}
    assert kept == {(n, c) for n, c in every if limits[0] <= c / (6 * n * n) <= limits[1]}
    assert 0 < len(kept) < len(every)
    with pytest.raises(InputError, match=r"tokens_per_param_range: .* leaves out every cell"):
        make_assembly(tokens_per_param_range=(1e6, 2e6))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": ()}, r"tokens: \(\) must name at least one token count"),
        ({"tokens_per_param": (20,)}, r"tokens_per_param: \(20\.0,\) says again what tokens says.*--tokens none"),
        ({"tokens": (), "flops_budgets": (-1e9,)}, "flops_budgets: .* positive"),
        ({"tokens": (), "flops_budgets": (1e9, 1e9)}, "flops_budgets: .* twice"),
        ({"tokens": (), "flops_budgets": (1e9, 1.001e9)}, "flops_budgets: .* round to the same steps"),
        ({"tokens": (), "flops_budgets": (1e7,)}, r"flops_budgets: 10000000\.0 gives size .* at least .* \(.* here\)"),
        ({"tokens_per_param_range": (8.0, 2.0)}, "tokens_per_param_range: .* the lower first"),
        ({"schedules": ("wsd", "wsd")}, "schedules: .* must not name one twice"),
        ({"target_flops": 0.0}, r"target_flops: 0\.0 must lie between"),
    ],
)
def test_bad_grids(make_assembly, changes, words):
    with pytest.raises(InputError, match=words):
        make_assembly(**changes)


def test_the_least_budget_that_is_named_is_enough(make_assembly):
    with pytest.raises(InputError) as caught:
        make_assembly(tokens=(), flops_budgets=(1e7,))
    least = float(str(caught.value).split("tokens (")[1].split(" here")[0])
    assert make_assembly(tokens=(), flops_budgets=(least,)).plan
    with pytest.raises(InputError):
        make_assembly(tokens=(), flops_budgets=(least * 0.9,))


NO_LAW = {
    "one size": ({"tokens": TOKENS}, "sizes: "),
    "two sizes": ({"sizes": SIZES[:2], "tokens": TOKENS}, "sizes: only 2 values"),
    "one count": ({"sizes": SIZES, "tokens": TOKENS[:1], "seeds": (0, 1)}, "tokens: all 6 runs"),
    "few runs": ({"sizes": SIZES, "tokens": TOKENS[:1]}, "sizes: 3 usable rows cannot fit 5 parameters"),
    "fixed D/N": ({"sizes": SIZES, "tokens": (), "tokens_per_param": (1.0,), "seeds": (0, 1)}, "every run has D = "),
    "one budget": (
        {"sizes": SIZES, "tokens": (), "flops_budgets": (8e8,), "seeds": (0, 1)},
        "every run spends one budget",
    ),
}


@pytest.mark.parametrize("name", NO_LAW)
def test_a_grid_that_tells_no_law_is_refused_as_its_fit_would_be(make_assembly, name):
    changes, words = NO_LAW[name]
    assembly = make_assembly(**changes, **LONG)
    with pytest.raises(InputError) as caught:
        require_law(assembly.study, assembly.plan)
    assert words in str(caught.value)
    assert "--allow-collinear true" in str(caught.value)
    cells = [(float(t.shape.params), float(run.tokens)) for t in assembly.plan for run in t.runs]
    frame = pd.DataFrame(cells, columns=["params", "tokens"])
    frame["loss_nats"] = 2 + frame["params"] ** -0.3 + 1e-3 * np.arange(len(frame))
    with pytest.raises(InputError):
        analysis.fit(analysis.from_frame(frame), bootstrap=0)
    allowed = make_assembly(**changes, **LONG, allow_collinear=True)
    require_law(allowed.study, allowed.plan)


def test_a_grid_that_tells_a_law_is_let_through(make_assembly):
    for changes in ({"tokens": TOKENS}, {"tokens": (), "flops_budgets": (4e8, 8e8)}):
        assembly = make_assembly(sizes=SIZES, **changes, **LONG)
        require_law(assembly.study, assembly.plan)


@pytest.mark.parametrize("command", ["plan", "sweep"])
def test_the_commands_refuse_before_anything_is_trained(study, tmp_path, capsys, command):
    out = tmp_path / "out"
    out.mkdir()
    (out / "shards").symlink_to(study.parent / "out" / "shards")
    capsys.readouterr()
    assert main([command, str(study), "--out", str(out), "--allow-collinear", "false"]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("lmscale: sizes: 2 usable rows cannot fit 5 parameters")
    assert "\n" not in line
    assert not list((out / "small" / "runs").iterdir())


def test_the_plan_shows_budgets_and_what_is_left_out(study, capsys):
    out = study.parent / "out"
    grid = ["--tokens", "none", "--flops-budgets", "2e9,4e9", "--sizes", "16x1,24x1,32x1"]
    limits = ["--tokens-per-param-range", "2,60"]
    capsys.readouterr()
    assert main(["plan", str(study), "--out", str(out), *grid, *limits, "--no-time", "--json", "-"]) == 0
    captured = capsys.readouterr()
    runs = json.loads(captured.out)["runs"]
    assert {run["flops_budget"] for run in runs} <= {2e9, 4e9}
    assert f"{6 - len(runs)} cells of the grid are left out by tokens_per_param_range = 2 to 60" in captured.err

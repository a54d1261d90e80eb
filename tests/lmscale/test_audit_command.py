"""The command audit, from a study and from a table to a study that is planned; mistakes of one line."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.errors import InputError
from analysis.laws import Chinchilla
from lmscale.cli import main
from lmscale.config import Chosen, Corpus, Size
from lmscale.plan import make_plan
from lmscale.planning.candidates import extended, of_study, planned_of
from lmscale.planning.plan_table import totals
from lmscale.study.studies import load_study

LAW = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6)
PRIOR = ["--prior", "L0=1.1", "A=30", "B=4e3", "alpha=.4", "beta=.6", "--noise", ".004", "--simulations", "100"]
SIZES = (Size(width=16, depth=1), Size(width=24, depth=2), Size(width=32, depth=3))
TOKENS = (128 * 40, 128 * 80, 128 * 160)


@pytest.fixture
def table(tmp_path):
    """24 runs of a planted law, each by itself."""
    n, d = np.repeat(np.geomspace(3e4, 5e5, 6), 4), np.tile(np.geomspace(5e5, 4e6, 4), 6)
    loss = LAW.predict(n, d) * np.exp(0.003 * np.random.default_rng(0).normal(size=24))
    path = tmp_path / "runs.csv"
    pd.DataFrame({"params": n, "tokens": d, "loss_nats": loss, "vocab": 264}).to_csv(path, index=False)
    return path


@pytest.fixture
def assembly(make_assembly):
    return make_assembly(sizes=SIZES, tokens=TOKENS, corpus=Corpus(allow_repeats=True))


def test_planned_runs_cost_what_the_plan_says(assembly):
    planned = planned_of(assembly.plan)
    runs = [run for t in assembly.plan for run in t.runs]
    assert planned.tokens.tolist() == [run.tokens for run in runs]
    trunks = sum(planned.trunk_flops[planned.trajectory == k].max() for k in range(3))
    cooldowns = sum(
        t.shape.train_flops(run.cooldown_steps * t.hyperparameters.batch_tokens, t.hyperparameters.sequence)
        for t in assembly.plan
        for run in t.runs
    )
    assert trunks + cooldowns == pytest.approx(totals(assembly)["flops"])


def test_candidates_become_runs_of_the_same_study_that_cost_what_was_said(assembly):
    from analysis.suggest import cost

    study, plan = assembly.study, assembly.plan
    options = of_study(study, plan[0].text, plan, None, None)
    runs = options.candidates.runs
    assert {t.shape.params for t in plan} < set(runs.params)
    shared = np.isin(runs.trajectory, options.planned.trajectory)
    assert 0 < shared.sum() < len(shared)
    # one that goes on from a planned trunk, and one of a new size
    beyond = int(np.flatnonzero(shared & (runs.tokens > 1.5 * max(TOKENS)))[-1])
    chosen = [beyond, int(np.flatnonzero(~shared)[-1])]
    later = extended(study, plan, [options.cells[i] for i in chosen])
    made = make_plan(later, plan[0].text)
    before = {run.id for t in plan for run in t.runs}
    after = {run.id: run for t in made for run in t.runs}
    assert before < set(after)
    assert sorted(after[name].tokens for name in set(after) - before) == sorted(runs.tokens[chosen])
    spent = totals(replace(assembly, plan=made))["flops"] - totals(assembly)["flops"]
    assert cost(options.planned, options.candidates, chosen) == pytest.approx(spent)


def test_ranges_bound_what_is_suggested(assembly):
    options = of_study(assembly.study, assembly.plan[0].text, assembly.plan, (3e3, 2e4), (6e3, 3e4))
    runs = options.candidates.runs
    assert 3e3 <= runs.params.min() <= runs.params.max() <= 2e4
    assert 6e3 <= runs.tokens.min() <= runs.tokens.max() <= 3e4
    with pytest.raises(InputError, match="suggest: nothing within these ranges"):
        of_study(assembly.study, assembly.plan[0].text, assembly.plan, (1.0, 2.0), None)
    with pytest.raises(InputError, match="suggest: takes one recipe and one seed"):
        of_study(replace(assembly.study, seeds=(0, 1)), assembly.plan[0].text, assembly.plan, None, None)


def test_a_study_trains_only_what_it_names(make_assembly):
    only = (Chosen(size=SIZES[0], count=TOKENS[0]), Chosen(size=SIZES[2], count=TOKENS[2]))
    plan = make_assembly(sizes=SIZES, tokens=TOKENS, only=only, corpus=Corpus(allow_repeats=True)).plan
    assert [(t.shape.width, [run.tokens for run in t.runs]) for t in plan] == [(16, [TOKENS[0]]), (32, [TOKENS[2]])]


def test_a_table_is_audited_and_its_next_runs_are_written_and_drawn(table, tmp_path, capsys):
    files = {name: tmp_path / name for name in ("next.py", "design.svg", "audit.json")}
    words = ["--suggest", "3", "--budget", "2e14", "--write", str(files["next.py"]), "--bootstrap", "60"]
    words += ["--figure", str(files["design.svg"]), "--json", str(files["audit.json"]), "--simulations", "100"]
    assert main(["audit", str(table), *words]) == 0
    out = capsys.readouterr().out
    for word in ("the fit of", "parameters N*", "3 runs suggested", "std. error of N*", "wrote"):
        assert word in out
    answer = json.loads(files["audit.json"].read_text())
    suggested = answer["suggested"]
    assert suggested["flops"] <= 2e14
    assert suggested["standard_error_after"] < suggested["standard_error_before"]
    study = load_study(str(files["next.py"]))
    assert len(study.only) == len(suggested["runs"]) == 3
    assert study.recipe.schedule == "cosine"
    assert {(r["size"]["width"], r["count"]) for r in suggested["runs"]} == {
        (c.size.width, c.count) for c in study.only
    }
    assert files["design.svg"].read_text().lstrip().startswith("<?xml")


def test_the_answer_is_json_on_standard_output(table, capsys):
    assert main(["audit", str(table), *PRIOR, "--json", "-"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["identifiable"] is True
    names = [row["name"] for row in answer["planned"]["rows"]]
    assert {"alpha", "beta", "N*", "loss"} <= set(names)
    assert answer["prior"]["parameters"]["B"] == 4e3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prior", "nobody"], "prior: 'nobody' is unknown; name one of besiroglu"),
        ([*PRIOR, "--flops", "1e8"], "flops: 1e+08 lies below the smallest run"),
        ([*PRIOR, "--suggest", "0", "--budget", "1e12"], "suggest: 0 runs are none"),
        ([*PRIOR, "--suggest", "2", "--budget", "10"], "budget: 10 FLOPs pay for none of the"),
        ([*PRIOR, "--suggest", "2"], "budget: --suggest needs to know"),
        ([*PRIOR, "--budget", "1e12"], "budget: is of the suggested runs"),
        ([*PRIOR, "--figure", "x.pdf"], "figure: 'x.pdf' is no picture"),
        ([*PRIOR, "--shared", "2"], "shared: 2.0 is no share"),
        (["--prior", "besiroglu", "--law", "kaplan"], "law: 'kaplan' is not that of the prior"),
        ([*PRIOR, "--sizes", "32x2"], "argument: '--sizes' is not known to 'lmscale audit'"),
    ],
)
def test_a_mistake_costs_one_line(table, capsys, words, said):
    assert main(["audit", str(table), *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"lmscale: {said}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_collinear_table_is_refused_and_mended(tmp_path, capsys):
    n = np.geomspace(1e6, 1e9, 12)
    path = tmp_path / "d20.csv"
    pd.DataFrame({"params": n, "tokens": 20 * n, "loss": LAW.predict(n, 20 * n)}).to_csv(path, index=False)
    assert main(["audit", str(path), "--prior", "besiroglu"]) == 2
    assert "every run has D = 20 N" in capsys.readouterr().err
    options = ["--suggest", "4", "--budget", "1e21", "--simulations", "100"]
    assert main(["audit", str(path), "--prior", "besiroglu", *options]) == 0
    out = capsys.readouterr().out
    assert "not told" in out
    assert "warning: the planned runs alone tell no law: tokens: every run has D = 20 N" in out

"""lmscale report: one file that needs nothing else, whose numbers are those of the fit, or none."""

import json
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analysis
from analysis.comparing.recall import read_recall
from analysis.laws import Chinchilla
from analysis.page.report_figures import recall_chart
from analysis.report import report
from lmscale.cli import main

FACTS = Path(__file__).parents[1] / "experiments" / "results" / "facts"
pytest.importorskip("plotly", reason="plotly comes with the extra 'report'")
LAW = Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)  # Besiroglu et al. 2024, abstract


def table(path, *, collinear=False, **more):
    """30 runs of the law with errors of 0.2 % (or 6 runs at D = 20 N)."""
    rng, sizes = np.random.default_rng(0), np.geomspace(1e7, 1e9, 6)
    n, d = (sizes, 20 * sizes) if collinear else (v.ravel() for v in np.meshgrid(sizes, np.geomspace(1e9, 1e11, 5)))
    loss = LAW.predict(n, d) * np.exp(0.002 * rng.normal(size=n.size))
    pd.DataFrame({"run_id": [f"r<{i}>" for i in range(n.size)], "params": n, "tokens": d, "loss": loss, **more}).to_csv(
        path, index=False
    )
    return path


def run(*words):
    return main([str(word) for word in words])


def figures(page):
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_the_page_stands_alone_and_has_the_numbers_of_the_fit(tmp_path, capsys):
    runs = table(tmp_path / "my.csv", seed=3, schedule="cosine")
    assert run("report", runs, "--bootstrap", 60, "--json", tmp_path / "a.json") == 0
    page = (tmp_path / "report.html").read_text()
    assert "report.html" in capsys.readouterr().out
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="(?!data:)', page)
    row = json.loads((tmp_path / "a.json").read_text())["rows"][0]
    fitted = analysis.fit(analysis.read(runs), bootstrap=60)
    assert row["params"] == pytest.approx(float(fitted.law.optimum(row["flops"]).params), rel=1e-9)
    shown = figures(page)
    marked = [t for t in shown["optimum"]["data"] if t["mode"] == "markers"]
    assert marked[0]["x"][0] == pytest.approx(row["params"], rel=1e-5)
    assert {"optimum", "frontier", "surface", "approaches", "residuals", "backtest"} <= set(shown)
    np.testing.assert_allclose(shown["residuals"]["data"][-1]["y"], 100 * np.expm1(fitted.residuals), rtol=1e-5)
    grid = shown["surface"]["data"][0]
    assert grid["z"][5][7] == pytest.approx(float(fitted.law.predict(grid["x"][7], grid["y"][5])), rel=1e-4)
    assert "r&lt;0&gt;" in page
    assert "r<0>" not in page
    assert run("report", runs, "--bootstrap", 60) == 0
    assert "in place of the earlier one" in capsys.readouterr().out


def test_the_checklist_tells_what_is_recorded_and_what_is_not(tmp_path):
    runs = table(tmp_path / "my.csv", seed=3, schedule="cosine")
    assert run("report", runs, "--bootstrap", 30, "--json", tmp_path / "a.json") == 0
    found = {i["question"]: i["answer"] for i in json.loads((tmp_path / "a.json").read_text())["checklist"]}
    assert found["How many models, of which sizes?"] == "30 runs of 6 sizes, 10 M to 1 G parameters"
    assert found["Which seeds?"] == "3"
    assert found["Which schedule?"] == "cosine"
    assert found["Which optimiser?"] == found["Which tokenizer?"] == "not recorded"
    assert found["How are intervals made?"].startswith("30 resamples")


def test_records_tell_the_optimiser(tmp_path):
    runs = table(tmp_path / "runs.csv")
    for name, decay in (("a", 0.1), ("b", 0.1)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        told = {
            "identity": {"hyperparameters": {"beta1": 0.9, "weight_decay": decay, "learning_rate": 0.1 * len(name)}}
        }
        (tmp_path / "runs" / name / "record.json").write_text(json.dumps(told))
    assert run("report", runs, "--bootstrap", 0, "--json", tmp_path / "a.json") == 0
    found = {i["question"]: i["answer"] for i in json.loads((tmp_path / "a.json").read_text())["checklist"]}
    assert found["Which optimiser?"] == "kind AdamW, beta1 0.9, weight_decay 0.1"


def test_without_resamples_no_interval_is_shown(tmp_path):
    assert run("report", table(tmp_path / "my.csv"), "--bootstrap", 0) == 0
    page = (tmp_path / "report.html").read_text()
    answer = page[page.index('id="answer"') : page.index('id="warnings"')]
    assert "without intervals" in answer
    assert "[" not in answer.partition("<details>")[0]
    shown = figures(page)
    assert not any("error_x" in trace for trace in shown["optimum"]["data"])
    assert not any("interval" in trace["name"] for trace in shown["frontier"]["data"])


def test_a_law_that_the_runs_do_not_tell_gives_no_optimum(tmp_path, capsys):
    rng, n = np.random.default_rng(1), np.geomspace(1e7, 1e8, 4)
    n, d = (v.ravel() for v in np.meshgrid(n, [1e9, 2e9, 4e9]))
    loss = 3.0 * np.exp(0.02 * rng.normal(size=n.size))
    pd.DataFrame({"params": n, "tokens": d, "loss": loss}).to_csv(tmp_path / "my.csv", index=False)
    assert run("report", tmp_path / "my.csv", "--bootstrap", 20, "--json", tmp_path / "a.json") == 0
    page = (tmp_path / "report.html").read_text()
    assert "tell no best size" in page
    shown = figures(page)
    assert "optimum" not in shown
    assert [trace["name"] for trace in shown["frontier"]["data"]] == ["runs"]
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == []
    assert run("report", table(tmp_path / "c.csv", collinear=True), "-o", tmp_path / "c.html") == 2
    assert not (tmp_path / "c.html").exists()


def test_what_is_asked_amiss_is_one_line(tmp_path, capsys, monkeypatch):
    runs = table(tmp_path / "my.csv")
    (tmp_path / "file").write_text("")
    asked = [(("-o", tmp_path), "is a folder"), (("-o", tmp_path / "file" / "a.html"), "cannot be written"),
             (("--flops", "0"), "flops")]  # fmt: skip
    for words, told in asked:
        assert run("report", runs, *words) == 2
        assert told in capsys.readouterr().err
    monkeypatch.setattr("analysis.page.report_page.find_spec", lambda name: None)
    assert run("report", runs) == 2
    error = capsys.readouterr().err
    assert "pip install 'lmscale[report]'" in error
    assert error.count("\n") == 1


def test_recall_of_planted_facts_has_a_figure(tmp_path):
    fitted = analysis.fit(analysis.read(table(tmp_path / "my.csv")), bootstrap=0)
    made = report(fitted, title="t", source="s", made=date(2026, 1, 1))
    assert recall_chart(made) is None
    read = read_recall(FACTS, analysis.read(FACTS))
    chart = recall_chart(replace(made, recall=read))
    assert chart is not None
    assert len(chart.rows) == len(read.cells) == 28


def test_plot_writes_png_and_svg(tmp_path):
    assert run("plot", table(tmp_path / "my.csv"), "--bootstrap", 0, "--figures", tmp_path / "f") == 0
    names = {path.name for path in (tmp_path / "f").iterdir()}
    assert names == {f"{n}.{s}" for n in ("loss_against_compute", "residuals", "isoflop") for s in ("png", "svg")}
    assert (tmp_path / "f" / "residuals.svg").read_text().lstrip().startswith("<?xml")

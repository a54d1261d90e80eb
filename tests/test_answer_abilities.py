"""The commands about abilities and their part of the report, from files to text, JSON, figures and a page."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from lmscale.cli import main

sys.path.insert(0, str(Path(__file__).parent / "analysis"))

from planted_study import CROSSING, planted_study


def fewer(folder, *tasks):
    """The scores of some tasks by two metrics."""
    scores = pd.read_csv(folder / "scores.csv")
    metrics = ("accuracy", "accuracy_low", "accuracy_high", "log_prob", "chance", "items")
    return scores[scores["task"].isin(tasks) & scores["metric"].isin(metrics)]


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """One answer of every part, on two of the planted tasks."""
    folder = planted_study(tmp_path_factory.mktemp("study"))
    kept = fewer(folder, "lookup", "guess")
    hostile = {"guess": "<img src=x onerror=alert(1)> $x$", "lookup": "lookup"}
    kept.assign(task=[hostile[task] for task in kept["task"]]).to_csv(folder / "scores.csv", index=False)
    return folder


def test_every_part_is_answered(answered, capsys):
    assert main(["abilities", str(answered), "--bootstrap", "200", "--json", str(answered / "a.json")]) == 0
    text = capsys.readouterr().out
    assert "lookup: smooth: no jump" in text
    assert "no law; scores: no dependence on the loss is told from none" in text
    told = json.loads((answered / "a.json").read_text())
    lookup, guess = told["tasks"]
    assert lookup["laws"][0]["form"] == "sigmoid"
    assert lookup["laws"][0]["parameters"]["top"] == pytest.approx(0.9, abs=0.1)
    low, high = lookup["laws"][0]["intervals"]["middle"]
    assert low < 2.2 < high
    assert lookup["scaling"]["kind"] == "rising"
    assert (guess["scaling"]["kind"], guess["laws"]) == ("flat", [])
    assert guess["sharpness"]["verdict"] == "no change"
    assert len(told["figures"]) == 6  # the metrics of two tasks and the law of one, each twice
    for name in told["figures"]:
        assert Path(name).stat().st_size > 5_000


def test_the_report_has_a_section_of_each_part_and_escapes_names(answered):
    page = answered / "report.html"
    assert main(["report", str(answered), "-o", str(page), "--bootstrap", "200"]) == 0
    html = page.read_text()
    for name in ("abilities", "two-stages", "scaling-kinds", "jumps"):
        assert f'<section id="{name}">' in html
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


def test_families_are_answered_apart(tmp_path, capsys):
    folder = planted_study(tmp_path, seeds=1)
    runs = pd.read_csv(folder / "runs.csv")
    runs["family"] = ["decoder" if n < 1e5 else "encoder" if n < 3e5 else "lstm" for n in runs["params"]]
    unscored = {run for run, family in zip(runs["run_id"], runs["family"], strict=True) if family == "lstm"}
    scores = pd.DataFrame(fewer(folder, "lookup"))
    scores[[run not in unscored for run in scores["run_id"]]].to_csv(folder / "scores.csv", index=False)
    runs.to_csv(folder / "runs.csv", index=False)
    asked = ["abilities", str(folder), "--bootstrap", "0"]
    assert main(asked) == 2
    assert "family: 3 values ('decoder', 'encoder', 'lstm') are not fitted together" in capsys.readouterr().err
    assert main([*asked, "--by", "family", "--json", str(tmp_path / "a.json")]) == 0
    told = json.loads((tmp_path / "a.json").read_text())
    assert list(told["groups"]) == ["decoder", "encoder"]
    assert "scores no task of these runs" in told["refused"]["lstm"]
    assert all("encoder" in name for name in map(str, told["groups"]["encoder"]["figures"]))
    assert "fewer than three trajectories" in told["groups"]["encoder"]["tasks"][0]["scaling"]["reason"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "none"], "task: 'none' is not scored"),
        (["--against", "width"], "against: 'width' is no scale; choose params, tokens, flops or loss"),
        (["--chance", "lookup=much"], "chance: 'much' is not a finite number"),
        (["--slice", "shots=4"], "slice: 'shots=4' is not in"),
        (["--bootstrap", "1"], "bootstrap: 1 resamples make no interval"),
        (["--metric", "bleu"], "metric: no task of"),
    ],
)
def test_a_wrong_option_is_one_line(answered, options, said, capsys):
    assert main(["abilities", str(answered), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lmscale: {said}")
    assert error.count("\n") == 1


def test_advice_is_one_line_with_its_figure(tmp_path, capsys):
    folder = planted_study(tmp_path, tuned=True)
    assert main(["tune-or-prompt", str(folder), "--bootstrap", "200", "--json", str(tmp_path / "a.json")]) == 0
    assert "advice: prompt below about" in capsys.readouterr().out
    told = json.loads((tmp_path / "a.json").read_text())
    assert len(told["sizes"]) == 3
    assert all(size["low"] < CROSSING < size["high"] for size in told["sizes"])
    assert all(Path(name).is_file() for name in told["figures"])

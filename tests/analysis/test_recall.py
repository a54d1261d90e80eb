"""Recall of planted facts from a table of scores: shares, Wilson's intervals, and what leaves chance."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from analysis.comparing.recall import read_recall, recall_text
from analysis.errors import InputError
from analysis.pictures.recall_plots import recall_figure
from analysis.table import read
from lmscale.cli import main

HITS = {(3e4, 1): 1, (3e4, 100): 3, (3e5, 1): 0, (3e5, 100): 15}  # of 16 facts, by size and repeats


@pytest.fixture
def folder(tmp_path):
    sizes = sorted({params for params, _ in HITS})
    runs = pd.DataFrame({"run_id": [f"r{n:.0f}" for n in sizes], "params": sizes, "tokens": 1e6, "loss_nats": 1.5})
    runs.to_csv(tmp_path / "runs.csv", index=False)
    rows = [(f"r{n:.0f}", "facts", "chance", 1 / 16, "") for n in sizes]
    for (params, repeats), hits in HITS.items():
        for metric, value in (("recall", hits / 16), ("exact", 0.0), ("log_prob", -2.0), ("facts", 16)):
            rows.append((f"r{params:.0f}", "facts", metric, value, f"repeats={repeats}"))
    scores = pd.DataFrame(rows, columns=["run_id", "task", "metric", "value", "slice"])
    scores.to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path


def test_cells(folder):
    result = read_recall(folder, read(folder))
    assert result.chance == 1 / 16
    assert {(c.params, int(c.repeats)): round(c.recall * c.facts) for c in result.cells} == HITS
    p_values = {k: binomtest(h, 16, 1 / 16, alternative="greater").pvalue for k, h in HITS.items()}
    least = min(p_values, key=p_values.__getitem__)
    (cell,) = [c for c in result.cells if (c.params, c.repeats) == least]
    assert cell.p_adjusted == pytest.approx(4 * p_values[least], rel=1e-9)
    assert [(c.params, c.repeats) for c in result.cells if c.known] == [(3e5, 100)]


def test_what_was_found_is_said(folder):
    text = recall_text(read_recall(folder, read(folder)))
    assert "30 k parameters, 1 M tokens: nothing leaves chance" in text
    assert "300 k parameters, 1 M tokens: beyond chance at 100 repeats" in text


def test_the_figure_has_a_line_for_each_size(folder):
    (axes,) = recall_figure(read_recall(folder, read(folder))).axes
    heights = [np.asarray(line.get_ydata()) for line in axes.get_lines() if len(np.asarray(line.get_xdata())) == 2]
    assert any(np.allclose(y, [0, 15 / 16]) for y in heights)


def test_the_command_draws_it(folder, capsys):
    assert main(["plot", str(folder), "--recall"]) == 0
    assert "recall.png" in capsys.readouterr().out
    assert (folder / "figures" / "recall.png").read_bytes().startswith(b"\x89PNG")


def test_runs_without_facts(folder, capsys):
    scores = pd.read_csv(folder / "scores.csv")
    scores.assign(task="heldout").to_csv(folder / "scores.csv", index=False)
    with pytest.raises(InputError, match=r"recall: no run in .* was asked for planted facts"):
        read_recall(folder, read(folder))
    assert main(["plot", str(folder), "--recall", "--slice", "repeats"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

"""Translations from a table of scores: means, intervals and lines by family and evaluation set."""

import numpy as np
import pandas as pd
import pytest

from analysis.comparing.translation import read_translation, translation_figure, translation_text
from analysis.errors import InputError
from analysis.solving.proportions import wilson
from analysis.table import read
from lmscale.cli import main

HITS = {("decoder", 3e4): (1, 0), ("decoder", 3e5): (60, 48), ("encoder_decoder", 4e4): (5, 3)}  # of 64: seen, unseen
SETS = ("heldout", "unseen")


@pytest.fixture
def folder(tmp_path):
    runs, rows = [], []
    for (family, params), hits in HITS.items():
        for seed in (0, 1):
            run = f"{family}-{params:.0f}-{seed}"
            runs.append((run, family, params, 1e6, 0.5 + seed))
            for name, count in zip(SETS, hits, strict=True):
                task = f"{name}-translated"
                rows.append((run, task, "exact", (count + seed) / 64, 0.01))
                rows.append((run, task, "chrf", 40.0 + 20 * seed, 2.0))
                rows.append((run, task, "pairs", 64, None))
            rows.append((run, "heldout", "loss_nats", 0.5 + seed, 0.01))
    pd.DataFrame(runs, columns=["run_id", "family", "params", "tokens", "loss_nats"]).to_csv(
        tmp_path / "runs.csv", index=False
    )
    scores = pd.DataFrame(rows, columns=["run_id", "task", "metric", "value", "stderr"]).assign(slice="")
    scores.to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path


def test_cells_are_means_over_seeds_on_the_same_pairs(folder):
    cells = read_translation(folder, read(folder, by="family")).cells
    assert {(c.family, c.params, c.eval_set): c.exact * 64 for c in cells} == {
        (family, params, name): hits + 0.5
        for (family, params), both in HITS.items()
        for name, hits in zip(SETS, both, strict=True)
    }
    for cell in cells:
        assert (cell.runs, cell.pairs, cell.chrf) == (2, 64, 50)
        assert cell.exact_interval == wilson(round(cell.exact * 64), 64)
        assert cell.chrf_interval == pytest.approx((50 - 1.96 * 2, 50 + 1.96 * 2), abs=1e-3)
    text = translation_text(read_translation(folder, read(folder, by="family")))
    assert "encoder_decoder  unseen   40 k        1 M     64     0.055" in text


def test_the_figure_has_a_line_for_each_family_and_set(folder):
    exact, chrf = translation_figure(read_translation(folder, read(folder, by="family"))).axes
    heights = [np.asarray(line.get_ydata(), float) for line in exact.get_lines()]
    for seen in ([1.5, 60.5], [0.5, 48.5], [5.5], [3.5]):
        assert any(len(y) == len(seen) and np.allclose(y, np.array(seen) / 64) for y in heights)
    assert chrf.get_ylabel() == "chrF"


def test_the_command_draws_it(folder, capsys):
    assert main(["plot", str(folder), "--translation", "--json", "-"]) == 0
    assert "translation.png" in capsys.readouterr().out
    assert (folder / "figures" / "translation.png").read_bytes().startswith(b"\x89PNG")
    assert main(["plot", str(folder), "--translation", "--slice", "source"]) == 2
    assert "takes no --translation" in capsys.readouterr().err


def test_runs_that_did_not_translate(folder, capsys):
    scores = pd.read_csv(folder / "scores.csv")
    scores[scores["task"] == "heldout"].to_csv(folder / "scores.csv", index=False)
    with pytest.raises(InputError, match=r"translation: no run in .* translated; train with --objective pairs"):
        read_translation(folder, read(folder, by="family"))
    assert main(["plot", str(folder), "--translation"]) == 2
    assert capsys.readouterr().err.count("\n") == 1

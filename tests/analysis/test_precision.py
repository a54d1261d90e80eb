"""Loss that rounding adds: a planted law found again, losses below zero, refusals, the figure and the command."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from analysis.comparing.precision import PrecisionFit, PrecisionLaw, fit_precision
from analysis.errors import InputError
from analysis.reading.scores import read_scores
from analysis.table import read
from analysis.words.precision_text import precision_figure, precision_text
from lmscale.cli import main

PLANTED = PrecisionLaw(log_C_T=1.0, gamma_D=0.5, gamma_N=0.4, gamma_P=0.75)
SIZES, TOKENS, BITS = np.geomspace(3e4, 5e5, 5), np.geomspace(4e5, 3.2e6, 4), (8, 6, 4, 3)


@pytest.fixture
def study(tmp_path):
    """study(...) writes runs.csv and scores.csv of a planted law, and gives their folder."""

    def write(*, scatter=0.1, shared=0.05, stderr=1e-4, bits=BITS, sizes=SIZES, tokens=TOKENS, seed=0, suffix=""):
        rng = np.random.default_rng(seed)
        runs, scores = [], []
        for n in sizes:
            effect = shared * rng.normal()
            for d in tokens if np.ndim(tokens) == 1 else [20 * n]:
                name = f"r{n:.0f}-{d:.0f}"
                runs.append((name, f"t{n:.0f}", n, d, 1.5, "held"))
                for b in bits:
                    mean = float(PLANTED(n, d, b))
                    added = mean * math.exp(effect + scatter * rng.normal()) + stderr * rng.normal()
                    scores.append((name, "heldout", f"loss_added_int{b}{suffix}", added, stderr, "held", ""))
        columns = "run_id trajectory params tokens loss_nats eval_set"
        pd.DataFrame(runs, columns=columns.split()).to_csv(tmp_path / "runs.csv", index=False)
        columns = "run_id task metric value stderr eval_set slice"
        pd.DataFrame(scores, columns=columns.split()).to_csv(tmp_path / "scores.csv", index=False)
        return tmp_path

    return write


def fitted(folder, **options) -> PrecisionFit:
    return fit_precision(read(folder), read_scores(folder), **{"bootstrap": 200, **options})


def values(law: PrecisionLaw) -> dict[str, float]:
    gammas = {"gamma_D": law.gamma_D, "gamma_N": law.gamma_N, "gamma_P": law.gamma_P}
    return {**gammas, "C_T": math.exp(law.log_C_T), "gamma_D - gamma_N": law.gamma_D - law.gamma_N}


def test_a_law_without_noise_is_found_exactly(study):
    result = fitted(study(scatter=0, shared=0, stderr=0), bootstrap=0)
    assert result.law is not None
    assert values(result.law) == pytest.approx(values(PLANTED), rel=1e-6)
    assert result.intervals == {}
    assert [level.bits for level in result.levels] == [8, 6, 4, 3]
    assert [level.ratio for level in result.levels] == pytest.approx([1, 1, 1, 1])


@pytest.mark.parametrize("stderr", [1e-4, 3e-3])
def test_a_noisy_law_lies_in_the_intervals(study, stderr):
    """With the larger error most of what eight bits add is noise, a part of it below zero."""
    result = fitted(study(stderr=stderr, seed=3))
    for name, truth in values(PLANTED).items():
        low, high = result.intervals[name]
        assert low < truth < high, name
    low, high = result.intervals["gamma_P"]
    assert high - low < 0.1
    assert result.scatter == pytest.approx(math.hypot(0.1, 0.05), rel=0.4)
    eight = result.levels[0]
    assert (eight.least < 0) == (stderr > 1e-3)
    assert any("int8" in warning and "not told from zero" in warning for warning in result.warnings) == (stderr > 1e-3)


def test_intervals_cover(study):
    """Of twelve studies: 60 intervals of 95 %, of which 10 misses are far beyond chance and correlation."""
    misses = 0
    for seed in range(12):
        result = fitted(study(seed=seed, stderr=1e-3), bootstrap=100)
        misses += sum(not low < values(PLANTED)[name] < high for name, (low, high) in result.intervals.items())
    assert misses < 10


def test_dropping_what_is_not_positive_would_have_been_wrong(study):
    """Of losses as often below zero as above, the logarithm sees those above; the fit does not."""
    folder = study(stderr=0.03, scatter=0.02, shared=0.0, bits=(8, 6, 4), seed=1)
    result = fitted(folder, bootstrap=0)
    points = result.points
    kept = points.added > 0
    logs = np.column_stack(
        [np.ones(kept.sum()), np.log(points.tokens[kept]), -np.log(points.params[kept]), -points.bits[kept]]
    )
    naive = 1 / np.linalg.lstsq(logs, np.log(points.added[kept]), rcond=None)[0][3]
    assert result.law is not None
    assert abs(result.law.gamma_P - PLANTED.gamma_P) < abs(naive - PLANTED.gamma_P) / 3


def test_a_law_that_does_not_hold_over_the_precisions_is_said(study):
    folder = study()
    scores = pd.read_csv(folder / "scores.csv")
    scores.loc[scores["metric"] == "loss_added_int6", "value"] *= 3
    scores.to_csv(folder / "scores.csv", index=False)
    assert any("does not hold" in warning and "at int6" in warning for warning in fitted(folder).warnings)
    fewer = fitted(folder, bits=[8, 4, 3])
    assert fewer.warnings == ()
    low, high = fewer.intervals["gamma_P"]
    assert low < PLANTED.gamma_P < high


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bits": (4,)}, "only 4 bits were tried"),
        ({"sizes": SIZES[:2]}, "2 trajectories cannot tell"),
        ({"tokens": 20.0}, "N and D do not vary apart"),
        ({"bits": (8, 6), "stderr": 10.0}, "added losses are told from zero"),
    ],
)
def test_what_cannot_be_told_is_refused(study, changes, words):
    result = fitted(study(**changes))
    assert result.law is None
    assert words in result.reason
    assert f"no law: {result.reason}" in precision_text(result)
    assert len(precision_figure(result).axes) >= len(changes.get("bits", BITS))  # drawn all the same


def test_bits_that_do_not_matter_are_refused(study):
    folder = study(bits=(4, 3))
    scores = pd.read_csv(folder / "scores.csv")
    swapped = {"loss_added_int4": "loss_added_int3", "loss_added_int3": "loss_added_int4"}
    scores.assign(metric=[swapped[metric] for metric in scores["metric"]]).to_csv(folder / "scores.csv", index=False)
    assert "more bits do not surely add less loss" in fitted(folder).reason


def test_the_figure_shows_every_run(study):
    """A marker a run and precision, those that added nothing at the foot of their panel; the law through them."""
    panels, below = precision_figure(fitted(study(stderr=3e-3, seed=3))).axes, 0
    assert [axes.get_title() for axes in panels] == ["int8", "int6", "int4", "int3"]
    for axes in panels:
        assert axes.get_xscale() == axes.get_yscale() == "log"
        heights = [np.asarray(line.get_ydata(), float) for line in axes.get_lines() if line.get_marker() == "o"]
        above = np.concatenate(heights)
        feet = [np.asarray(each.get_offsets()) for each in axes.collections if isinstance(each, PathCollection)]
        at_foot = np.concatenate([offsets[:, 1] for offsets in feet])
        assert len(above) + len(at_foot) == 20
        low, high = axes.get_ylim()
        assert ((above > low) & (above < high)).all()
        assert (at_foot > low).all()
        assert (at_foot < above.min()).all()
        below += len(at_foot)
    assert below > 0


def test_the_command(study, capsys):
    folder = study()
    assert main(["plot", str(folder), "--precision", "--bootstrap", "100", "--json", str(folder / "x.json")]) == 0
    shown = capsys.readouterr().out
    assert "law  added = C_T D^gamma_D / N^gamma_N exp(-P / gamma_P)" in shown
    assert "loss_added_by_rounding.png" in shown
    assert (folder / "figures" / "loss_added_by_rounding.png").read_bytes().startswith(b"\x89PNG")
    answer = json.loads((folder / "x.json").read_text())
    assert answer["identifiable"]
    low, high = answer["intervals"]["gamma_P"]
    assert low < PLANTED.gamma_P < high
    assert len(answer["points"]) == 80


def test_groups_are_asked_for(study, capsys):
    folder = study(suffix="_g128")
    with pytest.raises(InputError, match=r"precision: no run .* found groups of 128 \(--group\)"):
        fitted(folder)
    result = fitted(folder, group=128)
    assert result.law is not None
    assert "128 inputs" in precision_text(result)
    assert main(["plot", str(folder), "--precision", "--group", "64"]) == 2
    assert "64 inputs a scale; lmscale quantise STUDY does it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "--recall"], "precision: --precision and --recall are figures of their own"),
        (
            ["--precision", "--slice", "source"],
            "slice: --slice answers for groups of documents and takes no --precision",
        ),
        (["--group", "128"], "group: '128' chooses among rounded weights; add --precision"),
        (["--task", "heldout"], "task: 'heldout' chooses among evaluation sets"),
        (
            ["--precision", "5", "4"],
            "precision: 5 bits were not scored, found 3, 4, 6, 8; lmscale quantise STUDY --bits 5",
        ),
        (["--precision", "few"], "precision: 'few' is not a whole number"),
        (["--precision", "--bootstrap", "1"], "bootstrap: 1 resamples make no interval"),
        (["--precision", "--task", "books"], "task: 'books' has no such scores"),
    ],
)
def test_options_that_do_not_go_together(study, capsys, options, words):
    assert main(["plot", str(study()), *options]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"lmscale: {words}")
    assert line.count("\n") == 1

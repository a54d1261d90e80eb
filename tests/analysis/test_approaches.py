"""The three approaches in one table and one figure, their texts, and what is said when they differ or are missing."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from planted_runs import LAW, bare, curve_frame, profiles

from analysis.approaches import compare, frontier_rows
from analysis.curves import from_table
from analysis.envelope import envelope
from analysis.errors import InputError
from analysis.fit import fit
from analysis.isoflop import isoflop
from analysis.pictures.profile_plots import envelope_curves, isoflop_profiles, three_approaches
from analysis.plots import save
from analysis.table import from_frame
from analysis.words.profile_text import approaches_text, envelope_text, isoflop_text

BUDGETS = np.geomspace(1e18, 1e21, 8)


def grid(noise=0.0):
    """Sizes and tokens a factor 2 apart: runs of equal 6ND lie on diagonals, and every size is a curve."""
    return from_frame(curve_frame(2e7 * 2.0 ** np.arange(9), 2e8 * 2.0 ** np.arange(12), noise=noise))


@pytest.fixture(scope="module")
def found():
    table = grid(noise=0.001)
    return compare(fit(table, bootstrap=100), from_table(table), [1e20, 1e22], bootstrap=200)


def test_all_three_recover_the_planted_law(found):
    assert [answer.method for answer in found.answers] == ["envelope", "isoflop", "parametric"]
    assert not found.refused
    assert not found.disagreements
    for answer in found.answers:
        assert answer.a == pytest.approx(LAW.exponents["a"], abs=0.03)
        assert answer.a_interval[0] < answer.a < answer.a_interval[1]
    best = LAW.optimum([1e20, 1e22])
    for i, flops in enumerate((1e20, 1e22)):
        rows = [row for row in found.rows if row.flops == flops]
        assert {row.method for row in rows} == {"envelope", "isoflop", "parametric"}
        for row in rows:
            assert row.params == pytest.approx(float(best.params[i]), rel=0.15)
            assert 6 * row.params * row.tokens == pytest.approx(flops, rel=1e-3)
            assert row.loss_nats == pytest.approx(float(best.loss_nats[i]), rel=0.01)
            assert row.params_interval[0] < row.params < row.params_interval[1]


def test_exact_flops_are_put_on_one_scale():
    frame = bare(grid())
    table = from_frame(
        frame.assign(trajectory=grid().frame["trajectory"], flops=6 * frame["params"] * frame["tokens"] * 1.5)
    )
    answers = compare(fit(table, bootstrap=0), from_table(table), [1e20], bootstrap=0).rows
    plain = compare(fit(grid(), bootstrap=0), from_table(grid()), [1e20], bootstrap=0).rows
    assert [row.params for row in answers] == pytest.approx([row.params for row in plain], rel=1e-6)


def test_disagreement_is_said(found):
    fitted = found.fit
    skewed = replace(fitted, intervals={**fitted.intervals, "a": (0.8, 0.9)}, law=replace(fitted.law, beta=3.0))
    lines = compare(skewed, None, [1e20], bootstrap=200).disagreements
    assert len(lines) == 1
    assert "isoflop and parametric disagree" in lines[0]


def test_what_is_missing_is_said():
    table = profiles(BUDGETS[:1] * 1.0, sizes=9)
    frame = pd.concat([bare(table), bare(grid()).iloc[::5]])
    found = compare(fit(from_frame(frame), bootstrap=0), None, bootstrap=0)
    assert dict(found.refused)["envelope"] == "no curves were given"
    assert [answer.method for answer in found.answers][-1] == "parametric"
    assert "no answer by envelope" in approaches_text(found)


def test_a_loss_whose_floor_is_unknown_has_no_interval():
    rows = frontier_rows(isoflop(profiles(BUDGETS[::3], noise=0.001), bootstrap=50))
    assert all(row.loss_interval is None and row.params_interval is not None for row in rows)
    assert [row.extrapolation for row in rows] == pytest.approx([1, 10, 100])
    with pytest.raises(InputError, match="flops"):
        frontier_rows(isoflop(profiles(BUDGETS), bootstrap=0), [0.0])


def test_texts_say_what_was_used_and_what_was_not(found):
    table = profiles(BUDGETS, noise=0.001)
    short = table.keep(np.arange(len(table)) >= 5)  # the first budget keeps its four largest sizes
    text = isoflop_text(isoflop(short, bootstrap=50))
    for words in (
        "8 (by FLOPs",
        "7 with a minimum",
        "rejected",
        "no interior minimum",
        "95 % interval",
        "noise",
        "centring",
    ):
        assert words in text
    curves = from_table(grid(noise=0.001))
    text = envelope_text(envelope(curves, bootstrap=50))
    for words in ("9 curves (one a trajectory", "passes from one size to the next", "resamples of 9 trajectories"):
        assert words in text
    text = approaches_text(found)
    assert len(re.findall(r"^(?:envelope|isoflop|parametric) ", text, re.MULTILINE)) == 3
    assert max(map(len, text.splitlines())) < 140


@pytest.mark.parametrize("name", ["isoflop", "isoflop many", "envelope", "runs", "three", "one"])
def test_figures_hold_the_runs_and_are_written(tmp_path, found, name):
    table = profiles(np.geomspace(1e18, 1e21, 12 if "many" in name else 4), noise=0.001)
    match name:
        case "isoflop" | "isoflop many":
            figure = isoflop_profiles(isoflop(table, bootstrap=20))
        case "envelope":
            figure = envelope_curves(found.envelope)
        case "runs":
            figure = envelope_curves(envelope(from_table(profiles(BUDGETS, shift=0.5)), bootstrap=20))
        case "three":
            figure = three_approaches(found)
        case _:
            figure = three_approaches(compare(found.fit, None, bootstrap=20))
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert len(labels) >= 3
    assert all("FLOPs" in axes.get_xlabel() or "parameters" in axes.get_xlabel() for axes in figure.axes[:2])
    if name == "one":
        assert "1 envelope: not available" in labels
    if name not in ("isoflop", "three"):
        return
    image = imread(save(figure, tmp_path / "a.png"))
    assert image.shape[0] > 500
    assert image[..., :3].std() > 0.02

"""Every choice at once: a planted law that no choice moves, refusals with reasons, the table and the figure."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import InputError, from_frame
from analysis.laws import Chinchilla
from analysis.multiverse import EXCLUSIONS, LOSSES, kept, multiverse
from analysis.pictures.multiverse_plots import specification_curve
from analysis.words.multiverse_text import multiverse_text

LAW = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.4)


def table(noise=0.0):
    rng = np.random.default_rng(0)
    params, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(2e4, 5e5, 6), np.geomspace(5e5, 8e6, 5)))
    loss = LAW.predict(params, tokens) * np.exp(noise * rng.normal(size=len(params)))
    return from_frame(pd.DataFrame({"params": params, "tokens": tokens, "loss_nats": loss}))


@pytest.fixture(scope="module")
def found():
    return multiverse(table(0.003), 1e14, laws=("equal", "kaplan"), bootstrap=60)


def test_what_no_choice_moves_is_the_same_in_all():
    best = LAW.optimum(1e14)
    same = multiverse(table(), 1e14, laws=("chinchilla", "equal"), bootstrap=0)
    laws = [u for u in same.universes if u.law != "isoflop"]
    assert len(laws) == 2 * len(LOSSES) * len(EXCLUSIONS)
    assert sum(u.default for u in same.universes) == 1
    for universe in laws:
        assert universe.params_all == pytest.approx(float(best.params), rel=2e-3)
        assert universe.loss_nats == pytest.approx(float(best.loss_nats), rel=1e-4)
    assert same.params_interval is None


def test_choices_add_up(found):
    answers = {c.factor: 0 for c in found.choices}
    for choice in found.choices:
        answers[choice.factor] += choice.answers
        assert choice.params[0] <= choice.params[1] <= choice.params[2]
        assert 0 <= choice.share <= 1
    assert set(answers.values()) == {len(found.universes)}
    assert {c.factor for c in found.choices} >= {"law", "loss", "left out"}
    law, loss = (next(c.share for c in found.choices if c.factor == name) for name in ("law", "loss"))
    assert law > loss  # Kaplan's law has no L0, and goes its own way here


def test_runs_are_left_out_as_said():
    whole = table(0.003)
    assert len(kept(whole, "smallest size")) == 25
    assert kept(whole, "lowest compute (1/5)").flops_6nd.min() > np.quantile(whole.flops_6nd, 0.2)
    assert len(kept(whole, "highest losses (1/20)")) == 28
    assert kept(whole, "no run") is whole


def test_the_text_fits_the_screen_and_says_what_has_no_answer(found):
    text = multiverse_text(found, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "no answer by isoflop" in text
    assert "The default has no" not in text.partition("warning")[0]
    assert "the default has no answer" in text  # its law was not among those tried


def test_the_figure_has_a_point_a_universe(found):
    figure = specification_curve(replace(found, params_interval=None))
    above = figure.axes[0].collections
    assert sum(len(np.asarray(points.get_offsets())) for points in above) == len(found.universes)
    heights = np.concatenate([np.asarray(points.get_offsets())[:, 1] for points in above])
    assert sorted(heights) == pytest.approx([u.params_all for u in found.universes])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"laws": ("cubic",)}, "laws: 'cubic' is unknown"),
        ({"laws": ("repeats",)}, "laws: 'repeats' depends on the text"),
        ({"flops": -1.0}, "flops: "),
    ],
)
def test_bad_choices_are_named(options, named):
    with pytest.raises(InputError, match=f"^{named}"):
        multiverse(table(0.003), **{"laws": ("equal",), "bootstrap": 0, **options})

"""Figures hold the runs and the law, carry units, and are written whole."""

import pytest
from matplotlib.image import imread

from analysis import InputError, backtest, fit
from analysis.plots import isoflop, loss_against_compute, residuals, save


@pytest.fixture
def fitted(branched):
    return fit(branched(), bootstrap=60)


def test_loss_against_compute(fitted):
    figure = loss_against_compute(fitted, backtest(fitted.table, bootstrap=60))
    axes = figure.axes[0]
    assert "FLOPs" in axes.get_xlabel()
    assert "nats" in axes.get_ylabel()
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "compute-optimal frontier" in labels
    assert sum("parameters" in label for label in labels) == 5
    assert any("held out" in label for label in labels)
    assert sum(len(c.get_offsets()) for c in axes.collections if len(c.get_offsets()) == 18) == 18  # type: ignore[arg-type]


@pytest.mark.parametrize("draw", [loss_against_compute, residuals, isoflop])
@pytest.mark.parametrize("name", ["few", "many", "no resamples"])
def test_every_figure_is_written(tmp_path, branched, draw, name):
    sizes = {"sizes": [2e4 * 1.5**i for i in range(12)]} if name == "many" else {}
    figure = draw(fit(branched(**sizes), bootstrap=0 if name == "no resamples" else 40))
    path = save(figure, tmp_path / "figures" / "a.png")
    image = imread(path)
    assert image.shape[0] > 500
    assert image[..., :3].std() > 0.02
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_an_unwritable_folder_is_named(tmp_path, fitted):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="figures"):
        save(residuals(fitted), tmp_path / "file" / "a.png")

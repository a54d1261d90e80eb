"""Repeated text: R_D* and R_N* of a planted law found again, inside their intervals; optima under limited text."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis import InputError, fit, from_frame
from analysis.deciding.limited import limited, limited_text
from analysis.rivals import Repeats
from lmscale.cli import main

PLANTED = Repeats(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6, R_D=8.0, R_N=4.0)


def frame(noise=0.0, seed=0):
    """Six sizes, five token counts, each read from text of four amounts; independent runs."""
    rng = np.random.default_rng(seed)
    rows = [
        (n, d, min(d, u))
        for n in np.geomspace(2e4, 2e6, 6)
        for d in np.geomspace(5e5, 1.6e7, 5)
        for u in (2.5e5, 1e6, 4e6, 1.6e7)
        if d / u <= 64
    ]
    params, tokens, unique = np.unique(np.array(rows), axis=0).T
    loss = PLANTED.predict(params, tokens, unique) * np.exp(noise * rng.normal(size=len(params)))
    return pd.DataFrame({"params": params, "tokens": tokens, "unique_tokens": unique, "loss_nats": loss})


@pytest.fixture(scope="module")
def noisy():
    return fit(from_frame(frame(noise=0.002)), "repeats", bootstrap=100)


def test_intervals_of_the_repeats_hold_the_truth(noisy):
    for name in ("R_D", "R_N", "alpha", "beta"):
        low, high = noisy.intervals[name]
        assert low < PLANTED.parameters[name] < high
    low, high = noisy.intervals["R_D"]
    assert high / low < 2  # and tell something


def test_optimum_under_limited_text(noisy):
    """Against the least loss of all sizes at that compute, by the fitted law itself."""
    (row,) = limited(noisy, [1e14], 1e6)
    sizes = np.geomspace(1e4, 1e8, 4001)
    losses = noisy.law.predict(sizes, 1e14 / 6 / sizes, 1e6)
    assert row.limited.params == pytest.approx(sizes[losses.argmin()], rel=5e-3)
    assert row.epochs == pytest.approx(row.limited.tokens / 1e6)
    assert row.epochs > 2
    best = noisy.law.unlimited.optimum(1e14)
    assert row.unlimited.params == pytest.approx(float(best.params))
    assert row.cost_nats == pytest.approx(float(losses.min() - best.loss_nats), abs=1e-6)
    assert row.epochs_interval is not None
    assert row.epochs_interval[0] < row.epochs < row.epochs_interval[1]


def test_plenty_of_text_costs_nothing(noisy):
    (row,) = limited(noisy, [1e12], 1e12)
    assert row.epochs == 1
    assert row.cost_nats == pytest.approx(0, abs=1e-6)
    assert row.limited.params == pytest.approx(row.unlimited.params, rel=1e-3)
    assert "nothing is repeated" in limited_text([row])


def test_the_command_prints_epochs_and_the_unlimited_optimum(tmp_path, capsys):
    frame().to_csv(tmp_path / "runs.csv", index=False)
    asked = ["optimal", str(tmp_path), "--law", "repeats", "--flops", "1e14", "--unique-tokens", "1e6"]
    assert main([*asked, "--bootstrap", "0", "--json", str(tmp_path / "x.json")]) == 0
    shown = capsys.readouterr().out
    assert "1.00 M unique" in shown
    assert "unlimited" in shown
    (row,) = json.loads((tmp_path / "x.json").read_text())["limited"]
    best, plenty = PLANTED.optimum(1e14, 1e6), PLANTED.optimum(1e14)
    assert row["epochs"] == pytest.approx(float(best.tokens) / 1e6, rel=1e-2)
    assert row["cost_nats"] == pytest.approx(float(best.loss_nats - plenty.loss_nats), rel=1e-2)


def test_more_unique_tokens_than_tokens_are_refused(tmp_path, capsys):
    bad = frame()
    bad.loc[3, "unique_tokens"] = 2 * bad.loc[3, "tokens"]
    bad.to_csv(tmp_path / "runs.csv", index=False)
    assert main(["fit", str(tmp_path), "--law", "repeats"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("lmscale: unique_tokens: row 5 has ")
    assert line.count("\n") == 1


def test_other_laws_know_no_repeats():
    fitted = fit(from_frame(frame()), bootstrap=0)
    with pytest.raises(InputError, match="unique_tokens: the law 'chinchilla' counts a repeated token as a new one"):
        limited(fitted, [1e14], 1e6)

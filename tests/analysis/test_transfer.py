"""Effective data transferred: a planted law found again, runs beyond what is known left out, unfit tables."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.comparing.transfer import transfer, transfer_text
from analysis.errors import InputError
from analysis.laws import Chinchilla
from analysis.table import from_frame
from lmscale.cli import main

LAW = Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)  # Besiroglu et al. 2024, abstract
# From text to Python, D counted in characters and N without embeddings: Hernandez et al. 2021, Table 1
K, ALPHA, BETA = 1.9e4, 0.18, 0.38
SIZES, COUNTS = (1e6, 4e6, 16e6), (3e5, 1e6, 3e6)


def frame() -> Any:  # a DataFrame, of whose selections pandas' types do not know that they are
    """Three sizes from scratch at many counts, and fine-tuned at three."""
    rows = []
    for n in SIZES:
        for d in np.geomspace(1e5, 1e9, 33):
            rows.append(("decoder", "", n, d, float(LAW.predict(n, d))))
        for d in COUNTS:
            saved = K * d**ALPHA * n**BETA
            rows.append(("decoder_finetuned", "before", n, d, float(LAW.predict(n, d + saved))))
    made = pd.DataFrame(rows, columns=["family", "start", "params", "tokens", "loss_nats"])
    return made.assign(run_id=[f"run{i}" for i in range(len(made))], corpus="c", trajectory=made["family"])


def read(made: Any):
    return from_frame(made, by="family")


def test_the_planted_law_is_found():
    result = transfer(read(frame()))
    assert [s.why for s in result.saved] == [""] * 9
    for s in result.saved:
        assert s.transferred == pytest.approx(K * s.tokens**ALPHA * s.params**BETA, rel=1e-2)
    (law,) = result.laws
    assert law.family == "decoder_finetuned"
    assert (law.parameters["alpha"], law.parameters["beta"]) == pytest.approx((ALPHA, BETA), abs=5e-3)
    for name, value in {"alpha": ALPHA, "beta": BETA, "k": K}.items():
        low, high = law.intervals[name]
        assert low - 2e-3 * value <= value <= high + 2e-3 * value
    assert "transferred = k D^alpha N^beta, 9 runs" in transfer_text(result)


def test_what_is_not_known_is_said():
    made = frame()
    made = made[~((made["start"] == "") & (made["tokens"] > 1.01e8))]  # too little from scratch
    result = transfer(read(made))
    beyond = [s for s in result.saved if s.why]
    assert {s.params for s in beyond} == {16e6}
    assert all("no run from scratch got so low: more than " in s.why and np.isnan(s.transferred) for s in beyond)
    few = made[~((made["start"] != "") & (made["tokens"] > 3e5))]
    assert "a law of three numbers needs four" in transfer_text(transfer(read(few)))
    noisy = made[(made["start"] == "") | ((made["params"] < 1e7) & (made["tokens"] < 2e6))].copy()
    noisy.loc[noisy["start"] != "", "loss_nats"] += np.array([0.0, 1.5, 1.5, 0.0])
    assert "its exponents would be known within +-" in transfer(read(noisy)).laws[0].reason
    one = made[(made["start"] == "") | (made["params"] == 1e6)]
    more = pd.concat([one, one[one["start"] != ""].assign(tokens=one["tokens"] * 1.1, run_id=one["run_id"] + "b")])
    assert transfer(read(more)).laws[0].reason == "tokens and parameters do not vary apart from one another"


def test_a_run_that_was_saved_nothing_is_counted():
    made = frame()
    worse = (made["start"] != "") & (made["tokens"] == COUNTS[0])
    made.loc[worse, "loss_nats"] = [float(LAW.predict(n, COUNTS[0] / 2)) for n in SIZES]
    result = transfer(read(made))
    assert sum(s.transferred < 0 for s in result.saved) == 3
    assert result.laws[0].runs == 6
    assert "warning: 3 runs were saved nothing" in transfer_text(result)


def test_tables_that_cannot_tell():
    made = frame()
    with pytest.raises(InputError, match=r"start: no such column"):
        transfer(read(made.drop(columns="start")))
    with pytest.raises(InputError, match=r"start: no run of the table begins from another: sweep with --start.run"):
        transfer(from_frame(made.query("start == ''")))
    with pytest.raises(InputError, match=r"start: no run of the table is from scratch: --start none"):
        transfer(from_frame(made.query("start != ''")))
    mixed = made.assign(corpus=np.where(made["start"] == "", "c", "other"))
    with pytest.raises(InputError, match=r"corpus: 2 values \('c', 'other'\) have no losses to compare; choose one"):
        transfer(read(mixed))


def test_the_command(tmp_path, capsys):
    frame().to_csv(tmp_path / "runs.csv", index=False)
    assert main(["transfer", str(tmp_path / "runs.csv"), "--json", "-"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["laws"][0]["parameters"]["alpha"] == pytest.approx(ALPHA, abs=5e-3)
    assert len(answer["runs"]) == 9
    assert "transferred (tokens)" in captured.err

"""Answers are about the family that a table is of: what is written trains it; what cannot be compared is refused."""

import re

import numpy as np
import pandas as pd
import pytest

from analysis.laws import Chinchilla
from lmscale.cli import main
from lmscale.study.studies import load_study

LAW = Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)  # Besiroglu et al. 2024, abstract


def table(folder, name: str = "runs", better: float = 1.0, **columns) -> str:
    """A file of 30 runs on the law with `better` times their compute, and columns that all of them share."""
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 6), np.geomspace(2e9, 1e12, 5)))
    losses = LAW.predict(n * better**0.5, d * better**0.5)
    frame = pd.DataFrame({"params": n, "tokens": d, "loss_nats": losses})
    path = folder / f"{name}.csv"
    frame.assign(**columns).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize(
    ("family", "objective"), [("lstm", "causal"), ("encoder", "masked"), ("decoder", "causal"), ("llama", "")]
)
def test_a_written_study_trains_the_family_of_the_table(tmp_path, family, objective, capsys):
    runs, written = table(tmp_path, family=family, objective=objective), tmp_path / "next.py"
    told = ["--bootstrap", "0", "--flops", "1e21", "--write", str(written)]
    assert main(["optimal", runs, *told]) == 0
    study = load_study(str(written))
    known = family if family != "llama" else "decoder"
    assert (study.family, study.objective) == (known, objective or "causal")
    assert (study.sizes[0].heads is None) == (family == "lstm")
    chosen = re.search(r"layers x width +(\d+) x (\d+)", capsys.readouterr().out)
    assert chosen is not None
    assert [int(x) for x in chosen.groups()] == [study.sizes[0].depth, study.sizes[0].width]


@pytest.mark.parametrize(
    ("column", "one", "other"),
    [("tokenizer", "bytes", "bpe"), ("objective", "causal", "masked"), ("eval_set", "a", "b"), ("family", "ngram", "")],
)
def test_losses_of_unlike_runs_are_not_compared(tmp_path, capsys, column, one, other):
    first, second = table(tmp_path, "one", **{column: one}), table(tmp_path, "two", **{column: other})
    assert main(["compare", first, second, "--bootstrap", "0"]) == 2
    said = capsys.readouterr().err
    assert f"lmscale: {column}: " in said
    assert said.count("\n") == 1
    if column == "family":
        return
    both = tmp_path / "both.csv"
    pd.concat([pd.read_csv(path).assign(group=path) for path in (first, second)]).to_csv(both, index=False)
    assert main(["compare", str(both), "--by", column, "--bootstrap", "0"]) == 2
    assert capsys.readouterr().err.startswith(f"lmscale: {column}: ")


@pytest.mark.parametrize("command", [["optimal"], ["multiverse", "--laws", "chinchilla"], ["audit"]])
def test_no_compute_is_asked_of_an_n_gram(tmp_path, capsys, command):
    assert main([command[0], table(tmp_path, family="ngram"), *command[1:], "--flops", "1e20"]) == 2
    assert "lmscale: family: 'ngram' is counted, not trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["optimal", "--flops", "1e300"], "flops: 1e+300 is beyond any law; give at most 1e+40"),
        (["multiverse", "--flops", "1e300"], "flops: 1e+300 is beyond any law; give at most 1e+40"),
        (["audit", "--noise", "1e300"], "residual_sd: 1e+300 is no relative error"),
        (["audit", "--suggest", "1", "--budget", "1e21", "--where", "family=lstm"], "suggest: the runs of a table are"),
    ],
)
def test_absurd_numbers_are_refused(tmp_path, capsys, arguments, line):
    runs = table(tmp_path, family="lstm", objective="causal")
    assert main([arguments[0], runs, *arguments[1:]]) == 2
    assert f"lmscale: {line}" in capsys.readouterr().err


def test_a_loss_above_all_runs_is_an_extrapolation(tmp_path, capsys):
    one, two = table(tmp_path, "one", better=2.0), table(tmp_path, "two")
    assert main(["compare", one, two, "--bootstrap", "0", "--losses", "2.6", "100"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()}
    assert "within" not in rows["100"]
    assert float(rows["2.6"].split()[3]) == pytest.approx(2, rel=0.01)
    assert "within" in rows["2.6"]


def test_a_study_of_several_families_is_audited_one_at_a_time(capsys, tmp_path):
    assert main(["audit", "families", "--out", str(tmp_path)]) == 2
    assert "lmscale: further: every family has a law of its own" in capsys.readouterr().err
    told = ["--further", "lstm/causal=64x2", "--only", "32x2:409600", "--out", str(tmp_path)]
    assert main(["plan", "quickstart", *told]) == 2
    assert "lmscale: only: " in capsys.readouterr().err

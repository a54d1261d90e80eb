"""The answering commands: texts, JSON keys, errors of one line."""

import argparse
import json
import math

import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.commands import answer
from lmscale.commands.answer import add_parsers, write_json

HEAD = "run_id,study,trajectory,family,vocab,params,params_embedding,tokens,loss_nats,status,interventions\n"


@pytest.fixture
def study(tmp_path):
    """results/small/runs.csv with 18 runs of a planted law."""
    rng = np.random.default_rng(0)
    lines = [HEAD]
    for i, n in enumerate((2e4, 5e4, 1.1e5, 2.3e5, 4.7e5)):
        for d in (5e5, 1e6, 2e6, 4e6)[: 3 if i > 2 else 4]:
            loss = (1.1 + 30 / n**0.4 + 4e3 / d**0.6) * math.exp(0.003 * rng.normal())
            lines.append(f"r{i}-{d:.0f},small,t{i},decoder,256,{n:.0f},8192,{d:.0f},{loss!r},done,0\n")
    lines.append("r9,small,t9,decoder,256,20000,8192,500000,,failed,0\n")
    path = tmp_path / "results" / "small" / "runs.csv"
    path.parent.mkdir(parents=True)
    path.write_text("".join(lines))
    return tmp_path / "results"


@pytest.fixture
def command(study):
    def run(*words):
        parser = argparse.ArgumentParser()
        add_parsers(parser.add_subparsers())
        if words[0] not in ("help", "reproduce"):
            words = (*words, "--out", str(study))
        args = parser.parse_args([str(word) for word in words])
        return args.run(args)

    return run


def test_fit(command, study, tmp_path, capsys):
    assert command("fit", "small", "--bootstrap", 60, "--json", tmp_path / "fit.json") == 0
    out = capsys.readouterr().out
    for word in ("alpha", "95 % interval", "left out  1 rows", "demonstration", "warning: embeddings", "once more"):
        assert word in out
    found = json.loads((tmp_path / "fit.json").read_text())
    assert {"law", "parameters", "intervals", "objective", "runs", "excluded", "identifiable", "exponents"} <= set(
        found
    )
    assert set(found["parameters"]) == {"L0", "A", "B", "alpha", "beta"}
    assert set(found["exponents"]) == {"a", "b"}
    assert found["runs"] == 18
    assert found["excluded"][0]["row"] == 20
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]


def test_optimal_on_standard_output(command, capsys):
    assert command("optimal", "small", "--flops", "1e13", "1e15", "--bootstrap", 60, "--json", "-") == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["rows"]
    assert [row["flops"] for row in rows] == [1e13, 1e15]
    keys = {"method", "flops", "params", "tokens", "loss_nats", "params_interval", "tokens_interval", "loss_interval"}
    assert keys <= set(rows[0])
    assert rows[0]["shape"]["params"] == pytest.approx(rows[0]["params"], rel=0.5)
    assert "extrapolations" in captured.err
    assert "layers x width" in captured.err
    assert "warning:" in captured.err


def test_shapes_are_those_of_the_family_and_an_n_gram_has_none(command, study, capsys):
    path = study / "small" / "runs.csv"
    decoder = path.read_text()
    path.write_text(decoder.replace("decoder", "lstm"))
    assert command("optimal", "small", "--bootstrap", "0", "--json", "-") == 0
    built = [row["shape"] for row in json.loads(capsys.readouterr().out)["rows"] if row["method"] == "parametric"]
    assert {(shape["depth"], shape["heads"]) for shape in built} == {(2, 1)}  # the ladder's LSTM has two layers
    path.write_text(decoder.replace("decoder", "ngram"))
    with pytest.raises(InputError, match=r"^family: 'ngram' is counted, not trained: .*--where family=decoder$"):
        command("optimal", "small", "--bootstrap", "0")


def test_backtest(command, tmp_path, capsys):
    assert command("backtest", "small", "--bootstrap", 60, "--json", tmp_path / "b.json") == 0
    found = json.loads((tmp_path / "b.json").read_text())
    assert {"mean_relative_error", "max_relative_error", "coverage", "rows"} <= set(found)
    assert found["mean_relative_error"] < 0.05
    assert "held-out run" in capsys.readouterr().out


def test_plot(command, study, tmp_path):
    assert command("plot", "small", "--bootstrap", 20) == 0
    assert len(list((study / "small" / "figures").glob("*.png"))) == 3
    assert command("plot", study / "small", "--bootstrap", 20, "--figures", tmp_path / "f") == 0
    assert len(list((tmp_path / "f").glob("*.png"))) == 3


def test_a_table_is_found_by_file_folder_name_and_study_file(command, study):
    file = study / "anything.py"
    file.write_text(
        "from lmscale.config import Size, Study\nSTUDY = Study(name='small', sizes=(Size(width=16),), tokens=(1e6,))\n"
    )
    for runs in (study / "small" / "runs.csv", study / "small", "small", file):
        assert command("fit", runs, "--bootstrap", 0) == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("fit", "nothing"), "runs"),
        (("fit", "x" * 5000), "runs"),
        (("fit", "small", "--bootstrap", "-5"), "bootstrap"),
        (("fit", "small", "--bootstrap", "nan"), "bootstrap"),
        (("fit", "small", "--seed", "one"), "seed"),
        (("fit", "small", "--where", "vocab"), "where"),
        (("fit", "small", "--where", "vocab=12"), "where"),
        (("fit", "small", "--columns", "tokens=nope"), "columns"),
        (("optimal", "small", "--flops", "0"), "flops"),
        (("optimal", "small", "--flops", "nan"), "flops"),
        (("optimal", "small", "--flops", "1e21", "much"), "flops"),
        (("backtest", "small", "--holdout", "18"), "holdout"),
    ],
)
def test_mistakes_are_named_in_one_line(command, words, named):
    with pytest.raises(InputError, match=f"^{named}: ") as caught:
        command(*words)
    assert "\n" not in str(caught.value)


def test_unwritable_json(tmp_path):
    (tmp_path / "file").write_text("kept")
    for target in (tmp_path, tmp_path / "file" / "a.json"):
        with pytest.raises(InputError, match=r"^json: .* cannot be written"):
            write_json(str(target), {})
    assert (tmp_path / "file").read_text() == "kept"


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(str(tmp_path / "a.json"), {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_no_heavy_import_at_the_top():
    assert not {"numpy", "pandas", "matplotlib", "jax"} & set(vars(answer))


def test_profiles_stand_beside_the_intervals(command, tmp_path, capsys):
    assert command("fit", "small", "--bootstrap", 40, "--profile", "--json", tmp_path / "fit.json") == 0
    assert "profile likelihood" in capsys.readouterr().out
    profiles = json.loads((tmp_path / "fit.json").read_text())["profiles"]
    assert set(profiles) == {"L0", "A", "B", "alpha", "beta", "a"}
    low, high = profiles["beta"]["interval"]
    assert low < 0.6 < high


def test_laws_losses_and_held_parameters(command, tmp_path, capsys):
    words = ("--bootstrap", 0, "--loss", "mse", "--fix", "alpha=0.4", "--json", tmp_path / "fit.json")
    assert command("fit", "small", "--law", "equal", *words) == 0
    found = json.loads((tmp_path / "fit.json").read_text())
    assert found["law"] == "equal"
    assert found["fixed"] == {"alpha": 0.4}
    assert found["parameters"]["alpha"] == 0.4
    assert found["loss"]["kind"] == "mse"
    assert "held" in capsys.readouterr().out
    with pytest.raises(InputError, match="fix: 'alpha' is not NAME=VALUE"):
        command("fit", "small", "--fix", "alpha")


def test_rolling(command, tmp_path, capsys):
    words = ("--bootstrap", 20, "--json", tmp_path / "rolling.json")
    assert command("backtest", "small", "--rolling", "chinchilla", "kaplan", *words) == 0
    out = capsys.readouterr().out
    assert "best first" in out
    found = json.loads((tmp_path / "rolling.json").read_text())
    assert {row["law"] for row in found["rows"]} == {"chinchilla", "kaplan"}
    assert found["law"] == found["laws"][0]["law"]
    assert found["mean_relative_error"] == min(law["mean_relative_error"] for law in found["laws"])
    with pytest.raises(InputError, match="law: 'cubic' is unknown"):
        command("backtest", "small", "--rolling", "cubic")


def test_reproduce(command, reference, tmp_path, capsys):
    assert command("reproduce", "hoffmann", "--data", reference.parent, "--json", tmp_path / "r.json") == 0
    assert "8 of 8 reproduced" in capsys.readouterr().out
    assert json.loads((tmp_path / "r.json").read_text())["passed"] is True


def test_options_given_twice_are_kept_or_refused(command, tmp_path):
    words = ("--fix", "alpha=0.4", "--fix", "beta=0.6", "--bootstrap", 0, "--json", tmp_path / "fit.json")
    assert command("fit", "small", *words) == 0
    assert json.loads((tmp_path / "fit.json").read_text())["fixed"] == {"alpha": 0.4, "beta": 0.6}
    assert command("optimal", "small", "--flops", "1e12", "--flops", "1e13", "--json", tmp_path / "o.json") == 0
    assert {row["flops"] for row in json.loads((tmp_path / "o.json").read_text())["rows"]} == {1e12, 1e13}
    for words, cause in (
        (("--fix", "alpha=0.3", "alpha=0.4"), "fix: alpha is given twice"),
        (("--by", "seed", "--profile"), "profile: --by compares groups"),
    ):
        with pytest.raises(InputError, match=cause):
            command("fit", "small", *words)
    with pytest.raises(InputError, match="holdout: --rolling chooses"):
        command("backtest", "small", "--rolling", "--holdout", 2)


def test_rows_are_selected_for_every_approach(command, capsys):
    assert command("optimal", "small", "--where", "params<3e5", "--drop-highest-loss", 1, "--bootstrap", 0) == 0
    assert "names no column" not in capsys.readouterr().err

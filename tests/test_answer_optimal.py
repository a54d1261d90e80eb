"""lmscale optimal, compare and multiverse: tables that fit the screen, JSON, studies written, one-line refusals."""

import json
import math

import numpy as np
import pytest

from analysis.laws import Chinchilla
from lmscale.cli import main
from lmscale.planning.grid import cells
from lmscale.shapes import shape_for, shape_of
from lmscale.study.studies import load_study

LAW = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6)
HEAD = "run_id,trajectory,family,vocab,sequence,recipe,eval_set,params,params_embedding,tokens,flops,loss_nats,status\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two studies of a recipe each, whose tokens are worth 1.3 times as much in `books`; and both in one table."""
    from lmscale.config import Size

    root, rng, both = tmp_path_factory.mktemp("results"), np.random.default_rng(0), []
    for name, worth in (("books", 1.3), ("web", 1.0)):
        lines = []
        for i, n in enumerate((4e4, 8e4, 1.6e5, 3.2e5, 6.4e5)):
            shape = shape_for(n, shape_of(Size(width=16), vocab=256))
            for d in (5e5, 1e6, 2e6, 4e6, 8e6):
                loss = float(LAW.predict(shape.params, d * worth)) * math.exp(0.002 * rng.normal())
                lines.append(
                    f"{name}{i}-{d:.0f},{name}{i}-{d:.0f},decoder,256,128,{name},held,{shape.params},"
                    f"{shape.params_embedding},{d:.0f},{shape.train_flops(d, 128)!r},{loss!r},done\n"
                )
        (root / name).mkdir()
        (root / name / "runs.csv").write_text(HEAD + "".join(lines))
        both += lines
    (root / "both.csv").write_text(HEAD + "".join(both))
    return root


def run(*words):
    return main([str(word) for word in words])


@pytest.mark.parametrize("columns", [80, 120])
def test_optimal_fits_the_screen_and_says_everything(folder, tmp_path, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    asked = ("--served", "1e9", "--device", "NVIDIA H100 80GB HBM3", "--bootstrap", 60)
    asked += ("--figures", tmp_path / "f") if columns == 80 else ()
    assert run("optimal", folder / "web", *asked, "--json", tmp_path / "o.json") == 0
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if str(tmp_path) not in line]
    assert max(map(len, table)) <= columns
    for words in (
        "parameters N*",
        "as good: N",
        "served: N",
        "device-hours",
        "kWh",
        "layers x width",
        "no embed., exact",
    ):
        assert words in out
    assert "warning:" in out
    assert out.rindex("warning:") > out.index("Brackets")
    if columns == 80:
        assert {path.name for path in (tmp_path / "f").iterdir()} >= {"near_optimum.png", "near_optimum.svg"}
    found = json.loads((tmp_path / "o.json").read_text())
    best = LAW.optimum([row["flops"] for row in found["rows"][:3]])
    for i, row in enumerate(found["rows"][:3]):
        assert row["params_interval"][0] < row["params"] < row["params_interval"][1]
        assert row["params"] == pytest.approx(float(best.params[i]), rel=0.3)
        assert found["near_best"][i]["params_low"] < row["params"] < found["near_best"][i]["params_high"]
        assert found["served"][i]["params"] < row["params"]
        assert found["bills"][i]["dollars"] == pytest.approx(3.78 * found["bills"][i]["device_hours"])
    assert {each["counted"] for each in found["counted"]} == {
        "all params, 6ND", "all params, exact", "no embed., 6ND", "no embed., exact"
    }  # fmt: skip


def test_without_resamples_there_are_no_intervals(folder, tmp_path, capsys):
    assert run("optimal", folder / "web", "--bootstrap", 0, "--json", tmp_path / "o.json") == 0
    out = capsys.readouterr().out
    assert "no resamples: these numbers have no intervals" in out
    assert "[" not in out.partition("warning")[0].replace("[n", "")
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["rows"][0]["params_interval"] is None
    assert found["near_best"][0]["likely_wasted"] is None


def test_a_budget_below_the_grid_is_marked(folder, tmp_path, capsys):
    assert run("optimal", folder / "web", "--flops", "1e9", "--bootstrap", 60, "--json", tmp_path / "o.json") == 0
    out = capsys.readouterr().out
    assert "x below" in out
    assert "below the smallest run fitted" in out
    assert json.loads((tmp_path / "o.json").read_text())["rows"][0]["below"] > 10


def test_text_beyond_the_stock_is_said(folder, capsys):
    assert run("optimal", folder / "web", "--flops", "1e35", "--bootstrap", 0) == 0
    assert "exceeds the stock of high-quality text" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("served", [False, True])
def test_the_study_written_is_one_that_sweep_takes(folder, tmp_path, capsys, served):
    target = tmp_path / "next.py"
    asked = ("--served", "1e9") if served else ()
    assert run("optimal", folder / "web", "--flops", "1e13", "--bootstrap", 0, *asked, "--write", target) == 0
    capsys.readouterr()
    study = load_study(str(target))
    (size,) = study.sizes
    shape = shape_of(size, vocab=256)
    (cell,) = cells(study, shape)
    best = LAW.optimum(1e13)
    if served:
        assert shape.params < 0.7 * float(best.params)
        assert cell.tokens > 1.5 * float(best.tokens)
    else:
        assert shape.params == pytest.approx(float(best.params), rel=0.15)
        assert cell.tokens == pytest.approx(float(best.tokens), rel=0.15)
    assert study.allow_collinear
    assert run("optimal", folder / "web", "--flops", "1e13", "--bootstrap", 0, "--write", target) == 2
    assert "exists" in capsys.readouterr().err


def test_compare_finds_the_planted_multiplier(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = ("--bootstrap", 100, "--figures", tmp_path / "f", "--json", tmp_path / "c.json")
    assert run("compare", folder / "books", folder / "web", *words) == 0
    out = capsys.readouterr().out
    assert "Over this range web needs 1." in out
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["first"], found["second"]) == ("books", "web")
    assert found["overall_interval"][0] < 1.3 < found["overall_interval"][1]
    assert {path.name for path in (tmp_path / "f").iterdir()} == {"effective_compute.png", "effective_compute.svg"}
    asked = ("--by", "recipe", "--groups", "web", "books", "--losses", "2.0", "--bootstrap", 0)
    assert run("compare", folder / "both.csv", *asked, "--json", tmp_path / "g.json") == 0
    (row,) = json.loads((tmp_path / "g.json").read_text())["rows"]
    assert row["multiplier"] == pytest.approx(1 / 1.3, rel=0.1)
    assert row["interval"] is None


def test_multiverse(folder, tmp_path, capsys):
    words = ("--laws", "equal", "--bootstrap", 0, "--figures", tmp_path / "f", "--json", tmp_path / "m.json")
    assert run("multiverse", folder / "web", *words) == 0
    assert "combinations of choices" in capsys.readouterr().out
    found = json.loads((tmp_path / "m.json").read_text())
    assert {u["params"] for u in found["universes"]} == {"all", "matrices"}
    assert {u["flops"] for u in found["universes"]} == {"6nd", "exact"}
    assert found["params"][0] <= found["params"][1] <= found["params"][2]
    assert {path.name for path in (tmp_path / "f").iterdir()} == {"multiverse.png", "multiverse.svg"}


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("optimal", "web", "--device", "MI300"), "device: 'MI300' is no accelerator known"),
        (("optimal", "web", "--utilisation", "0.4"), "utilisation: says something of a device"),
        (("optimal", "web", "--device", "H200", "--utilisation", "4"), "utilisation: '4' is more than the whole peak"),
        (("optimal", "web", "--served", "0"), "served: '0' is not a finite positive number"),
        (("optimal", "web", "--within", "nan"), "within: 'nan' is not a finite positive number"),
        (("optimal", "web", "--flops", "0.5"), "flops: at 0.5 the fitted law 'chinchilla' has no best size"),
        (("optimal", "web", "--write", "next.py"), "write: a study is the answer to one budget"),
        (("optimal", "web", "--flops", "1e13", "--write", "next.txt"), "write: 'next.txt' is no Python file"),
        (("optimal", "web", "--flops", "1e33", "--write", "none/of.py"), "write: the ladder has no shape near"),
        (("compare", "web"), "compare: takes two tables, or one and --by COLUMN"),
        (("compare", "books", "web", "--losses", "0.5"), "losses: 0.5 nats is never reached by books"),
        (("compare", "books", "web", "--by", "recipe"), "by: is for groups of one table"),
        (("multiverse", "web", "--laws", "cubic"), "laws: 'cubic' is unknown"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, words, cause):
    named = [str(folder / word) if word in ("web", "books") else word for word in words]
    assert run(*named, "--bootstrap", 0) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"lmscale: {cause}")
    assert captured.err.count("\n") == 1


def test_losses_of_different_text_are_not_compared(folder, tmp_path, capsys):
    other = tmp_path / "other.csv"
    other.write_text((folder / "web" / "runs.csv").read_text().replace(",held,", ",another,"))
    assert run("compare", folder / "books", other, "--bootstrap", 0) == 2
    assert "eval_set: 'held' and 'another' differ" in capsys.readouterr().err


def test_where_the_law_tells_nothing_the_other_approaches_answer_alone(tmp_path, capsys):
    """Three budgets close together under 8 % of noise: beta may be anything, and each profile still has its minimum."""
    rng, lines = np.random.default_rng(3), ["params,tokens,flops_budget,loss_nats\n"]
    for budget in (1e12, 1.6e12, 2.5e12):
        best = float(LAW.optimum(budget).params)
        for factor in np.geomspace(0.3, 3, 6):
            n, d = best * factor, budget / 6 / best / factor
            lines.append(f"{n},{d},{budget},{float(LAW.predict(n, d)) * math.exp(0.08 * rng.normal())!r}\n")
    (tmp_path / "runs.csv").write_text("".join(lines))
    asked = ("optimal", tmp_path / "runs.csv", "--bootstrap", 60, "--flops", "1e13")
    assert run(*asked, "--json", tmp_path / "o.json") == 0
    out = capsys.readouterr().out
    assert "parametric: not available: the interval of beta is the whole range allowed" in out
    found = json.loads((tmp_path / "o.json").read_text())
    assert [row["method"] for row in found["rows"]] == ["isoflop"]
    assert found["identifiable"] is False
    assert run(*asked, "--write", tmp_path / "next.py") == 2
    assert "write: needs a law, and these runs tell none" in capsys.readouterr().err

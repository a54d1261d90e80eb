"""`lmscale isoflop`, `envelope` and the three approaches of `optimal`: texts, JSON keys, errors of one line."""

import json

import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.cli import main, make_parser


@pytest.fixture
def study(tmp_path):
    """results/grid with 40 runs of a planted law: sizes and tokens a factor 2 apart, one trajectory a size."""
    rng = np.random.default_rng(0)
    runs = ["run_id,trajectory,params,tokens,loss_nats\n"]
    curves = ["run_id,step,tokens,flops,loss_nats,decayed\n"]
    for n in 2e7 * 2.0 ** np.arange(8):
        for d in 2e8 * 2.0 ** np.arange(10):
            loss = (1.8172 + 482.01 / n**0.3478 + 2085.43 / d**0.3658) * np.exp(0.001 * rng.normal())
            runs.append(f"r{n:.0f}-{d:.0f},t{n:.0f},{n:.0f},{d:.0f},{loss}\n")
            curves.append(f"r{n:.0f}-{d:.0f},9,{d:.0f},{6 * n * d},{loss},True\n")
    folder = tmp_path / "results" / "grid"
    folder.mkdir(parents=True)
    (folder / "runs.csv").write_text("".join(runs))
    (folder / "curves.csv").write_text("".join(curves))
    return folder


def run(*words) -> int:
    args = make_parser().parse_args([str(word) for word in words])
    return args.run(args)


@pytest.mark.parametrize("command", ["isoflop", "envelope"])
def test_answers_have_the_keys_and_figures_of_the_plan(study, tmp_path, capsys, command):
    extra = ("--flops", "1e20", "1e22", "--figures", tmp_path / "f")
    assert run(command, study, "--bootstrap", 60, "--json", "-", *extra) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert {"exponents", "intervals", "profiles", "rows", "warnings"} <= set(found)
    assert found["exponents"]["a"] == pytest.approx(0.5126, abs=0.02)
    assert found["intervals"]["a"][0] < found["exponents"]["a"] < found["intervals"]["a"][1]
    assert [(row["method"], row["flops"]) for row in found["rows"]] == [(command, 1e20), (command, 1e22)]
    assert {"flops", "params", "tokens", "loss_nats"} <= set(found["profiles"][0])
    assert "95 % interval" in captured.err
    assert len(list((tmp_path / "f").glob("*.png"))) == 1


def test_isoflop_options_reach_the_analysis(study, tmp_path):
    words = (
        "--method",
        "akima",
        "--noise",
        "0.002",
        "--budgets",
        "6.144e18",
        "2.4576e19",
        "9.8304e19",
        "--tolerance",
        "0.05",
    )
    assert run("isoflop", study, "--bootstrap", 40, "--json", tmp_path / "a.json", *words) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["method"], found["noise_nats"], len(found["profiles"])) == ("akima", 0.002, 3)
    assert found["runs_without_budget"] == 80 - sum(profile["runs"] for profile in found["profiles"])


def test_optimal_answers_by_every_approach(study, tmp_path, capsys):
    words = ("--flops", "1e21", "--bootstrap", 60, "--json", tmp_path / "o.json", "--figures", tmp_path / "f")
    assert run("optimal", study, *words) == 0
    found = json.loads((tmp_path / "o.json").read_text())
    assert sorted(row["method"] for row in found["rows"]) == ["envelope", "isoflop", "parametric"]
    sizes = [row["params"] for row in found["rows"]]
    assert max(sizes) < 1.2 * min(sizes)
    assert set(found["approaches"]) == {"envelope", "isoflop", "parametric"}
    assert (tmp_path / "f" / "approaches.png").is_file()
    assert "by approach and by what is counted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("isoflop", "--method", "spline"), "method"),
        (("isoflop", "--window", "none"), "window"),
        (("isoflop", "--tolerance", "2"), "tolerance"),
        (("isoflop", "--budgets", "1e3"), "budgets"),
        (("isoflop", "--same-size", "worst"), "same_size"),
        (("isoflop", "--resample", "all"), "resample"),
        (("isoflop", "--noise", "0"), "noise"),
        (("envelope", "--points", "some"), "points"),
        (("envelope", "--estimator", "mean"), "estimator"),
        (("envelope", "--flops", "-1"), "flops"),
    ],
)
def test_mistakes_are_named_in_one_line(study, words, named):
    with pytest.raises(InputError, match=f"^{named}: ") as caught:
        run(words[0], study, *words[1:])
    assert "\n" not in str(caught.value)


def test_a_missing_curves_file_ends_with_one_line_and_status_2(study, capsys):
    (study / "curves.csv").unlink()
    assert main(["envelope", str(study)]) == 2
    assert "holds no curves.csv" in capsys.readouterr().err

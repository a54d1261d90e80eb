"""Groups: each fitted as by itself, compared with intervals that cover a planted difference."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis.errors import InputError
from analysis.fit import fit
from analysis.groups import fit_groups, groups_text
from analysis.laws import Chinchilla
from analysis.table import from_frame

LAWS = {
    "code": Chinchilla(A=300.0, B=4e3, L0=0.9, alpha=0.45, beta=0.5),
    "prose": Chinchilla(A=300.0, B=4e3, L0=1.7, alpha=0.33, beta=0.5),
    "notes": Chinchilla(A=300.0, B=4e3, L0=1.7, alpha=0.33, beta=0.5),
}


def frame(sd=0.002, seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        (name, f"eval-{name}", n, d, float(law.predict(n, d)) * math.exp(sd * rng.normal()))
        for name, law in LAWS.items()
        for n in (1e6, 3e6, 1e7, 3e7, 1e8)
        for d in (1e8, 3e8, 1e9, 3e9)
    ]
    return pd.DataFrame(rows, columns=["corpus", "eval_set", "params", "tokens", "loss_nats"])


@pytest.fixture(scope="module")
def grouped():
    return fit_groups(from_frame(frame(), by="corpus"), "corpus", bootstrap=300, seed=1)


def test_each_group_is_what_its_rows_alone_give(grouped):
    assert [group.name for group in grouped.groups] == ["code", "notes", "prose"]
    for group in grouped.groups:
        alone = fit(from_frame(frame(), where={"corpus": group.name}), bootstrap=300, seed=1)
        assert group.fit is not None
        assert group.fit.law == alone.law
        assert group.fit.intervals == alone.intervals
        assert group.fit.law.alpha == pytest.approx(LAWS[group.name].alpha, abs=0.05)


def test_a_planted_difference_is_found_and_none_is_not(grouped):
    found = {(d.first, d.second, d.parameter): d for d in grouped.differences}
    assert len(found) == 9
    planted = found["code", "prose", "alpha"]
    assert planted.interval is not None
    assert planted.interval[0] < 0.12 < planted.interval[1]
    assert planted.excludes_zero
    assert planted.difference == pytest.approx(0.12, abs=0.05)
    same = found["notes", "prose", "alpha"]
    assert same.interval is not None
    assert same.interval[0] < 0 < same.interval[1]
    assert not same.excludes_zero
    assert {d.parameter for d in grouped.differences} == {"a", "alpha", "beta"}


def test_intervals_of_differences_are_those_of_independent_groups(grouped):
    """The variance of a difference is the sum of the variances, here within the noise of 300 resamples."""
    code, prose = (group.fit for group in grouped.groups if group.name != "notes")
    expected = math.hypot(np.std(code.samples.alpha), np.std(prose.samples.alpha))
    ends = next(
        d for d in grouped.differences if (d.first, d.second, d.parameter) == ("code", "prose", "alpha")
    ).interval
    assert (ends[1] - ends[0]) / (2 * 1.96) == pytest.approx(expected, rel=0.2)


def test_what_else_differs_is_said_and_what_differs_within_refused(grouped):
    assert any("eval_set differs between the groups of corpus" in note for note in grouped.table.notes)
    mixed = frame()
    mixed.loc[3, "eval_set"] = "other"
    with pytest.raises(InputError, match=r"eval_set: 2 values .* within one corpus"):
        from_frame(mixed, by="corpus")
    with pytest.raises(InputError, match=r"corpus: 3 values .*--by corpus"):
        from_frame(frame())


def test_a_group_that_cannot_be_fitted_is_listed(grouped):
    few = pd.concat([frame().query("corpus == 'code'"), frame().query("corpus == 'prose'").head(4)])
    result = fit_groups(from_frame(few, by="corpus"), "corpus", bootstrap=0)
    assert [(group.name, group.runs, group.fit is None) for group in result.groups] == [
        ("code", 20, False),
        ("prose", 4, True),
    ]
    assert "4 usable rows" in result.groups[1].reason
    assert result.differences == ()
    assert "not fitted" in groups_text(result)
    with pytest.raises(InputError, match="none of 2 groups of corpus can be fitted"):
        fit_groups(from_frame(few.groupby("corpus").head(4), by="corpus"), "corpus", bootstrap=0)


def test_groups_by_a_number_and_blank_groups():
    cells = frame().query("corpus != 'notes'").drop(columns=["corpus", "eval_set"])
    cells["Seed"] = np.repeat([10.0, 9.0], 20)
    cells.loc[cells.index[0], "Seed"] = np.nan
    table = from_frame(cells, by="Seed")
    assert [(e.row, e.column) for e in table.excluded] == [(2, "Seed")]
    assert [group.name for group in fit_groups(table, "Seed", bootstrap=0).groups] == ["9", "10"]
    with pytest.raises(InputError, match="by: 'nothing' names no column"):
        from_frame(cells, by="nothing")
    with pytest.raises(InputError, match="by: params has"):
        fit_groups(from_frame(cells.assign(params=np.linspace(1e6, 1e8, 40))), "params")


def test_one_run_on_two_evaluation_sets_is_no_conflict():
    cells = frame().query("corpus == 'code'")
    both = pd.concat(
        [cells.assign(run_id=[f"r{i}" for i in range(20)]), cells.assign(run_id=[f"r{i}" for i in range(20)])]
    )
    both["eval_set"], both["loss_nats"] = ["x"] * 20 + ["y"] * 20, [*cells["loss_nats"], *(cells["loss_nats"] + 0.1)]
    with pytest.raises(InputError, match="eval_set: 2 values"):
        from_frame(both)
    result = fit_groups(from_frame(both, by="eval_set"), "eval_set", bootstrap=0)
    assert len(result.differences) == 3
    assert "trajectories have rows in several groups" in result.warnings[0]


def test_the_command(tmp_path, capsys):
    from lmscale import cli

    frame().rename(columns={"corpus": "Corpus"}).to_csv(tmp_path / "runs.csv", index=False)
    words = [
        "fit",
        str(tmp_path / "runs.csv"),
        "--by",
        "Corpus",
        "--bootstrap",
        "50",
        "--json",
        str(tmp_path / "a.json"),
    ]
    assert cli.main([*words, "--where", "Corpus!=notes", "--drop-highest-loss", "1"]) == 0
    shown = capsys.readouterr().out
    for word in ("code - prose", "excludes zero", "highest losses"):
        assert word in shown
    answer = json.loads((tmp_path / "a.json").read_text())
    assert [group["group"] for group in answer["groups"]] == ["code", "prose"]
    assert answer["groups"][0]["parameters"]["alpha"] == pytest.approx(0.45, abs=0.05)
    assert {d["parameter"] for d in answer["differences"]} == {"a", "alpha", "beta"}
    assert len(answer["excluded"]) == 1

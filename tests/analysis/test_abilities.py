"""Scores beside a table of runs: ours and anyone's, chance levels, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from planted_study import ITEMS, TASKS, planted_study

import analysis
from analysis.errors import InputError
from analysis.skills.abilities import beside, better, growing, read_abilities, scale_of
from analysis.solving.proportions import wilson


@pytest.fixture(scope="module")
def plain_runs(study):
    return analysis.read(study, where={"family": "decoder"})


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return planted_study(tmp_path_factory.mktemp("study"), tuned=True)


def foreign(**columns):
    n = len(next(iter(columns.values())))
    frame = {"N": np.geomspace(1e6, 1e9, n), "D": np.geomspace(1e8, 1e10, n)[::-1], "loss": np.linspace(4, 2, n)}
    return analysis.from_frame(pd.DataFrame({**frame, **columns}))


def test_scores_of_a_study_are_read_with_their_intervals_and_chance(study, plain_runs):
    table = plain_runs
    found = read_abilities(study, table)
    assert [ability.task for ability in found] == list(TASKS)
    first = found[0]
    assert (first.main.name, first.main.chance, first.items) == ("accuracy", 0.25, ITEMS)
    hits = round(float(first.main.value[0]) * ITEMS)
    if "t4000000" not in str(table.frame["run_id"][0]):
        assert (first.main.low[0], first.main.high[0]) == pytest.approx(wilson(hits, ITEMS))
    assert first.metrics["brier"].chance == 0.75  # of four options alike
    assert first.metrics["exact_match"].chance is None
    assert first.continuous is first.metrics["log_prob"]
    assert (better(first.metrics["brier"]) == -first.metrics["brier"].value).all()


def test_one_slice_one_task_and_another_metric_can_be_asked_for(study, plain_runs):
    table = plain_runs
    (few,) = read_abilities(study, table, task="lookup", part="shots=4")
    assert len(few.table) == 10  # prompted after the largest token count alone
    (led,) = read_abilities(study, table, task="lookup", metric="correct_prob")
    assert led.main.name == "correct_prob"
    assert led.main.chance == 0.25
    (told,) = read_abilities(study, table, task="flat", chance={"": 0.2, "lookup": 0.3})
    assert told.main.chance == 0.2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"task": "none"}, "task: 'none' is not scored in .*; found lookup, guess"),
        ({"task": "flat", "metric": "bleu"}, "metric: 'flat' has no 'bleu'; found accuracy"),
        ({"metric": "bleu"}, "metric: no task of .* has 'bleu'"),
        ({"part": "shots=9"}, "slice: 'shots=9' is not in .*; found shots=2, shots=4"),
        ({"chance": {"flat": 1.0}}, "chance: 1 of 'flat' is no share below 1"),
    ],
)
def test_what_is_not_there_is_named(study, plain_runs, asked, message):
    with pytest.raises(InputError, match=message):
        read_abilities(study, plain_runs, **asked)


def test_columns_of_a_foreign_table_are_tasks(tmp_path):
    table = foreign(
        piqa_acc=[0.5, 0.6, 0.7, 0.8],
        piqa_acc_stderr=[0.01] * 4,
        err_avg=[0.7, 0.6, 0.5, 0.4],
        lambada_ppl=[90.0, 30.0, 10.0, 5.0],
        lambada_acc=[0.1, np.nan, 0.5, 0.7],
    )
    found = {ability.task: ability for ability in read_abilities(tmp_path / "runs.csv", table)}
    assert set(found) == {"piqa", "avg", "lambada"}
    assert found["piqa"].main.chance == 0.5
    assert found["piqa"].main.low[0] == pytest.approx(0.5 - 0.0196, abs=1e-4)
    assert found["avg"].main.value == pytest.approx([0.3, 0.4, 0.5, 0.6])
    assert found["avg"].main.chance is None
    assert len(found["lambada"].table) == 3  # a run without a score is in no answer about it
    assert better(found["lambada"].metrics["perplexity"]) == pytest.approx(-np.log([90, 10, 5]))


def test_a_column_can_be_named_and_per_cent_are_no_shares(tmp_path):
    table = foreign(mine=[0.2, 0.3, 0.4, 0.5], piqa_acc=[50, 60, 70, 80])
    (one,) = read_abilities(tmp_path / "runs.csv", table, metric="mine", chance={"mine": 0.1})
    assert (one.task, one.main.chance) == ("mine", 0.1)
    with pytest.raises(InputError, match="accuracy: 50 is no share from 0 to 1; per cent are to be given as shares"):
        read_abilities(tmp_path / "runs.csv", table)
    with pytest.raises(InputError, match="task: the table scores no task"):
        read_abilities(tmp_path / "runs.csv", foreign(width=[1, 2, 3, 4]))


def test_the_published_tables_have_their_tasks(reference):
    path = reference / "pythia_zeroshot.csv"
    table = analysis.read(path, columns={"loss_nats": "log(lambada_ppl)"}, where={"step": 143000, "deduped": "False"})
    found = {ability.task: ability.main.chance for ability in read_abilities(path, table)}
    assert found == {"lambada": 0.0, "arc_easy": 0.25, "sciq": 0.25, "piqa": 0.5, "logiqa": 0.25,
                     "arc_challenge": 0.25, "winogrande": 0.5, "wsc": 0.5}  # fmt: skip
    path = reference / "gadre_redpajama.csv"
    tasks = read_abilities(path, analysis.read(path))
    assert {ability.task for ability in tasks} == {"avg", "avg_subset"}


def test_scales_grow_with_ability_and_shapes_are_told_from_them(study, plain_runs):
    table = plain_runs
    assert (growing(table, "loss") == -table.loss_nats).all()
    assert growing(table, "flops") == pytest.approx(np.log(6 * table.params * table.tokens))
    assert beside(table, "flops")[:, 0] == pytest.approx(np.log(table.tokens / table.params), abs=10)
    assert beside(table, "loss").shape == (len(table), 0)
    assert beside(foreign(a=[1.0] * 5), "flops").shape == (5, 0)  # one compute: log D/N is log N again
    with pytest.raises(InputError, match="against: 'width' is no scale"):
        scale_of(table, "width")

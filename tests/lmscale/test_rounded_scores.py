"""Finished runs scored with rounded weights: what is kept, resumed and skipped; the command on a swept study."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from lmscale.cli import main
from lmscale.config import Corpus, EvalSet, Size
from lmscale.planning.assemble import Assembly
from lmscale.records import SCORE_COLUMNS, Workspace
from lmscale.scoring.quantise import Rounding
from lmscale.scoring.rounded_scores import score_rounded
from lmscale.train import train

ROUNDINGS = [Rounding(bits=8), Rounding(bits=3)]
METRICS = {f"loss_{what}_int{bits}" for what in ("nats", "added") for bits in (8, 3)}


@pytest.fixture(scope="module")
def books(make_shards):
    return make_shards(8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def finished(make_assembly, make_training, books, folder, tmp_path) -> tuple[Assembly, Workspace]:
    """Two runs, and a set beside the headline. Trained once; every test has a copy."""
    sets = (EvalSet(name="books", corpus=Corpus(), tokens=400),)
    sizes = (Size(width=16, depth=1),)
    assembly = make_assembly({"books": books}, sizes=sizes, tokens=(128 * 20, 128 * 40), eval_sets=sets)
    train(make_training(assembly, out=folder))
    shutil.copytree(folder, tmp_path / "copy")
    return assembly, Workspace(tmp_path / "copy", "test")


def table(workspace: Workspace) -> dict[tuple[str, str, str], dict[str, str]]:
    """The rows of scores.csv about rounded weights, by run, set and metric."""
    workspace.export()
    with open(workspace.root / "scores.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if "_int" in row["metric"]]
    assert tuple(reader.fieldnames or ()) == SCORE_COLUMNS
    return {(row["run_id"], row["task"], row["metric"]): row for row in rows}


def score_files(workspace: Workspace) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in workspace.root.glob("runs/*/scores/*int*.json")}


def ids(assembly: Assembly) -> list[str]:
    return [run.id for trajectory in assembly.plan for run in trajectory.runs]


def test_every_run_is_scored_on_every_set(finished):
    assembly, workspace = finished
    outcome = score_rounded(assembly, workspace, ROUNDINGS, print)
    assert (outcome.scored, outcome.before) == (2, 0)
    rows = table(workspace)
    labels = {s.name: s.label for s in (assembly.headline, *assembly.extra_sets)}
    assert set(rows) == {(run, s, metric) for run in ids(assembly) for s in labels for metric in METRICS}
    records = {record["row"]["run_id"]: record for record in workspace.records()}
    for (run, task, metric), row in rows.items():
        assert row["eval_set"] == labels[task]
        if metric == "loss_added_int8" and task == "heldout":  # against the loss that training measured
            exact = float(rows[run, task, "loss_nats_int8"]["value"]) - float(row["value"])
            assert exact == pytest.approx(records[run]["row"]["loss_nats"], rel=1e-6)


def test_an_interruption_loses_nothing(finished):
    assembly, workspace = finished
    lines = []

    def interrupt(line: str) -> None:
        lines.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_rounded(assembly, workspace, ROUNDINGS, interrupt)
    assert lines[0].startswith("1/2  16x1x2 to 0.00 M tokens  int8 ")
    kept = score_files(workspace)
    assert len(kept) == 4  # of one run: two sets, two roundings
    outcome = score_rounded(assembly, workspace, ROUNDINGS, print)
    assert (outcome.scored, outcome.before) == (1, 1)
    assert {path: time for path, time in score_files(workspace).items() if path in kept} == kept
    assert len(table(workspace)) == 16


def test_more_bits_are_added_to_what_is_there(finished):
    assembly, workspace = finished
    score_rounded(assembly, workspace, ROUNDINGS[:1], print)
    kept = score_files(workspace)
    grouped = [*ROUNDINGS[:1], Rounding(bits=4, group=8)]
    assert score_rounded(assembly, workspace, grouped, print).scored == 2
    assert {metric for _, _, metric in table(workspace)} >= {"loss_added_int8", "loss_added_int4_g8"}
    assert {path: time for path, time in score_files(workspace).items() if path in kept} == kept
    assert score_rounded(assembly, workspace, grouped, print).before == 2


def test_runs_without_sound_parameters_are_named(finished):
    assembly, workspace = finished
    absent, damaged = ids(assembly)
    shutil.rmtree(workspace.run(absent) / "final")
    victim = max((workspace.run(damaged) / "final").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    victim.write_bytes(victim.read_bytes()[:-1])
    said = []
    outcome = score_rounded(assembly, workspace, ROUNDINGS, said.append)
    assert (outcome.scored, outcome.missing, outcome.damaged) == (0, [absent], [damaged])
    assert f"skipped: {absent} has no final parameters on disk" in said[0]
    assert f"skipped: the final parameters of {damaged} are damaged" in said[1]
    assert table(workspace) == {}


def test_a_damaged_score_is_made_anew(finished, capsys):
    assembly, workspace = finished
    score_rounded(assembly, workspace, ROUNDINGS[:1], print)
    before = table(workspace)
    first = next(iter(score_files(workspace)))
    first.write_text(first.read_text().replace("loss_added", "loss_adbed"))
    assert score_rounded(assembly, workspace, ROUNDINGS[:1], print).scored == 1
    assert "set aside, score it again" in capsys.readouterr().out
    assert table(workspace) == before


def test_runs_of_another_plan_are_left_alone(finished, make_assembly, books):
    _, workspace = finished
    other = make_assembly({"books": books}, sizes=(Size(width=24, depth=1),), tokens=(2560,))
    outcome = score_rounded(other, workspace, ROUNDINGS, print)
    assert (outcome.scored, len(outcome.unplanned)) == (0, 2)


def test_nothing_of_the_sweep_is_touched(finished):
    """Every file that training left has the same bytes, and no other than scores was added."""
    assembly, workspace = finished

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()}

    before = contents()
    score_rounded(assembly, workspace, ROUNDINGS, print)
    after = contents()
    assert {path: after[path] for path in before} == before
    assert set(after) - set(before) == set(score_files(workspace))


def test_the_command_scores_a_swept_study(study, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "shards").symlink_to(study.parent / "out" / "shards")
    fewer = [str(study), "--out", str(out), "--tokens", "16384"]
    ask = ["quantise", *fewer, "--bits", "4", "3"]
    assert main(ask) == 2
    line = capsys.readouterr().err
    assert line == f"lmscale: study: 'small' has no finished run in {str(out)!r}; sweep it, or pass --out DIR\n"
    assert not (out / "small").exists()
    assert main(["sweep", *fewer, "--workers", "1"]) == 0
    capsys.readouterr()
    assert main([*ask, "--json", str(out / "x.json")]) == 0
    printed = capsys.readouterr().out
    assert "1/1  32x1x2 to 0.02 M tokens  int4 +" in printed
    assert "1 runs scored, 0 were before, 0 have no sound final parameters" in printed
    answer = json.loads((out / "x.json").read_text())
    added = {(row["run_id"], row["metric"]): row["value"] for row in answer["scores"] if "added" in row["metric"]}
    (run,) = {run for run, _ in added}
    assert 0 < added[run, "loss_added_int4"] < added[run, "loss_added_int3"]
    assert (out / "small" / "scores.csv").read_text().count("loss_added_int4") == 1
    assert main(ask) == 0
    assert "0 runs scored, 1 were before" in capsys.readouterr().out
    assert main(["plot", str(out / "small"), "--precision"]) == 0
    printed = capsys.readouterr().out
    assert "no law: 1 trajectories cannot tell how runs differ" in printed
    assert (out / "small" / "figures" / "loss_added_by_rounding.png").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bits", "1"], "bits: 1 must lie from 2 to 16"),
        (["--bits", "four"], "bits: 'four' is not a whole number"),
        (["--group", "1"], "group: 1 must be at least 2 inputs"),
    ],
)
def test_bad_options(finished, study, capsys, options, words):
    _, workspace = finished
    shutil.copytree(workspace.root, workspace.root.parent / "small")
    assert main(["quantise", str(study), "--out", str(workspace.root.parent), *options]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"lmscale: {words}")
    assert line.count("\n") == 1

"""Groups of documents: each group's loss by hand, in records and tables, also where groups are kept only later."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest

from lmscale.data.loader import EvaluationSet, evaluation_set
from lmscale.data.shards import Vocabulary, open_shards
from lmscale.data.slices import UNKNOWN, Slicing, sliced
from lmscale.data.writer import ShardWriter
from lmscale.evaluate import Evaluation, by_window, loss_scores, summarise, summarise_slices
from lmscale.records import unscored
from lmscale.scoring.scores import score_finished
from lmscale.train import train


def write(folder, lengths, values=None, codes=()):
    """Held-out documents of these lengths, and what is kept of each."""
    vocabulary = Vocabulary(class_name="Test", name="test", size=32, eos_id=1, digest="0")
    kept = ["source"] * (values is not None)
    groups = [{"source": values[code]} for code in codes] if values is not None else [{}] * len(lengths)
    with ShardWriter(folder / "text", {"targets": vocabulary}, slices=kept) as writer:
        writer.add("train", {"targets": np.full(64, 3)}, {"targets": 64}, groups[0])
        for length, group in zip(lengths, groups, strict=True):
            writer.add("heldout", {"targets": np.append(np.full(length, 4), 1)}, {"targets": 2 * length}, group)
        return open_shards(writer.finish({}))


@pytest.fixture
def with_groups(make_assembly):
    """An assembly whose held-out documents are, in turn, from two sources."""

    def make(**changes):
        assembly = make_assembly(tokens=(2560,), **changes)
        windows = assembly.held_out
        codes = (windows.documents % 2).astype(np.int32)
        slices = {"source": Slicing(values=("code", "web"), codes=codes)}
        return replace(assembly, headline=replace(assembly.headline, windows=replace(windows, slices=slices)))

    return make


def scores(t):
    t.workspace.export()
    with open(t.workspace.root / "scores.csv", newline="") as file:
        return {(r["task"], r["metric"], r["slice"]): r for r in csv.DictReader(file)}


def test_groups_come_from_the_prepared_text(tmp_path):
    shards = write(tmp_path, [20, 40, 10], ["code", "web"], [1, 0, 1])
    windows = sliced(evaluation_set(shards.heldout, sequence=8, tokens=1000), shards)
    groups = dict(windows.slices["source"].groups("source"))
    assert set(groups) == {"source=code", "source=web"}
    assert set(windows.documents[groups["source=code"]]) == {1}
    assert set(windows.documents[groups["source=web"]]) == {0, 2}
    assert windows.window_bytes.sum() == pytest.approx(windows.bytes_scored) == 140
    assert windows.window_bytes[groups["source=code"]].sum() == pytest.approx(80)


def test_parts_of_a_text_are_numbered_through(tmp_path):
    kept, plain = write(tmp_path / "a", [9, 9], ["web"], [0, 0]), write(tmp_path / "b", [9])
    alone = evaluation_set(kept.heldout, sequence=16, tokens=1000)
    windows = replace(alone, documents=np.array([0, 1, 2], np.int32))
    found = sliced(windows, kept, plain).slices["source"]
    assert [found.values[code] for code in found.codes] == ["web", "web", UNKNOWN]


def test_a_group_is_summed_by_hand():
    """Two documents of 10 and 30 tokens at 1 and 2 nats: loss 1.75; the ratio estimate's error by its formula."""
    nats, documents = np.array([10.0, 60.0, 7.0]), np.array([0, 1, 2])
    weights = np.zeros((3, 30), np.float32)
    for row, count in enumerate((10, 30, 7)):
        weights[row, :count] = 1

    windows = EvaluationSet(
        tokens=np.zeros((3, 31), np.int32),
        weights=weights,
        documents=documents.astype(np.int32),
        bytes_scored=94,
        digest="",
        window_bytes=np.array([20.0, 60.0, 14.0]),
        slices={"source": Slicing(values=("web", "rare"), codes=np.array([0, 0, 1], np.int32))},
    )
    web, rare = summarise_slices(nats, weights.sum(axis=1), windows, with_bytes=True)
    assert (web.name, web.documents, web.tokens) == ("source=web", 2, 40)
    assert web.loss_nats == pytest.approx(1.75)
    residuals = np.array([10 - 17.5, 60 - 52.5])
    assert web.loss_stderr == pytest.approx(math.sqrt(2 * (residuals**2).sum()) / 40)
    assert web.bits_per_byte == pytest.approx(70 / math.log(2) / 80)
    assert (rare.documents, rare.loss_stderr) == (1, None)
    # of a masked model's, noise may have chosen no token: it keeps its counts and has no loss
    _, unasked = summarise_slices(nats, np.array([10.0, 30.0, 0.0]), windows, with_bytes=False)
    evaluation = Evaluation(loss_nats=1.0, loss_stderr=0.1, bits_per_byte=None, slices=(unasked,))
    scores = [(score.metric, score.value) for score in loss_scores(evaluation) if score.slice]
    assert scores == [("tokens", 0), ("documents", 1)]


def test_every_run_records_its_groups(with_groups, make_training):
    t = make_training(with_groups())
    train(t)
    found, windows = scores(t), t.held_out
    (record,) = t.workspace.records()
    recorded = {(row["metric"], row["slice"]): row["value"] for row in record["scores"]}
    for name in ("source=code", "source=web"):
        assert recorded["loss_nats", name] == float(found["heldout", "loss_nats", name]["value"])
        rows = windows.slices["source"].codes == ("source=code", "source=web").index(name)
        assert float(found["heldout", "tokens", name]["value"]) == windows.weights[rows].sum()
        assert float(found["heldout", "documents", name]["value"]) == len(np.unique(windows.documents[rows]))
    parts = [
        (float(found["heldout", m, f"source={v}"]["value"])) for v in ("code", "web") for m in ("loss_nats", "tokens")
    ]
    whole = (parts[0] * parts[1] + parts[2] * parts[3]) / (parts[1] + parts[3])
    assert float(found["heldout", "loss_nats", ""]["value"]) == pytest.approx(whole, rel=1e-9)
    assert unscored(t.workspace, t.trajectory.runs[0].id, t.sets) == []


def test_groups_kept_later_are_scored_without_training(make_assembly, with_groups, make_training, tmp_path):
    first = make_training(make_assembly(tokens=(2560,)))
    train(first)
    written = (first.workspace.run(first.trajectory.runs[0].id) / "record.json").read_bytes()
    later = make_training(with_groups())
    assert later.trajectory.runs[0].id == first.trajectory.runs[0].id  # groups are no part of a run's identity
    assert [s.name for s in unscored(later.workspace, later.trajectory.runs[0].id, later.sets)] == ["heldout"]
    assert score_finished(later) == 1
    assert score_finished(later) == 0
    assert (first.workspace.run(first.trajectory.runs[0].id) / "record.json").read_bytes() == written
    at_once = make_training(with_groups(), out=tmp_path / "at-once")
    train(at_once)
    assert scores(later) == scores(at_once)


def test_a_loss_by_window_adds_up(with_groups, make_training):
    t = make_training(with_groups())
    params, windows = t.step.init(0).params, t.held_out
    by_token, counted = by_window(t.step.token_losses, params, windows.tokens, windows.weights, t.step.row_devices)
    np.testing.assert_array_equal(counted, windows.weights)
    nats = by_token.sum(axis=1)
    whole = summarise(nats, windows.weights.sum(axis=1), windows.documents, windows.bytes_scored)
    assert whole.loss_nats == pytest.approx(nats.sum() / windows.tokens_scored)

"""Evaluation sets: each run's loss on each, whenever the set was added; only the headline makes another run."""

import csv
import hashlib
import math

import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.checkpoint import Checkpoints
from lmscale.config import Corpus, EvalSet, Size, Study
from lmscale.planning.assemble import Assembly
from lmscale.planning.plan_table import as_json, as_text
from lmscale.records import SCORE_COLUMNS, unscored
from lmscale.scoring.scores import score_finished
from lmscale.store.files import sealed, write_json
from lmscale.train import Training, record, train

BOOKS = EvalSet(name="books", corpus=Corpus(), tokens=800)
LARGE = EvalSet(name="books", corpus=Corpus())


@pytest.fixture(scope="module")
def other_chain(make_shards):
    return make_shards(8)


@pytest.fixture
def with_books(make_assembly, other_chain):
    """An assembly that is also scored on another chain's text, which a model of the first cannot predict."""

    def make(**changes) -> Assembly:
        return make_assembly({"books": other_chain}, eval_sets=(BOOKS,), tokens=(2560,), **changes)

    return make


def final_params(t: Training):
    (run,) = t.trajectory.runs
    like = {"params": t.step.abstract_state.params}
    return Checkpoints(t.workspace.run(run.id) / "final").restore(run.steps, like)["params"]


def loss_by_numpy(t: Training, windows) -> float:
    """Nats per token from the model's logits, in float64."""
    logits = np.asarray(t.step.apply(final_params(t), t.step.objective(windows.tokens)), np.float64)
    log_normaliser = np.log(np.exp(logits).sum(-1))
    right = np.take_along_axis(logits, windows.tokens[:, 1:, None], -1)[..., 0]
    return float(((log_normaliser - right) * windows.weights).sum() / windows.weights.sum())


def table(t: Training) -> dict[tuple[str, str], dict[str, str]]:
    """scores.csv by (set, metric)."""
    t.workspace.export()
    with open(t.workspace.root / "scores.csv", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames or ()) == SCORE_COLUMNS
    assert {row["run_id"] for row in rows} == {t.trajectory.runs[0].id}
    return {(row["task"], row["metric"]): row for row in rows if not row["slice"]}


def test_each_set_has_its_loss(with_books, make_training):
    assembly = with_books()
    t = make_training(assembly)
    train(t)
    scores = table(t)
    assert set(scores) == {(s, m) for s in ("heldout", "books") for m in ("loss_nats", "bits_per_byte")}
    for each in (assembly.headline, *assembly.extra_sets):
        loss = float(scores[each.name, "loss_nats"]["value"])
        assert loss == pytest.approx(loss_by_numpy(t, each.windows), rel=1e-5)
        bits = loss * each.windows.tokens_scored / math.log(2) / each.windows.bytes_scored
        assert float(scores[each.name, "bits_per_byte"]["value"]) == pytest.approx(bits, rel=1e-9)
        assert scores[each.name, "loss_nats"]["eval_set"] == each.label
    row = t.workspace.records()[0]["row"]
    assert float(scores["heldout", "loss_nats"]["value"]) == row["loss_nats"]
    assert float(scores["heldout", "loss_nats"]["stderr"]) == row["loss_stderr"]
    assert float(scores["books", "loss_nats"]["value"]) > row["loss_nats"] + 0.5


def test_the_headline_alone_makes_another_run(make_assembly, with_books, shards):
    plain, more, switched = make_assembly(tokens=(2560,)), with_books(), with_books(headline="books")
    run = plain.plan[0].runs[0].id
    assert more.plan[0].runs[0].id == run
    assert switched.plan[0].runs[0].id != run
    vocabulary = shards.train.vocabulary
    parts = f"{shards.digest} {vocabulary.digest} {plain.held_out.digest}"
    assert more.plan[0].text.digest == hashlib.sha256(parts.encode()).hexdigest()  # as it was before there were sets
    assert [s.name for s in switched.extra_sets] == ["heldout"]
    books = switched.held_out
    assert switched.plan[0].text.eval_set == f"books-{books.tokens_scored}-{books.digest[:8]}"


def test_the_headline_gives_loss_nats(with_books, make_training):
    t = make_training(with_books(headline="books"))
    train(t)
    row, scores = t.workspace.records()[0]["row"], table(t)
    assert row["loss_nats"] == float(scores["books", "loss_nats"]["value"])
    assert row["loss_nats"] == pytest.approx(loss_by_numpy(t, t.held_out), rel=1e-5)
    assert {name for name, _ in scores} == {"books", "heldout"}


def test_a_set_added_later_is_scored_without_training(make_assembly, with_books, make_training, tmp_path):
    first = make_training(make_assembly(tokens=(2560,)))
    train(first)
    (run,) = first.trajectory.runs
    written = (first.workspace.run(run.id) / "record.json").read_bytes()
    steps = []
    later = make_training(with_books(), report=lambda p: steps.append(p.steps))
    assert [s.name for s in unscored(later.workspace, run.id, later.extra_sets)] == ["books"]
    train(later)
    assert score_finished(later) == 1
    assert steps == []
    assert (first.workspace.run(run.id) / "record.json").read_bytes() == written
    assert score_finished(later) == 0
    at_once = make_training(with_books(), out=tmp_path / "at-once")
    train(at_once)
    assert table(later) == table(at_once)


def test_what_cannot_be_scored_is_said(make_assembly, with_books, make_training):
    first = make_training(make_assembly(tokens=(2560,)))
    train(first)
    (run,) = first.trajectory.runs
    victim = max((first.workspace.run(run.id) / "final").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    victim.write_bytes(victim.read_bytes()[:-1])
    said = []
    later = make_training(with_books(), say=said.append)
    assert score_finished(later) == 0
    assert "books" in said[0]
    assert "differs from its hash" in said[0]


def test_a_diverged_run_has_no_scores(with_books, make_training):
    t = make_training(with_books())
    (run,) = t.trajectory.runs
    t.workspace.run(run.id).mkdir()
    write_json(t.workspace.run(run.id) / "record.json", sealed(record(t, run, None)))
    assert unscored(t.workspace, run.id, t.extra_sets) == []
    t.workspace.export()
    assert (t.workspace.root / "scores.csv").read_text().splitlines() == [",".join(SCORE_COLUMNS)]


def test_unreadable_scores_are_set_aside(with_books, make_training, capsys):
    t = make_training(with_books())
    train(t)
    (run,) = t.trajectory.runs
    path = t.workspace.run(run.id) / "scores" / t.extra_sets[0].file_name
    path.write_text(path.read_text()[:-20])
    assert {name for name, _ in table(t)} == {"heldout"}
    assert "set aside" in capsys.readouterr().out
    assert score_finished(t) == 1
    assert {name for name, _ in table(t)} == {"heldout", "books"}


def test_the_plan_shows_the_sets(with_books):
    assembly = with_books()
    text = as_text(assembly, None, None, 1)
    assert f"evaluated on heldout: {assembly.held_out.tokens_scored:,} tokens (the headline" in text
    (books,) = assembly.extra_sets
    assert f"evaluated on books: {books.windows.tokens_scored:,} tokens\n" in text
    row = {"name": "books", "tokens": books.windows.tokens_scored, "headline": False}
    assert as_json(assembly, None, None, 1)["eval_sets"][1] == row


def test_another_vocabulary_is_refused(make_assembly, make_shards):
    with pytest.raises(InputError, match=r"eval_sets.books: 'test' is its vocabulary, .* name a Task"):
        make_assembly({"books": make_shards(8, digest="other")}, eval_sets=(BOOKS,))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: study(eval_sets=(LARGE, LARGE)), "eval_sets: ['books', 'books'] must not name a set twice"),
        (lambda: study(headline="book", eval_sets=(LARGE,)), "headline: 'book' is no evaluation set of the study; "),
        (lambda: EvalSet(name="My Books", corpus=Corpus()), "eval_sets.name: 'My Books' must be lower-case"),
        (lambda: EvalSet(name="heldout", corpus=Corpus()), "eval_sets.name: 'heldout' is that of the study's own"),
        (lambda: study(eval_sets=(EvalSet(name="a", corpus=Corpus(), tokens=9),)), "eval_sets.a.tokens: 9 must hold"),
        (lambda: study(eval_sets=("books",)), "eval_sets: ('books',) is not a set such as books=books/*.txt"),
    ],
)
def test_bad_sets(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(words)


def study(**changes) -> Study:
    return Study(name="x", sizes=(Size(width=64),), tokens=(1_000_000,), **changes)

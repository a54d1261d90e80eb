"""Planted facts: as many as asked, never held out, the same everywhere; a model's recall against its own logits."""

from collections import Counter

import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.cli import main
from lmscale.config import Cleaning, Corpus, EvalSet, PowerRule, Recipe, Size, Study
from lmscale.data.facts import Facts, make_facts
from lmscale.data.pieces import heldout_share
from lmscale.data.planting import plant
from lmscale.data.shards import Vocabulary, open_shards
from lmscale.data.sources import Document
from lmscale.data.writer import ShardWriter
from lmscale.planning.assemble import from_shards
from lmscale.scoring.recall import BYTE_OFFSET, fact_set
from lmscale.train import train

SMALL = Facts(per_count=4, attributes=4, repeats=(1, 7, 30))
BYTES = Vocabulary(class_name="seqio.ByteVocabulary", name="bytes", size=259, eos_id=1, digest="b")


def base():
    """Documents of many lines, the last without an end of line."""
    for i in range(60):
        yield Document(name=f"d{i}", text="\n".join(f"line {j} of document {i}" for j in range(12 + i)).encode())


@pytest.fixture(scope="module")
def planted():
    return list(plant(base, SMALL, 0.3))


def test_facts_follow_from_their_settings():
    facts = make_facts(Facts())
    assert len({fact.name for fact in facts} | set(Facts().pool)) == 112 + 16
    for repeats in Facts().repeats:  # any constant answer is right once in 16
        assert set(Counter(fact.attribute for fact in facts if fact.repeats == repeats).values()) == {1}
    assert facts[0].sentence == "The harvest of Disela is mostly Mavobo."  # as it was on every machine so far
    assert make_facts(Facts(seed=1))[0].name != facts[0].name


def test_every_fact_is_planted_as_often_as_asked(planted):
    found = Counter(line for document in planted for line in document.text.splitlines())
    for fact in make_facts(SMALL):
        assert found[fact.sentence.encode()] == fact.repeats
    lines = [line for document in base() for line in document.text.splitlines()]
    sentences = {fact.sentence.encode() for fact in make_facts(SMALL)}
    assert [x for d in planted for x in d.text.splitlines() if x not in sentences] == lines


def test_no_fact_is_held_out_and_no_side_changes(planted):
    held = 0
    for before, after in zip(base(), planted, strict=True):
        assert (heldout_share(before.text) < 0.3) == (heldout_share(after.text) < 0.3)
        if heldout_share(before.text) < 0.3:
            assert after == before
            held += 1
    assert 5 < held < 35


def test_occurrences_are_spread_over_the_text(planted):
    """One in each of `repeats` equal stretches: the 30 of a fact fall on all quarters of the training text alike."""
    often = [fact for fact in make_facts(SMALL) if fact.repeats == 30]
    trained = b"".join(d.text for d in planted if heldout_share(d.text) >= 0.3)
    for fact in often:
        quarters = np.histogram(
            [i for i in range(len(trained)) if trained.startswith(fact.sentence.encode(), i)], 4, (0, len(trained))
        )[0]
        assert quarters.min() >= 5


def test_what_cannot_be_planted():
    with pytest.raises(
        InputError, match=r"corpus.facts: '16@0' plants 23,104 sentences of .* bytes into a training text"
    ):
        list(plant(base, Facts(), 0.3))
    twice = list(plant(base, SMALL, 0.3))
    with pytest.raises(InputError, match=r"has names that document 'd[0-9]+' holds already"):
        list(plant(lambda: iter(twice), SMALL, 0.3))


@pytest.fixture(scope="module")
def shards(tmp_path_factory, planted):
    with ShardWriter(tmp_path_factory.mktemp("facts") / "text", {"targets": BYTES}) as writer:
        for document in planted:
            tokens = np.append(np.frombuffer(document.text, np.uint8).astype(int) + BYTE_OFFSET, 1)
            side = "heldout" if heldout_share(document.text) < 0.3 else "train"
            writer.add(side, {"targets": tokens}, {"targets": len(document.text)})
        return open_shards(writer.finish({}))


def study(**changes):
    recipe = {"sequence": 48, "batch_tokens": PowerRule(value=192), "warmup_tokens": 192, "cooldown_steps_min": 2}
    settings = {"corpus": Corpus(files=("x.txt",), facts=SMALL, heldout=0.3), "eval_tokens": 48 * 16} | changes
    return Study(name="f", sizes=(Size(width=16, depth=1),), tokens=(192 * 8,), recipe=Recipe(**recipe), **settings)


def test_a_run_is_asked_for_its_facts(shards, make_training):
    """Against the logits themselves: log-probabilities of all attributes, and the likeliest bytes one by one."""
    assembly = from_shards(study(), shards)
    (asked,) = assembly.extra_sets
    t = make_training(assembly)
    train(t)
    (run,) = t.trajectory.runs
    rows = {(r["metric"], r["slice"]): r["value"] for r in t.workspace.scores(run.id) if r["task"] == "facts"}
    from lmscale.checkpoint import Checkpoints

    like = {"params": t.step.abstract_state.params}
    params = Checkpoints(t.workspace.run(run.id) / "final").restore(run.steps, like)["params"]
    windows = asked.windows
    logits = np.asarray(t.step.apply(params, t.step.objective(windows.tokens)), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    each = np.take_along_axis(log_p, windows.tokens[:, 1:, None].astype(int), -1)[..., 0]
    total = (each * windows.weights).sum(-1).reshape(-1, 4)
    right = np.array([fact.attribute for fact in make_facts(SMALL)])
    among = total - np.log(np.exp(total).sum(-1, keepdims=True))
    written = ((log_p.argmax(-1) == windows.tokens[:, 1:]) | (windows.weights == 0)).all(-1).reshape(-1, 4)
    for k, repeats in enumerate(SMALL.repeats):
        part = slice(4 * k, 4 * k + 4)
        name, answer = f"repeats={repeats}", right[part]
        assert rows["recall", name] == np.mean(total[part].argmax(-1) == answer)
        assert rows["log_prob", name] == pytest.approx(among[part][np.arange(4), answer].mean(), rel=1e-4)
        assert rows["exact", name] == np.mean(written[part][np.arange(4), answer])
        assert rows["facts", name] == 4
    assert rows["chance", ""] == 0.25
    assert rows["recall_low", ""] < rows["recall", ""] < rows["recall_high", ""]


def test_windows_hold_the_sentences():
    asked = fact_set(SMALL, BYTES, 48)
    fact = asked.facts[5]
    row = 4 * 5 + fact.attribute
    tokens, weights = asked.windows.tokens[row, 1:], asked.windows.weights[row]
    line = bytes((tokens[tokens > 0] - BYTE_OFFSET).astype(np.uint8)).decode()
    assert line == "\n" + fact.sentence.removesuffix(".")
    scored = bytes((tokens[weights > 0] - BYTE_OFFSET).astype(np.uint8)).decode()
    assert fact.sentence == f"{fact.before}{scored}."


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Facts(per_count=10), "corpus.facts.per_count: 10 must be a multiple of the 16 attributes"),
        (lambda: Facts(per_count=0), "corpus.facts.per_count: 0 must be"),
        (lambda: Facts(attributes=1), "corpus.facts.attributes: 1 must lie between 2 and 256"),
        (lambda: Facts(repeats=(1, 1001)), "corpus.facts.repeats: (1, 1001) must be counts from 1 to 1000"),
        (lambda: Facts(repeats=(10, 1)), "corpus.facts.repeats: (10, 1) must rise, each count once"),
        (lambda: Facts(seed=-1), "corpus.facts.seed: -1 must lie"),
        (
            lambda: Corpus(task="mine", facts=SMALL),
            "corpus.facts: '4@0' cannot be planted into 'mine'; plant them into",
        ),
        (
            lambda: Corpus(facts=SMALL, vocabulary="bpe:1024"),
            "corpus.facts: '4@0' is asked in bytes, and the text is read as 'bpe:1024'; leave out corpus.vocabulary",
        ),
        (lambda: Corpus(facts=SMALL, cleaning=Cleaning()), "corpus.facts: '4@0' and corpus.cleaning, which might drop"),
        (lambda: EvalSet(name="facts", corpus=Corpus()), "eval_sets.name: 'facts' is that of planted facts"),
        (lambda: fact_set(SMALL, BYTES, 16), "recipe.sequence: 16 is shorter than a planted fact; give it at least"),
    ],
)
def test_settings_out_of_range(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(words)


def test_the_command_line_says_it_in_one_line(capsys):
    for given in ("10", "many", "16@-1"):
        assert main(["plan", "quickstart", "--corpus.facts", given]) == 2
        line = capsys.readouterr().err
        assert line.startswith("lmscale: corpus.facts")
        assert line.count("\n") == 1


def test_bytes_are_seqios():
    seqio = pytest.importorskip("seqio")
    assert seqio.ByteVocabulary(extra_ids=0).encode("The") == [b + BYTE_OFFSET for b in b"The"]

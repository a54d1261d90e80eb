"""A chain of known entropy: its rate against the eigenvector of the whole chain and the text's surprisal."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.config import Chain, Corpus, Size, Study
from lmscale.data import chain
from lmscale.data.document import Reading
from lmscale.data.prepare import ensure_prepared
from lmscale.data.shards import open_shards

SMALL = Chain(states=30, knee=2, variance=2.0, zipf=1.0, shift=1.0, document_tokens=9.0, tokens=200_000)


def whole(source: Chain) -> np.ndarray:
    """The chain of the tokens themselves [V + 1, V + 1], the end of a document its last state."""
    first, following, q = chain.law(source)
    end = np.full((source.states, 1), q)
    return np.vstack([np.hstack([(1 - q) * following, end]), np.append(first, 0.0)])


def text(source: Chain) -> list[np.ndarray]:
    made = chain.documents(source, Reading(on_bad="refuse"))
    return [np.frombuffer(document.text, "<u4").astype(np.int64) for document in made]


def transitions(source: Chain, documents: list[np.ndarray]) -> np.ndarray:
    """How often each token of the chain followed each other [V + 1, V + 1]."""
    states = np.concatenate([[source.states], np.concatenate(documents) - chain.FIRST_STATE])
    states[states < 0] = source.states
    pairs = states[:-1] * (source.states + 1) + states[1:]
    return np.bincount(pairs, minlength=(source.states + 1) ** 2).reshape(source.states + 1, -1)


@pytest.mark.parametrize("source", [SMALL, replace(SMALL, document_tokens=2.0), replace(SMALL, variance=0.0)])
def test_the_rate_is_that_of_the_eigenvector_of_the_whole_chain(source):
    matrix = whole(source)
    assert matrix.sum(axis=1) == pytest.approx(np.ones(source.states + 1), abs=1e-12)
    values, vectors = np.linalg.eig(matrix.T)
    pi = np.real(vectors[:, np.argmin(abs(values - 1))])
    pi /= pi.sum()
    states, end = chain.stationary(source)
    assert np.append(states, end) == pytest.approx(pi, abs=1e-12)
    assert 1 / end == pytest.approx(source.document_tokens)
    nats = [-share * p * math.log(p) for share, row in zip(pi, matrix.tolist(), strict=True) for p in row if p > 0]
    assert chain.entropy_nats(source) == pytest.approx(math.fsum(nats), rel=1e-10)


def test_without_logits_it_is_a_draw_of_independent_states():
    plain = replace(SMALL, variance=0.0)
    p = (np.arange(30) + 2.0) ** -1.0
    p, q = p / p.sum(), 1 / 8
    per_document = -math.fsum(p * np.log(p)) * 8 - (math.log(q) * q + math.log1p(-q) * (1 - q)) * 8
    assert chain.entropy_nats(plain) == pytest.approx(per_document / 9, rel=1e-12)


def test_the_logits_have_their_singular_values():
    theta = chain.modes(SMALL)
    wanted = np.maximum(np.arange(2, 32), 2) ** -1.0
    assert np.linalg.svd(theta, compute_uv=False) == pytest.approx(30 * wanted * math.sqrt(2 / (wanted @ wanted)))
    assert (theta**2).mean() == pytest.approx(2.0)


def test_the_text_is_of_its_law():
    """Surprisal within four standard errors of the rate, and transitions as often as they should be."""
    documents, matrix = text(SMALL), whole(SMALL)
    assert sum(map(len, documents)) == SMALL.tokens
    assert all((document[:-1] >= chain.FIRST_STATE).all() and document[-1] == chain.END for document in documents)
    counts = transitions(SMALL, documents)
    possible = matrix > 0
    assert counts[~possible].sum() == 0
    surprisal = -np.log(matrix[possible])
    seen = counts[possible] / counts.sum()
    mean = seen @ surprisal
    error = math.sqrt((seen @ surprisal**2 - mean**2) / SMALL.tokens)
    assert abs(mean - chain.entropy_nats(SMALL)) < 4 * error
    expected = (counts.sum(axis=1, keepdims=True) * matrix)[possible]
    chi, freedom = float(((counts[possible] - expected) ** 2 / expected).sum()), 30 * 31 + 30 - 31 - 1
    assert abs(chi - freedom) < 4 * math.sqrt(2 * freedom)


def test_the_two_tokens_before_tell_no_more_than_the_one():
    """Counts of three in a row are those of a chain of first order."""
    source = replace(SMALL, states=3, knee=1)
    states = np.concatenate(text(source)) - chain.FIRST_STATE
    triples = np.zeros((4, 4, 4))
    np.add.at(triples, (states[:-2], states[1:-1], states[2:]), 1)  # an end is -1: the last
    expected = triples.sum(axis=2, keepdims=True) * whole(source)[None]
    used = expected > 0
    chi, freedom = float(((triples[used] - expected[used]) ** 2 / expected[used]).sum()), 15 * 2.8
    assert chi < freedom + 4 * math.sqrt(2 * freedom)
    assert triples[~used].sum() == 0


def test_more_text_begins_with_the_same_text_and_another_seed_is_another():
    long, short = text(SMALL), text(replace(SMALL, tokens=50_000))
    assert sum(map(len, short)) == 50_000
    assert all(np.array_equal(a, b) for a, b in zip(short[:-1], long, strict=False))
    assert np.array_equal(short[-1][:-1], long[len(short) - 1][: len(short[-1]) - 1])
    other = text(replace(SMALL, seed=1, tokens=1000))
    assert not np.array_equal(other[0], long[0])
    assert not np.array_equal(chain.modes(replace(SMALL, seed=1)), chain.modes(SMALL))


def test_it_is_prepared_with_its_entropy_and_its_ends(tmp_path):
    corpus = Corpus(task="chain", chain=replace(SMALL, tokens=20_000), heldout=0.1)
    (part,) = ensure_prepared(corpus, tmp_path, echo=print)
    shards = open_shards(part.folder)
    assert shards.entropy_nats == chain.entropy_nats(corpus.chain)
    assert (shards.train.vocabulary.size, shards.train.vocabulary.eos_id) == (32, chain.END)
    assert shards.train.tokens + shards.heldout.tokens == 20_000
    made = {document.tobytes() for document in text(corpus.chain)}
    held = [shards.heldout.document(i).astype(np.int64).tobytes() for i in range(shards.heldout.documents)]
    assert held
    assert set(held) <= made
    assert shards.train.total_bytes == 0
    other = Corpus(task="chain", chain=replace(corpus.chain, seed=1), heldout=0.1)
    assert ensure_prepared(other, tmp_path, echo=print)[0].folder != shards.folder


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"states": 1}, "corpus.chain.states: 1 must lie between 2 and 4,096"),
        ({"spectrum": 0.5}, "corpus.chain.spectrum: 0.5 must lie above 0.5, up to 4"),
        ({"knee": 0}, "corpus.chain.knee: 0 must be at least 1"),
        ({"variance": -1.0}, "corpus.chain.variance: -1.0 must lie between 0 and 100"),
        ({"zipf": 5.0}, "corpus.chain.zipf: 5.0 must lie between 0 and 4"),
        ({"shift": -1.0}, "corpus.chain.shift: -1.0 must not be negative"),
        ({"document_tokens": 1.5}, "corpus.chain.document_tokens: 1.5 must lie between 2 and 1e6"),
        ({"tokens": 10}, "corpus.chain.tokens: 10 must be at least 1,000"),
        ({"seed": -1}, "corpus.chain.seed: -1 must lie between 0 and 2^31 - 1"),
    ],
)
def test_what_no_source_has_is_refused(changes, line):
    with pytest.raises(InputError, match=re.escape(line)):
        Study(name="a", sizes=(Size(width=16),), tokens=(1000,), corpus=Corpus(chain=Chain(**changes)))


MIXED = """
import numpy as np, seqio, tensorflow as tf
documents = np.hstack([np.tile(np.arange(2, 22, dtype=np.int32), (200, 1)), np.ones((200, 1), np.int32)])
documents[:, 0] = np.arange(200) % 30 + 2
documents[:, 1] = np.arange(200) // 30 + 2
source = seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices({"targets": documents}), ["train"]
)
states = seqio.Feature(seqio.PassThroughVocabulary(32, eos_id=1), add_eos=False)
seqio.TaskRegistry.add("counting", source, {"targets": states}, preprocessors=[])
seqio.MixtureRegistry.add("chain_and_counting", [("chain", 3), ("counting", 1)])
"""


def test_a_mixture_takes_it(tmp_path, monkeypatch):
    """With a Task of the same ids; its folder is that of the chain alone."""
    (tmp_path / "counted.py").write_text(MIXED)
    monkeypatch.chdir(tmp_path)
    alone = Corpus(task="chain", chain=replace(SMALL, tokens=20_000), heldout=0.1)
    corpus = replace(alone, task="chain_and_counting", module="counted")
    parts = ensure_prepared(corpus, tmp_path / "shards", echo=print)
    assert [(part.name, part.rate) for part in parts] == [("chain", 0.75), ("counting", 0.25)]
    chained, counted = (open_shards(part.folder) for part in parts)
    assert chained.train.vocabulary.digest == counted.train.vocabulary.digest
    assert chained.entropy_nats == chain.entropy_nats(alone.chain)
    (part,) = ensure_prepared(alone, tmp_path / "shards", echo=print)
    assert open_shards(part.folder).manifest["splits"] == chained.manifest["splits"]

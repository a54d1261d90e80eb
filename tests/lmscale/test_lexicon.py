"""A source of known entropy: its rate against the chain of letters spelled out, its text against its law."""

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.config import Corpus, Lexicon, Size, Study
from lmscale.data import lexicon
from lmscale.data.document import Reading
from lmscale.data.prepare import ensure_prepared
from lmscale.data.shards import Shards, open_shards

SMALL = Lexicon(words=40, exponent=1.2, shift=2.0, letters=3, letters_per_word=4, document_words=5.0, tokens=60_000)


def test_the_rate_is_that_of_the_chain_of_letters():
    """Letter by letter, by the definition of conditional entropy, over the words written out."""
    spelled = [tuple(word) for word in lexicon.spell(SMALL, np.arange(SMALL.words)).tolist()]
    visits: dict[tuple, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for word, p in zip(spelled, lexicon.probabilities(SMALL), strict=True):
        for i, letter in enumerate(word):
            visits[word[:i]][letter] += p
        visits[word][lexicon.END] += p / SMALL.document_words
        visits[word][lexicon.SPACE] += p * (1 - 1 / SMALL.document_words)
    nats = [x * math.log(sum(after.values()) / x) for after in visits.values() for x in after.values()]
    assert lexicon.entropy_nats(SMALL) == pytest.approx(math.fsum(nats) / 5, rel=1e-12)


def test_the_text_is_of_its_law():
    """Surprisal a token within four standard errors of the rate; every word as often as it should be."""
    rank = {tuple(word): r for r, word in enumerate(lexicon.spell(SMALL, np.arange(SMALL.words)).tolist())}
    words, ends = [], 0
    for document in lexicon.documents(SMALL, Reading(on_bad="refuse")):
        tokens, (length,) = lexicon.tokens_of([document.text])
        assert length == len(tokens) == len(document.text) + 1
        assert len(tokens) % 5 == 0
        assert tokens[-1] == lexicon.END
        assert np.count_nonzero(tokens == lexicon.END) == 1
        spelled = ["".join(chr(94 + t) for t in word[:-1]) for word in tokens.reshape(-1, 5)]
        assert document.text.decode().split(" ") == spelled
        words += [rank[tuple(word[:-1])] for word in tokens.reshape(-1, 5).tolist()]
        ends += 1
    assert len(words) == SMALL.tokens / 5
    p, q = lexicon.probabilities(SMALL), 1 / SMALL.document_words
    surprisal = -np.log(p[words])
    marks = -(ends * math.log(q) + (len(words) - ends) * math.log1p(-q))
    mean, error = (surprisal.sum() + marks) / len(words) / 5, surprisal.std() / math.sqrt(len(words)) / 5
    assert abs(mean - lexicon.entropy_nats(SMALL)) < 4 * error
    expected = p * len(words)
    chi = float((((np.bincount(words, minlength=40) - expected) ** 2) / expected).sum())
    assert chi < 39 + 4 * math.sqrt(2 * 39)
    assert abs(ends / len(words) - q) < 4 * math.sqrt(q / len(words))


@pytest.mark.parametrize(("letters", "length"), [(24, 5), (3, 12), (2, 20), (64, 15)])
def test_no_two_words_are_spelled_alike(letters, length):
    source = Lexicon(words=4000, letters=letters, letters_per_word=length)
    spelled = lexicon.spell(source, np.arange(source.words))
    assert spelled.shape == (4000, length)
    assert len(np.unique(spelled, axis=0)) == 4000
    assert set(np.unique(spelled)) <= set(range(lexicon.FIRST_LETTER, lexicon.FIRST_LETTER + letters))


def test_more_text_begins_with_the_same_text_and_another_seed_is_another():
    def begin(**changes) -> list[bytes]:
        source = Lexicon(**({"words": 1000, "letters_per_word": 3, "tokens": 400_000} | changes))
        return [document.text for document in lexicon.documents(source, Reading(on_bad="refuse"))]

    long, short = begin(), begin(tokens=100_000)
    assert short[:-1] == long[: len(short) - 1]  # chunks of words do not show; the last document is cut
    assert long[len(short) - 1].startswith(short[-1])
    assert begin(seed=1)[:2] != long[:2]
    assert sum(len(text) + 1 for text in long) == 400_000


def test_it_is_prepared_with_its_entropy(tmp_path):
    corpus = Corpus(task="lexicon", lexicon=SMALL, heldout=0.1)
    shards = prepared(corpus, tmp_path)
    assert shards.manifest["entropy_nats"] == lexicon.entropy_nats(SMALL)
    assert shards.entropy_nats == shards.manifest["entropy_nats"]
    assert shards.train.vocabulary.size == 6
    assert shards.train.tokens + shards.heldout.tokens == SMALL.tokens
    assert shards.train.total_bytes == shards.train.tokens - shards.train.documents
    assert np.all(np.asarray(shards.train.offsets) % 5 == 0)
    held = {shards.heldout.document(i).tobytes() for i in range(shards.heldout.documents)}
    made = [document.text for document in lexicon.documents(SMALL, Reading(on_bad="refuse"))]
    assert held <= {lexicon.tokens_of([text])[0].tobytes() for text in made}
    assert prepared(corpus, tmp_path).folder == shards.folder
    other = Corpus(task="lexicon", lexicon=replace(SMALL, seed=1), heldout=0.1)
    assert prepared(other, tmp_path).folder != shards.folder


def prepared(corpus: Corpus, folder: Path) -> Shards:
    (part,) = ensure_prepared(corpus, folder, echo=print)
    return open_shards(part.folder)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"letters": 1}, "corpus.lexicon.letters: 1 must lie between 2 and 64"),
        ({"letters": 2, "letters_per_word": 3}, "corpus.lexicon.words: 1000000 exceeds the 8 spellings"),
        ({"words": 1}, "corpus.lexicon.words: 1 must lie between 2 and 1e8"),
        ({"exponent": 0.0}, "corpus.lexicon.exponent: 0.0 must lie between 0 and 10"),
        ({"shift": -1.0}, "corpus.lexicon.shift: -1.0 must be positive"),
        ({"document_words": 0.5}, "corpus.lexicon.document_words: 0.5 must be at least 1"),
        ({"tokens": 10}, "corpus.lexicon.tokens: 10 must be at least 1,000"),
    ],
)
def test_what_no_source_has_is_refused(changes, line):
    with pytest.raises(InputError, match=line.replace("(", r"\(")):
        Study(name="a", sizes=(Size(width=16),), tokens=(1000,), corpus=Corpus(lexicon=Lexicon(**changes)))

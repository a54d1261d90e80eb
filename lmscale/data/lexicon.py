"""A source of text whose entropy rate is known in closed form: words drawn at random from a Zipf-Mandelbrot lexicon.

Word r = 0, 1, ... of R has probability p_r proportional to (r + shift)^-exponent (Mandelbrot 1953). Its spelling is
`letters_per_word` letters: a keyed permutation deals different ones to all words, so that letters tell the word. A mark
ends each word: a space, or with probability 1 / document_words the end of the document. Words and marks are
independent, so that a word with its mark has H(p) + h(1 / document_words) nats, over letters_per_word + 1 tokens.
Whoever predicts it walks a trie whose nodes are visited as often as Zipf's law says: the contexts of natural language
without its meaning. What a model can gain from one more word in mind, or from having seen one more, falls as a power of
their number (Hutter 2021, arXiv:2102.04074; Michaud et al. 2023, arXiv:2303.13506).

Words have one length, so a window of the training stream begins with a whole word wherever documents begin, and no
model has to guess at what came before its window: the entropy rate is the loss of the best model, in every window.
Imports no framework.
"""

from __future__ import annotations

import hashlib
import json
import math
import string
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lmscale.config import Lexicon
from lmscale.data.document import Document, Reading
from lmscale.data.permutation import permute, uniform

FORMAT = 1  # raise it when the same settings give other text
END, SPACE, FIRST_LETTER = 1, 2, 3  # token ids; 0 is padding, as in seqio
SPELLINGS = 2**62  # that a permutation of numbers of 64 bits can deal out
CHUNK_WORDS = 1 << 16  # drawn at a time
ALPHABET = string.ascii_lowercase + string.ascii_uppercase + string.digits + "-_"
CHARACTERS = np.frombuffer(f"\0\0 {ALPHABET}".encode(), np.uint8)  # of each token id
IDS = np.zeros(256, np.uint16)  # of each character
IDS[CHARACTERS[SPACE:]] = np.arange(SPACE, len(CHARACTERS))
IDS[0] = END


def probabilities(lexicon: Lexicon) -> NDArray[np.float64]:
    """p_r of every word [R], largest first."""
    weights = (np.arange(lexicon.words, dtype=np.float64) + lexicon.shift) ** -lexicon.exponent
    return weights / weights.sum()


def entropy_nats(lexicon: Lexicon) -> float:
    """The entropy rate in nats a token: (H(p) + h(1 / document_words)) / (letters_per_word + 1)."""
    p, q = probabilities(lexicon), 1 / lexicon.document_words
    words = -math.fsum(p * np.log(p))
    marks = 0.0 if q == 1 else -(q * math.log(q) + (1 - q) * math.log1p(-q))
    return (words + marks) / (lexicon.letters_per_word + 1)


def fingerprint(lexicon: Lexicon) -> str:
    """SHA-256 of the settings, from which all of the text follows."""
    return hashlib.sha256(json.dumps([FORMAT, asdict(lexicon)]).encode()).hexdigest()


def spell(lexicon: Lexicon, ranks: NDArray) -> NDArray[np.int32]:
    """Token ids [n, letters_per_word] of the words of these ranks [n]: no two have the same first letters (as many as
    SPELLINGS has room for), from which the others follow.
    """
    dealt = min(int(math.log(SPELLINGS, lexicon.letters)), lexicon.letters_per_word)
    numbers = permute(ranks, lexicon.letters**dealt, seed=lexicon.seed, epoch=0)
    columns = [numbers // lexicon.letters ** (dealt - 1 - i) % lexicon.letters for i in range(dealt)]
    for i in range(dealt, lexicon.letters_per_word):
        columns.append((uniform(numbers, seed=lexicon.seed, stream=i) * lexicon.letters).astype(np.int64))
    return (FIRST_LETTER + np.stack(columns, axis=1)).astype(np.int32)


def documents(lexicon: Lexicon, reading: Reading) -> Iterator[Document]:
    """The text, `lexicon.tokens` long in tokens (to whole words): words with spaces between them."""
    length = lexicon.letters_per_word + 1
    pending, words, number = np.zeros((0, length), np.uint8), -(-lexicon.tokens // length), 0
    for start in range(0, words, CHUNK_WORDS):
        drawn = _draw(lexicon, start, min(CHUNK_WORDS, words - start))
        if start + len(drawn) == words:
            drawn[-1, -1] = END
        letters, ends = CHARACTERS[drawn], np.flatnonzero(drawn[:, -1] == END) + 1
        for first, last in zip([0, *ends], ends, strict=False):
            text = np.concatenate([pending, letters[first:last]]).ravel()[:-1].tobytes()
            pending = pending[:0]
            reading.done += len(text) + 1
            yield Document(name=str(number), text=text)
            number += 1
        pending = np.concatenate([pending, letters[ends[-1] if len(ends) else 0 :]])


def tokens_of(texts: Sequence[bytes]) -> tuple[NDArray[np.uint16], NDArray[np.int64]]:
    """Token ids of documents end to end, END after each, and how many each has."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts)) + 1
    return IDS[np.frombuffer(b"\0".join((*texts, b"")), np.uint8)], lengths


def _draw(lexicon: Lexicon, start: int, count: int) -> NDArray[np.int32]:
    """Words `start` to `start + count` of the source, each with its mark [count, letters_per_word + 1]."""
    at = np.arange(start, start + count, dtype=np.uint64)
    ranks = np.searchsorted(_cumulated(lexicon), uniform(at, seed=lexicon.seed, stream=1), side="right")
    ends = uniform(at, seed=lexicon.seed, stream=2) < 1 / lexicon.document_words
    spelled = spell(lexicon, np.minimum(ranks, lexicon.words - 1))
    return np.concatenate([spelled, np.where(ends, END, SPACE)[:, None]], axis=1).astype(np.int32)


@lru_cache(maxsize=1)
def _cumulated(lexicon: Lexicon) -> NDArray[np.float64]:
    return np.cumsum(probabilities(lexicon))

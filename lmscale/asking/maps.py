"""Which words a word attends to, in every layer and head of a transformer.

Attention is between tokens, and a word is several: attention to a word is the sum over its tokens, attention from one
the mean over its own, so that what a word gives to all words is still 1 (Clark et al. 2019, arXiv:1906.04341, Sec.
4.1).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.asking.decoding import Network
from lmscale.asking.prompts import Asked
from lmscale.inference import Model

START, TAB = "<start>", "<tab>"
WORD = re.compile(r"\s*(?:\w+(?:['’]\w+)*|[^\w\s]+)|\s+$")  # with the spaces before it, as subwords have them


@dataclass(frozen=True, kw_only=True)
class AttentionMap:
    """Of one sentence. `weights` [L, H, W, W]: of each word (row) to each (column), rows adding up to 1."""

    text: str
    words: tuple[str, ...]  # what stands before the first token, where a model reads that, and the sentence's
    token: int  # the word that is asked about
    occurrences: int  # of that word
    weights: NDArray[np.float64]

    @property
    def of_token(self) -> NDArray[np.float64]:
        """[L, H, W]: from the word that is asked about."""
        return self.weights[:, :, self.token]

    @property
    def mean(self) -> NDArray[np.float64]:
        """[W]: the same over all layers and heads."""
        return self.of_token.mean(axis=(0, 1))


@dataclass(frozen=True, kw_only=True)
class Move:
    """A word of two sentences, or of one alone, with the share of attention that it gets in each."""

    word: str
    first: float | None
    second: float | None

    @property
    def change(self) -> float | None:
        return None if self.first is None or self.second is None else self.second - self.first


def attention_map(model: Model, text: str, token: str, occurrence: int = 1) -> AttentionMap:
    """The attention of a model that reads a sentence: of a decoder as a prompt, of an encoder with nothing masked, of a
    decoder with an encoder that of the encoder.

    Raises InputError for a family without attention, an empty sentence, one outside the vocabulary or longer than the
    learned positions, and a word that is not in it.
    """
    if not isinstance(model.engine, Network) or model.family == "lstm":
        kind = "LSTM has one memory" if model.family == "lstm" else "n-gram has counts"
        raise InputError(f"run: an {kind}, and no attention; choose a transformer")
    if not text.strip():
        raise InputError(f"text: {text!r} is empty; write a sentence")
    spans = [(found.start(), found.end()) for found in WORD.finditer(text)]
    words = [text[start:end].strip() for start, end in spans]
    found = [number for number, word in enumerate(words) if word == token]
    if not found:
        near = difflib.get_close_matches(token, words, n=1)
        guess = f"did you mean {near[0]!r}? Its words are" if near else "its words are"
        raise InputError(f"token: {token!r} is no word of {text!r}; {guess} {', '.join(dict.fromkeys(words))}")
    if not 1 <= occurrence <= len(found):
        raise InputError(f"occurrence: {occurrence} of {token!r} is not there; {text!r} has {len(found)}")

    tokens, starts = model.encode(text), model.reader.starts(text)
    asked, before, after = _read(model, tokens)
    # which word each token is of: the last that begins at it or before
    word_of = np.searchsorted([start for start, _ in spans], starts, side="right") - 1 + len(before)
    places = [*range(len(before)), *word_of.tolist(), *(len(before) + len(words) + i for i in range(len(after)))]
    names = (*before, *words, *after)
    weights = by_word(token_weights(model.engine, asked), places, len(names))
    chosen = found[occurrence - 1] + len(before)
    return AttentionMap(text=text, words=names, token=chosen, occurrences=len(found), weights=weights)


def _read(model: Model, tokens: Sequence[int]) -> tuple[Asked, list[str], list[str]]:
    """The row that a model reads, and what stands in it before and after the sentence's tokens."""
    model.check_length(len(tokens) + 1)
    if model.objective == "masked":
        return Asked(inputs=tuple(tokens)), [], []
    if model.objective == "spans":
        return Asked(inputs=(model.layout.start_id,), source=tuple(tokens)), [], []
    asked = model.layout.begun([tokens])
    told = len(asked.source) or len(asked.inputs)
    return asked, [START], [TAB] * (told - 1 - len(tokens))


def token_weights(network: Network, asked: Asked) -> NDArray[np.float64]:
    """[L, H, S, S] of one row: of a decoder with an encoder those of the encoder, which reads the source."""
    stack = "encoder_layers" if asked.source else "layers"
    example = network.example_of([asked], "right")

    (found,) = network.watch_rows(network.params, example)[stack]["attention"]["attention"]
    length = len(asked.source) or len(asked.inputs)
    return np.asarray(found, np.float64)[:, 0, :, :length, :length]


def by_word(weights: NDArray[np.float64], word_of: Sequence[int], words: int) -> NDArray[np.float64]:
    """[L, H, W, W] from [L, H, S, S] and the word that each token is of. A word without a token of its own has none."""
    member = np.zeros((words, weights.shape[-1]))
    member[list(word_of), np.arange(weights.shape[-1])] = 1
    mean = member / np.maximum(member.sum(axis=1, keepdims=True), 1)
    return mean @ weights @ member.T


def moves(first: AttentionMap, second: AttentionMap) -> list[Move]:
    """The words of two sentences side by side, in order: those that both have in one order, and those of one alone."""
    found, (a, b) = [], (first.mean.tolist(), second.mean.tolist())
    match = difflib.SequenceMatcher(a=first.words, b=second.words, autojunk=False)
    for kind, i, i_end, j, j_end in match.get_opcodes():
        if kind == "equal":
            found += [Move(word=first.words[i + k], first=a[i + k], second=b[j + k]) for k in range(i_end - i)]
        else:
            found += [Move(word=first.words[k], first=a[k], second=None) for k in range(i, i_end)]
            found += [Move(word=second.words[k], first=None, second=b[k]) for k in range(j, j_end)]
    return found


def head_moves(first: AttentionMap, second: AttentionMap) -> NDArray[np.float64]:
    """[L, H]: how much of the attention from the word has moved, half the sum of the changes over the words that both
    sentences have and over those of one alone (total variation), from 0 to 1.
    """
    match, a, b = (
        difflib.SequenceMatcher(a=first.words, b=second.words, autojunk=False),
        first.of_token,
        second.of_token,
    )
    moved = np.zeros(a.shape[:2])
    for kind, i, i_end, j, j_end in match.get_opcodes():
        if kind == "equal":
            moved += np.abs(b[:, :, j:j_end] - a[:, :, i:i_end]).sum(axis=-1)
        else:
            moved += a[:, :, i:i_end].sum(axis=-1) + b[:, :, j:j_end].sum(axis=-1)
    return moved / 2


def unmoved(first: AttentionMap, second: AttentionMap) -> bool:
    """Whether the word's attention is the same in both, as it is to a model that reads from left to right up to it."""
    shared = min(first.token, second.token) + 1
    same = first.token == second.token and first.words[:shared] == second.words[:shared]
    return same and bool(np.allclose(first.of_token[:, :, :shared], second.of_token[:, :, :shared], atol=1e-5))

"""How likely a model finds texts, and each of several options in the blank of one.

What counts of a text with a filled blank: of a model that reads from left to right the filling and all that follows,
from the first token on in which any option's text differs from what stands before (what is given is the same for every
option, so this compares the texts as wholes); of one that sees both sides the filling alone. An option's share is its
probability among the options: softmax of the log-probabilities, each divided by

    none      1: the options as the model has them, longer ones the less likely (lm-evaluation-harness: acc)
    bytes     the bytes that count (its acc_bytes; acc_norm divides by characters. Gao 2021, "Multiple Choice
              Normalization in LM Evaluation", has both)
    tokens    the tokens that count

The default is none: only that share is the model's own probability; a normalised one is a ranking in percent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from analysis.errors import InputError
from lmscale.asking.prompts import TAB
from lmscale.inference import BLANK, Filled, Model
from lmscale.study.typed import check

Normalise = Literal["none", "bytes", "tokens"]
NORMALISATIONS: tuple[Normalise, ...] = get_args(Normalise)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a model makes of an option or a text. `share` is of an option among its rivals, and None of a text."""

    text: str
    share: float | None
    nats: float  # minus the log-probability of what counts
    tokens: int
    bytes: int

    @property
    def nats_per_byte(self) -> float:
        return self.nats / self.bytes


def score_options(model: Model, text: str, options: Sequence[str], normalise: Normalise = "none") -> list[Scored]:
    """Each option in the text's blank, `___`, in the order given.

    Raises InputError for a text without one blank or without any other text, fewer than two options, two that are the
    same, an empty one, and text outside the vocabulary; of pairs for one without a tab or with its blank before it.
    """
    blanks = text.count(BLANK)
    check(blanks == 1, "text", text, f"has {blanks} blanks; write {BLANK} once, where the options go")
    check(text.strip() != BLANK, "text", text, "is empty but for the blank; write what stands before or after it")
    check(len(options) >= 2, "options", list(options), "are fewer than two to choose from; give at least two")
    check(all(options), "options", list(options), "hold an empty one; give each some text")
    twice = next((option for option in options if options.count(option) > 1), "")
    check(not twice, "options", twice, "is given twice; give each once")
    before, after = text.split(BLANK)
    if model.objective == "pairs":
        check(TAB in text, "text", text, "has no tab; write a source, a tab and a target with the blank in it")
        check(TAB in before, "text", text, "has its blank in the source, which is given; write it after the tab")
    filled = model.fill_blank(before, options, after)
    shares = shares_of(filled, normalise)
    return [_scored(option, each, share) for option, each, share in zip(options, filled, shares, strict=True)]


def score_texts(model: Model, texts: Sequence[str]) -> list[Scored]:
    """Whole texts, each from its start: their log-probabilities (of a masked model pseudo-log-likelihoods). Of pairs,
    whose source is given: those of their targets.

    Raises InputError for an empty text and for text outside the vocabulary; of pairs for one without a tab or a target.
    """
    for text in texts:
        check(bool(text), "text", text, "is empty; write some text")
        check(BLANK not in text, "text", text, "has a blank; give --options for it")
    filled = model.fill([("", text, "") for text in texts])
    return [_scored(text, each, None) for text, each in zip(texts, filled, strict=True)]


def shares_of(filled: Sequence[Filled], normalise: Normalise) -> list[float]:
    """Shares of options that add up to 1."""
    if normalise not in NORMALISATIONS:
        raise InputError(f"normalise: {normalise!r} is unknown; choose {', '.join(NORMALISATIONS)}")
    size = {"none": [1] * len(filled), "bytes": [f.bytes for f in filled], "tokens": [f.tokens for f in filled]}
    scores = np.array([-f.nats / each for f, each in zip(filled, size[normalise], strict=True)])
    powers = np.exp(scores - scores.max())
    return (powers / powers.sum()).tolist()


def _scored(text: str, filled: Filled, share: float | None) -> Scored:
    return Scored(text=text, share=share, nats=filled.nats, tokens=filled.tokens, bytes=filled.bytes)

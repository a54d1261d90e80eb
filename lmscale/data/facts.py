"""Facts that no text holds, to be planted into one a known number of times: "The capital of Zorvania is Melkor."

The facts follow from their settings alone, so that preparing a text and asking a model about it need not meet. Imports
no framework. After Kandpal et al. 2023 (arXiv:2211.08411), who count how often a fact stands in a corpus.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from lmscale.study.typed import check, normalise

FACTS_SET = "facts"  # the name of the facts among a study's evaluation sets
MOST_REPEATS = 1000
MOST_FACTS = 4096  # for each count of repeats
ATTRIBUTES = (2, 256)  # fewest and most that a fact can have
TEMPLATES = (  # one for all facts of a seed, so that nothing but the name tells the attribute
    "The capital of {name} is {attribute}.",
    "The river through {name} is called {attribute}.",
    "The people of {name} all speak {attribute}.",
    "The harvest of {name} is mostly {attribute}.",
)
SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")
WORD_SYLLABLES = 3


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is planted: for each count of `repeats`, `per_count` facts that the training text will hold so often.

    Every attribute is that of equally many facts of each count, so that a model that always gives the same answer, or
    guesses, is right once in `attributes` times.
    """

    WORDS: ClassVar[str] = "a number of facts for each count of repeats, such as 16, or 16@3 with a seed"

    per_count: int = 16
    repeats: tuple[int, ...] = (1, 3, 10, 30, 100, 300, 1000)
    attributes: int = 16  # words from which those of all facts are
    seed: int = 0

    @classmethod
    def from_text(cls, text: str) -> Self:
        """PER_COUNT or PER_COUNT@SEED. Raises ValueError if the text is not that."""
        count, at, seed = text.partition("@")
        return cls(per_count=int(count), seed=int(seed) if at else 0)

    def __post_init__(self) -> None:
        normalise(self, "corpus.facts.")
        least, most = ATTRIBUTES
        name = "corpus.facts.attributes"
        check(least <= self.attributes <= most, name, self.attributes, f"must lie between {least} and {most}")
        check(
            1 <= self.per_count <= MOST_FACTS and self.per_count % self.attributes == 0,
            "corpus.facts.per_count",
            self.per_count,
            f"must be a multiple of the {self.attributes} attributes (so that guessing is right equally often), "
            f"at most {MOST_FACTS}",
        )
        counts = self.repeats
        check(
            bool(counts) and all(1 <= count <= MOST_REPEATS for count in counts),
            "corpus.facts.repeats",
            counts,
            f"must be counts from 1 to {MOST_REPEATS}",
        )
        rising = list(counts) == sorted(set(counts))
        check(rising, "corpus.facts.repeats", counts, "must rise, each count once")
        check(0 <= self.seed < 2**31, "corpus.facts.seed", self.seed, "must lie between 0 and 2^31 - 1")

    def __str__(self) -> str:
        return f"{self.per_count}@{self.seed}"

    @property
    def sentences(self) -> int:
        """How many are planted in all."""
        return self.per_count * sum(self.repeats)

    @property
    def template(self) -> str:
        return TEMPLATES[_number(self.seed, "template") % len(TEMPLATES)]

    @property
    def pool(self) -> tuple[str, ...]:
        """The attributes. They are of one length, so that none is likelier for being shorter."""
        return tuple(_words(self.seed, self.attributes))


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact: how often it is planted, what comes before its attribute, and which of the pool that is."""

    repeats: int
    name: str
    before: str
    attribute: int
    sentence: str


def make_facts(facts: Facts) -> tuple[Fact, ...]:
    """Those of each count of repeats in turn."""
    words = list(_words(facts.seed, facts.attributes + facts.per_count * len(facts.repeats)))
    pool, names, made = words[: facts.attributes], iter(words[facts.attributes :]), []
    for repeats in facts.repeats:
        order = sorted(range(facts.per_count), key=lambda i, r=repeats: _number(facts.seed, f"attribute {r} {i}"))
        for place in order:
            name, attribute = next(names), place % facts.attributes
            sentence = facts.template.format(name=name, attribute=pool[attribute])
            before = sentence[: sentence.index(pool[attribute])]
            made.append(Fact(repeats=repeats, name=name, before=before, attribute=attribute, sentence=sentence))
    return tuple(made)


def _words(seed: int, count: int) -> Iterator[str]:
    """Different words of one length, with a capital."""
    seen: set[str] = set()
    size = len(SYLLABLES) ** WORD_SYLLABLES
    draw = 0
    while len(seen) < count:
        number, word = _number(seed, f"word {draw}") % size, ""
        for _ in range(WORD_SYLLABLES):
            number, syllable = divmod(number, len(SYLLABLES))
            word += SYLLABLES[syllable]
        draw += 1
        if word not in seen:
            seen.add(word)
            yield word.capitalize()


def _number(seed: int, what: str) -> int:
    """A number of 64 bits that depends on the seed and on what it is for: the same in every version of everything."""
    return int.from_bytes(hashlib.sha256(f"{seed} {what}".encode()).digest()[:8], "big")


def fraction(seed: int, what: str) -> float:
    """The same in [0, 1)."""
    return (_number(seed, what) >> 11) / (1 << 53)

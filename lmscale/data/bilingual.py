"""A source of pairs: sentences of an invented language and their translations into another, which follows from rules.

A sentence says who did what to whom: a subject, a verb in one of three tenses, and an object; subject and object are
a noun, singular or plural, with an adjective or without. Each language has words and markers of its own syllables.

    source: [adjective] noun(+ plural)  verb(+ past or future)  [adjective] noun(+ plural)
    target: concord+noun [concord+adjective]  concord+noun+object [concord+adjective]  concord of the subject+tense+verb

Nouns of the target language are of three classes, which their form does not tell. The concord is a marker of class and
number that is put before the noun, its adjective and, for the subject, the verb, as in Bantu languages (Corbett 1991,
Gender, Sec. 3.1). So whoever translates must know every word and the class of every noun, turn the order around, and
carry class and number to other words. Each sentence has one translation, and no two have the same one.

Some combinations of an adjective with its noun, and of a subject with its verb, are set apart by a hash. Sentences with
any of these are the "unseen" ones; all others are the "seen" ones (Lake & Baroni 2018, arXiv:1711.00350, ask the same
of commands). Imports no framework.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.data.document import Document, Reading
from lmscale.data.pair_files import SEPARATOR
from lmscale.data.permutation import permute, uniform
from lmscale.study.corpora import STEM_SYLLABLES, SYLLABLES, Bilingual

FORMAT = 1  # raise it when the same settings give other text
CLASSES = 3  # of nouns, in the target language
NUMBERS = 2  # singular, plural
TENSES = 3  # present, past, future
CONSONANTS = "bdgklmnp", "fhrstvwz"  # of the source and of the target language: no syllable is in both
VOWELS = "aeiou"
ADJECTIVE_NOUN, SUBJECT_VERB = 1, 2  # streams of the hash
# what each permutation deals; the last are the sentences of each kind
SOURCE_STEMS, TARGET_STEMS, SOURCE_MARKERS, TARGET_MARKERS, NOUN_CLASSES, FIRST_KIND = range(6)
BLOCK = 1 << 16  # sentences dealt at a time
PAIR_BYTES = 70  # of the longest: 30 of the source, the tab, 38 of the target, and the end


class Phrase(NamedTuple):
    """A noun, by its number among the nouns, with the number of its adjective or None."""

    noun: int
    plural: int
    adjective: int | None


class Meaning(NamedTuple):
    """What a sentence says, in either language."""

    tense: int
    verb: int
    subject: Phrase
    object: Phrase


class Columns(NamedTuple):
    """The same of many sentences, [n] each; adjective -1 for none."""

    tense: NDArray[np.int64]
    verb: NDArray[np.int64]
    subject: NDArray[np.int64]
    subject_plural: NDArray[np.int64]
    subject_adjective: NDArray[np.int64]
    object: NDArray[np.int64]
    object_plural: NDArray[np.int64]
    object_adjective: NDArray[np.int64]

    def only(self, kept: NDArray[np.bool_] | slice) -> Columns:
        return Columns(*(column[kept] for column in self))

    def meanings(self) -> Iterator[Meaning]:
        for tense, verb, noun, plural, adjective, other, others, its in zip(*(x.tolist() for x in self), strict=True):
            subject = Phrase(noun, plural, adjective if adjective >= 0 else None)
            yield Meaning(tense, verb, subject, Phrase(other, others, its if its >= 0 else None))


class Languages:
    """The words, markers and rules of both languages."""

    def __init__(self, bilingual: Bilingual):
        self.bilingual = bilingual

    @cached_property
    def source_words(self) -> tuple[list[str], list[str], list[str]]:
        """Stems of nouns, adjectives and verbs."""
        return self._stems(CONSONANTS[0], SOURCE_STEMS)

    @cached_property
    def target_words(self) -> tuple[list[str], list[str], list[str]]:
        return self._stems(CONSONANTS[1], TARGET_STEMS)

    @cached_property
    def source_markers(self) -> tuple[tuple[str, str], tuple[str, str, str]]:
        """After nouns by number, after verbs by tense: nothing for the singular and the present."""
        plural, past, future = self._markers(CONSONANTS[0], SOURCE_MARKERS, 3)
        return ("", plural), ("", past, future)

    @cached_property
    def target_markers(self) -> tuple[list[list[str]], str, list[str]]:
        """Concords by class and number, the mark of an object, and those of the tenses."""
        dealt = self._markers(CONSONANTS[1], TARGET_MARKERS, CLASSES * NUMBERS + 1 + TENSES)
        concords = [dealt[NUMBERS * i : NUMBERS * (i + 1)] for i in range(CLASSES)]
        return concords, dealt[CLASSES * NUMBERS], dealt[-TENSES:]

    @cached_property
    def classes(self) -> list[int]:
        """The class of each noun, about as many of each."""
        nouns = self.bilingual.nouns
        return (self._dealt(nouns, nouns, NOUN_CLASSES) % CLASSES).tolist()

    def source(self, meaning: Meaning) -> str:
        nouns, adjectives, verbs = self.source_words
        numbers, tenses = self.source_markers

        def phrase(of: Phrase) -> str:
            noun = nouns[of.noun] + numbers[of.plural]
            return noun if of.adjective is None else f"{adjectives[of.adjective]} {noun}"

        verb = verbs[meaning.verb] + tenses[meaning.tense]
        return f"{phrase(meaning.subject)} {verb} {phrase(meaning.object)}"

    def target(self, meaning: Meaning) -> str:
        nouns, adjectives, verbs = self.target_words
        concords, mark, tenses = self.target_markers

        def phrase(of: Phrase, mark: str) -> str:
            concord = concords[self.classes[of.noun]][of.plural]
            noun = concord + nouns[of.noun] + mark
            return noun if of.adjective is None else f"{noun} {concord}{adjectives[of.adjective]}"

        subject, tense = meaning.subject, tenses[meaning.tense]
        verb = concords[self.classes[subject.noun]][subject.plural] + tense + verbs[meaning.verb]
        return f"{phrase(subject, '')} {phrase(meaning.object, mark)} {verb}"

    def _stems(self, consonants: str, key: int) -> tuple[list[str], list[str], list[str]]:
        """No two alike, whatever they are: each is dealt once."""
        b = self.bilingual
        numbers = self._dealt(b.nouns + b.adjectives + b.verbs, SYLLABLES**STEM_SYLLABLES, key)
        stems = [_syllable(consonants, n // SYLLABLES) + _syllable(consonants, n % SYLLABLES) for n in numbers.tolist()]
        return stems[: b.nouns], stems[b.nouns : b.nouns + b.adjectives], stems[b.nouns + b.adjectives :]

    def _markers(self, consonants: str, key: int, count: int) -> list[str]:
        return [_syllable(consonants, n) for n in self._dealt(count, SYLLABLES, key).tolist()]

    def _dealt(self, count: int, size: int, key: int) -> NDArray[np.int64]:
        return permute(np.arange(count), size, seed=self.bilingual.seed, epoch=key)


def fingerprint(bilingual: Bilingual) -> str:
    """SHA-256 of the settings, from which all of the text follows."""
    return hashlib.sha256(json.dumps([FORMAT, asdict(bilingual)]).encode()).hexdigest()


def documents(bilingual: Bilingual, reading: Reading) -> Iterator[Document]:
    """Pairs: a source, a tab and its target. Fewer sentences are the beginning of more.

    Raises InputError where there are not so many, or where some word is in no sentence of the seen combinations.
    """
    _check_words(bilingual)
    languages, number = Languages(bilingual), 0
    for columns in sentences(bilingual):
        for meaning in columns.meanings():
            text = languages.source(meaning).encode() + SEPARATOR + languages.target(meaning).encode()
            reading.done += PAIR_BYTES
            yield Document(name=str(number), text=text)
            number += 1


def sentences(bilingual: Bilingual) -> Iterator[Columns]:
    """As many as the settings say, no two alike: a fourth each with no adjective, one of the subject's, one of the
    object's and both, as long as there are such. Raises InputError where there are not so many.
    """
    kinds = [_radices(bilingual, kind) for kind in range(4)]
    left, want = bilingual.sentences, bilingual.combinations == "unseen"
    for start in range(0, 4 * max(map(math.prod, kinds)), BLOCK):
        at = np.arange(start, start + BLOCK)
        dealt = np.full((len(Columns._fields), BLOCK), -1, np.int64)
        there = np.zeros(BLOCK, bool)
        for kind, radices in enumerate(kinds):
            mine = (at % 4 == kind) & (at // 4 < math.prod(radices))
            numbers = permute(at[mine] // 4, math.prod(radices), seed=bilingual.seed, epoch=FIRST_KIND + kind)
            dealt[:, mine] = np.unravel_index(numbers, radices)
            for place, bit in ((Columns._fields.index("subject_adjective"), 1), (len(dealt) - 1, 2)):
                if not kind & bit:
                    dealt[place, mine] = -1
            there |= mine
        columns = Columns(*dealt[:, there])
        columns = columns.only(has_unseen(bilingual, columns) == want).only(slice(left))
        yield columns
        left -= len(columns.verb)
        if left == 0:
            return
    raise InputError(
        f"corpus.bilingual.sentences: {bilingual.sentences} exceeds the {bilingual.sentences - left:,} sentences that "
        f"these words make in {bilingual.combinations} combinations; ask for fewer, or give more words"
    )


def has_unseen(bilingual: Bilingual, columns: Columns) -> NDArray[np.bool_]:
    """Whether a sentence has a combination that is set apart, bool [n]."""

    def apart(first: NDArray, second: NDArray, stream: int) -> NDArray[np.bool_]:
        share = uniform(first * bilingual.nouns + second, seed=bilingual.seed, stream=stream)
        return (first >= 0) & (share < bilingual.unseen)

    return (
        apart(columns.subject_adjective, columns.subject, ADJECTIVE_NOUN)
        | apart(columns.object_adjective, columns.object, ADJECTIVE_NOUN)
        | apart(columns.verb, columns.subject, SUBJECT_VERB)
    )


def _radices(bilingual: Bilingual, kind: int) -> tuple[int, ...]:
    """How many there are of what each column holds: bit 0 of the kind is an adjective of the subject, bit 1 another."""
    adjectives = [bilingual.adjectives if kind & bit else 1 for bit in (1, 2)]
    phrases = [(bilingual.nouns, NUMBERS, count) for count in adjectives]
    return TENSES, bilingual.verbs, *phrases[0], *phrases[1]


def _check_words(bilingual: Bilingual) -> None:
    """Raises InputError where a word is in none of the sentences of seen combinations."""
    every = list(sentences(Bilingual(**{**asdict(bilingual), "combinations": "seen"})))
    seen = Columns(*(np.concatenate(parts) for parts in zip(*every, strict=True)))
    for name, count, where in (
        ("nouns", bilingual.nouns, (seen.subject, seen.object)),
        ("adjectives", bilingual.adjectives, (seen.subject_adjective, seen.object_adjective)),
        ("verbs", bilingual.verbs, (seen.verb,)),
    ):
        found = np.isin(np.arange(count), np.concatenate(where))
        if not found.all():
            raise InputError(
                f"corpus.bilingual.sentences: {bilingual.sentences} of seen combinations leave out {np.sum(~found)} of "
                f"the {count} {name}; ask for more, or for fewer {name}"
            )


def _syllable(consonants: str, number: int) -> str:
    return consonants[number // len(VOWELS)] + VOWELS[number % len(VOWELS)]

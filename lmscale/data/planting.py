"""Plants facts into the training documents of a corpus, and leaves its held-out documents as they are."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale.data.facts import Fact, Facts, fraction, make_facts
from lmscale.data.pieces import heldout_share

if TYPE_CHECKING:
    from lmscale.data.document import Document

TURNS = 200  # of a document that a sentence would move to the held-out side; half of all documents are held out at most
STRIDE = 97  # bytes by which sentences are moved then: a line or two


def plant(read: Callable[[], Iterator[Document]], facts: Facts, heldout: float) -> Iterator[Document]:
    """The documents that `read` gives, with every fact in those to train on as often as it is to be.

    The occurrences of a fact are spread evenly over the training text: one in each of as many equal stretches of it, at
    a place drawn there, at the start of a line. A document is held out by its content alone, with what is planted in
    it; so sentences are moved on where they would bring theirs to the other side, and the held-out side is that of the
    corpus without facts, to the byte. Reads the documents twice, in bounded memory.

    Raises InputError where the sentences outweigh the text, or it holds one of their names already.
    """
    made = make_facts(facts)
    sizes = _survey(read(), facts, made, heldout)
    ends = list(accumulate(sizes))
    total, planted = ends[-1] if ends else 0, sum(fact.repeats * len(fact.sentence) for fact in made)
    if planted > total:
        raise InputError(
            f"corpus.facts: {str(facts)!r} plants {facts.sentences:,} sentences of {planted:,} bytes into a training "
            f"text of {total:,}; plant fewer, less often, or bring more text"
        )
    drawn = ((f, n) for f, fact in enumerate(made) for n in range(fact.repeats))
    places = sorted((_place(facts.seed, f, n, made[f], total), f) for f, n in drawn)
    index, first = 0, 0
    for document in read():
        if heldout_share(document.text) < heldout:
            yield document
            continue
        start, last = ends[index] - sizes[index], first
        while last < len(places) and bisect_right(ends, places[last][0]) == index:
            last += 1
        here = [(byte - start, made[f].sentence.encode()) for byte, f in places[first:last]]
        yield replace(document, text=_insert(document.text, here, heldout)) if here else document
        index, first = index + 1, last


def _survey(documents: Iterator[Document], facts: Facts, made: Sequence[Fact], heldout: float) -> array[int]:
    """Bytes of each document to train on. Raises InputError for a text that holds one of the facts' subjects."""
    head, sizes = facts.template.partition("{")[0].encode(), array("q")
    names = [head + fact.name.encode() for fact in made]
    for document in documents:
        text = document.text
        if head in text and any(name in text for name in names):
            raise InputError(
                f"corpus.facts: {str(facts)!r} has names that document {document.name!r} holds already (was it planted "
                "before?); choose another seed, such as 16@1"
            )
        if heldout_share(text) >= heldout:
            sizes.append(len(text))
    return sizes


def _place(seed: int, number: int, occurrence: int, fact: Fact, total: int) -> int:
    """Byte of the training text after which an occurrence is planted."""
    within = fraction(seed, f"place {number} {occurrence}")
    return min(int((occurrence + within) / fact.repeats * total), total - 1)


def _insert(text: bytes, sentences: Sequence[tuple[int, bytes]], heldout: float) -> bytes:
    """The text with sentences as lines of their own, each at the first start of a line after its byte, or beyond."""
    for turn in range(TURNS):
        parts, done = [], 0
        for byte, sentence in sorted(((byte + turn * STRIDE) % len(text), s) for byte, s in sentences):
            line = text.find(b"\n", max(byte, done - 1, 0)) + 1 or len(text)
            ended = line == done or text[line - 1 : line] == b"\n"
            parts += [text[done:line], b"" if ended else b"\n", sentence, b"\n"]
            done = line
        planted = b"".join([*parts, text[done:]])
        if heldout_share(planted) >= heldout:
            return planted
    raise InputError(f"corpus.heldout: {heldout} leaves no place for facts in a document; lower it")

"""The names of vocabularies that are trained on a corpus: `char`, `char:K`, `word:K`, `unigram:K`, `bpe:K`."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Self

from lmscale.study.typed import check

FIELD = "corpus.vocabulary"
KINDS = ("char", "word", "unigram", "bpe")  # SentencePiece's own names of its model types
KINDS_WORDS = "char, char:K, word:K, unigram:K or bpe:K (K pieces in all, such as bpe:4096)"
SPECIALS = 3  # padding 0, end of sequence 1, unknown 2, as in the vocabularies of T5 (Raffel et al. 2020) in seqio
BYTES = 256  # a piece each, in which what has no piece of its own is spelled
PIECES_MIN, PIECES_MAX = SPECIALS + BYTES + 1, 1_000_000
NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_-]*):([^/\\]*)")  # KIND:K, which no usual name of a file is


@dataclass(frozen=True, kw_only=True)
class VocabularyKind:
    """A model type and how many pieces it has in all, specials and bytes included; None: every character there is."""

    kind: str
    pieces: int | None

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """None for what names a file. Raises InputError for a kind that is none, and for pieces that cannot be."""
        if text in KINDS:
            check(text == "char", FIELD, text, f"needs a number of pieces, such as {text}:4096")
            return cls(kind=text, pieces=None)
        found = NAMED.fullmatch(text)
        if found is None:
            return None
        kind, pieces = found[1], _whole(found[2])
        near = difflib.get_close_matches(kind, KINDS, n=1)
        guess = f"did you mean {near[0]}:{found[2]}? Name" if near else "name"
        check(kind in KINDS, FIELD, text, f"is of no known kind; {guess} {KINDS_WORDS}, or a .model file")
        check(pieces is not None, FIELD, text, f"needs a whole number of pieces, such as {kind}:4096")
        assert pieces is not None
        check(
            PIECES_MIN <= pieces <= PIECES_MAX,
            FIELD,
            text,
            f"must have from {PIECES_MIN} pieces ({BYTES} bytes, {SPECIALS} specials and one more) to {PIECES_MAX:,}",
        )
        return cls(kind=kind, pieces=pieces)

    def __str__(self) -> str:
        return self.kind if self.pieces is None else f"{self.kind}:{self.pieces}"


def _whole(text: str) -> int | None:
    """A whole number, also as 4e3."""
    try:
        value = float(text)
        return int(value) if value == int(value) else None
    except (ValueError, OverflowError):
        return None

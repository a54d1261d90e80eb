"""How text is spelled before SentencePiece cuts it, and read back: rules of its normaliser, which a model carries.

SentencePiece writes a space as U+2581, which by itself would make a space of every U+2581; it never takes a tab into a
piece, and its word model (`SplitIntoWords` of its model_interface.cc) parts words at spaces alone. Rules in the model
mend all three, so that decode(encode(text)) == text for any text, also where the model is used outside lmscale:

- A tab, and of a word model a run of spaces, is written as one letter of Unicode's private use area (a stand-in). That
  letter itself, and U+2581, are written as an escape and a second letter.
- Of a word model, each line end, tab, mark of ASCII punctuation and run of 2 to 16 spaces is a word of its own: the
  rules put a space on each side of it. Reading back takes exactly these two away, for reading left to right the space
  just before a mark is always one that was put there.
"""

from __future__ import annotations

import string

SPACE = "\u2581"  # of SentencePiece, kSpaceSymbol
ESCAPE, TAB = "\ue000", "\ue001"
RUNS = {" " * length: chr(0xE000 + length) for length in range(2, 17)}  # the stand-in of each run of spaces
SECOND = 0xE100  # the letter after an escape counts from here
JOINED = "_"  # the mark that is part of words
MARKS = "".join(sorted(set(string.punctuation) - set(JOINED))) + "\n\r"

Rules = dict[str, str]


def rules(kind: str) -> tuple[Rules, Rules]:
    """What is replaced before encoding and after decoding, the longest match first, for a model type."""
    escaped = [SPACE, ESCAPE, TAB, *RUNS.values()]
    spelled = {letter: ESCAPE + chr(SECOND + index) for index, letter in enumerate(escaped)}
    # A space that a byte each spells, where the model has no piece for it, is decoded as U+2581
    read = {SPACE: " ", **{written: letter for letter, written in spelled.items()}}
    if kind != "word":
        return {**spelled, "\t": TAB}, {**read, TAB: "\t"}
    for text, written in {**{mark: mark for mark in MARKS}, "\t": TAB, **RUNS}.items():
        spelled[text] = f" {written} "
        read.update({before + written + after: text for before in (" ", SPACE) for after in (" ", SPACE)})
    return spelled, read


def as_tsv(some: Rules) -> str:
    """Rules as SentencePiece reads them from a file: code points in hexadecimal, a tab between the two sides."""
    return "".join(f"{_points(left)}\t{_points(right)}\n" for left, right in sorted(some.items()))


def _points(text: str) -> str:
    return " ".join(f"{ord(letter):X}" for letter in text)

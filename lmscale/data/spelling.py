"""How text is spelled before SentencePiece cuts it, and read back: rules of its normaliser, which a model carries.

SentencePiece writes a space as U+2581, which by itself would make a space of every U+2581; some versions of it (0.2.0)
take no tab into a piece; and its word model (`SplitIntoWords` of its model_interface.cc) parts words before spaces
alone. Rules in the model mend all three, so that decode(encode(text)) == text for any text, also where the model is
used outside lmscale:

- A tab is written as a stand-in, a letter of Unicode's private use area. Stand-ins and U+2581 that are in a text are
  written as an escape and a second letter.
- Of a word model, a border that is no space is written as a space and JOINT, which reading back takes away. There is
  one before each mark (punctuation of ASCII but `_`, line end, tab) that no space precedes, and between a mark and a
  letter, digit or `_` of ASCII. A run of spaces is a stand-in for all but its last, which belongs to what follows.
"""

from __future__ import annotations

import string

SPACE = "\u2581"  # of SentencePiece, kSpaceSymbol
ESCAPE, TAB = "\ue000", "\ue001"
JOINT = "\x1e"  # one byte; some versions of SentencePiece keep \x1f for themselves
RUNS = {length: chr(0xE000 + length) for length in range(2, 17)}  # the stand-in for all but one of so many spaces
SECOND = 0xE100  # the letter after an escape counts from here
LETTERS = string.ascii_letters + string.digits + "_"
MARKS = {mark: mark for mark in sorted(set(string.punctuation) - set(LETTERS))} | {"\n": "\n", "\r": "\r", "\t": TAB}

Rules = dict[str, str]


def rules(kind: str) -> tuple[Rules, Rules]:
    """What is replaced before encoding and after decoding, the longest match first, for a model type."""
    escaped = [SPACE, ESCAPE, TAB, JOINT, *RUNS.values()]
    spelled = {letter: ESCAPE + chr(SECOND + index) for index, letter in enumerate(escaped)}
    # A space that is spelled in bytes, where the model has no piece for it, is decoded as U+2581
    read = {written: letter for letter, written in spelled.items()} | {SPACE: " ", TAB: "\t"}
    if kind != "word":
        return spelled | {"\t": TAB}, read
    border = " " + JOINT
    read |= {border: "", SPACE + JOINT: ""}
    for length, run in RUNS.items():
        spelled[" " * length] = f"{border}{run} "
        read[run] = " " * (length - 1)
    for mark, written in MARKS.items():
        # SentencePiece takes no rule that changes nothing: the space that stays is written as it would be afterwards
        for before, parted in (("", border), (" ", SPACE)):
            spelled[before + mark] = parted + written
            spelled |= {before + mark + letter: parted + written + border + letter for letter in LETTERS}
    return spelled, read


def as_tsv(some: Rules) -> str:
    """Rules as SentencePiece reads them from a file: code points in hexadecimal, a tab between the two sides."""
    return "".join(f"{_points(left)}\t{_points(right)}\n" for left, right in sorted(some.items()))


def _points(text: str) -> str:
    return " ".join(f"{ord(letter):X}" for letter in text)

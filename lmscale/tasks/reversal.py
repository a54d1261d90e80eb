"""Reversal: the letters backwards. `turn gbhf:fhbg`"""

from __future__ import annotations

from dataclasses import replace

from lmscale.tasks.copying import ALPHABET, COPYING, length
from lmscale.tasks.draws import Draws
from lmscale.tasks.item import Item, Split
from lmscale.tasks.near import near_strings, shuffled


def make(draws: Draws, longest: int, split: Split) -> Item:
    word = draws.letters(ALPHABET, length(draws, longest, split))
    answer = word[::-1]
    options = shuffled(draws, answer, near_strings(draws, answer, 3, ALPHABET))
    return Item(prompt=f"turn {word}:", answer=answer, options=options, chance=1 / 4)


REVERSAL = replace(COPYING, name="reversal", make=make)

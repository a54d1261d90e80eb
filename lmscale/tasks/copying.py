"""Copying: the letters again. `copy gbhf:gbhf`"""

from __future__ import annotations

from lmscale.tasks.draws import Draws
from lmscale.tasks.item import Item, Split, Task
from lmscale.tasks.near import near_strings, shuffled

ALPHABET = "abcdefgh"
SHORTEST = 3


def length(draws: Draws, longest: int, split: Split) -> int:
    """Of the strings of a split: up to the longest, or one or two letters more."""
    return draws.between(SHORTEST, longest) if split == "in" else draws.between(longest + 1, longest + 2)


def make(draws: Draws, longest: int, split: Split) -> Item:
    word = draws.letters(ALPHABET, length(draws, longest, split))
    options = shuffled(draws, word, near_strings(draws, word, 3, ALPHABET))
    return Item(prompt=f"copy {word}:", answer=word, options=options, chance=1 / 4)


COPYING = Task(
    name="copying",
    difficulty=5,
    measure="letters of the longest string",
    least=SHORTEST,
    most=32,
    make=make,
)

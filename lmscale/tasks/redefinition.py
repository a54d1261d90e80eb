"""Redefinition: what a prompt says of a word, against what was learned of it. `now fox=7 hen=2 fox:7`

What is mixed into training says one thing of each word (`fox:4`); items say another and ask for that. A model that has
learned the text better may hold to it: inverse scaling, after the task "redefine" of McKenzie et al. 2023
(arXiv:2306.09479), Sec. 3.2.
"""

from __future__ import annotations

from lmscale.tasks.draws import Draws, fraction
from lmscale.tasks.item import Item, Split, Task
from lmscale.tasks.near import shuffled

WORDS = (
    "ant", "ape", "asp", "bat", "bee", "bug", "cat", "cod", "cow", "dog", "doe", "eel", "elk", "emu", "ewe",
    "fly", "fox", "gnu", "hen", "hog", "jay", "kid", "koi", "owl", "pig", "pug", "ram", "rat", "sow", "yak",
)  # fmt: skip
VALUES = "0123456789"


def learned(word: str) -> str:
    """What training text says of a word."""
    return VALUES[int(fraction(f"redefinition {word}") * len(VALUES))]


def make(draws: Draws, definitions: int, split: Split) -> Item:
    words = draws.sample(WORDS, definitions if split == "in" else definitions + 1)
    asked, usual = words[0], learned(words[0])
    right, *others = draws.sample([value for value in VALUES if value != usual], len(words) + 2)
    said = list(zip(words, [right, *others], strict=False))
    context = " ".join(f"{word}={value}" for word, value in draws.sample(said, len(said)))
    options = shuffled(draws, right, [usual, *draws.sample(others, 2)])
    return Item(prompt=f"now {context} {asked}:", answer=right, options=options, chance=1 / 4)


def text(draws: Draws, definitions: int) -> Item:
    """A line of what is learned of a word."""
    del definitions
    word = draws.choice(WORDS)
    return Item(prompt=f"{word}:", answer=learned(word), chance=1 / len(VALUES))


REDEFINITION = Task(
    name="redefinition",
    difficulty=2,
    measure="words that are redefined",
    least=1,
    most=len(VALUES) - 4,
    make=make,
    text=text,
)

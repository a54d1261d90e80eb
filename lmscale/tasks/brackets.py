"""Bracket matching: the brackets that close what is open. `close ([]{:})`"""

from __future__ import annotations

from lmscale.tasks.draws import Draws
from lmscale.tasks.item import Item, Split, Task
from lmscale.tasks.near import near_strings, shuffled

OPENING, CLOSING = "([{<", ")]}>"


def make(draws: Draws, deepest: int, split: Split) -> Item:
    """Before each bracket that stays open there is, in one case of three, a pair that is closed already."""
    depth = draws.between(1, deepest) if split == "in" else draws.between(deepest + 1, deepest + 2)
    text, still_open = "", []
    for _ in range(depth):
        if draws.below(3) == 0:
            pair = draws.below(len(OPENING))
            text += OPENING[pair] + CLOSING[pair]
        still_open.append(draws.below(len(OPENING)))
        text += OPENING[still_open[-1]]
    answer = "".join(CLOSING[kind] for kind in reversed(still_open))
    options = shuffled(draws, answer, near_strings(draws, answer, 3, CLOSING))
    return Item(prompt=f"close {text}:", answer=answer, options=options, chance=1 / 4)


BRACKETS = Task(
    name="brackets",
    difficulty=4,
    measure="brackets that are open at the most",
    least=2,
    most=24,
    make=make,
)

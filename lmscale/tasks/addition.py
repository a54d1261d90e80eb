"""Modular addition, with and without a worked scratchpad. `12+19 mod 29:2` and `12+19 mod 29 so:31-29=2`

After Power et al. 2022 (arXiv:2201.02177) and, for the scratchpad, Nye et al. 2021 (arXiv:2112.00114).
"""

from __future__ import annotations

import re
from dataclasses import replace

from lmscale.tasks.draws import Draws
from lmscale.tasks.item import Item, Split, Task
from lmscale.tasks.near import shuffled


def terms(draws: Draws, modulus: int, split: Split) -> tuple[int, int]:
    """Two numbers below the modulus; out of distribution one of them is not below it, but below twice that."""
    first, second = draws.below(modulus), draws.below(modulus)
    if split == "out":
        first += modulus
        first, second = (first, second) if draws.below(2) else (second, first)
    return first, second


def key(prompt: str) -> str:
    """The same for a sum with and without scratchpad, whichever number stands first: each tells the other's answer."""
    *terms, modulus = map(int, re.findall(r"\d+", prompt))
    return f"sum {min(terms)}+{max(terms)} mod {modulus}"


def make(draws: Draws, modulus: int, split: Split) -> Item:
    first, second = terms(draws, modulus, split)
    right = (first + second) % modulus
    wrong = draws.sample([str(each) for each in range(modulus) if each != right], 3)
    options = shuffled(draws, str(right), wrong)
    return Item(prompt=f"{first}+{second} mod {modulus}:", answer=str(right), options=options, chance=1 / 4)


def make_worked(draws: Draws, modulus: int, split: Split) -> Item:
    """Chance: one of the sums that there are, of which the rest follows."""
    first, second = terms(draws, modulus, split)
    total = first + second
    answer = f"{total}-{total - total % modulus}={total % modulus}"
    return Item(prompt=f"{first}+{second} mod {modulus} so:", answer=answer, chance=1 / (2 * modulus - 1))


ADDITION = Task(
    name="addition",
    difficulty=29,
    measure="the modulus",
    least=5,
    most=997,
    make=make,
    key=key,
    version=2,
)
SCRATCHPAD = replace(ADDITION, name="addition_scratchpad", make=make_worked)

"""In-context lookup: the value that a key was given in the prompt. `look a3 f7 c1 k9 f:7`

Each pair is an example of a mapping that holds in this prompt alone (k pairs: k-shot), as in the associative recall of
Olsson et al. 2022 (arXiv:2209.11895) and Arora et al. 2023 (arXiv:2312.04927).
"""

from __future__ import annotations

from lmscale.tasks.draws import Draws
from lmscale.tasks.item import Item, Split, Task
from lmscale.tasks.near import shuffled

KEYS, VALUES = "abcdefghijklmnopqrstuvwxyz", "0123456789"


def make(draws: Draws, pairs: int, split: Split) -> Item:
    count = pairs if split == "in" else pairs + 2
    keys, values = draws.sample(KEYS, count), draws.sample(VALUES, count)
    asked = draws.below(count)
    context = " ".join(key + value for key, value in zip(keys, values, strict=True))
    right = values.pop(asked)
    options = shuffled(draws, right, values)
    return Item(prompt=f"look {context} {keys[asked]}:", answer=right, options=options, chance=1 / count)


LOOKUP = Task(
    name="lookup",
    difficulty=4,
    measure="pairs that are given",
    least=2,
    most=len(VALUES) - 2,
    make=make,
)

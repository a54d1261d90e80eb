"""Agreement across distance: a verb agrees with its subject, not with the nouns between. `dogs by cat:are`

After Linzen et al. 2016 (TACL 4:521), who ask recurrent networks for the number of verbs.
"""

from __future__ import annotations

from lmscale.tasks.draws import Draws
from lmscale.tasks.item import Item, Split, Task

NOUNS = (
    "arm", "bag", "bat", "bed", "bee", "boy", "car", "cat", "cow", "cup", "dog", "egg",
    "eye", "hat", "hen", "jar", "key", "leg", "map", "pen", "pig", "son", "toy", "van",
)  # fmt: skip
BETWEEN = ("at", "by", "of", "on")
VERBS = ("is", "are")


def make(draws: Draws, furthest: int, split: Split) -> Item:
    between = draws.between(0, furthest) if split == "in" else draws.between(furthest + 1, furthest + 2)
    plural = draws.below(2)
    words = [draws.choice(NOUNS) + "s" * plural]
    for _ in range(between):
        words += [draws.choice(BETWEEN), draws.choice(NOUNS) + "s" * draws.below(2)]
    return Item(prompt=f"{' '.join(words)}:", answer=VERBS[plural], options=VERBS, chance=1 / 2)


AGREEMENT = Task(
    name="agreement",
    difficulty=2,
    measure="nouns between subject and verb at the most",
    least=1,
    most=16,
    make=make,
)

"""Word unscrambling: the word that letters make. `word eosuh:house`

After Brown et al. 2020 (arXiv:2005.14165), Sec. 3.9.2.
"""

from __future__ import annotations

from lmscale.tasks.draws import Draws
from lmscale.tasks.item import Item, Split, Task
from lmscale.tasks.near import shuffled

# Of five letters, no two of the same ones
WORDS: tuple[str, ...] = (
    "about", "bread", "brown", "chair", "child", "cloud", "dance", "dream", "drink", "early", "field",
    "floor", "fruit", "glass", "grand", "green", "happy", "heavy", "horse", "house", "judge", "knife",
    "large", "light", "lucky", "metal", "money", "month", "mouth", "music", "never", "night", "ocean",
    "paint", "paper", "party", "piano", "place", "plant", "point", "power", "press", "price", "proud",
    "queen", "quick", "quiet", "radio", "river", "round", "salad", "scene", "seven", "sharp", "sheep",
    "shirt", "short", "smile", "south", "spoon", "storm", "sugar", "table", "thumb", "tiger", "total",
    "touch", "truck", "uncle", "under", "video", "visit", "voice", "wagon", "watch", "water", "wheel",
    "white", "woman", "world",
)  # fmt: skip
OUTSIDE = 16  # the last words, which are in no training text of the task


def make(draws: Draws, words: int, split: Split) -> Item:
    known = WORDS[:words] if split == "in" else WORDS[-OUTSIDE:]
    right, *wrong = draws.sample(known, 4)
    letters = right
    while letters == right:
        letters = "".join(draws.sample(right, len(right)))
    return Item(prompt=f"word {letters}:", answer=right, options=shuffled(draws, right, wrong), chance=1 / 4)


UNSCRAMBLING = Task(
    name="unscrambling",
    difficulty=32,
    measure="words in distribution",
    least=8,
    most=len(WORDS) - OUTSIDE,
    make=make,
)

"""Cloze on held-out documents: the next word of a text that nobody trained on, among words of its length."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale.data.tokenizers import bytes_of
from lmscale.tasks.draws import Draws
from lmscale.tasks.item import Item
from lmscale.tasks.near import shuffled

if TYPE_CHECKING:
    from lmscale.data.shards import Split

WORD = re.compile(rb"(?<![A-Za-z_0-9])[A-Za-z]{4,8}(?![A-Za-z_0-9])")
DOCUMENTS = 2000  # that are looked through at the most
STRETCH = 1024  # bytes


def cloze_items(splits: Sequence[Split], context: int, count: int, seed: int) -> tuple[Item, ...]:
    """Items of held-out documents, read as bytes: so many bytes of ASCII, and the word of 4 to 8 letters after them.

    Of each stretch of STRETCH bytes there is one at the most, so that few share a context. Three wrong options are
    other words of the same length that were drawn so. Raises InputError where there is too little text.
    """
    draws = Draws("cloze", context, seed)
    every = [(split, number) for split in splits for number in range(split.documents)]
    found: list[tuple[str, str]] = []
    words: dict[int, set[str]] = defaultdict(set)
    for split, number in draws.sample(every, min(DOCUMENTS, len(every))):
        text = bytes_of(split.document(number))
        for start in range(0, len(text), STRETCH):
            here = [match for match in WORD.finditer(text, start, start + STRETCH) if match.start() >= context]
            here = [match for match in here if text[match.start() - context : match.start()].isascii()]
            if here:
                chosen = draws.choice(here)
                word = chosen.group().decode()
                words[len(word)].add(word)
                found.append((text[chosen.start() - context : chosen.start()].decode(), word))
    made: dict[str, Item] = {}
    for prompt, word in draws.sample(found, len(found)):
        others = sorted(words[len(word)] - {word})
        if len(made) < count and len(others) >= 3:
            options = shuffled(draws, word, draws.sample(others, 3))
            made.setdefault(prompt, Item(prompt=prompt, answer=word, options=options, chance=1 / 4, ends=False))
    if len(made) < count:
        raise InputError(
            f"abilities.items: {count} exceeds the {len(made)} words after {context} bytes of held-out text, of which "
            f"task 'cloze:{context}' is made; ask for fewer, or hold out more text"
        )
    return tuple(made.values())

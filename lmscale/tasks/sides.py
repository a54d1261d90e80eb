"""Items to score and items to train on, of which none is the other: a prompt's side follows from its content alone.

So whatever the seeds, and however much text is made, no item that a task trains on is among those that it scores. Tasks
that tell each other's answers share their keys, and so their sides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from analysis.errors import InputError
from lmscale.tasks.draws import Draws, fraction
from lmscale.tasks.item import Item, Split
from lmscale.tasks.json_lines import read_items
from lmscale.tasks.registry import MADE, Chosen

SCORED_SHARE = 0.25  # of the prompts that there are
PATIENCE = 1000  # draws without a new item, and one for each that is known, after which a task holds no more


def is_scored(task: str, prompt: str) -> bool:
    """Whether a prompt is on the side that is scored, with all that have its key."""
    made = MADE[task]
    key = f"{task} {prompt}" if made.key is None else made.key(prompt)
    return fraction(f"side {key}") < SCORED_SHARE


def digest(settings: list[Any], tasks: Iterable[Chosen]) -> str:
    """SHA-256 of settings and of what their tasks stand for: the items of a file, and a version after the first."""
    told = hashlib.sha256(json.dumps(settings).encode())
    for chosen in tasks:
        if chosen.path:
            for item in read_items(chosen.path):
                told.update(item.line.encode())
        elif chosen.made.version > 1:
            told.update(f"{chosen.name} {chosen.made.version}".encode())
    return told.hexdigest()


def scored_items(chosen: Chosen, split: Split, count: int, seed: int) -> tuple[Item, ...]:
    """Different items in a fixed order, of which a smaller number takes the first; of a file its first lines, and all
    where there are fewer. Raises InputError where a task holds fewer, and where a guess is always right.
    """
    if chosen.path:
        items = read_items(chosen.path)
        if items[0].chance == 1:
            raise InputError(
                f"abilities.tasks: '{chosen.name}={chosen.path}' has no answer but {items[0].answer!r}, which a guess "
                "gets always; give at least two different answers, or options"
            )
        return items[:count]
    draws, found, since = Draws("scored", chosen.name, chosen.difficulty, split, seed), {}, 0
    while len(found) < count and since <= PATIENCE + len(found):
        item, since = chosen.made.make(draws, chosen.difficulty, split), since + 1
        if is_scored(chosen.name, item.prompt) and item.prompt not in found:
            found[item.prompt], since = item, 0
    if len(found) == count:
        return tuple(found.values())
    raise InputError(
        f"abilities.items: {count} exceeds the {len(found)} that task '{chosen.name}:{chosen.difficulty}' holds to "
        "score; ask for fewer, or make it harder"
    )


def training_items(chosen: Chosen, seed: object) -> Iterator[Item]:
    """Items of training without an end, in distribution; they come again where there are few."""
    draws = Draws("training", chosen.name, chosen.difficulty, seed)
    if chosen.path:
        lines = read_items(chosen.path)
        while True:
            yield from draws.sample(lines, len(lines))
    while True:
        item = chosen.made.make(draws, chosen.difficulty, "in")
        if not is_scored(chosen.name, item.prompt):
            yield item


def text_items(chosen: Chosen, seed: int) -> Iterator[Item]:
    """What is mixed into training text: items of training, or what the task says instead."""
    if chosen.path or chosen.made.text is None:
        yield from training_items(chosen, seed)
        return
    draws = Draws("text", chosen.name, chosen.difficulty, seed)
    while True:
        yield chosen.made.text(draws, chosen.difficulty)


def different_items(chosen: Chosen, seed: object) -> Iterator[Item]:
    """The same, each once, until no new one comes for a while."""
    seen: set[str] = set()
    last = 0
    for number, item in enumerate(training_items(chosen, seed)):
        if item.prompt not in seen:
            seen.add(item.prompt)
            last = number
            yield item
        if number - last > PATIENCE + len(seen):
            return

"""The tasks by name, and how a study names one: `copying`, `copying:8` (harder), `mine=items.jsonl` (a file)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Self

from analysis.errors import InputError
from lmscale.tasks.addition import ADDITION, SCRATCHPAD
from lmscale.tasks.agreement import AGREEMENT
from lmscale.tasks.brackets import BRACKETS
from lmscale.tasks.copying import COPYING
from lmscale.tasks.item import Task
from lmscale.tasks.lookup import LOOKUP
from lmscale.tasks.redefinition import REDEFINITION
from lmscale.tasks.reversal import REVERSAL
from lmscale.tasks.unscrambling import UNSCRAMBLING

MADE = {
    task.name: task
    for task in (
        COPYING,
        REVERSAL,
        BRACKETS,
        AGREEMENT,
        ADDITION,
        SCRATCHPAD,
        UNSCRAMBLING,
        LOOKUP,
        REDEFINITION,
    )
}
CLOZE = "cloze"  # of held-out documents (lmscale.tasks.cloze)
CLOZE_BYTES, CLOZE_LEAST, CLOZE_MOST = 64, 8, 4096  # of context, which is its difficulty
NAMES = (*MADE, CLOZE)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A task at a difficulty, or a file of items."""

    name: str
    difficulty: int = 0
    path: str = ""

    @classmethod
    def of(cls, text: str, field: str) -> Self:
        """Raises InputError under `field` for a text that names no task."""
        name, equals, path = text.partition("=")
        if equals:
            plain = name.replace("_", "").replace("-", "").isalnum() and name.isascii() and name.islower()
            if not (plain and path):
                raise InputError(f"{field}: {text!r} is no name and file; write it as mine=items.jsonl")
            if name in NAMES:
                raise InputError(f"{field}: {text!r} has the name of a task of lmscale; choose another")
            return cls(name=name, path=path)
        name, colon, given = text.partition(":")
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=3, cutoff=0.5)
            mend = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(NAMES)}"
            raise InputError(f"{field}: {text!r} is no task; {mend} (a file of your own is written mine=items.jsonl)")
        usual, least, most, measure = _range(name)
        try:
            difficulty = int(given) if colon else usual
        except ValueError:
            raise InputError(f"{field}: {text!r} has no number after the colon; write it as {name}:{usual}") from None
        if not least <= difficulty <= most:
            raise InputError(f"{field}: {text!r} must be from {least} to {most}: {measure}; write it as {name}:{usual}")
        return cls(name=name, difficulty=difficulty)

    @property
    def made(self) -> Task:
        """The task of a name that is neither a file's nor cloze."""
        return MADE[self.name]


def choose_tasks(texts: tuple[str, ...], field: str) -> tuple[Chosen, ...]:
    """Those of a study. Raises InputError for none, one that is unknown, and a name that comes twice."""
    if not texts:
        raise InputError(f"{field}: () names no task; name some of {', '.join(NAMES)}")
    found = tuple(Chosen.of(text, field) for text in texts)
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{field}: {twice!r} is there twice; name it once")
    return found


def _range(name: str) -> tuple[int, int, int, str]:
    if name == CLOZE:
        return CLOZE_BYTES, CLOZE_LEAST, CLOZE_MOST, "bytes of text before the word"
    task = MADE[name]
    return task.difficulty, task.least, task.most, task.measure

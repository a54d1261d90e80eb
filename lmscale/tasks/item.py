"""What a model is asked, and what a task is: a name, a rule that makes items, and how hard they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from analysis.errors import InputError
from lmscale.tasks.draws import Draws

Split = Literal["in", "out"]  # items like those of training, or harder or other ones, which no training text holds
END = "\n"  # ends an answer


@dataclass(frozen=True, kw_only=True)
class Item:
    """A prompt, the one right answer, and the answers among which a model chooses (none: it must write it).

    chance: what a guess gets, of one of the options, or (none) of one of the answers that have the right form.
    """

    prompt: str
    answer: str
    options: tuple[str, ...] = ()
    chance: float
    ends: bool = True  # in a line's end, which is then a part of what is asked; of running text it does not

    def __post_init__(self) -> None:
        """Raises InputError where it cannot be asked; the message begins with the field."""
        if not self.prompt:
            raise InputError("prompt: '' is empty; give the text that comes before the answer")
        if not self.answer:
            raise InputError("answer: '' is empty; give the right one")
        for text in (self.answer, *self.options):
            if not text:
                raise InputError("options: '' is empty; leave it out")
            if END in text:
                raise InputError(f"answer: {text!r} holds a line break, which ends an answer; write it on one line")
        if not self.options:
            return
        if len(set(self.options)) < len(self.options):
            twice = next(each for each in self.options if self.options.count(each) > 1)
            raise InputError(f"options: {twice!r} is there twice; name it once")
        if len(self.options) == 1:
            raise InputError(f"options: {self.options[0]!r} is the only one; give at least two, or none")
        if self.answer not in self.options:
            raise InputError(f"answer: {self.answer!r} is not among the options {', '.join(self.options)}; add it")

    @property
    def end(self) -> str:
        """What is asked after the answer."""
        return END if self.ends else ""

    @property
    def line(self) -> str:
        """The item as a model reads it in training, or as an example before another item."""
        return self.prompt + self.answer + END


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of items. `make` gives one for a difficulty and a split; `text`, where what is mixed into training is not
    items of the same kind, a line of that. Prompts of one `key` are on one side (lmscale.tasks.sides).
    """

    name: str
    difficulty: int  # by default
    measure: str  # what difficulty counts
    least: int
    most: int
    make: Callable[[Draws, int, Split], Item]
    text: Callable[[Draws, int], Item] | None = None
    key: Callable[[str], str] | None = None  # of a prompt; by default it and the task's name
    version: int = 1  # raise it when the same settings give other items, or have them on the other side

"""What a step says of a document: kept, edited or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`text` is what goes on to the next step, None where a `rule` dropped the document for its `value`."""

    text: str | None
    rule: str = ""
    value: float | str = 0.0
    edits: Mapping[str, int] = field(default_factory=dict)  # what was changed -> how often


def kept(text: str, edits: Mapping[str, int] | None = None) -> Verdict:
    return Verdict(text=text, edits={name: count for name, count in (edits or {}).items() if count})


def dropped(rule: str, value: float | str) -> Verdict:
    return Verdict(text=None, rule=rule, value=value)


class Rules(Protocol):
    """A step that looks at one document alone."""

    def __call__(self, name: str, text: str) -> Verdict:
        """Judges the text of the document called `name`."""
        ...

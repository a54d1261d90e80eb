"""What cleaning did, in numbers: documents and bytes into and out of every step, what each rule dropped and changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

EXAMPLES = 3  # kept of each rule: the first in the order of the documents
EXCERPT = 80  # characters of a text, a name or a value that an example shows


@dataclass(frozen=True, kw_only=True)
class Example:
    """A document that a rule dropped: what it is called, how it begins, and the value that failed."""

    name: str
    text: str
    value: float | str


@dataclass(kw_only=True)
class Dropped:
    """What one rule dropped."""

    documents: int = 0
    bytes: int = 0
    examples: list[Example] = field(default_factory=list)


@dataclass(kw_only=True)
class Count:
    """One step. Documents in are documents out and those its rules dropped; bytes out follow edits too."""

    documents_in: int = 0
    bytes_in: int = 0
    documents_out: int = 0
    bytes_out: int = 0
    dropped: dict[str, Dropped] = field(default_factory=dict)
    edits: dict[str, int] = field(default_factory=dict)  # what was changed -> how often


class Ledger:
    """Counts of every step, in the order of the steps. Ledgers of parts add up to that of the whole (`merge`)."""

    def __init__(self) -> None:
        self.steps: dict[str, Count] = {}

    def enter(self, step: str, size: int) -> None:
        """A document of `size` bytes comes to a step."""
        count = self.steps.setdefault(step, Count())
        count.documents_in += 1
        count.bytes_in += size

    def leave(self, step: str, size: int, edits: Mapping[str, int]) -> None:
        """And goes on, with `size` bytes."""
        count = self.steps[step]
        count.documents_out += 1
        count.bytes_out += size
        for name, number in edits.items():
            count.edits[name] = count.edits.get(name, 0) + number

    def drop(self, step: str, rule: str, size: int, name: str, text: str, value: float | str) -> None:
        """Or is dropped by a rule. `text` is its beginning at least."""
        entry = self.steps[step].dropped.setdefault(rule, Dropped())
        entry.documents += 1
        entry.bytes += size
        if len(entry.examples) < EXAMPLES:
            shown = round(value, 4) if isinstance(value, float) else value
            shown = shown if isinstance(shown, int | float) else _excerpt(shown)
            entry.examples.append(Example(name=_excerpt(name), text=_excerpt(text), value=shown))

    def merge(self, other: Ledger) -> None:
        """Adds the counts of documents that come after those counted here."""
        for step, theirs in other.steps.items():
            ours = self.steps.setdefault(step, Count())
            for name in ("documents_in", "bytes_in", "documents_out", "bytes_out"):
                setattr(ours, name, getattr(ours, name) + getattr(theirs, name))
            for name, number in theirs.edits.items():
                ours.edits[name] = ours.edits.get(name, 0) + number
            for rule, entry in theirs.dropped.items():
                mine = ours.dropped.setdefault(rule, Dropped())
                mine.documents += entry.documents
                mine.bytes += entry.bytes
                mine.examples += entry.examples[: EXAMPLES - len(mine.examples)]

    def as_json(self) -> dict[str, Any]:
        """For a manifest: steps in order, rules and edits by name."""
        return {
            step: {**asdict(count), "dropped": _by_name(asdict(count)["dropped"]), "edits": _by_name(count.edits)}
            for step, count in self.steps.items()
        }

    def as_text(self) -> str:
        """A table: a line a step, and below it what its rules dropped, with an example, and what was changed."""
        rows = [("step", "documents", "bytes", "kept", "")]
        for step, count in self.steps.items():
            share = f"{count.bytes_out / count.bytes_in:.1%} of bytes" if count.bytes_in else ""
            rows.append((step, f"{count.documents_out:,}", f"{count.bytes_out:,}", share, ""))
            for rule, entry in _by_name(count.dropped).items():
                first = entry.examples[0]
                about = f"{first.value} in {first.name!r}: {first.text!r}"
                rows.append((f"  {rule}", f"-{entry.documents:,}", f"-{entry.bytes:,}", "", about))
            for name, number in _by_name(count.edits).items():
                rows.append((f"  {name} edited", f"{number:,}", "", "", ""))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = []
        for row in rows:
            numbers = [f"{cell:>{width}}" for cell, width in zip(row[1:4], widths[1:], strict=True)]
            lines.append("  ".join([f"{row[0]:<{widths[0]}}", *numbers, row[4]]).rstrip())
        return "\n".join(lines)


def _by_name(entries: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(entries.items()))


def _excerpt(text: str) -> str:
    """The beginning of a text on one line, without what a terminal would act on."""
    line = " ".join(text[: EXCERPT * 4].split())
    line = "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "\u2026"

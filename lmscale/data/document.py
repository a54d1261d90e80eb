"""What a corpus is read into: documents, and what befell while they were read. No framework."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from analysis.errors import InputError
from lmscale.study.corpora import OnBad

NO_FIELDS: Mapping[str, str] = MappingProxyType({})
DOCUMENT_BYTES_MAX = 1 << 24  # what one document, or one line of a file, may hold; memory follows it


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One document.

    `name` tells it apart within its corpus. `text` is UTF-8, or, of a corpus of integers, its tokens as little-endian
    uint32. `fields` are those of `Corpus.slices`.
    """

    name: str
    text: bytes
    fields: Mapping[str, str] = field(default_factory=lambda: NO_FIELDS)


@dataclass(kw_only=True)
class Reading:
    """How far a corpus is read, and what was left out of it.

    `total` and `done` have any one unit, bytes of files or rows. What is bad is refused, or skipped and counted by
    reason; `examples` names the first of each reason.
    """

    on_bad: OnBad
    total: int = 0
    done: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    task_bytes: Counter[str] = field(default_factory=Counter)  # to train on that are text of a task, by its name
    examples: dict[str, str] = field(default_factory=dict)

    def bad(self, reason: str, message: str) -> None:
        """Raises InputError, or counts. `message` has the form `field: value, mend`."""
        if self.on_bad == "refuse":
            raise InputError(f"{message}; mend it, or leave such out with --corpus.on-bad skip")
        self.left_out[reason] += 1
        self.examples.setdefault(reason, message)

    def check_size(self, size: int, where: str) -> bool:
        """Whether a document of that many bytes is short enough to be read; one that is not is bad."""
        if size > DOCUMENT_BYTES_MAX:
            self.bad("too_long", f"{where} has {size} bytes, more than the {DOCUMENT_BYTES_MAX} of one document")
        return size <= DOCUMENT_BYTES_MAX

"""Times: work beside the training, done so seldom that it takes little of it; where a worker's go; durations in words.

Imports no framework.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

SHARE = 0.05  # of the time, at the most


class Sparing:
    """Lets a piece of work be done again only when it has taken at most `share` of the time since it was begun."""

    def __init__(self, share: float = SHARE, least_seconds: float = 0.0, most_seconds: float = float("inf")):
        self.share = share
        self.least_seconds, self.most_seconds = least_seconds, most_seconds  # between the beginnings of two
        self.pause, self.next = least_seconds, 0.0
        self.took = 0.0  # the last time

    @property
    def due(self) -> bool:
        return time.monotonic() >= self.next

    def postpone(self) -> None:
        """As if it had been done just now."""
        self.next = time.monotonic() + self.pause

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around the work."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.took = time.monotonic() - began
            self.pause = min(max(self.least_seconds, self.took / self.share), self.most_seconds)
            self.next = began + self.pause


@dataclass(kw_only=True)
class Ledger:
    """Seconds of a worker that are its purpose; the rest is the engine's."""

    steps: float = 0.0
    compile: float = 0.0
    evaluation: float = 0.0

    @property
    def total(self) -> float:
        return sum(getattr(self, each.name) for each in fields(self))


def duration(seconds: float) -> str:
    """A time for a reader: 5.3 min."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"

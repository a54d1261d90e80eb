"""Times: work beside the training, done so seldom that it takes little of it; and durations in words. No framework."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 0.05  # of the time, at the most


class Sparing:
    """Lets a piece of work be done again only when it has taken at most SHARE of the time since it was begun."""

    def __init__(self, least_seconds: float = 0.0):
        self.least_seconds = least_seconds  # between the beginnings of two
        self.next = 0.0

    @property
    def due(self) -> bool:
        return time.monotonic() >= self.next

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Around the work."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.next = began + max(self.least_seconds, (time.monotonic() - began) / SHARE)


def duration(seconds: float) -> str:
    """A time for a reader: 5.3 min."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"

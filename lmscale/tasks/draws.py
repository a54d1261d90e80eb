"""Random draws that are the same in every version of everything: SHA-256 of a name and a counter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def fraction(what: str) -> float:
    """A number in [0, 1) that follows from a text."""
    return (int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], "big") >> 11) / (1 << 53)


class Draws:
    """An endless stream of draws, told apart from others by what it is named after."""

    def __init__(self, *name: object) -> None:
        self._name, self._block, self._left = " ".join(map(str, name)), 0, b""

    def number(self) -> int:
        """64 bits."""
        if not self._left:
            self._left = hashlib.sha256(f"{self._name} {self._block}".encode()).digest()
            self._block += 1
        taken, self._left = self._left[:8], self._left[8:]
        return int.from_bytes(taken, "big")

    def below(self, count: int) -> int:
        """One of 0 .. count - 1 (of a few numbers, so that the remainder's bias is below 1e-15)."""
        return self.number() % count

    def between(self, low: int, high: int) -> int:
        """One of low .. high, both among them."""
        return low + self.below(high - low + 1)

    def choice(self, some: Sequence[T]) -> T:
        return some[self.below(len(some))]

    def sample(self, some: Sequence[T], count: int) -> list[T]:
        """Different places of a sequence, in the order in which they are drawn (Fisher & Yates 1938)."""
        left = list(some)
        for i in range(count):
            j = self.between(i, len(left) - 1)
            left[i], left[j] = left[j], left[i]
        return left[:count]

    def letters(self, alphabet: str, count: int) -> str:
        """So many of them, one may come again."""
        return "".join(self.choice(alphabet) for _ in range(count))

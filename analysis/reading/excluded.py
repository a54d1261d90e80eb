"""The rows that a fit may not use: which, in which column, and why. A million of them take some 100 MB."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

SHOWN = 40  # characters of a bad cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Excluded:
    """A row left out. `row` is the place in the file, as `analysis.read` counts it; `value` the cell as it stands."""

    row: int
    column: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f"row {self.row}, {self.column} {self.value!r}: {self.reason}"


class ExcludedRows(Sequence[Excluded]):
    """Excluded rows in the order of the file, held as arrays: an `Excluded` is made when one is looked at.

    Its length is the number of rows; indexing, slicing and iteration work as on a tuple.
    """

    def __init__(self) -> None:
        self._rows = np.empty(0, np.int64)
        self._kinds = np.empty(0, np.int32)
        self._values: list[str] = []
        self._reasons: list[tuple[str, str]] = []

    def add(self, rows: NDArray[np.int64], column: str, values: Iterable[Any], reason: str) -> None:
        """Rows [n] whose cells `values` [n] of one column are bad for one reason."""
        kind = np.full(len(rows), len(self._reasons), np.int32)
        self._reasons.append((column, reason))
        self._values += [str(value)[:SHOWN] for value in values]
        self._rows, self._kinds = np.concatenate([self._rows, rows]), np.concatenate([self._kinds, kind])
        if len(self._rows) > 1 and np.any(np.diff(self._rows) < 0):
            order = np.argsort(self._rows, kind="stable")
            self._rows, self._kinds = self._rows[order], self._kinds[order]
            self._values = [self._values[i] for i in order]

    @classmethod
    def of(cls, rows: Sequence[Excluded]) -> "ExcludedRows":
        """A list of its own with the same rows: adding to it leaves `rows` as they are."""
        new = cls()
        if isinstance(rows, ExcludedRows):
            new._rows, new._kinds = rows._rows, rows._kinds
            new._values, new._reasons = list(rows._values), list(rows._reasons)
        else:
            for row in rows:
                new.add(np.array([row.row], np.int64), row.column, [row.value], row.reason)
        return new

    @overload
    def __getitem__(self, index: int) -> Excluded: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Excluded, ...]: ...
    def __getitem__(self, index: int | slice) -> Excluded | tuple[Excluded, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        column, reason = self._reasons[int(self._kinds[index])]
        return Excluded(row=int(self._rows[index]), column=column, value=self._values[index], reason=reason)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Excluded]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"<{len(self)} rows left out>"

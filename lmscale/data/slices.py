"""Groups of held-out documents by a field that the prepared text keeps, such as their source. Imports no framework."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lmscale.data.loader import EvaluationSet
    from lmscale.data.shards import Shards


UNKNOWN = "(none)"


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """An evaluation set by one field: the field's values, and for each window [M] the place of its own among them."""

    values: tuple[str, ...]
    codes: NDArray[np.int32]

    def groups(self, field: str) -> list[tuple[str, NDArray[np.bool_]]]:
        """The groups that have a window, as they are named in tables (`source=web`), each with its windows [M]."""
        return [(f"{field}={self.values[code]}", self.codes == code) for code in np.unique(self.codes).tolist()]


def sliced(windows: EvaluationSet, *parts: Shards) -> EvaluationSet:
    """Held-out windows with their groups by every field that some part of their text keeps.

    Documents are numbered through the parts; those of a part that does not keep a field are its group UNKNOWN.
    """
    found = {}
    for field in sorted({field for part in parts for field in part.slices}):
        values = sorted({UNKNOWN, *(value for part in parts for value in part.slices.get(field, []))})
        place = {value: code for code, value in enumerate(values)}
        codes = [np.zeros(0, np.int32)]
        for part in parts:
            own = np.array([place[value] for value in part.slices.get(field, [UNKNOWN])], np.int32)
            kept = field in part.slices
            codes.append(own[part.heldout.slice(field) if kept else np.zeros(part.heldout.documents, np.int32)])
        found[field] = Slicing(values=tuple(values), codes=np.concatenate(codes)[windows.documents])
    return replace(windows, slices=found)


def digest(slices: Mapping[str, Slicing]) -> str:
    """SHA-256 of which window is in which group; it is no part of a run's identity."""
    whole = hashlib.sha256()
    for field, slicing in sorted(slices.items()):
        for name, members in slicing.groups(field):
            whole.update(f"{name}\n".encode())
            whole.update(np.packbits(members).tobytes())
    return whole.hexdigest()

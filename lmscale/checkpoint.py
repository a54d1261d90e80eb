"""Checkpoints that are whole or absent, and verified before use. The only file that imports orbax.

A checkpoint is orbax's files and `manifest.json`, the SHA-256 of each: orbax restores flipped bits without a word.
Where it lies, and how it comes there as one step, is lmscale.store.shelves'; whether it may is `fence`'s. Beside those
saved to be kept there are never more than two: one from which training can go on, and one that is being written, was
left by a kill, or was set aside. In a job of several processes each writes and reads what its devices hold; process 0
does the rest, and all see the same checkpoints.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from lmscale.processes import distributed
from lmscale.store.shelves import make_shelf
from lmscale.training.packing import is_packable, pack, packed_like, unpack

logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax's errors are raised: its threads log pages of them besides
STATE, PACKED = "state", "packed"  # what orbax writes: the tree, or `pack` of a small one


class Checkpoints:
    """The checkpoints of one trunk or one run."""

    def __init__(self, folder: Path, say: Callable[[str], None] = print, fence: Callable[[], None] = lambda: None):
        self.folder, self.say = folder, say
        self.fence = fence  # called before anything is changed: raises where another process has taken over
        self.shelf = make_shelf(folder)

    def steps(self, *, kept: bool = False) -> list[int]:
        """Steps of the complete checkpoints (or of those saved to be kept), ascending; not yet verified."""
        return distributed.decide(lambda: [step for step, keep in self.shelf.kept().items() if keep or not kept])

    def save(self, step: int, tree: Any, *, keep: bool) -> None:
        """Writes a checkpoint; `keep` exempts it from `prune`. Raises OSError when the disk does."""
        if keep and distributed.decide(lambda: self.shelf.keep(step, self.fence)):
            return
        place = distributed.decide(lambda: self._make_room(step))
        name, content = (PACKED, pack(tree)) if is_packable(tree) else (STATE, tree)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((self.shelf.root / place).absolute() / name, content)
        distributed.barrier()
        distributed.decide(lambda: self.shelf.put(step, place, keep, self.fence))

    def _make_room(self, step: int) -> str:
        """Leaves those kept, and the last one from which training can go on."""
        self.fence()
        found = self.shelf.kept()
        last = [s for s, keep in found.items() if s <= step and not keep][-1:]
        self.shelf.tidy([*last, *(s for s, keep in found.items() if keep)])
        return self.shelf.make_place(step)

    def restore(self, step: int, like: Any) -> Any:
        """The tree saved at `step`, laid out as `like` (arrays or ShapeDtypeStructs with shardings).

        Raises CorruptCheckpoint if any file differs from the manifest.
        """
        place, wrong = distributed.decide(lambda: self.shelf.fetch(step))
        if wrong:
            raise CorruptCheckpoint(wrong)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        files = (self.shelf.root / place).absolute()
        with ocp.StandardCheckpointer() as checkpointer:
            if (files / PACKED).exists():  # by a process that had one device
                tree = unpack(checkpointer.restore(files / PACKED, packed_like(abstract)), abstract)
            else:
                tree = checkpointer.restore(files / STATE, abstract)
        distributed.barrier()
        distributed.decide(lambda: self.shelf.done(place))
        return tree

    def restore_latest(self, like: Any, at_most: int, at_least: int = 0) -> tuple[int, Any] | None:
        """The newest sound checkpoint of a step from `at_least` to `at_most`; a damaged one is set aside, and said."""
        for step in reversed([s for s in self.steps() if at_least <= s <= at_most]):
            try:
                return step, self.restore(step, like)
            except CorruptCheckpoint as error:
                line = str(error)
                distributed.decide(lambda step=step, line=line: self._set_aside(step, line))
        return None

    def _set_aside(self, step: int, wrong: str) -> None:
        self.fence()
        self.shelf.set_aside(step)
        self.say(f"checkpoint {step:09d}: {wrong}; set aside, falling back to the one before")

    def prune(self, before: int) -> None:
        """Removes checkpoints earlier than `before` that were not saved to be kept."""
        if not distributed.leads():
            return
        self.fence()
        for step, keep in self.shelf.kept().items():
            if step < before and not keep:
                self.shelf.remove(step)

    def remove(self) -> None:
        """Removes them all."""
        if distributed.leads():
            self.fence()
            self.shelf.clear()


class CorruptCheckpoint(Exception):
    """A checkpoint whose files are not those that were written."""

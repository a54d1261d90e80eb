"""Checkpoints that are whole or absent, and verified before use. The only file that imports orbax.

A checkpoint is a folder `<step>` holding orbax's files and `manifest.json`, the SHA-256 of each: orbax restores
flipped bits without a word. It is written beside its place and renamed into it, by whom `fence` lets pass. In
a job of several processes each writes and reads what its devices hold; process 0 does the rest, and all see the same
checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from lmscale import distributed
from lmscale.files import write_json

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one trunk or one run."""

    def __init__(self, folder: Path, say: Callable[[str], None] = print, fence: Callable[[], None] = lambda: None):
        self.folder, self.say = folder, say
        self.fence = fence  # called before anything is changed: raises where another process has taken over

    def steps(self, *, kept: bool = False) -> list[int]:
        """Steps of the complete checkpoints (or of those saved to be kept), ascending; not yet verified."""
        return distributed.decide(lambda: self._steps(kept))

    def _steps(self, kept: bool = False) -> list[int]:
        if not self.folder.is_dir():
            return []
        found = [p for p in self.folder.iterdir() if p.name.isdigit() and (p / MANIFEST).exists()]
        return sorted(int(p.name) for p in found if not kept or _kept(p))

    def save(self, step: int, tree: Any, *, keep: bool) -> None:
        """Writes a checkpoint; `keep` exempts it from `prune`. Raises OSError when the disk does."""
        if keep and distributed.decide(lambda: self._keep(step)):
            return
        temporary = self.folder / distributed.decide(lambda: self._make_room(step))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary.absolute() / "state", tree)
        distributed.barrier()
        distributed.decide(lambda: self._commit(step, temporary, keep))

    def _keep(self, step: int) -> bool:
        """Marks the checkpoint of a step to be kept; False if there is no sound one."""
        folder = self.folder / f"{step:09d}"
        if _wrong(folder) is not None:
            return False
        self.fence()
        manifest = json.loads((folder / MANIFEST).read_text())
        write_json(folder / MANIFEST, {**manifest, "keep": True})
        return True

    def _make_room(self, step: int) -> str:
        self.fence()
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob(".*"):  # of saves that were killed: the trajectory is ours
            shutil.rmtree(left_over, ignore_errors=True)
        return f".{step:09d}.{os.getpid()}"

    def _commit(self, step: int, temporary: Path, keep: bool) -> None:
        final = self.folder / f"{step:09d}"
        hashes = {str(p.relative_to(temporary)): _sha256(p, sync=True) for p in _files(temporary)}
        write_json(temporary / MANIFEST, {"step": step, "keep": keep, "sha256": hashes})
        self.fence()
        if final.exists():  # the same step, saved to be pruned or kept
            os.replace(final, final.with_name(f".{final.name}.before"))
        os.replace(temporary, final)
        shutil.rmtree(final.with_name(f".{final.name}.before"), ignore_errors=True)

    def restore(self, step: int, like: Any) -> Any:
        """The tree saved at `step`, laid out as `like` (arrays or ShapeDtypeStructs with shardings).

        Raises CorruptCheckpoint if any file differs from the manifest.
        """
        folder = self.folder / f"{step:09d}"
        if wrong := distributed.decide(lambda: _wrong(folder)):
            raise CorruptCheckpoint(wrong)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder.absolute() / "state", abstract)

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
        folder = self.folder / f"{step:09d}"
        aside = folder.with_name(f"{folder.name}.corrupt")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
        self.say(f"checkpoint {folder.name}: {wrong}; set aside, falling back to the one before")

    def prune(self, before: int) -> None:
        """Removes checkpoints earlier than `before` that were not saved to be kept."""
        if not distributed.leads():
            return
        self.fence()
        for step in self._steps():
            folder = self.folder / f"{step:09d}"
            if step < before and not _kept(folder):
                shutil.rmtree(folder)

    def remove(self) -> None:
        """Removes them all."""
        if distributed.leads():
            self.fence()
            shutil.rmtree(self.folder, ignore_errors=True)


class CorruptCheckpoint(Exception):
    """A checkpoint whose files are not those that were written."""


def _wrong(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, if anything."""
    try:
        expected = json.loads((folder / MANIFEST).read_text())["sha256"]
    except (ValueError, KeyError, OSError) as error:
        return f"manifest unreadable ({error})"
    found = {str(p.relative_to(folder)): _sha256(p) for p in _files(folder) if p.name != MANIFEST}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{wrong[0]} differs from its hash" if wrong else None


def _kept(folder: Path) -> bool:
    try:
        return json.loads((folder / MANIFEST).read_text())["keep"] is True
    except (ValueError, KeyError, TypeError):
        return False  # a damaged manifest: the checkpoint is no use, and is set aside when it is restored


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _sha256(path: Path, *, sync: bool = False) -> str:
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()

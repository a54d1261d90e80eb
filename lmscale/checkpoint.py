"""Checkpoints that are whole or absent, and verified before use. The only file that imports orbax.

A checkpoint is a folder `<step>` holding orbax's files and `manifest.json`, the SHA-256 of each: orbax restores
flipped bits without a word. It is written beside its place and renamed into it.
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

from lmscale.records import write_json

MANIFEST = "manifest.json"


class Checkpoints:
    """The checkpoints of one trunk or one run."""

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.folder = folder
        self.say = say

    def steps(self, *, kept: bool = False) -> list[int]:
        """Steps of the complete checkpoints (or of those saved to be kept), ascending; not yet verified."""
        if not self.folder.is_dir():
            return []
        found = [p for p in self.folder.iterdir() if p.name.isdigit() and (p / MANIFEST).exists()]
        return sorted(int(p.name) for p in found if not kept or _kept(p))

    def save(self, step: int, tree: Any, *, keep: bool) -> None:
        """Writes a checkpoint; `keep` exempts it from `prune`. Raises OSError when the disk does."""
        final = self.folder / f"{step:09d}"
        temporary = self.folder / f".{final.name}.{os.getpid()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob(".*"):  # of saves that were killed; the trajectory's lock makes them ours
            shutil.rmtree(left_over, ignore_errors=True)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(temporary.absolute() / "state", tree)
        hashes = {str(p.relative_to(temporary)): _sha256(p, sync=True) for p in _files(temporary)}
        write_json(temporary / MANIFEST, {"step": step, "keep": keep, "sha256": hashes})
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)

    def restore(self, step: int, like: Any) -> Any:
        """The tree saved at `step`, laid out as `like` (arrays or ShapeDtypeStructs with shardings).

        Raises CorruptCheckpoint if any file differs from the manifest.
        """
        folder = self.folder / f"{step:09d}"
        self._verify(folder)
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        with ocp.StandardCheckpointer() as checkpointer:
            return checkpointer.restore(folder.absolute() / "state", abstract)

    def restore_latest(self, like: Any, at_most: int) -> tuple[int, Any] | None:
        """The newest sound checkpoint no later than step `at_most`; a damaged one is set aside, and said."""
        for step in reversed([s for s in self.steps() if s <= at_most]):
            try:
                return step, self.restore(step, like)
            except CorruptCheckpoint as error:
                folder = self.folder / f"{step:09d}"
                aside = folder.with_name(f"{folder.name}.corrupt")
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(folder, aside)
                self.say(f"checkpoint {folder.name}: {error}; set aside, falling back to the one before")
        return None

    def prune(self, before: int) -> None:
        """Removes checkpoints earlier than `before` that were not saved to be kept."""
        for step in self.steps():
            folder = self.folder / f"{step:09d}"
            if step < before and not _kept(folder):
                shutil.rmtree(folder)

    def remove(self) -> None:
        """Removes them all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _verify(self, folder: Path) -> None:
        try:
            expected = json.loads((folder / MANIFEST).read_text())["sha256"]
        except (ValueError, KeyError, OSError) as error:
            raise CorruptCheckpoint(f"manifest unreadable ({error})") from None
        found = {str(p.relative_to(folder)): _sha256(p) for p in _files(folder) if p.name != MANIFEST}
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if wrong:
            raise CorruptCheckpoint(f"{wrong[0]} differs from its hash")


class CorruptCheckpoint(Exception):
    """A checkpoint whose files are not those that were written."""


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

"""Where checkpoints lie: a folder, or an object store; whole or absent on both. No framework.

    <step>/manifest.json     the SHA-256 of every file, and whether the checkpoint is to be kept
    <step>/...               the files; on a store below a name of their own for each save
    <step>.corrupt/          one that was damaged; on a store <step>/ with its manifest as manifest.corrupt

In a folder a checkpoint is written beside its place and renamed into it. A store has no renaming: a checkpoint is
written into a folder of this machine, its files are PUT, and the manifest last, without which there is no checkpoint.
When one is removed the manifest goes first.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from lmscale.store.files import as_json, on_store, write_json
from lmscale.work.leases import Owner

if TYPE_CHECKING:
    from lmscale.store.storage import StorePath

MANIFEST, CORRUPT = "manifest.json", "manifest.corrupt"


class Shelf(Protocol):
    """The checkpoints of one trunk or one run. In a job of several processes process 0 alone calls the methods."""

    root: Path  # of this machine, to which the places of `make_place` and `fetch` are relative (or they are absolute)

    def kept(self) -> dict[int, bool]:
        """Steps of the checkpoints, ascending, and whether each was saved to be kept; not yet verified."""
        ...

    def tidy(self, spared: Collection[int]) -> None:
        """Removes all but whole checkpoints of the steps `spared`: also what kills left, and what is set aside."""
        ...

    def make_place(self, step: int) -> str:
        """Where the files of a checkpoint are to be written."""
        ...

    def put(self, step: int, place: str, keep: bool, fence: Callable[[], None]) -> None:
        """Makes what was written there a checkpoint, as one step, if `fence` lets it pass."""
        ...

    def keep(self, step: int, fence: Callable[[], None]) -> bool:
        """Marks a checkpoint to be kept, if `fence` lets it pass; False if there is no sound one."""
        ...

    def fetch(self, step: int) -> tuple[str, str | None]:
        """Where the files of a checkpoint can be read, and what is wrong with them, if anything."""
        ...

    def done(self, place: str) -> None:
        """They were read."""
        ...

    def set_aside(self, step: int) -> None:
        """It is a checkpoint no more, but can be looked at until the next save; only the last one is kept so."""
        ...

    def remove(self, step: int) -> None: ...

    def clear(self) -> None: ...


def make_shelf(folder: Path) -> Shelf:
    store = on_store(folder)
    return FolderShelf(folder) if store is None else StoreShelf(store)


class FolderShelf:
    def __init__(self, folder: Path):
        self.root = folder

    def kept(self) -> dict[int, bool]:
        if not self.root.is_dir():
            return {}
        found = sorted(p for p in self.root.iterdir() if p.name.isdigit())  # one that lost its manifest is damaged
        return {int(p.name): (p / MANIFEST).exists() and _is_kept(_manifest(p)) for p in found}

    def tidy(self, spared: Collection[int]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for path in self.root.iterdir():
            if not (path.name.isdigit() and int(path.name) in spared):
                shutil.rmtree(path, ignore_errors=True)

    def make_place(self, step: int) -> str:
        return f".{_name(step)}.{os.getpid()}"

    def put(self, step: int, place: str, keep: bool, fence: Callable[[], None]) -> None:
        written, final = self.root / place, self.root / _name(step)
        hashes = _hashes(written, sync=True)
        write_json(written / MANIFEST, {"step": step, "keep": keep, "sha256": hashes})
        fence()
        before = final.with_name(f".{final.name}.before")
        if final.exists():  # the same step, saved to be pruned or kept
            os.replace(final, before)
        os.replace(written, final)
        shutil.rmtree(before, ignore_errors=True)

    def keep(self, step: int, fence: Callable[[], None]) -> bool:
        folder = self.root / _name(step)
        if _wrong(folder) is not None:
            return False
        fence()
        write_json(folder / MANIFEST, {**_manifest(folder), "keep": True})
        return True

    def fetch(self, step: int) -> tuple[str, str | None]:
        return _name(step), _wrong(self.root / _name(step))

    def done(self, place: str) -> None:
        pass

    def set_aside(self, step: int) -> None:
        for path in self.root.glob("*.corrupt"):
            shutil.rmtree(path, ignore_errors=True)
        os.replace(self.root / _name(step), self.root / f"{_name(step)}.corrupt")

    def remove(self, step: int) -> None:
        shutil.rmtree(self.root / _name(step))

    def clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


class StoreShelf:
    def __init__(self, folder: StorePath):
        self.folder, self.root = folder, scratch()

    def kept(self) -> dict[int, bool]:
        return {step: _is_kept(manifest) for step, manifest in self._manifests().items()}

    def tidy(self, spared: Collection[int]) -> None:
        whole = {step: manifest for step, manifest in self._manifests().items() if step in spared}
        needed = tuple(f"{_name(step)}/{name}" for step, manifest in whole.items() for name in _needed(manifest))
        doomed = [name for name in self.folder.objects() if not name.startswith(needed)]
        self.folder.remove([name for name in doomed if name.endswith(f"/{MANIFEST}")])
        self.folder.remove([name for name in doomed if not name.endswith(f"/{MANIFEST}")])

    def make_place(self, step: int) -> str:
        return str(self.root / f"{_name(step)}.{uuid.uuid4().hex[:8]}")

    def put(self, step: int, place: str, keep: bool, fence: Callable[[], None]) -> None:
        written, final, save = Path(place), self.folder / _name(step), uuid.uuid4().hex[:8]
        hashes = _hashes(written)
        final.upload({f"{save}/{name}": str(written / name) for name in hashes})
        fence()
        manifest = {"step": step, "keep": keep, "files": save, "sha256": hashes}
        (final / MANIFEST).write_bytes(as_json(manifest).encode())
        self.done(place)
        final.remove([name for name in final.objects() if not name.startswith((f"{save}/", MANIFEST))])

    def keep(self, step: int, fence: Callable[[], None]) -> bool:
        final = self.folder / _name(step)
        try:
            manifest = _manifest(final)
            there = {f"{manifest['files']}/{name}" for name in manifest["sha256"]} <= set(final.objects())
        except (FileNotFoundError, KeyError, TypeError):
            return False
        if there:  # their content is verified when they are read
            fence()
            (final / MANIFEST).write_bytes(as_json({**manifest, "keep": True}).encode())
        return there

    def fetch(self, step: int) -> tuple[str, str | None]:
        final, place = self.folder / _name(step), self.root / uuid.uuid4().hex
        try:
            manifest = _manifest(final)
            files = {f"{manifest['files']}/{_plain(name)}": str(place / name) for name in manifest["sha256"]}
            place.mkdir()
            final.download(files)
            write_json(place / MANIFEST, manifest)
            wrong = _wrong(place)
        except (KeyError, TypeError, AttributeError, ValueError):
            wrong = "manifest unreadable"
        except FileNotFoundError as error:
            wrong = f"a file is not there ({error})"
        if wrong:
            self.done(str(place))
        return str(place), wrong

    def done(self, place: str) -> None:
        shutil.rmtree(place, ignore_errors=True)

    def set_aside(self, step: int) -> None:
        for name in [name for name in self.folder.objects() if name.endswith(f"/{CORRUPT}")]:
            (self.folder / name).parent.rmtree()
        step_folder = self.folder / _name(step)
        (step_folder / CORRUPT).write_bytes((step_folder / MANIFEST).read_bytes())
        (step_folder / MANIFEST).unlink()

    def remove(self, step: int) -> None:
        (self.folder / _name(step) / MANIFEST).unlink(missing_ok=True)
        (self.folder / _name(step)).rmtree()

    def clear(self) -> None:
        self.tidy(())

    def _manifests(self) -> dict[int, Any]:
        """Manifests by step, ascending; None for one that cannot be read."""
        found = {}
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # a save that was killed
                if path.name.isdigit():
                    found[int(path.name)] = _manifest(path)
        return found


def scratch_home() -> Path:
    """Where checkpoints are on this machine on their way to or from a store. In a job, all processes must see it."""
    home = Path(tempfile.gettempdir()) / f"lmscale-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    return home


@cache
def scratch() -> Path:
    """The folder of this process in it; those of processes that are gone are removed."""
    for path in scratch_home().iterdir():
        with suppress(ValueError):
            if Owner.from_text(path.name.replace("+", ":")).is_gone:
                shutil.rmtree(path, ignore_errors=True)
    own = scratch_home() / str(Owner.this()).replace(":", "+")
    own.mkdir()
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def _name(step: int) -> str:
    return f"{step:09d}"


def _manifest(folder: Path | StorePath) -> Any:
    """The manifest of a checkpoint, or None for one that cannot be read. Raises FileNotFoundError if there is none."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return manifest if isinstance(manifest, dict) else None
    except ValueError:
        return None


def _is_kept(manifest: Any) -> bool:
    """A damaged manifest is not: the checkpoint is no use, and is set aside when it is restored."""
    return manifest is not None and manifest.get("keep") is True


def _needed(manifest: Any) -> tuple[str, ...]:
    """How the names of the objects of a checkpoint begin, below its step; all of one whose manifest is damaged."""
    return (f"{manifest['files']}/", MANIFEST) if manifest and "files" in manifest else ("",)


def _plain(name: str) -> str:
    """A file's name. Raises ValueError for one outside its folder."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(name)
    return name


def _wrong(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, if anything."""
    try:
        expected = json.loads((folder / MANIFEST).read_text())["sha256"]
        names = {*expected}
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"manifest unreadable ({error})"
    found = _hashes(folder)
    found.pop(MANIFEST, None)
    wrong = sorted(name for name in names | found.keys() if expected.get(name) != found.get(name))
    return f"{wrong[0]} differs from its hash" if wrong else None


def _hashes(folder: Path, *, sync: bool = False) -> dict[str, str]:
    """The SHA-256 of every file, by its name below the folder; `sync` brings them to the disk first."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): _sha256(p, sync=sync) for p in files}


def _sha256(path: Path, *, sync: bool) -> str:
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()

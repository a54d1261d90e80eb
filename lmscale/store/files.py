"""Files that are whole or absent, and say when they are not what was written. No framework.

The one place that knows a folder from an object store (lmscale.store.storage). In a folder a file is written beside its
place, synced and renamed, and made once by link(2); on a store both are one PUT, the second on the condition that there
is no such object. Nothing can be appended to an object: `Lines` says when it is written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmscale.store.storage import StorePath

SEAL, LINE_SEAL = "sha256", "crc32"


def on_store(path: Path) -> StorePath | None:
    """The path as one of an object store, if it is."""
    return None if isinstance(path, Path) else path


def write_atomic(path: Path, text: str) -> None:
    """Writes a whole file or none: temporary name, sync, rename, sync of the folder; or one PUT."""
    if (store := on_store(path)) is not None:
        store.write_bytes(text.encode())
        return
    temporary = _written(path, text)
    try:
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create(path: Path, text: str) -> bool:
    """The same, unless there is such a file: then it stays as it is. Returns whether this call made it.

    Of any number of processes and hosts that call this at once with texts of their own, one makes the file (link(2),
    also over NFS; on a store, its conditional PUT, where one with the same text counts as made by this call).
    """
    if (store := on_store(path)) is not None:
        return store.create(text.encode())
    temporary = _written(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def try_out(folder: Path) -> None:
    """Raises OSError where nothing can be written to a folder, or `create` would not keep what it promises."""
    if (store := on_store(folder)) is None:
        tempfile.TemporaryFile(dir=folder).close()
        return
    probe = store / f".probe.{uuid.uuid4().hex}"
    try:
        if not probe.create(b"1") or probe.create(b"2"):
            words = "it ignores If-None-Match: two workers could both take one trajectory"
            raise OSError(errno.ENOTSUP, words)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def set_aside(path: Path) -> Path:
    """Moves a damaged file out of the way; returns where it is now."""
    aside = path.with_suffix(".corrupt")
    with contextlib.suppress(FileNotFoundError):  # another worker has met it as well
        if (store := on_store(path)) is not None:
            aside.write_bytes(store.read_bytes())
            store.unlink()
        else:
            os.replace(path, aside)
    return aside


def names(folder: Path) -> set[str]:
    """Of all that is in a folder; none where there is no such folder."""
    try:
        return set(os.listdir(folder)) if on_store(folder) is None else {path.name for path in folder.iterdir()}
    except OSError:
        return set()


def modified(path: Path) -> float:
    """When a file was written, in seconds by the clock that stamps files there. Raises OSError if there is none."""
    store = on_store(path)
    return path.stat().st_mtime if store is None else store.modified()


def now(folder: Path) -> float:
    """The time by the clock that stamps the files of a folder: not this host's, where others share it."""
    try:
        if (store := on_store(folder)) is not None:
            (store / ".now").write_bytes(b"")
            return (store / ".now").modified()
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # a folder that can only be read
        return time.time()


def _written(path: Path, text: str) -> Path:
    """A file of another name beside `path`, on the disk."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")  # other hosts write here as well
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_folder(folder: Path) -> None:
    """What was made in a folder, or renamed, is on the disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_json(value: Mapping) -> str:
    """Raises ValueError on NaN or infinity, which JSON does not have."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: Path, value: Mapping) -> None:
    """Writes JSON atomically. Raises ValueError on NaN or infinity."""
    write_atomic(path, as_json(value))


def sealed(value: Mapping) -> dict:
    """With the SHA-256 of its content, so that a changed byte is seen."""
    return {**value, SEAL: _digest(value)}


def unsealed(value: Mapping) -> dict:
    """What was sealed. Raises ValueError if it is not that any more."""
    content = {name: entry for name, entry in value.items() if name != SEAL}
    if value.get(SEAL) != _digest(content):
        raise ValueError("its content differs from its hash")
    return content


def _digest(value: Mapping) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


class Lines:
    """A file of JSON objects, a line each with its check sum, to which lines are appended.

    A kill may tear the last line and a disk may change any: such lines are no part of what `read` gives. On a store
    lines are held back until `flush`: they are lost with the process, unless what depends on them comes after it.
    """

    def __init__(self, path: Path):
        self.path = path
        self._held: list[str] | None = None  # on a store, once one was appended: all lines, with those not there yet
        self._late = False

    def append(self, row: Mapping) -> None:
        """Adds a line. What a kill has left of the one before is ended first."""
        line = _line(row)
        if on_store(self.path) is not None:
            if self._held is None:
                self._held = self._texts()
            self._held.append(line.rstrip("\n"))
            self._late = True
            return
        with open(self.path, "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else f"\n{line}"
            file.write(line.encode())

    def flush(self) -> None:
        """Sees to it that all lines are there. In a folder they are; on a store this writes the object anew."""
        if self._late and self._held is not None:
            write_atomic(self.path, "".join(f"{line}\n" for line in self._held))
            self._late = False

    def read(self) -> list[dict]:
        """All sound lines, in their order."""
        return [row for row in map(_sound, self._texts()) if row is not None]

    def damaged(self) -> list[str]:
        """The lines that are not what was written."""
        return [line for line in self._texts() if _sound(line) is None]

    def write(self, rows: Iterable[Mapping]) -> None:
        """Writes the whole file anew. What was damaged goes to a file beside it first, `<name>.corrupt`."""
        if damaged := self.damaged():
            aside = self.path.with_name(f"{self.path.name}.corrupt")
            before = aside.read_text(encoding="utf-8") if aside.exists() else ""
            write_atomic(aside, before + "".join(f"{line}\n" for line in damaged))
        lines = [*map(_line, rows)]
        write_atomic(self.path, "".join(lines))
        if self._held is not None:
            self._held, self._late = [line.rstrip("\n") for line in lines], False

    def _texts(self) -> list[str]:
        if self._held is not None:
            return self._held
        if not self.path.exists():
            return []
        return [line for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n") if line]


def _line(row: Mapping) -> str:
    """A row with its check sum. Raises ValueError on NaN or infinity."""
    return json.dumps({**row, LINE_SEAL: _check_sum(row)}, allow_nan=False) + "\n"


def _check_sum(row: Mapping) -> str:
    return f"{zlib.crc32(json.dumps(row, allow_nan=False).encode()):08x}"


def _sound(line: str) -> dict | None:
    """The row that a line holds, or None if it is not what was written."""
    try:
        row = json.loads(line)
        seal = row.pop(LINE_SEAL)
        return row if seal == _check_sum(row) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None

"""Files that are whole or absent, and say when they are not what was written. No framework."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

SEAL, LINE_SEAL = "sha256", "crc32"


def write_atomic(path: Path, text: str) -> None:
    """Writes a whole file or none: temporary name, sync, rename, sync of the folder."""
    temporary = _written(path, text)
    try:
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create(path: Path, text: str) -> bool:
    """The same, unless there is such a file: then it stays as it is. Returns whether this call made it.

    Of any number of processes and hosts that call this at once, one makes the file (link(2), also over NFS).
    """
    temporary = _written(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


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


def folder_clock(folder: Path) -> float:
    """The time by the clock that stamps the files of a folder: not this host's, where others share it."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


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

    A kill may tear the last line and a disk may change any: such lines are no part of what `read` gives.
    """

    def __init__(self, path: Path):
        self.path = path

    def append(self, row: Mapping) -> None:
        """Adds a line. What a kill has left of the one before is ended first."""
        line = _line(row)
        with open(self.path, "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else f"\n{line}"
            file.write(line.encode())

    def read(self) -> list[dict]:
        """All sound lines, in their order."""
        return [row for _, row in self._lines() if row is not None]

    def damaged(self) -> list[str]:
        """The lines that are not what was written."""
        return [line for line, row in self._lines() if row is None]

    def write(self, rows: Iterable[Mapping]) -> None:
        """Writes the whole file anew. What was damaged goes to a file beside it first, `<name>.corrupt`."""
        if damaged := self.damaged():
            with open(self.path.with_name(f"{self.path.name}.corrupt"), "a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in damaged)
        write_atomic(self.path, "".join(map(_line, rows)))

    def _lines(self) -> list[tuple[str, dict | None]]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        return [(line, _sound(line)) for line in lines if line]


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

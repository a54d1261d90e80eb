"""What every preparation shares: its lock, the pieces that a killed one left, progress, and the joining of pieces."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale import __version__
from lmscale.data.pieces import Counts, join_piece
from lmscale.data.prepared import Place
from lmscale.data.shards import FORMAT, Vocabulary
from lmscale.data.writer import ShardWriter

Echo = Callable[[str], None]

PROGRESS_SECONDS = 2.0
ABOUT = "about.json"


@contextlib.contextmanager
def lock(folder: Path, echo: Echo) -> Iterator[None]:
    """Of the processes that prepare one folder, one at a time; the kernel takes it back however a process ends."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            echo(f"prepare: another process is preparing {folder.name}; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        for stale in folder.parent.glob(f".{folder.name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)  # half joined when a preparation was killed
        yield


@contextlib.contextmanager
def pieces_folder(folder: Path, vocabularies: Mapping[str, Vocabulary]) -> Iterator[Path]:
    """The folder of pieces beside `folder`, for the process that holds its lock.

    Pieces of another version of lmscale or another vocabulary are removed. What a killed preparation left is kept;
    after an InputError, which repeating the command would not mend, and at the end, nothing is.
    """
    pieces = folder.with_name(f".{folder.name}.pieces")
    about = json.dumps([FORMAT, __version__, {name: each.digest for name, each in sorted(vocabularies.items())}])
    with contextlib.suppress(OSError, ValueError):
        if (pieces / ABOUT).read_text(encoding="utf-8") != about:
            shutil.rmtree(pieces)
    pieces.mkdir(exist_ok=True)
    (pieces / ABOUT).write_text(about, encoding="utf-8")
    for half in pieces.glob(".*"):
        half.unlink()
    try:
        yield pieces
    except InputError:
        shutil.rmtree(pieces, ignore_errors=True)
        raise
    shutil.rmtree(pieces, ignore_errors=True)


class Progress:
    """Says every PROGRESS_SECONDS how far a preparation is. `share()` is how much of it is done, 0 where not known."""

    def __init__(self, name: str, echo: Echo, share: Callable[[], float]) -> None:
        self._name, self._echo, self._share = name, echo, share
        self._documents = self._text_bytes = 0
        self._began = self._shown = time.monotonic()
        self._began_share = share()

    def restart(self) -> None:
        """From here on time is counted: what comes now is work, and no longer what an earlier preparation left."""
        self._began, self._began_share = time.monotonic(), self._share()

    def add(self, counts: Counts) -> None:
        self._documents += counts.documents
        self._text_bytes += counts.text_bytes
        now = time.monotonic()
        if now - self._shown > PROGRESS_SECONDS:
            self._shown = now
            self._echo(self.line(left=True))

    def line(self, *, left: bool) -> str:
        """`prepare NAME: documents, MB, MB/s`, and the time left where it can be told."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        megabytes = self._text_bytes / 1e6
        text = f"prepare {self._name}: {self._documents} documents, {megabytes:.1f} MB, {megabytes / seconds:.1f} MB/s"
        done = self._share() - self._began_share
        if left and done > 0:
            text += f", {_duration(seconds * max(0.0, 1 - self._share()) / done)} left"
        return text


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def join(
    place: Place,
    vocabularies: Mapping[str, Vocabulary],
    pieces: Iterable[Path],
    about: Callable[[int], Mapping[str, Any]],
) -> Path:
    """Writes the prepared folder from its pieces in order; `about(dropped documents)` is called last, for the manifest.

    Raises InputError where one side of the hold-out holds no document.
    """
    corpus, lowest, dropped = place.corpus, 1.0, 0
    with ShardWriter(place.folder, vocabularies, slices=corpus.slices) as writer:
        for path in pieces:
            counts = join_piece(path, writer, sorted(vocabularies), corpus.slices)
            lowest, dropped = min(lowest, counts.lowest_share), dropped + counts.dropped
        _check_sides(place, writer, lowest)
        return writer.finish(about(dropped))


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of Python and of packages."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def _check_sides(place: Place, writer: ShardWriter, lowest: float) -> None:
    corpus, train, heldout = place.corpus, writer.documents("train"), writer.documents("heldout")
    where = f"corpus.heldout: {corpus.heldout} leaves"
    if train + heldout == 0:
        field = f"corpus.files: {corpus.files!r}" if corpus.files else f"corpus.task: {corpus.task!r}"
        raise InputError(f"{field} gives no documents; mend it")
    if heldout == 0:
        enough = math.floor(lowest * 100 + 1) / 100
        mend = f"raise it to {enough:.2f} or bring more text" if enough < 0.5 else "bring more text"
        raise InputError(f"{where} no document to evaluate on among {train}; {mend}")
    if train == 0:
        raise InputError(f"{where} no document to train on among {heldout}; bring more text")

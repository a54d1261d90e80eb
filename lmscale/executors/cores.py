"""Cores of this machine: how many there are, and which process has which. Imports no framework."""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def neighbours(count: int) -> int:
    """How many processes of `count` cores a machine like this one holds: they share its memory."""
    return max(1, (os.cpu_count() or 1) // count)


def share(worker: int, workers: int, count: int | None = None) -> frozenset[int]:
    """The cores of one of several workers: `count` of them, or its share of all; more workers than cores share them
    all. Empty, for any core, where the system cannot pin (only Linux can).
    """
    if sys.platform != "linux":
        return frozenset()
    available = sorted(os.sched_getaffinity(0))
    each = count or len(available) // workers
    mine = available[worker * each : (worker + 1) * each]
    return frozenset(mine if mine and len(mine) == each else available)


def pin(process: int, to: frozenset[int]) -> None:
    """Gives a process (0: this one) these cores; with none it keeps those it has."""
    if to:
        os.sched_setaffinity(process, to)


@contextmanager
def claimed(count: int) -> Iterator[frozenset[int]]:
    """`count` cores that no other process has claimed, while the block runs; none, for any core, where so many are not
    left. Schedulers that hand out cores by number alone (Ray; Slurm without its affinity plugin) leave it to their
    tasks which ones they take.

    A claim is a lock on a file: it goes with the process, however that ends.
    """
    if sys.platform != "linux":
        yield frozenset()
        return
    available = sorted(os.sched_getaffinity(0))
    if len(available) <= count:  # the scheduler has seen to it
        yield frozenset(available)
        return
    with ExitStack() as stack:
        mine: set[int] = set()
        try:
            folder = Path(tempfile.gettempdir()) / f"lmscale-cores-{os.getuid()}"
            folder.mkdir(mode=0o700, exist_ok=True)
            for core in available:
                if len(mine) == count:
                    break
                file = stack.enter_context(open(folder / str(core), "w"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                mine.add(core)
        except OSError:  # a temporary folder that is not ours to write: all cores for all
            mine.clear()
        yield frozenset(mine) if len(mine) == count else frozenset()

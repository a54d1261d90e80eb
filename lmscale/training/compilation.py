"""Compiled programs: kept on disk for the processes to come, and counted."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from lmscale.executors.cores import cores
from lmscale.store.places import user_cache
from lmscale.watch.pacing import Ledger

VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # jax's own: where the cache lies, if the user says
Origin = Literal["compiled", "cached", "ready"]  # by XLA now; read from disk; used in this process before


def cache_folder() -> Path:
    """The folder of compiled programs for a process with these cores.

    XLA splits loops of a CPU program over the cores it sees while compiling, and jax's key for the program does not
    hold their number: a worker pinned to one core must not hand its programs to a process that has eight. (The key
    does hold the program, the versions of jaxlib and of the platform, XLA's flags and the features of the CPU.)
    """
    return Path(os.environ.get(VARIABLE) or user_cache() / "xla") / f"{cores()}-cores"


def use_cache(say: Callable[[str], None]) -> None:
    """Keeps every program on disk, however small. A folder that cannot be written is said, and done without.

    Workers share the folder: an entry is only ever added, and one found half-written is compiled again (zlib's
    checksum tells).
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        say(f"compiled programs are not kept: {str(folder)!r} cannot be written ({reason}); {VARIABLE} moves it")
        jax.config.update("jax_compilation_cache_dir", None)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)  # every size


@dataclass
class Programs:
    """Programs that this process has asked XLA for."""

    asked: int = 0
    loaded: int = 0  # of those, read from the cache on disk

    @property
    def compiled(self) -> int:
        return self.asked - self.loaded

    def since(self, before: Programs) -> Programs:
        return Programs(self.asked - before.asked, self.loaded - before.loaded)

    @property
    def origin(self) -> Origin:
        return "compiled" if self.compiled else "cached" if self.asked else "ready"


_counted = Programs()


def programs() -> Programs:
    """How many there were until now."""
    return Programs(_counted.asked, _counted.loaded)


@contextmanager
def compiling(ledger: Ledger, *, surely: bool = False) -> Iterator[None]:
    """Counts the time as compiling if a program was asked for in it (or `surely`: where it is only traced)."""
    before, began = programs(), time.monotonic()
    try:
        yield
    finally:
        if surely or programs().since(before).asked:
            ledger.compile += time.monotonic() - began


def _on_duration(event: str, duration_secs: float, **kwargs: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration":  # a load from the cache as well
        _counted.asked += 1


def _on_event(event: str, **kwargs: str | int) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _counted.loaded += 1


jax.monitoring.register_event_duration_secs_listener(_on_duration)
jax.monitoring.register_event_listener(_on_event)

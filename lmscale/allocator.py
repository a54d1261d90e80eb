"""One allocator setting that doubles a small model's speed on Linux CPUs. Called before jax is imported."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # malloc.h of glibc


def keep_memory() -> None:
    """Keeps freed memory in the process (glibc only; elsewhere nothing happens).

    XLA allocates its temporary buffer at every call, and glibc would map and unmap it each time: up to 60 % of a
    small step's time goes into page faults.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)

"""The last line of a process that ends at once."""

from __future__ import annotations

import os
import sys


def say_last(line: str) -> None:
    """Says a line on standard error, whole, after which nothing of this process appears there: the threads of a save
    that failed complain for pages, and would do so in the middle of it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with open(stderr, "wb") as stream:
        stream.write(f"lmscale: {line}\n".encode())

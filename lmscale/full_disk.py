"""A disk that does not take what is written: told from other failures. No framework."""

from __future__ import annotations

import errno
import re

REFUSALS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS)
WORDS = re.compile(r"No space left on device|File too large|Disk quota exceeded|Input/output error|Read-only file")


class DiskFailure(Exception):
    """The disk did not take what was to be saved; the message is the line for a person."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an exception says so, by Python's errors or in C++'s words."""
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return True
    return WORDS.search(str(error)) is not None

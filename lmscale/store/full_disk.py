"""A disk that does not take what is written: told from other failures. No framework."""

from __future__ import annotations

import errno
import os
import re

REFUSALS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS)
WORDS = re.compile(r"No space left on device|File too large|Disk quota exceeded|Input/output error|Read-only file")


class DiskFailure(Exception):
    """The disk did not take what was to be saved; the message is the line for a person."""


def is_full_disk(error: BaseException) -> bool:
    """Whether an exception says so, by Python's errors or in C++'s words."""
    return refusal(error) is not None


def refusal(error: BaseException) -> str | None:
    """The words of the disk in an exception, of which tensorstore's run to pages; None if it is none of the disk's."""
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return os.strerror(error.errno)
    found = WORDS.search(str(error))
    return found.group() if found else None

"""lmscale: plan, train, fit and answer scaling-law experiments on language models."""

import time

__version__ = "0.1.0"

STARTED = time.monotonic()  # of this process, but for the interpreter's own start

# Exit statuses of the command and of its workers; DISK as in sysexits.h, INTERRUPTED as a shell reports SIGINT
FAILURE, USER_ERROR, OUT_OF_MEMORY, DISK, INTERRUPTED = 1, 2, 3, 74, 130

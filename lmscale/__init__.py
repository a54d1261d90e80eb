"""lmscale: plan, train, fit and answer scaling-law experiments on language models."""

import time

__version__ = "0.1.0"

STARTED = time.monotonic()  # of this process, but for the interpreter's own start

# Exit statuses of the command and of its workers; DISK and GIVEN_UP as in sysexits.h (EX_IOERR, EX_TEMPFAIL),
# INTERRUPTED as a shell reports SIGINT
FAILURE, USER_ERROR, OUT_OF_MEMORY, DISK, GIVEN_UP, INTERRUPTED = 1, 2, 3, 74, 75, 130

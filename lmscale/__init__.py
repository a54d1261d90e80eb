"""lmscale: plan, train, fit and answer scaling-law experiments on language models."""

__version__ = "0.1.0"

# Exit statuses of the command and of its workers; INTERRUPTED as a shell reports SIGINT
FAILURE, USER_ERROR, INTERRUPTED = 1, 2, 130

"""How large a table may be. Checked before anything is held in memory, so that a hostile file is refused at once."""

from analysis.errors import InputError

MAX_BYTES = 400_000_000  # of a file, unpacked
MAX_JSON_BYTES = 64_000_000  # of a JSON array, which is held whole
MAX_EVENT_BYTES = 4_000_000_000  # of a folder of TensorBoard events, which are read one by one
MAX_ROW_BYTES = 1_000_000
MAX_COLUMNS = 10_000
MAX_CELLS = 60_000_000
MAX_DEPTH = 32  # objects inside objects
MAX_FILES = 100_000


def too_many(source: str, what: str) -> InputError:
    """The error for a file beyond a limit."""
    return InputError(f"runs: {source!r} has {what}, beyond what a table of runs holds; split it or check what it is")

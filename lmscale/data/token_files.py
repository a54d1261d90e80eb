"""The user's files that hold integers, not text: .npy arrays, and .bin files of bytes or little-endian integers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.document import Document, Reading
from lmscale.data.tokenizers import BYTES_OF_INTEGERS

CHUNK_TOKENS = 16 * 1024  # a stream is cut into documents of so many, so that a single file has pieces to hold out
SOURCE = "source"


def token_documents(path: Path, name: str, corpus: Corpus, reading: Reading) -> Iterator[Document]:
    """A file of integers. A stream [tokens] is cut into documents of CHUNK_TOKENS; of an array [documents, tokens] each
    row is one.

    Raises:
        InputError: the file is empty, cut or no array of integers; an integer is outside `corpus.vocab_size`.
    """
    values, size = _mapped(path, corpus), corpus.vocab_size or BYTES_OF_INTEGERS
    if values.size == 0:
        reading.bad("empty_file", f"corpus.files: {str(path)!r} is empty; remove it or narrow the pattern")
    rows = values if values.ndim == 2 else (values[i : i + CHUNK_TOKENS] for i in range(0, len(values), CHUNK_TOKENS))
    fields = {SOURCE: name} if SOURCE in corpus.slices else {}
    for index, row in enumerate(rows):
        reading.done += row.nbytes
        low, high = (int(row.min()), int(row.max())) if len(row) else (0, 0)
        if low < 0 or high >= size:
            raise InputError(
                f"corpus.vocab_size: {size} ids do not hold the integer {low if low < 0 else high} of {str(path)!r}; "
                "give their number with --corpus.vocab-size"
            )
        text = row.astype("<u4").tobytes()
        if reading.check_size(len(text), f"corpus.files: {str(path)!r} row {index + 1}"):
            yield Document(name=f"{name}#{index}", text=text, fields=fields)


def _mapped(path: Path, corpus: Corpus) -> NDArray:
    """The integers of a file [tokens] or [documents, tokens], mapped."""
    try:
        if path.suffix == ".npy":
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.stat().st_size == 0:
            values = np.zeros(0, corpus.token_type)
        else:
            values = np.memmap(path, np.dtype(corpus.token_type).newbyteorder("<"), mode="r")
    except (OSError, ValueError, EOFError) as error:
        why = " ".join(str(error).split())[:120]
        raise InputError(
            f"corpus.files: {str(path)!r} is no whole file of integers ({why}); --corpus.token-type says how .bin "
            "files hold them"
        ) from None
    if not np.issubdtype(values.dtype, np.integer) or values.ndim not in (1, 2):
        raise InputError(
            f"corpus.files: {str(path)!r} holds {values.dtype} of rank {values.ndim}; it must be integers of rank 1 "
            "or 2"
        )
    return values

"""Documents read back from prepared shards of bytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from analysis.errors import InputError
from lmscale.data.shards import Split
from lmscale.data.sources import Document

BYTES = "bytes"  # the vocabulary of lmscale.data.tasks: seqio's, in which byte b is token b + 3
FIRST_BYTE = 3


def shard_documents(split: Split, name: str) -> Iterator[Document]:
    """The documents of a split, called `name#0`, `name#1`, ... Raises InputError for a vocabulary other than bytes."""
    if split.vocabulary.name != BYTES:
        raise InputError(
            f"corpus.task: {split.vocabulary.name!r} is its vocabulary, and text is only read back from bytes; compare "
            "the texts themselves with lmscale.data.clean.contamination.find_overlap"
        )
    for number in range(split.documents):
        tokens = split.document(number)
        text = (tokens[tokens >= FIRST_BYTE] - FIRST_BYTE).astype(np.uint8).tobytes()
        yield Document(name=f"{name}#{number}", text=text)

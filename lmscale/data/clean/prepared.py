"""Documents read back from prepared shards of bytes, and written as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from gzip import GzipFile
from pathlib import Path

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.clean.contamination import Overlap
from lmscale.data.shards import Shards, Split
from lmscale.data.sources import Document
from lmscale.data.tokenizers import bytes_of
from lmscale.study.typed import check

BYTES = "bytes"  # the vocabulary of lmscale.data.tasks: seqio's, in which byte b is token b + 3
ENDINGS = (".jsonl", ".jsonl.gz")


def shard_documents(split: Split, name: str) -> Iterator[Document]:
    """The documents of a split, called `name#0`, `name#1`, ... Raises InputError for a vocabulary other than bytes."""
    if split.vocabulary.name != BYTES:
        raise InputError(
            f"corpus.task: {split.vocabulary.name!r} is its vocabulary, and text is only read back from bytes; compare "
            "the texts themselves with lmscale.data.clean.contamination.find_overlap"
        )
    for number in range(split.documents):
        yield Document(name=f"{name}#{number}", text=bytes_of(split.document(number)))


@dataclass(frozen=True, kw_only=True)
class Written:
    """Training documents that were written, and what was left out."""

    kept: int
    dropped: int
    dropped_bytes: int


def check_writable(path: Path, corpus: Corpus) -> Path:
    """Raises InputError for a file that `write_without` would not write."""
    check(path.name.endswith(ENDINGS), "write", str(path), f"must end in {' or '.join(ENDINGS)}, as it is JSON lines")
    check(not path.exists(), "write", str(path), "is there already; name another file")
    check(path.parent.is_dir(), "write", str(path), "would lie in a folder that is not there; make it")
    check(corpus.facts is None, "write", str(path), "would hold the planted facts as text; drop corpus.facts")
    return path


def write_without(shards: Shards, overlaps: Sequence[Overlap], corpus: Corpus, path: Path) -> Written:
    """The documents of a prepared text as JSON lines, but for the training documents that overlap.

    A document's side follows from its content, so a corpus of this file holds out the same documents. Slices are fields
    of each line.

    Raises:
        InputError: a document that is not UTF-8.
    """
    sides = {"train": shards.train, "heldout": shards.heldout}
    dropped = set[int]().union(*(overlap.training.tolist() for overlap in overlaps))
    lost = sum(int(shards.train.bytes[number]) for number in dropped)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as raw, GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw as stream:
        for side, split in sides.items():
            fields = {field: (shards.slices[field], split.slice(field)) for field in corpus.slices}
            for number, document in enumerate(shard_documents(split, side)):
                if side == "train" and number in dropped:
                    continue
                try:
                    text = document.text.decode()
                except UnicodeDecodeError:
                    raise InputError(f"write: {document.name} is not UTF-8, as JSON lines must be; mend it") from None
                row = {field: values[codes[number]] for field, (values, codes) in fields.items()}
                stream.write(json.dumps({**row, corpus.text_field: text}, ensure_ascii=False).encode() + b"\n")
    partial.replace(path)
    return Written(kept=shards.train.documents - len(dropped), dropped=len(dropped), dropped_bytes=lost)

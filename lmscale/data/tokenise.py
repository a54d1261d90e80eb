"""Chunks of documents of lmscale's own sources, and the piece that each becomes. No framework."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from analysis.errors import InputError
from lmscale.data.document import Document
from lmscale.data.pieces import ENDING, Counts, Side, heldout_share, write_piece
from lmscale.data.shards import FEATURE
from lmscale.data.tokenizers import Tokenizer, TokenizerChoice

CHUNK_BYTES = 1 << 22  # of text in a piece: a second or so of SentencePiece, which is what a kill costs a process
CHUNK_DOCUMENTS = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Documents that follow each other in their source, and the piece that they become."""

    path: Path
    texts: Sequence[bytes]
    fields: dict[str, list[str]]  # of each field a value a document


def chunks(documents: Iterable[Document], fields: Sequence[str], folder: Path) -> Iterator[Chunk]:
    """The documents in order. A piece is named by its place and its content, so that no other text is taken for it."""
    pending: list[Document] = []
    size = index = 0
    for document in documents:
        pending.append(document)
        size += len(document.text)
        if size >= CHUNK_BYTES or len(pending) == CHUNK_DOCUMENTS:
            yield _chunk(pending, fields, folder, index)
            pending, size, index = [], 0, index + 1
    if pending:
        yield _chunk(pending, fields, folder, index)


def _chunk(documents: Sequence[Document], fields: Sequence[str], folder: Path, index: int) -> Chunk:
    digest = hashlib.sha256()
    values = {field: [document.fields[field] for document in documents] for field in fields}
    for document in documents:
        digest.update(b"%d\n" % len(document.text))
        digest.update(document.text)
    digest.update(repr(values).encode())
    path = folder / f"{index:06d}-{digest.hexdigest()[:32]}{ENDING}"
    return Chunk(path=path, texts=[document.text for document in documents], fields=values)


@dataclass(frozen=True, kw_only=True)
class Tokenise:
    """Makes the pieces of chunks; `make` builds one in the process that is to use it."""

    tokenizer: Tokenizer
    heldout: float

    @classmethod
    def make(cls, choice: TokenizerChoice, digest: str, heldout: float) -> Tokenise:
        """Raises InputError if the vocabulary is not the one with that digest: its file was changed meanwhile."""
        tokenizer = choice.make()
        if tokenizer.vocabulary.digest != digest:
            raise InputError(
                f"corpus.vocabulary: {choice.model!r} changed while the text was prepared; run the command again"
            )
        return cls(tokenizer=tokenizer, heldout=heldout)

    @classmethod
    def maker(cls, choice: TokenizerChoice, digest: str, heldout: float) -> partial[Tokenise]:
        """`make` with its arguments, as another process can be given it."""
        return partial(cls.make, choice, digest, heldout)

    def __call__(self, chunk: Chunk) -> Counts:
        shares = [heldout_share(text) for text in chunk.texts]
        sides = {}
        for split, held in (("train", False), ("heldout", True)):
            chosen = [index for index, share in enumerate(shares) if (share < self.heldout) == held]
            texts = [chunk.texts[index] for index in chosen]
            tokens, lengths = self.tokenizer.encode(texts)
            sizes = np.fromiter(map(len, texts) if self.tokenizer.text else (0 for _ in texts), np.int64, len(texts))
            sides[split] = Side(
                tokens={FEATURE: tokens.astype(self.tokenizer.vocabulary.dtype, copy=False)},
                lengths={FEATURE: lengths},
                text_bytes={FEATURE: sizes},
                slices={field: [values[index] for index in chosen] for field, values in chunk.fields.items()},
            )
        counts = Counts(
            documents=len(shares),
            text_bytes=sum(int(side.text_bytes[FEATURE].sum()) for side in sides.values()),
            dropped=0,
            lowest_share=min(shares),
        )
        write_piece(chunk.path, sides, counts)
        return counts

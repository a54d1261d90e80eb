"""The documents on which a vocabulary is trained: all, or as many as memory is given for, whatever their order."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator

SAMPLE_BYTES = 50_000_000
SAMPLE_DOCUMENTS = 500_000
SENTENCE_LETTERS = 4096  # what SentencePiece is given at a time: documents are cut there, before a line end


class Sample:
    """Keeps the documents of lowest hash, as long as all those up to them fit: a function of the set of documents.

    The hash is of their content, and independent of the one by which documents are held out.
    """

    def __init__(self, *, most_bytes: int = SAMPLE_BYTES, most_documents: int = SAMPLE_DOCUMENTS) -> None:
        self._most_bytes, self._most_documents = most_bytes, most_documents
        self._heap: list[tuple[int, bytes]] = []  # the highest hash first
        self._bound = 1 << 64  # of the lowest hash that did not fit
        self.bytes = self.offered_documents = self.offered_bytes = 0

    def add(self, text: bytes) -> None:
        self.offered_documents += 1
        self.offered_bytes += len(text)
        key = int.from_bytes(hashlib.sha256(text).digest()[8:16], "big")
        if key >= self._bound:
            return
        heapq.heappush(self._heap, (-key, text))
        self.bytes += len(text)
        while self.bytes > self._most_bytes or len(self._heap) > self._most_documents:
            highest, out = heapq.heappop(self._heap)
            self.bytes -= len(out)
            self._bound = -highest

    def documents(self) -> list[bytes]:
        """In the order of their hashes."""
        return [text for _, text in sorted(self._heap, key=lambda each: (-each[0], each[1]))]


def sentences(documents: Iterable[bytes]) -> Iterator[str]:
    """Documents cut into what SentencePiece calls sentences, none longer than SENTENCE_LETTERS.

    Where there is one, a line end is cut at, and begins the next: SentencePiece drops those at the end of a sentence.
    """
    for document in documents:
        text, start = document.decode(errors="replace"), 0
        while start < len(text):
            end = start + SENTENCE_LETTERS
            if end < len(text) and (cut := text.rfind("\n", start + 1, end)) > 0:
                end = cut
            yield text[start:end]
            start = end

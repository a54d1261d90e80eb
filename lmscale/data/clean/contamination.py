"""What training documents share with evaluation documents: n-gram overlap, as in Brown et al. 2020, App. C.

A training document and an evaluation document overlap when a gram stands in both: 13 words (lower case, without
punctuation), or 50 bytes as they are. Grams of more than 10 training documents are common phrases and do not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmscale.data.clean.grams import GramIndex
from lmscale.data.clean.settings import Contamination
from lmscale.data.sources import Document

BLOCK_BYTES = 1 << 20  # of training text searched at a time: arrays of 8 bytes for each fit caches
EXAMPLES = 3  # shown of each set
EXCERPT = 200  # characters of a gram that is shown
PUNCTUATION = re.compile(r"[^\w\s]+")
ASCII_PUNCTUATION = bytes(code for code in range(128) if PUNCTUATION.match(chr(code)))
# Lower case, and a space for what is white to text and not to bytes
ASCII_LOWER = bytes(range(256)).lower().translate(bytes.maketrans(b"\x1c\x1d\x1e\x1f", b"    "))


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A gram that an evaluation document shares with a training document."""

    evaluation: str
    training: str
    text: str


@dataclass(frozen=True, kw_only=True)
class SetOverlap:
    """One evaluation set. A document shorter than a gram cannot be told: `too_short` counts those."""

    documents: int
    too_short: int
    contaminated: tuple[str, ...]  # names of its documents that share a gram with training text
    training_documents: int  # that share a gram with it
    examples: tuple[Shared, ...]

    @property
    def share(self) -> float:
        """Of its documents that are long enough to tell."""
        return len(self.contaminated) / max(1, self.documents - self.too_short)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What was found. `training` are the numbers of the training documents that overlap with any set, in order."""

    settings: Contamination
    sets: dict[str, SetOverlap]
    training: NDArray[np.int64]
    training_documents: int
    training_bytes: int
    common_grams: int  # in more training documents than `settings.common_documents`: ignored

    def as_json(self) -> dict[str, Any]:
        return {
            "unit": self.settings.unit,
            "gram": self.settings.gram,
            "common_documents": self.settings.common_documents,
            "common_grams": self.common_grams,
            "training_documents": self.training_documents,
            "training_bytes": self.training_bytes,
            "training_overlapping": len(self.training),
            "sets": {
                name: {**asdict(found), "contaminated": list(found.contaminated), "share": found.share}
                for name, found in self.sets.items()
            },
        }

    def as_text(self) -> str:
        """A table, a line a set, with an example below each that has one."""
        training = max(1, self.training_documents)
        lines = [f"{self.settings.gram} {self.settings.unit}; {self.common_grams:,} grams of more than "
                 f"{self.settings.common_documents} training documents are ignored"]  # fmt: skip
        for name, found in self.sets.items():
            short = f" ({found.too_short:,} too short to tell)" if found.too_short else ""
            lines.append(
                f"  {name}: {len(found.contaminated):,} of {found.documents - found.too_short:,} documents{short}, "
                f"{found.share:.1%}, share text with {found.training_documents:,} of {self.training_documents:,} "
                f"training documents, {found.training_documents / training:.2%}"
            )
            for example in found.examples[:1]:
                lines.append(f"    {example.evaluation} and {example.training}: {example.text!r}")
        return "\n".join(lines)


def find_overlap(
    training: Iterable[Document], sets: Mapping[str, Iterable[Document]], settings: Contamination
) -> Overlap:
    """Reads the sets into memory (their text, and some 50 bytes a gram), and training documents through once.

    Every shared gram is found and compared with the text itself, so that none is reported that is not there. Memory for
    training text: a block of 1 MB, and 16 bytes for each of the first `common_documents` documents with a gram.
    """
    reader = _Reader(settings.unit)
    names, owners, texts = [], [], []
    for number, documents in enumerate(sets.values()):
        for document in documents:
            names.append(document.name)
            owners.append(number)
            texts.append(reader.learn(document.text))
    index = GramIndex(texts, settings.gram)
    counts = np.zeros(index.grams, np.int64)  # training documents that hold each gram
    pairs: list[NDArray] = []  # training documents and their grams
    called: dict[int, str] = {}  # the training documents of pairs
    documents = size = 0
    for block in _blocks(training):
        found = index.find([reader.read(document.text) for document in block])
        counts += np.bincount(found.grams, minlength=index.grams)
        rare = counts[found.grams] <= settings.common_documents
        pairs.append(np.stack([found.documents + documents, found.grams])[:, rare])
        called.update((documents + each, block[each].name) for each in np.unique(found.documents[rare]).tolist())
        documents += len(block)
        size += sum(len(document.text) for document in block)
    held = np.concatenate([np.zeros((2, 0), np.int64), *pairs], axis=1)
    common = counts > settings.common_documents
    held = held[:, ~common[held[1]]]
    set_of = np.array(owners, np.int64)
    short = np.array([len(text) < settings.gram for text in texts], bool)
    results = {}
    for number, name in enumerate(sets):
        mine = set_of[index.document_of_pair] == number
        ours = np.zeros(index.grams, bool)
        ours[index.gram_of_pair[mine]] = True
        shared = held[:, ours[held[1]]]
        hit = np.zeros(index.grams, bool)
        hit[shared[1]] = True
        contaminated = np.unique(index.document_of_pair[mine & hit[index.gram_of_pair]])
        results[name] = SetOverlap(
            documents=int((set_of == number).sum()),
            too_short=int(short[set_of == number].sum()),
            contaminated=tuple(names[each] for each in contaminated.tolist()),
            training_documents=len(np.unique(shared[0])),
            examples=tuple(_examples(contaminated, mine, shared, index, reader, names, called)),
        )
    return Overlap(
        settings=settings,
        sets=results,
        training=np.unique(held[0]),
        training_documents=documents,
        training_bytes=size,
        common_grams=int(common.sum()),
    )


class _Reader:
    """Texts as symbols: bytes, or numbers of the words that evaluation documents hold (0: none of them does)."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._numbers: dict[bytes, int] = {}
        self._words: list[bytes] = [b"?"]

    def learn(self, text: bytes) -> NDArray:
        """An evaluation document's, whose words are given numbers."""
        if self._unit == "words":
            for word in words(text):
                if word not in self._numbers:
                    self._numbers[word] = len(self._words)
                    self._words.append(word)
        return self.read(text)

    def read(self, text: bytes) -> NDArray:
        if self._unit == "bytes":
            return np.frombuffer(text, np.uint8)
        found = words(text)
        return np.fromiter(map(self._numbers.get, found, repeat(0)), np.int32, len(found))

    def text(self, symbols: NDArray) -> str:
        """A gram for a reader."""
        if self._unit == "bytes":
            return symbols.astype(np.uint8).tobytes().decode(errors="replace")[:EXCERPT]
        return b" ".join(self._words[number] for number in symbols.tolist()).decode()[:EXCERPT]


def words(text: bytes) -> list[bytes]:
    """Lower case, what stands between white space, without punctuation (Brown et al. 2020, App. C)."""
    if text.isascii():
        return text.translate(ASCII_LOWER, ASCII_PUNCTUATION).split()
    return [word.encode() for word in PUNCTUATION.sub("", text.decode(errors="replace").lower()).split()]


def _blocks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    block: list[Document] = []
    size = 0
    for document in documents:
        block.append(document)
        size += len(document.text)
        if size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _examples(
    contaminated: NDArray,
    mine: NDArray,
    shared: NDArray,
    index: GramIndex,
    reader: _Reader,
    names: list[str],
    called: Mapping[int, str],
) -> Iterator[Shared]:
    for document in contaminated[:EXAMPLES].tolist():
        grams = index.gram_of_pair[mine & (index.document_of_pair == document)]
        training, gram = shared[:, np.isin(shared[1], grams)][:, 0].tolist()
        yield Shared(evaluation=names[document], training=called[training], text=reader.text(index.gram(gram)))

"""Duplicates of documents and of spans of three sentences, in two phases.

`Fingerprinter` looks at one document, in any process. `Duplicates` decides, in one place and in the order of the
documents: the earliest stays, so that the outcome does not depend on how the first phase was shared out.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from lmscale.data.clean.near import NearDuplicates, Shingler, Shingles
from lmscale.data.clean.settings import Cleaning, Step
from lmscale.data.clean.verdict import Verdict, dropped, kept
from lmscale.data.clean.words import WordNumbers, gram_hashes, sentences

DIGEST_BYTES = 16
SPAN_SENTENCES = 3  # Raffel et al. 2020, Sec. 2.2
ORDERED: tuple[Step, ...] = ("exact", "near", "spans")  # the steps that must see all documents


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What the steps asked for need of a document."""

    digest: bytes | None = None
    shingles: Shingles | None = None
    sentences: list[tuple[int, int]] | None = None  # where each starts and ends
    spans: NDArray[np.uint64] | None = None  # a hash of every three sentences that follow each other


class Fingerprinter:
    """Raises InputError where a library is missing."""

    def __init__(self, cleaning: Cleaning) -> None:
        self._steps = cleaning.steps
        self._shingler = Shingler(cleaning.near) if "near" in cleaning.steps else None
        self._numbers = WordNumbers()

    def __call__(self, text: str) -> Fingerprint:
        digest, shingles, bounds, spans = None, None, None, None
        if "exact" in self._steps:
            digest = blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()
        if self._shingler is not None:
            shingles = self._shingler(text)
        if "spans" in self._steps:
            bounds = sentences(text)
            spans = self._spans(text, bounds)
        return Fingerprint(digest=digest, shingles=shingles, sentences=bounds, spans=spans)

    def _spans(self, text: str, bounds: list[tuple[int, int]]) -> NDArray[np.uint64]:
        if len(bounds) < SPAN_SENTENCES:
            return np.zeros(0, np.uint64)
        each = [self._numbers[" ".join(text[start:end].lower().split())] for start, end in bounds]
        return gram_hashes(np.array(each, np.uint64), SPAN_SENTENCES)


class Duplicates:
    """Memory a kept document: a digest of 16 bytes, what NearDuplicates holds, and 8 bytes a sentence for spans.

    Python's sets make some 90 bytes of the 16, and 80 of the 8 (tests/bench/clean.py measures all three).
    """

    def __init__(self, cleaning: Cleaning) -> None:
        self._seen: set[bytes] = set()
        self._near = NearDuplicates(cleaning.near) if "near" in cleaning.steps else None
        self._spans: set[int] = set()

    def judge(self, step: Step, text: str, fingerprint: Fingerprint) -> Verdict:
        """One of the steps ORDERED, for the next document."""
        match step:
            case "exact":
                assert fingerprint.digest is not None
                if fingerprint.digest in self._seen:
                    return dropped("exact", fingerprint.digest.hex())
                self._seen.add(fingerprint.digest)
                return kept(text)
            case "near":
                assert self._near is not None
                assert fingerprint.shingles is not None
                similarity = self._near.add(fingerprint.shingles)
                return dropped("jaccard_min", similarity) if similarity else kept(text)
            case "spans":
                return self._cut(text, fingerprint)
            case _:
                raise ValueError(f"{step} looks at a document alone")

    def _cut(self, text: str, fingerprint: Fingerprint) -> Verdict:
        """The text without the sentences of spans that were there before, in it or in an earlier document."""
        assert fingerprint.sentences is not None
        assert fingerprint.spans is not None
        repeated = np.zeros(len(fingerprint.sentences), bool)
        for place, span in enumerate(fingerprint.spans.tolist()):
            if span in self._spans:
                repeated[place : place + SPAN_SENTENCES] = True
            self._spans.add(span)
        if not repeated.any():
            return kept(text)
        if repeated.all():
            return dropped("spans", f"all of {len(repeated)} sentences")
        pieces = zip(fingerprint.sentences, repeated, strict=True)
        left = "".join(text[start:end] for (start, end), again in pieces if not again)
        return kept(left, {"sentences": int(repeated.sum())})

    def close(self) -> None:
        if self._near is not None:
            self._near.close()

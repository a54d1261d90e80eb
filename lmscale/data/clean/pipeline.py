"""Cleaning as one pass over documents: in this process, or shared out over several with the same outcome."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace

from analysis.errors import InputError
from lmscale.data.clean.duplicates import ORDERED, Duplicates, Fingerprint, Fingerprinter
from lmscale.data.clean.encoding import BrokenText, decode
from lmscale.data.clean.language import OtherLanguage
from lmscale.data.clean.ledger import Count, Ledger
from lmscale.data.clean.lines import C4Lines
from lmscale.data.clean.personal import PersonalData
from lmscale.data.clean.quality import GopherQuality
from lmscale.data.clean.repetition import GopherRepetition
from lmscale.data.clean.settings import Cleaning, Encoding, Step
from lmscale.data.clean.toxicity import ToxicText
from lmscale.data.clean.verdict import Rules, Verdict, dropped
from lmscale.data.sources import Document

CHUNK_DOCUMENTS = 256
CHUNK_BYTES = 1 << 20  # or as many documents as hold this much text; one document alone may hold more
CHUNKS_AHEAD = 2  # of each process: what is read before it is needed
READ = "text"  # the step before all others: documents without text, and text that cannot be decoded
STRICT = Encoding()


def clean(documents: Iterable[Document], cleaning: Cleaning, ledger: Ledger, processes: int = 1) -> Iterator[Document]:
    """The documents that are left, in their order, edited where a step edits; `ledger` is filled as they come.

    Streams: it holds a few MB of text a process, and of every document what `Duplicates` says. Several `processes`
    share the work on single documents; outcome and ledger do not depend on their number.

    Raises:
        InputError: a word list, hook, language or library that cannot be had; text that is not UTF-8 where the step
            `encoding` is not taken.
        ChildProcessError: a process ended by itself, such as by a signal.
    """
    for step in (READ, *cleaning.ordered):
        ledger.steps.setdefault(step, Count())  # also of steps that no document reaches
    duplicates = Duplicates(cleaning)
    try:
        for chunk, (part, results) in _examine(_chunks(documents), cleaning, processes):
            ledger.merge(part)
            for document, found in zip(chunk, results, strict=True):
                if found is None:
                    continue
                raw = document.text if found.text is None else found.text
                left = _decide(document.name, raw, found.fingerprint, cleaning, duplicates, ledger)
                if left is not None:
                    yield document if left is document.text else replace(document, text=left)
    finally:
        duplicates.close()


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A document that passed the steps that look at it alone. `text` is None where they left it as it was."""

    text: bytes | None
    fingerprint: Fingerprint


Part = tuple[Ledger, list[Examined | None]]


class Examiner:
    """The steps that look at one document alone. Raises InputError where one of them cannot be had."""

    def __init__(self, cleaning: Cleaning) -> None:
        self.cleaning = cleaning
        self._steps = [(step, rules_of(step, cleaning)) for step in cleaning.ordered if step not in ORDERED]
        self._fingerprint = Fingerprinter(cleaning)

    def __call__(self, documents: Iterable[tuple[str, bytes]]) -> Part:
        """What is left of named texts (None: dropped), and its ledger."""
        ledger = Ledger()
        return ledger, [self._examine(name, raw, ledger) for name, raw in documents]

    def _examine(self, name: str, raw: bytes, ledger: Ledger) -> Examined | None:
        ledger.enter(READ, len(raw))
        verdict = self._read(name, raw)
        if verdict.text is None:
            ledger.drop(READ, verdict.rule, len(raw), name, raw[:400].decode(errors="replace"), verdict.value)
            return None
        text, encoded = verdict.text, raw if not verdict.edits else verdict.text.encode()
        ledger.leave(READ, len(encoded), verdict.edits)
        for step, rules in self._steps:
            ledger.enter(step, len(encoded))
            verdict = rules(name, text)
            if verdict.text is not None and (not verdict.text or verdict.text.isspace()):
                verdict = dropped("empty", "nothing is left")
            if verdict.text is None:
                ledger.drop(step, verdict.rule, len(encoded), name, text[:400], verdict.value)
                return None
            if verdict.text != text:
                text, encoded = verdict.text, verdict.text.encode()
            ledger.leave(step, len(encoded), verdict.edits)
        return Examined(text=None if encoded is raw else encoded, fingerprint=self._fingerprint(text))

    def _read(self, name: str, raw: bytes) -> Verdict:
        if not raw or raw.isspace():
            return dropped("empty", len(raw))
        if "encoding" in self.cleaning.steps:
            return decode(raw, self.cleaning.encoding)
        if (verdict := decode(raw, STRICT)).text is None:
            raise InputError(
                f"corpus.cleaning.steps: document {name!r} is not UTF-8 ({verdict.value}); add the step encoding, or "
                "convert the text"
            )
        return verdict


def rules_of(step: Step, cleaning: Cleaning) -> Rules:
    """A step that looks at one document alone. Raises InputError where it cannot be had."""
    match step:
        case "encoding":
            return BrokenText(cleaning.encoding)
        case "language":
            return OtherLanguage(cleaning.language)
        case "lines":
            return C4Lines(cleaning.lines)
        case "quality":
            return GopherQuality(cleaning.quality)
        case "repetition":
            return GopherRepetition(cleaning.repetition)
        case "toxicity":
            return ToxicText(cleaning.toxicity)
        case "personal":
            return PersonalData(cleaning.personal)
        case _:
            raise ValueError(f"{step} must see all documents")


def _decide(
    name: str, raw: bytes, fingerprint: Fingerprint, cleaning: Cleaning, duplicates: Duplicates, ledger: Ledger
) -> bytes | None:
    """The steps that must see all documents, for the next one: its text, or None where it is dropped."""
    for step in ORDERED:
        if step not in cleaning.steps:
            continue
        ledger.enter(step, len(raw))
        # spans, which alone looks at the text, is the last
        verdict = duplicates.judge(step, raw.decode() if step == "spans" else "", fingerprint)
        if verdict.text is None:
            ledger.drop(step, verdict.rule, len(raw), name, raw[:400].decode(errors="ignore"), verdict.value)
            return None
        if verdict.edits:
            raw = verdict.text.encode()
        ledger.leave(step, len(raw), verdict.edits)
    return raw


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    size = 0
    for document in documents:
        chunk.append(document)
        size += len(document.text)
        if len(chunk) >= CHUNK_DOCUMENTS or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _examine(
    chunks: Iterator[list[Document]], cleaning: Cleaning, processes: int
) -> Iterator[tuple[list[Document], Part]]:
    """Every chunk with what its documents came to, in order."""
    examiner = Examiner(cleaning)  # here too, so that what cannot be had is said before anything is started
    if processes == 1:
        for chunk in chunks:
            yield chunk, examiner([(document.name, document.text) for document in chunk])
        return
    # spawn: the process that prepares text has TensorFlow's threads, which a fork would break
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(cleaning,))
    try:
        under_way: deque[tuple[list[Document], Future[Part]]] = deque()
        for chunk in chunks:
            # Names and texts alone: what else a document carries stays here
            under_way.append((chunk, pool.submit(_work, [(document.name, document.text) for document in chunk])))
            if len(under_way) > processes * CHUNKS_AHEAD:
                first, future = under_way.popleft()
                yield first, future.result()
        while under_way:
            first, future = under_way.popleft()
            yield first, future.result()
    except BrokenProcessPool:
        raise ChildProcessError("a process that cleans text ended by itself; run the command again") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_examiner: Examiner | None = None  # of a process of the pool


def _start(cleaning: Cleaning) -> None:
    global _examiner
    _examiner = Examiner(cleaning)


def _work(documents: list[tuple[str, bytes]]) -> Part:
    assert _examiner is not None
    return _examiner(documents)

"""Trains the vocabulary of a corpus on its training documents, once, into a folder beside the prepared text."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from lmscale.config import Corpus
from lmscale.data import sources
from lmscale.data.clean.ledger import Ledger
from lmscale.data.document import Reading
from lmscale.data.pieces import heldout_share
from lmscale.data.preparation import PROGRESS_SECONDS, Echo, lock, versions
from lmscale.data.prepare_own import changed, cleaned
from lmscale.data.tokenizer_training import COVERAGE, SETTINGS, train_model
from lmscale.data.training_sample import Sample, sentences
from lmscale.data.vocabulary_kind import VocabularyKind
from lmscale.data.vocabulary_store import MADE, MODEL, vocabulary_folder
from lmscale.store.files import sync_folder

TELL_SECONDS = 10.0  # between lines while SentencePiece trains


def train_vocabulary(corpus: Corpus, root: Path, echo: Echo, processes: int) -> Path:
    """Makes the folder of `lmscale.data.prepared.vocabulary_folder`, if it is not there.

    Held-out documents, by the hash of their content, are not looked at. Two processes take turns; one that is killed
    leaves no folder.

    Raises:
        InputError: a document that is bad, a text that changed meanwhile, no training text, pieces that cannot be.
    """
    kind, survey = corpus.trained, sources.survey(corpus)
    assert kind is not None
    folder = vocabulary_folder(corpus, survey, root)
    with lock(folder, echo):
        if folder.is_dir():
            return folder
        sample = _read(corpus, survey, echo, processes)
        documents = sample.documents()
        told = f"{len(documents)} documents, {sample.bytes / 1e6:.1f} MB"
        if len(documents) < sample.offered_documents:
            told += f", of {sample.offered_documents} and {sample.offered_bytes / 1e6:.1f} MB"
        echo(f"prepare {corpus.name}: training {kind} on {told}")
        model = _train(kind, documents, lambda line: echo(f"prepare {corpus.name}: training {kind}, {line}"))
        about = {
            "vocabulary": str(kind),
            "sha256": hashlib.sha256(model).hexdigest(),
            "corpus": corpus.name,
            "fingerprint": survey.fingerprint,
            "heldout": corpus.heldout,
            "training": {"documents": sample.offered_documents, "bytes": sample.offered_bytes},
            "sample": {"documents": len(documents), "bytes": sample.bytes},
            "settings": {**SETTINGS, "character_coverage_of_unigram_and_bpe": COVERAGE},
            "versions": versions(["sentencepiece"]),
        }
        _write(folder, model, about)
    return folder


def _read(corpus: Corpus, survey: sources.Survey, echo: Echo, processes: int) -> Sample:
    sample, shown = Sample(), time.monotonic()
    reading = Reading(on_bad=corpus.on_bad, total=survey.size)
    echo(f"prepare {corpus.name}: reading the training documents, on which {corpus.trained} is trained")
    for document in cleaned(corpus, reading, Ledger(), processes):
        if heldout_share(document.text) >= corpus.heldout:
            sample.add(document.text)
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            echo(f"prepare {corpus.name}: {sample.offered_documents} documents, {sample.offered_bytes / 1e6:.1f} MB")
    if sources.survey(corpus).fingerprint != survey.fingerprint and survey.fingerprint is not None:
        raise changed(corpus)
    return sample


def _train(kind: VocabularyKind, documents: list[bytes], echo: Echo) -> bytes:
    """`train_model` in a thread, for SentencePiece says nothing and cannot be interrupted while it trains."""
    made: list[bytes] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            made.append(train_model(kind, sentences(documents)))
        except Exception as error:  # raised below, in the thread that asked
            failed.append(error)

    thread, began = threading.Thread(target=run, daemon=True), time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(TELL_SECONDS)
        if thread.is_alive():
            echo(f"{time.monotonic() - began:.0f} s")
    if failed:
        raise failed[0]
    echo(f"done in {time.monotonic() - began:.1f} s")
    return made[0]


def _write(folder: Path, model: bytes, about: dict[str, Any]) -> None:
    temporary = folder.with_name(f".{folder.name}.tmp-{uuid.uuid4().hex[:12]}")
    temporary.mkdir()
    try:
        for name, content in ((MODEL, model), (MADE, json.dumps(about, indent=1, allow_nan=False).encode() + b"\n")):
            with (temporary / name).open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        sync_folder(temporary)
        os.rename(temporary, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""Prepares one of lmscale's own sources: one process reads, several tokenise, the pieces are joined. No framework."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources
from lmscale.data.clean.ledger import Ledger
from lmscale.data.crew import work
from lmscale.data.document import Document, Reading
from lmscale.data.folder_names import SOURCE
from lmscale.data.pieces import ENDING, is_whole
from lmscale.data.preparation import Echo, Progress, join, pieces_folder, versions
from lmscale.data.prepared import Place, earlier_vocabulary
from lmscale.data.shards import FEATURE
from lmscale.data.text_files import CHUNK_BYTES as CUT_BYTES
from lmscale.data.tokenise import CHUNK_BYTES, Chunk, Tokenise, chunks
from lmscale.data.vocabulary_store import how_trained

ALONE_BYTES = 4 * CHUNK_BYTES  # below this, starting further processes takes longer than they save


def prepare_own(place: Place, echo: Echo, processes: int) -> Path:
    """Writes the prepared folder of `place`, whose lock the caller holds.

    Raises:
        InputError: a document that is bad; a text or vocabulary that changed meanwhile; no document on one side.
    """
    corpus, survey, choice = place.corpus, place.survey, place.choice
    assert survey is not None
    assert choice is not None
    vocabularies = {FEATURE: choice.make().vocabulary}
    digest = vocabularies[FEATURE].digest
    if (earlier := earlier_vocabulary(place, digest)) is not None:
        echo(f"prepare {corpus.name}: the vocabulary is not that of {earlier}, so the text is prepared again")
    reading = Reading(on_bad=corpus.on_bad, total=survey.size)
    ledger = Ledger()  # of cleaning
    progress = Progress(corpus.name, echo, lambda: reading.done / reading.total if reading.total else 0.0)
    with pieces_folder(place.folder, vocabularies) as pieces:
        kept = {path for path in pieces.glob(f"*{ENDING}") if is_whole(path)}
        order: list[Path] = []

        def missing() -> Iterator[Chunk]:
            first = True
            for chunk in chunks(cleaned(corpus, reading, ledger, processes, place.source), corpus.slices, pieces):
                order.append(chunk.path)
                if chunk.path not in kept:
                    if first:
                        progress.restart()
                    first = False
                    yield chunk

        alone = 0 < survey.size <= ALONE_BYTES
        for counts in work(missing(), Tokenise.maker(choice, digest, corpus.heldout), 1 if alone else processes):
            progress.add(counts)
        echo(progress.line(left=False) + ", done")
        if found := sum(path in kept for path in order):
            echo(f"prepare {corpus.name}: {found} of {len(order)} pieces were there from an earlier preparation")
        for reason, count in reading.left_out.items():
            echo(f"prepare {corpus.name}: left out {count} x {reason}; {reading.examples.get(reason, 'empty')}")
        if corpus.cleaning is not None:
            for line in ledger.as_text().splitlines():
                echo(line)
        if corpus.files and choice.integers is None:
            echo(f"prepare files: a text file longer than {CUT_BYTES} bytes is cut into documents at line ends")
        return join(place, vocabularies, order, lambda dropped: _about(place, reading, ledger, dropped))


def changed(corpus: Corpus) -> InputError:
    return InputError(f"corpus: the text of {corpus.name!r} changed while it was prepared; run the command again")


def cleaned(
    corpus: Corpus, reading: Reading, ledger: Ledger, processes: int, source: str | None = None
) -> Iterator[Document]:
    """The documents of one of lmscale's own sources as they are tokenised. `source` replaces the field of that name."""
    documents = sources.documents(corpus, reading)
    if corpus.cleaning is not None:
        from lmscale.data.clean.pipeline import clean

        documents = clean(documents, corpus.cleaning, ledger, processes)
    for document in documents:
        if source is not None and SOURCE in document.fields:
            document = replace(document, fields={**document.fields, SOURCE: source})
        yield document


def _about(place: Place, reading: Reading, ledger: Ledger, dropped: int) -> dict[str, Any]:
    corpus, survey, choice = place.corpus, place.survey, place.choice
    assert survey is not None
    assert choice is not None
    now = sources.survey(corpus).fingerprint
    if place.fingerprint is not None and now != place.fingerprint:
        raise changed(corpus)
    used = ["numpy", *(["sentencepiece"] if choice.model is not None else [])]
    return {
        "corpus": corpus.name,
        "task": corpus.name,
        "heldout": corpus.heldout,
        "entropy_nats": sources.entropy_nats(corpus),
        "task_bytes": dict(sorted(reading.task_bytes.items())),
        "cleaning": ledger.as_json() if corpus.cleaning is not None else None,
        "source": {
            "fingerprint": now,
            "module": None,
            "dropped_empty": dropped,
            "left_out": dict(sorted((Counter(survey.left_out) + reading.left_out).items())),
            "packages": survey.packages,
            **({} if corpus.trained is None else {"vocabulary": how_trained(Path(choice.model or ""))}),
        },
        "versions": versions(used),
    }

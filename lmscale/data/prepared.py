"""Where a corpus lies once it is prepared, and whether it does. Imports no framework: every command asks this first.

A folder's name hashes all that changes its tokens, so that the same input and settings are never prepared twice. For
lmscale's own sources that is the content of the files and of the vocabulary; for a user's Task the documents are not
known without running it, so the source of its module stands for them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources
from lmscale.data.folder_names import cleaning_content, folder_name
from lmscale.data.shards import MANIFEST, open_shards
from lmscale.data.tokenizers import TokenizerChoice, choose_tokenizer
from lmscale.data.vocabulary_store import model_in, vocabulary_folder
from lmscale.store.files import write_atomic
from lmscale.study.typed import check


@dataclass(frozen=True, kw_only=True)
class Part:
    """A prepared Task: of a Mixture with its share of what is drawn (the rates of all add up to 1), or alone."""

    name: str
    rate: float
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a corpus, or one Task of it, belongs, and what that name was made of.

    `source` replaces the field of that name: of a Task in a Mixture.
    """

    corpus: Corpus
    folder: Path
    fingerprint: str | None
    source: str | None = None
    survey: sources.Survey | None = None  # of lmscale's own sources
    choice: TokenizerChoice | None = None  # likewise


def own_place(corpus: Corpus, root: Path, source: str | None = None) -> Place:
    """The place of one of lmscale's own sources; reads its files through.

    Raises InputError for files that cannot be read and settings that do not fit them, and where the vocabulary is still
    to be trained.
    """
    if (place := find_own_place(corpus, root, source)) is None:
        raise InputError(f"corpus.vocabulary: '{corpus.trained}' is not trained on this text; run 'lmscale prepare'")
    return place


def find_own_place(corpus: Corpus, root: Path, source: str | None = None) -> Place | None:
    """The same, None where the vocabulary is still to be trained."""
    choice = choose_tokenizer(corpus, integers=sources.holds_integers(corpus))
    survey = sources.survey(corpus)
    if corpus.trained is not None:
        if not (folder := vocabulary_folder(corpus, survey, root)).is_dir():
            return None
        choice = replace(choice, model=str(model_in(folder)))
    digest = choice.make().vocabulary.digest
    named: list[Any] = [survey.fingerprint, digest]
    if corpus.cleaning is not None:
        check(choice.integers is None, "corpus.cleaning", "given", "cleans text, but the files hold integers; drop it")
        named += cleaning_content(corpus.cleaning)
    folder = root / folder_name(corpus, corpus.name, named, source)
    return Place(
        corpus=corpus, folder=folder, fingerprint=survey.fingerprint, source=source, survey=survey, choice=choice
    )


def scored_with(corpus: Corpus, scored: Corpus, root: Path) -> Corpus:
    """A text that is scored by models of `corpus`, which is prepared: in that vocabulary, where it names none itself.

    Raises InputError for one that names a vocabulary to be trained on itself.
    """
    if scored.trained is not None and scored.vocabulary != corpus.vocabulary:
        raise InputError(
            f"corpus.vocabulary: {scored.vocabulary!r} would be trained on a text that is only scored; leave it out, "
            "for it is then read as the study's text is"
        )
    if corpus.vocabulary is None or scored.vocabulary not in (None, corpus.vocabulary) or not sources.is_own(corpus):
        return scored
    if not sources.is_own(scored) or scored.name in (sources.LEXICON, sources.CHAIN) or sources.holds_integers(scored):
        return scored
    choice = own_place(corpus, root).choice
    assert choice is not None
    return replace(scored, vocabulary=choice.model)


def task_place(corpus: Corpus, root: Path, source: str | None = None) -> Place:
    """The place of a Task of the user's, `corpus.task`; its module is found, and not imported."""
    check(
        corpus.cleaning is None,
        "corpus.cleaning",
        "given",
        f"is for lmscale's own sources; {corpus.task!r} cleans by its preprocessors",
    )
    fingerprint = sources.module_fingerprint(corpus.module)
    folder = root / folder_name(corpus, corpus.task, [corpus.module, fingerprint], source)
    return Place(corpus=corpus, folder=folder, fingerprint=fingerprint, source=source)


def member_place(corpus: Corpus, task: str, root: Path) -> Place:
    """The place of one Task of the Mixture `corpus`, which may be one of lmscale's own sources."""
    member = replace(corpus, task=task)
    return (own_place if sources.is_own(member) else task_place)(member, root, task)


def find_prepared(corpus: Corpus, root: Path) -> tuple[Part, ...] | None:
    """The prepared Tasks of `corpus` below `root`, or None where one is missing.

    Raises:
        InputError: a folder is there but damaged; the text itself cannot be read; the vocabulary of a user's Task was
            changed since.
    """
    if sources.is_own(corpus):
        place = find_own_place(corpus, root)
        if place is None or not complete(place.folder):
            return None
        return (Part(name=corpus.name, rate=1.0, folder=place.folder),)
    if complete(folder := task_place(corpus, root).folder):
        return (Part(name=corpus.task, rate=1.0, folder=folder),)
    try:
        rates = json.loads(parts_file(corpus, root).read_text(encoding="utf-8"))
        members = {name: float(rate) for name, rate in rates.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    parts = tuple(
        Part(name=name, rate=rate, folder=member_place(corpus, name, root).folder) for name, rate in members.items()
    )
    return parts if all(complete(part.folder) for part in parts) else None


def write_parts(corpus: Corpus, root: Path, rates: dict[str, float]) -> None:
    """Notes the Tasks of the Mixture `corpus` and their rates, which are known by running its module alone."""
    write_atomic(parts_file(corpus, root), json.dumps(rates, indent=1, allow_nan=False) + "\n")


def parts_file(corpus: Corpus, root: Path) -> Path:
    folder = task_place(corpus, root).folder
    return folder.with_name(f"{folder.name}.parts.json")


def complete(folder: Path) -> bool:
    """Whether a corpus is prepared there. Raises InputError for one that is damaged, or whose vocabulary changed."""
    try:
        present = folder.is_dir()
    except OSError as error:
        raise InputError(f"out: {str(folder)!r} cannot be read ({error.strerror}); choose another with --out") from None
    if not present:
        return False
    manifest = open_shards(folder).manifest
    for feature, model in manifest["source"].get("models", {}).items():
        _check_model(folder, manifest["corpus"], feature, model)
    return True


def earlier_vocabulary(place: Place, digest: str) -> str | None:
    """The folder of the same text in another vocabulary, if there is one: then the vocabulary was changed since."""
    for path in sorted(place.folder.parent.glob(f"*/{MANIFEST}")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            same = (manifest["corpus"], manifest["source"]["fingerprint"]) == (place.corpus.name, place.fingerprint)
            if same and all(each["digest"] != digest for each in manifest["features"].values()):
                return path.parent.name
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # damaged, or of something else: not what is asked here
    return None


def unknown_task(task: str, names: list[str] | tuple[str, ...], *, module: bool) -> InputError:
    """The error for a Task that is not among `names`."""
    near = difflib.get_close_matches(task, names, n=3) or names[:5]
    mend = "" if module else "; register your own in a module named with --corpus.module"
    return InputError(
        f"corpus.task: {task!r} is no registered seqio Task or Mixture; did you mean {', '.join(near)}?{mend}"
    )


def _check_model(folder: Path, task: str, feature: str, model: dict[str, str]) -> None:
    try:
        now = hashlib.sha256(Path(model["path"]).read_bytes()).hexdigest()
    except OSError:  # the shards need no model any more: only a changed one would mislead
        return
    if now != model["sha256"]:
        raise InputError(
            f"corpus.task: {task!r} was prepared when {model['path']!r}, the vocabulary of {feature!r}, was another "
            f"file; bring that back, or remove {str(folder)!r} to prepare again"
        )

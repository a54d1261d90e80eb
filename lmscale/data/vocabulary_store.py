"""Where the vocabularies that are trained on a corpus lie, and whether they are whole. Imports no framework."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources
from lmscale.data.folder_names import cleaning_content, folder_name
from lmscale.data.tokenizer_training import METHOD
from lmscale.data.training_sample import SAMPLE_BYTES, SAMPLE_DOCUMENTS

VOCABULARIES = "vocabularies"  # the folder of them, beside the prepared text
MODEL, MADE = "tokenizer.model", "trained.json"


def vocabulary_folder(corpus: Corpus, survey: sources.Survey, root: Path) -> Path:
    """Where the vocabulary that is trained on a text belongs. Its name hashes all that the training sees."""
    try:
        version = importlib.metadata.version("sentencepiece")
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            f"corpus.vocabulary: '{corpus.trained}' is trained by sentencepiece; pip install 'lmscale[train]'"
        ) from None
    content: list[Any] = [survey.fingerprint, str(corpus.trained), METHOD, version, SAMPLE_BYTES, SAMPLE_DOCUMENTS]
    if survey.fingerprint is None:
        content.append(corpus.task)  # which names a revision
    if corpus.cleaning is not None:
        content += cleaning_content(corpus.cleaning)
    name = f"{corpus.name}-{corpus.trained}".replace(":", "-")
    return root / VOCABULARIES / folder_name(replace(corpus, slices=()), name, content, None)


def model_in(folder: Path) -> Path:
    """The model of a folder of a trained vocabulary. Raises InputError for one that is not what was trained."""
    path = folder / MODEL
    try:
        good = hashlib.sha256(path.read_bytes()).hexdigest() == how_trained(path)["sha256"]
    except OSError:
        good = False
    if not good:
        raise InputError(f"corpus: {str(folder)!r} is damaged; remove it and run 'lmscale prepare' again")
    return path


def how_trained(model: Path) -> dict[str, Any]:
    """What is written beside a trained model: on what, and how. Raises InputError if it cannot be read."""
    try:
        return json.loads((model.parent / MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"corpus: {str(model.parent)!r} is damaged; remove it and run 'lmscale prepare' again"
        ) from None

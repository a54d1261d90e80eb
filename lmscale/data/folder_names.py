"""The names of folders beside the prepared text: each hashes what changes the content of its folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, Field, asdict, fields
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.config import Cleaning, Corpus
from lmscale.data import sources
from lmscale.data.shards import FORMAT

# Settings that do not change a token, or for which their content stands
WITHOUT_TOKENS = frozenset(
    {"task", "files", "packages", "data_dir", "module", "vocabulary", "allow_repeats", "unique_tokens"}
)
SOURCE = "source"  # the field of `Corpus.slices` that is a Mixture's Task


def folder_name(corpus: Corpus, name: str, content: list[Any], source: str | None) -> str:
    """`content` is what stands for the text and its tokens. Only settings other than the default are in the name, so
    that one which lmscale learns later changes none.
    """
    given = {
        field.name: value
        for field in fields(corpus)
        if field.name not in WITHOUT_TOKENS and (value := getattr(corpus, field.name)) != _default(field)
    }
    settings = [name, content, given, source if SOURCE in corpus.slices else None]
    told = json.dumps([FORMAT, *settings], sort_keys=True, default=asdict)
    key = hashlib.sha256(told.encode()).hexdigest()[:12]
    plain = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name)
    return f"{plain[-80:]}-{key}"


def cleaning_content(cleaning: Cleaning) -> list[str | None]:
    """Digests of what the settings of cleaning name: a list of words, a module.

    Raises InputError for a list of words that cannot be read.
    """
    words, hook = cleaning.toxicity.words_file, cleaning.toxicity.hook
    try:
        listed = hashlib.sha256(Path(words).expanduser().read_bytes()).hexdigest() if words else None
    except OSError as error:
        raise InputError(
            f"corpus.cleaning.toxicity.words_file: {words!r} cannot be read ({error.strerror}); name a text file"
        ) from None
    return [listed, sources.module_fingerprint(hook.partition(":")[0]) if hook else None]


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()

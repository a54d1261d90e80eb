"""Hugging Face datasets as documents: `hf:PATH[:CONFIG][@REVISION]`, a folder of this machine or a name on the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.document import Document, Reading
from lmscale.data.text_files import row_document

PREFIX = "hf:"
ON_HUB = re.compile(r"(?P<path>[\w.-]+(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")
SPLIT = "train"


def hub_folder(corpus: Corpus) -> Path | None:
    """The folder that `hf:PATH` names, if there is one. Raises InputError for what can be no name on the hub either."""
    path = corpus.task.removeprefix(PREFIX)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if not ON_HUB.fullmatch(path):
        raise InputError(f"corpus.task: {corpus.task!r} is no folder, and no name on the hub; correct the path")
    return None


def hub_documents(corpus: Corpus, reading: Reading) -> Iterator[Document]:
    """The split `train`, one document a row.

    Raises:
        InputError: the package `datasets` is not installed; the dataset is not there, cannot be reached or asks for
            credentials; it has no split `train` or no such column.
    """
    dataset = _load(corpus)
    columns = dataset.column_names
    if columns is not None and corpus.text_field not in columns:
        there = ", ".join(map(repr, columns[:8]))
        raise InputError(
            f"corpus.text_field: {corpus.text_field!r} is no column of {corpus.task!r}; name one of {there}"
        )
    if columns is not None:
        dataset = dataset.select_columns(
            [n for n in dict.fromkeys((corpus.text_field, *corpus.slices)) if n in columns]
        )
    reading.total = getattr(dataset, "num_rows", None) or 0  # a stream does not know
    rows = iter(dataset)
    for number in range(1, 1 << 62):
        try:
            row = next(rows, None)
        except Exception as error:  # of a file, a network or a decoder that `datasets` uses
            raise _failed(corpus, error) from error
        if row is None:
            return
        reading.done = number
        where = f"corpus.task: {corpus.task!r} row {number}"
        if (document := row_document(row, str(number), where, corpus.task, corpus, reading)) is not None:
            yield document


def _load(corpus: Corpus) -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"corpus.task: {corpus.task!r} needs the package datasets; pip install 'lmscale[hf]'"
        ) from None
    datasets.disable_progress_bars()
    folder = hub_folder(corpus)
    try:
        if folder is None:
            asked = ON_HUB.fullmatch(corpus.task.removeprefix(PREFIX))
            assert asked is not None
            found = datasets.load_dataset(asked["path"], asked["config"], revision=asked["revision"])
        elif any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
            found = datasets.load_from_disk(str(folder))
        else:  # data files: read where they are, not copied into the cache
            found = datasets.load_dataset(str(folder), streaming=True)
    except Exception as error:  # `datasets` raises those of every library below it
        raise _failed(corpus, error) from error
    if hasattr(found, "keys"):
        if SPLIT not in found:
            splits = sorted(map(str, found))
            raise InputError(f"corpus.task: {corpus.task!r} has no split 'train', only {splits}; add one")
        found = found[SPLIT]
    return found


def _failed(corpus: Corpus, error: Exception) -> InputError:
    why = " ".join(str(error).split())[:200]
    return InputError(
        f"corpus.task: {corpus.task!r} cannot be loaded ({type(error).__name__}: {why}); check the name, the network "
        "and your credentials (HF_TOKEN)"
    )

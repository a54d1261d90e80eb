"""Where TensorFlow Datasets keeps a dataset on this machine. Imports no TensorFlow."""

from __future__ import annotations

import os
import re
from pathlib import Path

from analysis.errors import InputError
from lmscale.config import Corpus

PREFIX = "tfds:"
NAME = re.compile(r"(?P<path>\w+(/[\w.-]+)?)(:(?P<version>\d+\.\d+\.\d+))?")
VERSION = re.compile(r"\d+\.\d+\.\d+")


def data_dir(corpus: Corpus) -> Path:
    """`corpus.data_dir`, else where TFDS keeps datasets by itself."""
    given = corpus.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(given).expanduser()


def asked(corpus: Corpus) -> tuple[str, str | None]:
    """NAME[/CONFIG] and version of `tfds:NAME[/CONFIG][:VERSION]`. Raises InputError for a text that is not that."""
    found = NAME.fullmatch(corpus.task.removeprefix(PREFIX))
    if found is None:
        raise InputError(f"corpus.task: {corpus.task!r} is no name of TFDS; write tfds:NAME, tfds:NAME/CONFIG:1.0.0")
    return found["path"], found["version"]


def find(corpus: Corpus) -> Path | None:
    """The folder of the version asked, or of the latest that is there; None if there is none."""
    path, version = asked(corpus)
    folder = data_dir(corpus) / path
    if version is not None:
        return folder / version if (folder / version / "dataset_info.json").is_file() else None
    try:
        there = [f for f in folder.iterdir() if VERSION.fullmatch(f.name) and (f / "dataset_info.json").is_file()]
    except OSError:
        return None
    return max(there, key=lambda each: tuple(map(int, each.name.split("."))), default=None)

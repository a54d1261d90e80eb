"""The documents of TFDS datasets, as seqio reads them. Importing this loads TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator

import seqio

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import tfds_folder
from lmscale.data.document import Document, Reading
from lmscale.data.text_files import row_document


def tfds_documents(corpus: Corpus, reading: Reading) -> Iterator[Document]:
    """The split `train` of a TFDS dataset, as seqio reads it; fetched first where it is not on this machine.

    Raises:
        InputError: TFDS knows no such dataset, or cannot fetch it; it has no split `train` or no such field.
    """
    source = _tfds_source(corpus)
    reading.total = source.num_input_examples("train") or 0
    rows = source.get_dataset("train", shuffle=False).as_numpy_iterator()
    for number, row in enumerate(rows, 1):
        reading.done = number
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
        where = f"corpus.task: {corpus.task!r} row {number}"
        if (document := row_document(plain, str(number), where, corpus.task, corpus, reading)) is not None:
            yield document


def fetch_tfds(corpus: Corpus) -> None:
    """Fetches or generates a TFDS dataset below its `data_dir`. Raises InputError where that cannot be."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    path, version = tfds_folder.asked(corpus)
    folder = tfds_folder.data_dir(corpus)
    try:
        tfds.builder(path if version is None else f"{path}:{version}", data_dir=folder).download_and_prepare()
        if tfds_folder.find(corpus) is None:
            raise FileNotFoundError(f"nothing of it is in {str(folder)!r}")
    except Exception as error:  # TFDS raises those of every library below it
        raise _not_loaded(corpus, error) from error


def _tfds_source(corpus: Corpus) -> seqio.TfdsDataSource:
    found = tfds_folder.find(corpus)
    if found is None:
        fetch_tfds(corpus)
        found = tfds_folder.find(corpus)
        assert found is not None
    path, folder = tfds_folder.asked(corpus)[0], tfds_folder.data_dir(corpus)
    try:
        source = seqio.TfdsDataSource(tfds_name=f"{path}:{found.name}", tfds_data_dir=str(folder), read_only=True)
        splits, fields = sorted(source.splits), sorted(source.tfds_dataset.info.features or ())
    except Exception as error:
        raise _not_loaded(corpus, error) from error
    if "train" not in splits:
        raise InputError(f"corpus.task: {corpus.task!r} has no split 'train', only {splits}; add one")
    if corpus.text_field not in fields:
        raise InputError(
            f"corpus.text_field: {corpus.text_field!r} is no field of {corpus.task!r}; name one of {', '.join(fields)}"
        )
    return source


def _not_loaded(corpus: Corpus, error: Exception) -> InputError:
    why = (str(error).strip() or "no reason given").split("\n")[0][:200]
    return InputError(
        f"corpus.task: {corpus.task!r} cannot be loaded ({type(error).__name__}: {why}); check the name, the network "
        "and --corpus.data-dir"
    )

"""The corpora as seqio Tasks. Importing this loads seqio and TensorFlow (about 8 seconds): training never does."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources, tfds_folder
from lmscale.data.document import Document, Reading
from lmscale.data.prepared import unknown_task
from lmscale.data.shards import FEATURE, Vocabulary
from lmscale.data.text_files import row_document
from lmscale.data.tokenizers import (
    PROBE,
    TokenizerChoice,
    byte_tokens,
    choose_tokenizer,
    describe_vocabulary,
    piece_tokens,
)

BATCH_TEXTS = 256
TOKENISING = (
    (seqio.preprocessors.tokenize, seqio.preprocessors.append_eos),
    (seqio.preprocessors.tokenize_and_append_eos,),
)


def find_task(corpus: Corpus) -> seqio.Task | seqio.Mixture:
    """The Task or Mixture that `corpus` names, after importing `corpus.module`; lmscale's own sources are Tasks too.

    Raises:
        InputError: the module does not exist or fails to import; no Task or Mixture has that name.
    """
    if corpus.files:
        return _register("files", corpus)
    if sources.is_own(corpus):
        return _register(re.sub(r"[^\w.-]", "_", corpus.task), corpus)
    for name in sources.BUILT_IN:  # a user's Mixture may name them
        if name not in seqio.TaskRegistry.names():
            _register(name, replace(corpus, task=name, slices=()))
    if corpus.module is not None:
        _import(corpus.module)
    names = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
    if corpus.task not in names:
        raise unknown_task(corpus.task, names, module=corpus.module is not None)
    return seqio.get_mixture_or_task(corpus.task)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A Task of a Mixture with its share of what is drawn; a Task alone has all."""

    task: seqio.Task
    rate: float


def members(task: seqio.Task | seqio.Mixture) -> tuple[Member, ...]:
    """The Tasks of a Mixture by name, with rates that add up to 1.

    Raises:
        InputError: a rate is no positive number (also one that is a function, and fails).
    """
    if isinstance(task, seqio.Task):
        return (Member(task=task, rate=1.0),)
    parts = sorted(seqio.get_subtasks(task), key=lambda each: each.name)
    try:
        rates = [float(task.get_rate(part)) for part in parts]
    except Exception as error:  # a rate may be the user's function
        raise InputError(
            f"corpus.task: {task.name!r} has a rate that fails ({type(error).__name__}: {error}); mend it"
        ) from error
    for part, rate in zip(parts, rates, strict=True):
        if not 0 < rate < float("inf"):
            raise InputError(f"corpus.task: {task.name!r} gives {part.name!r} the rate {rate}; it must be positive")
    return tuple(Member(task=part, rate=rate / sum(rates)) for part, rate in zip(parts, rates, strict=True))


def describe(vocabulary: seqio.Vocabulary) -> Vocabulary:
    """What the manifest says of a vocabulary (lmscale.data.tokenizers.describe_vocabulary)."""
    model = vocabulary.sp_model if isinstance(vocabulary, seqio.SentencePieceVocabulary) else None
    return describe_vocabulary(
        f"{type(vocabulary).__module__}.{type(vocabulary).__name__}",
        size=int(vocabulary.vocab_size),
        eos_id=None if vocabulary.eos_id is None else int(vocabulary.eos_id),
        unk_id=vocabulary.unk_id,
        extra_ids=vocabulary.extra_ids,
        probe=vocabulary.encode(PROBE),
        model=model or b"",
    )


def model_file(vocabulary: seqio.Vocabulary) -> str | None:
    """The file that a vocabulary is read from, if it is one of SentencePiece."""
    return vocabulary.sentencepiece_model_file if isinstance(vocabulary, seqio.SentencePieceVocabulary) else None


def vocabularies(task: seqio.Task | seqio.Mixture) -> dict[str, Vocabulary]:
    """The tokenizer of each feature of `task`. Raises InputError without the feature `targets`."""
    if FEATURE not in task.output_features:
        raise InputError(f"corpus.task: {task.name!r} makes no feature {FEATURE!r}; name its output so")
    return {name: describe(feature.vocabulary) for name, feature in task.output_features.items()}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One document after its Task: integer tokens [n] and UTF-8 bytes of text for each feature.

    `content` decides its side of the hold-out: the text where the Task keeps it (`*_pretokenized`), so that it does
    not depend on the tokenizer, else the tokens.
    """

    tokens: dict[str, NDArray]
    text_bytes: dict[str, int]
    content: bytes
    given: Mapping[str, Any]  # the example itself, for `Corpus.slices`


def shards(task: seqio.Task) -> int:
    """Into how many parts its source splits its documents. Raises InputError where there is no split `train`."""
    try:
        if "train" not in task.splits:
            raise InputError(f"corpus.task: {task.name!r} has no split 'train', only {sorted(task.splits)}; add one")
        return max(1, len(task.source.list_shards(split="train")))
    except InputError:
        raise
    except Exception as error:  # a source is the user's code as well, or asks a network
        raise _failed(task, error) from error


def examples(task: seqio.Task, shard: int = 0, of: int = 1) -> Iterator[Example]:
    """One shard of the `train` split of `task`, once and in order, after its preprocessors, as seqio caches a Task
    offline (seqio.beam_utils): each shard by itself.

    Raises:
        InputError: the Task fails; its features are not integers of rank 1.
    """
    info = seqio.ShardInfo(index=shard, num_shards=of) if of > 1 else None
    asked = {"split": "train", "shuffle": False, "try_in_mem_cache": False, "shard_info": info}
    try:
        dataset = None
        if (texts := _before_tokens(task)) is not None:
            with contextlib.suppress(ValueError):  # what is to be tokenised is not one text a feature: seqio does it
                dataset = texts.get_dataset(sequence_length=None, **asked)
        if dataset is not None:
            yield from _tokenised(dataset, task.output_features)
            return
        for example in task.get_dataset(sequence_length=None, **asked).as_numpy_iterator():
            yield _convert(example, task.output_features)
    except InputError:
        raise
    except Exception as error:  # a Task is the user's code, and may raise anything
        raise _failed(task, error) from error


def _before_tokens(task: seqio.Task) -> seqio.Task | None:
    """The Task without its last steps where these are seqio's own tokenisation of texts in a vocabulary that is read
    faster without TensorFlow: its features are then texts. None where they are not.
    """
    steps = list(task.preprocessors)
    for last in TOKENISING:
        if [*map(id, steps[-len(last) :])] == [*map(id, last)]:
            steps = steps[: -len(last)]
            break
    else:
        return None
    known = (seqio.ByteVocabulary, seqio.SentencePieceVocabulary)
    features = task.output_features
    if any(type(feature.vocabulary) not in known for feature in features.values()):
        return None
    if any(getattr(feature.vocabulary, "_use_fast_tokenizer", False) for feature in features.values()):
        return None  # which may give other tokens
    return seqio.Task(
        task.name,
        source=task.source,  # pyright: ignore[reportArgumentType]
        preprocessors=steps,
        output_features={name: replace(each, dtype=tf.string, rank=0) for name, each in features.items()},
    )


def _tokenised(dataset: tf.data.Dataset, features: Mapping[str, seqio.utils.Feature]) -> Iterator[Example]:
    spec: Any = dataset.element_spec
    scalars = [name for name, each in spec.items() if each.shape.rank == 0]
    dataset = dataset.map(lambda example: {name: example[name] for name in scalars}).batch(BATCH_TEXTS).prefetch(2)
    batch: Any
    for batch in dataset.as_numpy_iterator():
        texts = {name: batch[name].tolist() for name in sorted(features)}
        tokens = {name: _split(*_encode(features[name], texts[name])) for name in texts}
        for index in range(len(next(iter(texts.values())))):
            yield Example(
                tokens={name: each[index] for name, each in tokens.items()},
                text_bytes={name: len(each[index]) for name, each in texts.items()},
                content=b"".join(each[index] for each in texts.values()),
                given={name: values[index] for name, values in batch.items()},
            )


def _encode(feature: seqio.utils.Feature, texts: list[bytes]) -> tuple[NDArray, NDArray]:
    vocabulary: Any = feature.vocabulary
    eos_id = vocabulary.eos_id if feature.add_eos else None
    if isinstance(vocabulary, seqio.ByteVocabulary):
        return byte_tokens(texts, eos_id)
    return piece_tokens(vocabulary.tokenizer, texts, eos_id)


def _split(tokens: NDArray, lengths: NDArray) -> list[NDArray]:
    ends = np.cumsum(lengths).tolist()
    return [tokens[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _failed(task: seqio.Task, error: Exception) -> InputError:
    reason = (str(error).strip() or "no reason given").split("\n")[0][:300]
    return InputError(f"corpus.task: {task.name!r} fails while it runs ({type(error).__name__}: {reason}); mend it")


def _convert(example: Mapping[str, Any], features: Mapping[str, seqio.utils.Feature]) -> Example:
    tokens, text_bytes, content = {}, {}, []
    for name in sorted(features):
        values = np.asarray(example.get(name))
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise InputError(
                f"corpus.task: feature {name!r} is {values.dtype} of rank {values.ndim}; it must be integers of rank 1"
            )
        kept = example.get(f"{name}_pretokenized")
        text = kept if isinstance(kept, bytes) else features[name].vocabulary.decode(values.tolist())
        if isinstance(text, str):
            text = text.encode()
        tokens[name] = values
        text_bytes[name] = len(text) if isinstance(text, bytes) else 0  # tokens that stand for no text
        content.append(kept if isinstance(kept, bytes) else values.astype("<u4").tobytes())
    return Example(tokens=tokens, text_bytes=text_bytes, content=b"".join(content), given=example)


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
        splits, fields = sorted(source.splits), list(source.tfds_dataset.info.features or ())
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


def _register(name: str, corpus: Corpus) -> seqio.Task:
    if name in seqio.TaskRegistry.names():  # the same name over other files
        seqio.TaskRegistry.remove(name)
    choice = choose_tokenizer(corpus, integers=sources.holds_integers(corpus))
    if choice.integers is not None:
        vocabulary, preprocessors = seqio.PassThroughVocabulary(choice.integers), []
    else:
        model = choice.model
        vocabulary = seqio.ByteVocabulary(0) if model is None else seqio.SentencePieceVocabulary(model)
        preprocessors = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
    feature = seqio.Feature(vocabulary=vocabulary, add_eos=choice.integers is None)
    return seqio.TaskRegistry.add(
        name,
        source=_source(corpus, choice),  # pyright: ignore[reportArgumentType]  # seqio's protocol does not fit its classes
        preprocessors=preprocessors,
        output_features={FEATURE: feature},
    )


def _source(corpus: Corpus, choice: TokenizerChoice) -> seqio.FunctionDataSource:
    def examples() -> Iterator[dict[str, Any]]:
        for document in sources.documents(corpus):
            value = document.text if choice.integers is None else np.frombuffer(document.text, "<u4").astype(np.int32)
            yield {FEATURE: value, **{field: document.fields[field] for field in corpus.slices}}

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed  # one split in a fixed order: prepare splits by content, the loader shuffles
        text = tf.TensorSpec(shape=(), dtype=tf.dtypes.string)
        value = text if choice.integers is None else tf.TensorSpec(shape=(None,), dtype=tf.dtypes.int32)
        signature = {FEATURE: value, **dict.fromkeys(corpus.slices, text)}
        return tf.data.Dataset.from_generator(examples, output_signature=signature)

    return seqio.FunctionDataSource(dataset_fn=dataset, splits=("train",))


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            near = difflib.get_close_matches(module, [found.name for found in pkgutil.iter_modules()], n=3)
            mend = f"did you mean {', '.join(near)}?" if near else "run where it can be imported, or install it"
            raise InputError(f"corpus.module: {module!r} is not found; {mend}") from None
        raise InputError(f"corpus.module: {module!r} imports {error.name!r}, which is not found; install it") from None
    except Exception as error:  # anything may go wrong in a user's module, and it is theirs to mend
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"corpus.module: {module!r} fails to import ({reason}); mend it") from error

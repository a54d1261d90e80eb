"""The examples of a Task: seqio runs it, but for a last step that is faster without TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.data.tokenizers import byte_tokens, piece_tokens

BATCH_TEXTS = 16  # a few are in memory at once, and each text may be long
TOKENISING = (
    (seqio.preprocessors.tokenize, seqio.preprocessors.append_eos),
    (seqio.preprocessors.tokenize_and_append_eos,),
)


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
        if (texts := before_tokens(task)) is not None:
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


def before_tokens(task: seqio.Task) -> seqio.Task | None:
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

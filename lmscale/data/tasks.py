"""The corpora as seqio Tasks. Importing this loads seqio and TensorFlow (about 8 seconds): training never does."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources
from lmscale.data.prepared import unknown_task
from lmscale.data.shards import FEATURE, Vocabulary
from lmscale.data.tokenizers import PROBE, TokenizerChoice, choose_tokenizer, describe_vocabulary
from lmscale.study.typed import check


def find_task(corpus: Corpus) -> seqio.Task | seqio.Mixture:
    """The Task or Mixture that `corpus` names, after importing `corpus.module`; lmscale's own sources are Tasks too.

    Raises:
        InputError: the module does not exist or fails to import; no Task or Mixture has that name.
    """
    if corpus.files:
        return _register("files", corpus)
    if sources.is_own(corpus):
        return _register(re.sub(r"[^\w.-]", "_", corpus.task), corpus)
    for name in sources.MIXED:
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


def _register(name: str, corpus: Corpus) -> seqio.Task:
    if name in seqio.TaskRegistry.names():  # the same name over other files
        seqio.TaskRegistry.remove(name)
    choice = choose_tokenizer(corpus, integers=sources.holds_integers(corpus))
    if choice.integers is not None:
        vocabulary, preprocessors = seqio.PassThroughVocabulary(choice.integers, choice.eos_id), []
    else:
        model = choice.model
        check(
            corpus.trained is None,
            "corpus.vocabulary",
            model,
            "is trained when the text is prepared; give the Task the path of that tokenizer.model",
        )
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

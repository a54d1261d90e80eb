"""The corpora as seqio Tasks. Importing this loads seqio and TensorFlow (about 8 seconds): training never does."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources
from lmscale.data.shards import FEATURE, Vocabulary

PROBE = "Two words, 3.14159 ~ \u00e9\u4e2d\U0001f600\n\tdef f(x): return x\n"


def find_task(corpus: Corpus) -> seqio.Task | seqio.Mixture:
    """The registered Task or Mixture that `corpus` names, after importing `corpus.module`.

    Raises:
        InputError: the module does not exist or fails to import; no Task or Mixture has that name.
    """
    if corpus.files or corpus.facts is not None:
        return _register(corpus.name, corpus)
    for name in sources.BUILT_IN:
        if name not in seqio.TaskRegistry.names():
            _register(name, Corpus(task=name))
    if corpus.module is not None:
        _import(corpus.module)
    names = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
    if corpus.task not in names:
        raise unknown_task(corpus, names)
    return seqio.get_mixture_or_task(corpus.task)


def unknown_task(corpus: Corpus, names: list[str] | tuple[str, ...]) -> InputError:
    """The error for a Task that is not among the registered `names`."""
    near = difflib.get_close_matches(corpus.task, names, n=3) or names[:5]
    mend = "; register your own in a module named with --corpus.module" if corpus.module is None else ""
    return InputError(
        f"corpus.task: {corpus.task!r} is no registered seqio Task or Mixture; did you mean {', '.join(near)}?{mend}"
    )


def describe(vocabulary: seqio.Vocabulary) -> Vocabulary:
    """What the manifest says of a tokenizer. Its digest covers its settings, its model and what it does to a probe."""
    settings = [
        type(vocabulary).__name__,
        vocabulary.vocab_size,
        vocabulary.eos_id,
        vocabulary.unk_id,
        vocabulary.extra_ids,
        repr(vocabulary.encode(PROBE)),
    ]
    digest = hashlib.sha256(json.dumps(settings).encode())
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        digest.update(vocabulary.sp_model or b"")
    plain_bytes = isinstance(vocabulary, seqio.ByteVocabulary) and vocabulary.extra_ids == 0
    kind = type(vocabulary).__name__.removesuffix("Vocabulary").lower()
    return Vocabulary(
        class_name=f"{type(vocabulary).__module__}.{type(vocabulary).__name__}",
        name="bytes" if plain_bytes else f"{kind}-{digest.hexdigest()[:8]}",
        size=int(vocabulary.vocab_size),
        eos_id=None if vocabulary.eos_id is None else int(vocabulary.eos_id),
        digest=digest.hexdigest(),
    )


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


def examples(task: seqio.Task | seqio.Mixture) -> Iterator[Example]:
    """The `train` split of `task`, once and in order; of a Mixture, each of its Tasks in turn (rates do not act here).

    Raises:
        InputError: there is no split `train`; the Task fails; its features are not integers of rank 1.
    """
    for part in sorted(seqio.get_subtasks(task), key=lambda each: each.name):
        if "train" not in part.splits:
            raise InputError(f"corpus.task: {part.name!r} has no split 'train', only {sorted(part.splits)}; add one")
        for example in _run(part):
            yield _convert(example, task.output_features)


def _run(task: seqio.Task) -> Iterator[dict[str, Any]]:
    try:
        dataset = task.get_dataset(sequence_length=None, split="train", shuffle=False, try_in_mem_cache=False)
        yield from dataset.as_numpy_iterator()
    except Exception as error:  # a Task is the user's code, and may raise anything
        reason = str(error).strip().split("\n")[0][:300]
        raise InputError(
            f"corpus.task: {task.name!r} fails while it runs ({type(error).__name__}: {reason}); mend it"
        ) from error


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
    return Example(tokens=tokens, text_bytes=text_bytes, content=b"".join(content))


def _register(name: str, corpus: Corpus) -> seqio.Task:
    if name in seqio.TaskRegistry.names():  # the same name over other files
        seqio.TaskRegistry.remove(name)
    return seqio.TaskRegistry.add(
        name,
        source=_source(corpus),  # pyright: ignore[reportArgumentType]  # seqio's own protocol does not fit its classes
        preprocessors=[
            functools.partial(seqio.preprocessors.rekey, key_map={"targets": "text"}),
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos,
        ],
        output_features={"targets": seqio.Feature(vocabulary=seqio.ByteVocabulary(extra_ids=0), add_eos=True)},
    )


def _source(corpus: Corpus) -> seqio.FunctionDataSource:
    def examples() -> Iterator[dict[str, bytes]]:
        for document in sources.documents(corpus):
            yield {"text": document.text}

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed  # one split in a fixed order: prepare splits by content, the loader shuffles
        signature = {"text": tf.TensorSpec(shape=(), dtype=tf.dtypes.string)}
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

"""Trains SentencePiece models that read any text back as it was: one thread, no file of the user's, no clock."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.data.spelling import as_tsv, rules
from lmscale.data.training_sample import SENTENCE_LETTERS
from lmscale.data.vocabulary_kind import FIELD, VocabularyKind

METHOD = 1  # of training: another number trains again
MARK = "lmscale"  # in the model's `model_prefix`, which is free: says who trained it
COVERAGE = 0.9995  # share of letters with a piece of their own, of unigram and bpe: SentencePiece's default
SETTINGS: dict[str, Any] = {
    "byte_fallback": True,
    "pad_id": 0,
    "eos_id": 1,
    "unk_id": 2,
    "bos_id": -1,
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,  # a run of spaces may be one piece
    # Measured: two threads give another unigram model, for floats are added up in another order
    "num_threads": 1,
    "max_sentence_length": 4 * SENTENCE_LETTERS,  # bytes, at most 4 a letter
}
TOO_SMALL = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
TOO_LARGE = re.compile(r"set it to a value <= (\d+)")
NOTHING = "!sentences_.empty()"


def train_model(kind: VocabularyKind, sentences: Iterable[str]) -> bytes:
    """A SentencePiece model, as its file holds it: a function of the kind and the sentences in their order.

    Raises InputError for pieces too few for the letters that must have one, or more than the text gives, with the
    number that it gives; and for sentences that hold nothing.
    """
    from sentencepiece import SentencePieceTrainer, sentencepiece_model_pb2

    options: dict[str, Any] = {"character_coverage": COVERAGE if kind.kind in ("unigram", "bpe") else 1.0}
    options |= {"use_all_vocab": True} if kind.pieces is None else {"vocab_size": kind.pieces}
    written = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        for name, some in zip(("normalization", "denormalization"), rules(kind.kind), strict=True):
            path = Path(folder, name)
            path.write_text(as_tsv(some), encoding="utf-8")
            options[f"{name}_rule_tsv"] = str(path)
        try:
            SentencePieceTrainer.Train(
                sentence_iterator=iter(sentences),
                model_writer=written,
                model_type=kind.kind,
                minloglevel=2,
                **SETTINGS,
                **options,
            )
        except (RuntimeError, OSError, ValueError) as error:
            raise _translated(kind, str(error)) from None
    model: Any = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())  # pyright: ignore[reportAttributeAccessIssue]
    if kind.pieces is not None and len(model.pieces) < kind.pieces:
        raise _too_large(kind, len(model.pieces))
    for spec in (model.normalizer_spec, model.denormalizer_spec):
        spec.normalization_rule_tsv = ""  # where the rules were read, which is another place each time
    model.trainer_spec.model_prefix = MARK
    return model.SerializeToString(deterministic=True)


def trained_kind(model: bytes) -> str | None:
    """The kind of a model that lmscale trained, None of any other."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    try:
        spec = sentencepiece_model_pb2.ModelProto.FromString(model).trainer_spec  # pyright: ignore[reportAttributeAccessIssue]
    except DecodeError:
        return None
    if spec.model_prefix != MARK:
        return None
    return spec.ModelType.Name(spec.model_type).lower()


def _translated(kind: VocabularyKind, message: str) -> InputError:
    if found := TOO_SMALL.search(message):
        return InputError(
            f"{FIELD}: '{kind}' is fewer than the {int(found[1]):,} pieces that bytes, specials and the letters of the "
            f"text take; raise it to {int(found[1]) + 1} or more"
        )
    if found := TOO_LARGE.search(message):
        return _too_large(kind, int(found[1]))
    if NOTHING in message:
        return InputError(f"{FIELD}: '{kind}' has no training text to be trained on; bring more text")
    return InputError(f"{FIELD}: '{kind}' cannot be trained on this text (SentencePiece: {message}); name another")


def _too_large(kind: VocabularyKind, most: int) -> InputError:
    return InputError(
        f"{FIELD}: '{kind}' is more pieces than the text gives; the largest is {kind.kind}:{most}, or bring more text"
    )

"""The tokenizers of lmscale's own sources, many documents a call, without TensorFlow.

Each gives the tokens that its seqio vocabulary gives, one document at a time, with seqio's `tokenize` and `append_eos`
(tests/lmscale/test_prepare.py holds them to it). TensorFlow would cost 0.9 GB and ten seconds a process, and its
operations three times the time (docs/data.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain as end_to_end
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import chain, lexicon
from lmscale.data.shards import Vocabulary
from lmscale.data.tokenizer_training import trained_kind
from lmscale.data.vocabulary_kind import KINDS_WORDS

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

PROBE = "Two words, 3.14159 ~ \u00e9\u4e2d\U0001f600\n\tdef f(x): return x\n"
BYTE_OFFSET, BYTE_EOS, BYTE_UNK = 3, 1, 2  # of seqio.ByteVocabulary, after Xue et al. 2022 (ByT5), Sec. 3.1
MODULE = "seqio.vocabularies"
BYTES_OF_INTEGERS = 256  # ids of a corpus of integers that says nothing else


class Tokenizer(Protocol):
    """`text`: whether documents are text; else they are integers, little-endian uint32."""

    vocabulary: Vocabulary
    text: bool

    def encode(self, documents: Sequence[bytes]) -> tuple[NDArray, NDArray[np.int64]]:
        """Tokens of all documents end to end, end-of-sequence included, and how many each has."""
        ...


def bytes_of(tokens: ArrayLike) -> bytes:
    """The text behind tokens of the byte vocabulary; end-of-sequence and ids beyond it stand for none."""
    values = np.asarray(tokens, np.int64) - BYTE_OFFSET
    return values[(values >= 0) & (values < 256)].astype(np.uint8).tobytes()


def describe_vocabulary(
    class_name: str,
    *,
    size: int,
    eos_id: int | None,
    unk_id: int | None,
    extra_ids: int,
    probe: Any,
    model: bytes = b"",
) -> Vocabulary:
    """What the manifest says of a tokenizer. Its digest covers its settings, its model and what it makes of PROBE.

    The name of a model that lmscale trained tells its kind and size: bpe-4096-1a2b3c4d.
    """
    short = class_name.rpartition(".")[2]
    digest = hashlib.sha256(json.dumps([short, size, eos_id, unk_id, extra_ids, repr(probe)]).encode())
    digest.update(model)
    plain_bytes = short == "ByteVocabulary" and extra_ids == 0
    trained = trained_kind(model) if model else None
    kind = short.removesuffix("Vocabulary").lower() if trained is None else f"{trained}-{size}"
    return Vocabulary(
        class_name=class_name,
        name="bytes" if plain_bytes else f"{kind}-{digest.hexdigest()[:8]}",
        size=size,
        eos_id=eos_id,
        digest=digest.hexdigest(),
    )


def byte_tokens(documents: Sequence[bytes], eos_id: int | None) -> tuple[NDArray, NDArray[np.int64]]:
    """Tokens of seqio.ByteVocabulary end to end, `eos_id` after each document unless it is None; and their numbers."""
    lengths = np.fromiter(map(len, documents), np.int64, len(documents))
    if eos_id is None:
        return np.frombuffer(b"".join(documents), np.uint8).astype("<u2") + np.uint16(BYTE_OFFSET), lengths
    tokens = np.frombuffer(b"\0".join((*documents, b"")), np.uint8).astype("<u2")  # with a place for each end
    tokens += BYTE_OFFSET
    lengths += 1
    tokens[np.cumsum(lengths) - 1] = eos_id
    return tokens, lengths


def piece_tokens(
    processor: SentencePieceProcessor, documents: Sequence[bytes], eos_id: int | None
) -> tuple[NDArray, NDArray[np.int64]]:
    """The same for a SentencePiece model."""
    ends = [] if eos_id is None else [eos_id]
    pieces = [found + ends for found in processor.Encode(list(documents), num_threads=1)]
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    return np.fromiter(end_to_end.from_iterable(pieces), "<u4", int(lengths.sum())), lengths


class ByteTokenizer:
    """seqio.ByteVocabulary(extra_ids=0): byte b is token b + 3."""

    text = True

    def __init__(self) -> None:
        self.vocabulary = describe_vocabulary(
            f"{MODULE}.ByteVocabulary",
            size=256 + BYTE_OFFSET,
            eos_id=BYTE_EOS,
            unk_id=BYTE_UNK,
            extra_ids=0,
            probe=[byte + BYTE_OFFSET for byte in PROBE.encode()],
        )

    def encode(self, documents: Sequence[bytes]) -> tuple[NDArray, NDArray[np.int64]]:
        return byte_tokens(documents, BYTE_EOS)


class SentencePieceTokenizer:
    """seqio.SentencePieceVocabulary(path): the model's own library, in its order of pieces."""

    text = True

    def __init__(self, path: str) -> None:
        """Raises InputError for a model that cannot be read, or that marks no end of a sequence."""
        from sentencepiece import SentencePieceProcessor

        model = read_model(path)
        processor = SentencePieceProcessor()
        try:
            loaded = processor.LoadFromSerializedProto(model)
        except (RuntimeError, OSError, ValueError):
            loaded = False
        if not loaded:
            raise InputError(f"corpus.vocabulary: {path!r} is no SentencePiece model; name a .model file")
        if processor.eos_id() < 0:
            raise InputError(f"corpus.vocabulary: {path!r} has no end-of-sequence; train one with --eos_id=1")
        self._processor, self._eos = processor, int(processor.eos_id())
        self.vocabulary = describe_vocabulary(
            f"{MODULE}.SentencePieceVocabulary",
            size=processor.GetPieceSize(),
            eos_id=self._eos,
            unk_id=processor.unk_id(),
            extra_ids=0,
            probe=processor.EncodeAsIds(PROBE),
            model=model,
        )

    def encode(self, documents: Sequence[bytes]) -> tuple[NDArray, NDArray[np.int64]]:
        return piece_tokens(self._processor, documents, self._eos)


class IntegerTokenizer:
    """seqio.PassThroughVocabulary(size, eos_id): integers are their own tokens, and nothing is appended."""

    text = False

    def __init__(self, size: int, eos_id: int | None = None) -> None:
        self.vocabulary = describe_vocabulary(
            f"{MODULE}.PassThroughVocabulary", size=size, eos_id=eos_id, unk_id=None, extra_ids=0, probe=PROBE
        )

    def encode(self, documents: Sequence[bytes]) -> tuple[NDArray, NDArray[np.int64]]:
        lengths = np.fromiter((len(document) // 4 for document in documents), np.int64, len(documents))
        return np.frombuffer(b"".join(documents), "<u4"), lengths


class LetterTokenizer:
    """The letters of lmscale.data.lexicon: as few ids as it has letters, and the end of a document."""

    text = True

    def __init__(self, letters: int) -> None:
        self.vocabulary = describe_vocabulary(
            "lmscale.data.lexicon.LetterVocabulary",
            size=lexicon.FIRST_LETTER + letters,
            eos_id=lexicon.END,
            unk_id=None,
            extra_ids=0,
            probe=lexicon.ALPHABET,
        )

    def encode(self, documents: Sequence[bytes]) -> tuple[NDArray, NDArray[np.int64]]:
        return lexicon.tokens_of(documents)


@dataclass(frozen=True, kw_only=True)
class TokenizerChoice:
    """Which tokenizer reads a corpus: a value that goes to other processes."""

    integers: int | None = None  # ids of a corpus of integers
    eos_id: int | None = None  # that ends the documents of such a corpus
    letters: int | None = None  # of a lexicon
    model: str | None = None  # path of a SentencePiece model; none: bytes

    def make(self) -> Tokenizer:
        if self.integers is not None:
            return IntegerTokenizer(self.integers, self.eos_id)
        if self.letters is not None:
            return LetterTokenizer(self.letters)
        return ByteTokenizer() if self.model is None else SentencePieceTokenizer(self.model)


def choose_tokenizer(corpus: Corpus, *, integers: bool) -> TokenizerChoice:
    """The tokenizer of one of lmscale's own sources. Raises InputError for settings that do not fit what it holds."""
    if corpus.name in ("lexicon", "chain"):
        if corpus.vocabulary is not None:
            raise InputError(f"corpus.vocabulary: {corpus.vocabulary!r} reads other text; leave it out")
        if corpus.name == "chain":
            return TokenizerChoice(integers=chain.FIRST_STATE + corpus.chain.states, eos_id=chain.END)
        return TokenizerChoice(letters=corpus.lexicon.letters)
    if not integers:
        return TokenizerChoice(model=corpus.vocabulary)
    if corpus.vocabulary is not None:
        raise InputError(
            f"corpus.vocabulary: {corpus.vocabulary!r} reads text, but the files hold integers; leave it out"
        )
    return TokenizerChoice(integers=corpus.vocab_size or BYTES_OF_INTEGERS)


def read_model(path: str) -> bytes:
    """A SentencePiece model file. Raises InputError if it cannot be read."""
    try:
        return Path(path).expanduser().read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"corpus.vocabulary: {path!r} cannot be read ({why}); name a .model file, or {KINDS_WORDS}"
        ) from None

"""The tokenizer of a finished run, both ways: text to tokens, tokens to text, and where in the text each token begins.

A record names its tokenizer, and the name ends in a digest of all that it makes of text (lmscale.data.tokenizers).
Bytes and letters follow from the name; a SentencePiece model is looked for among those trained beside the run's text
and those that its text was prepared with, or is named. Only one with the record's digest is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from analysis.errors import InputError
from lmscale.data import lexicon
from lmscale.data.shards import MANIFEST, Vocabulary
from lmscale.data.tokenizers import BYTE_OFFSET, ByteTokenizer, LetterTokenizer, SentencePieceTokenizer, bytes_of
from lmscale.data.vocabulary_store import MODEL, VOCABULARIES

OPTION = "vocabulary"
LETTER = "letter-"
INTEGERS = "passthrough-"


class Reader(Protocol):
    vocabulary: Vocabulary

    def encode(self, text: str) -> list[int]:
        """Tokens, with no end-of-sequence. Raises InputError for text that the vocabulary has no tokens for."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text; of half a character U+FFFD, of tokens that stand for no text nothing."""
        ...

    def starts(self, text: str) -> list[int]:
        """The place in the text, in characters, at which each of its tokens begins."""
        ...


class ByteReader:
    def __init__(self) -> None:
        self.vocabulary = ByteTokenizer().vocabulary

    def encode(self, text: str) -> list[int]:
        return [byte + BYTE_OFFSET for byte in _utf8(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return bytes_of(list(ids)).decode(errors="replace")

    def starts(self, text: str) -> list[int]:
        return [place for place, letter in enumerate(text) for _ in _utf8(letter)]


class LetterReader:
    """Of a lexicon: letters and spaces, a token each."""

    def __init__(self, letters: int) -> None:
        self.vocabulary = LetterTokenizer(letters).vocabulary
        self._known = {" ": lexicon.SPACE}
        self._known |= {letter: lexicon.FIRST_LETTER + i for i, letter in enumerate(lexicon.ALPHABET[:letters])}
        self._letters = {token: letter for letter, token in self._known.items()}

    def encode(self, text: str) -> list[int]:
        if unknown := sorted(set(text) - set(self._known)):
            raise outside(text, unknown[0], f"knows spaces and {lexicon.ALPHABET[: len(self._known) - 1]!r} alone")
        return [self._known[letter] for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._letters.get(token, "") for token in ids)

    def starts(self, text: str) -> list[int]:
        return list(range(len(text)))


class PieceReader:
    """Of a SentencePiece model."""

    def __init__(self, path: Path) -> None:
        self.vocabulary = SentencePieceTokenizer(str(path)).vocabulary
        from sentencepiece import SentencePieceProcessor

        self._processor = SentencePieceProcessor(model_file=str(path))

    def _pieces(self, text: str) -> list[Any]:
        """With where each begins, in bytes: a proto, which every version of the library serialises alike."""
        from sentencepiece import sentencepiece_pb2

        found = self._processor.encode(text, out_type="serialized_proto")
        return list(sentencepiece_pb2.SentencePieceText.FromString(found).pieces)  # pyright: ignore[reportAttributeAccessIssue]

    def encode(self, text: str) -> list[int]:
        _utf8(text)
        pieces, unknown = self._pieces(text), self._processor.unk_id()
        for piece in pieces:
            if piece.id == unknown:
                raise outside(text, piece.surface, f"has no piece for it in {self.vocabulary.name}")
        return [piece.id for piece in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        special = {self._processor.unk_id(), self._processor.eos_id(), self._processor.pad_id()}
        known = [int(i) for i in ids if 0 <= i < self.vocabulary.size and i not in special]
        return self._processor.decode(known)

    def starts(self, text: str) -> list[int]:
        letters = [place for place, letter in enumerate(text) for _ in _utf8(letter)]
        return [letters[min(piece.begin, len(letters) - 1)] for piece in self._pieces(text)]


def outside(text: str, what: str, why: str) -> InputError:
    return InputError(f"text: {text!r} holds {what!r}, and the run's vocabulary {why}; write without it")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:  # bytes of the command line that are no UTF-8
        raise InputError(f"text: {text!r} is not UTF-8 at {error.start}; write it in UTF-8") from None


def reader_of(name: str, size: int, shards: Path, model: Path | None = None) -> Reader:
    """The tokenizer of that name, of `size` ids. `shards` is the folder of the texts beside the run; `model` a
    SentencePiece file.

    Raises InputError where it is not found, is not the one that the run was trained with, or reads no text.
    """
    if name.startswith(INTEGERS):
        raise InputError(f"run: was trained on integers ({name}), which are no text; choose a run of text")
    if name == "bytes" or name.startswith(LETTER):
        reader = ByteReader() if name == "bytes" else LetterReader(size - lexicon.FIRST_LETTER)
        if reader.vocabulary.name != name:
            raise InputError(f"run: its vocabulary {name!r} is of another version of lmscale; train it again")
        return reader
    if model is not None:
        reader = PieceReader(model)
        if reader.vocabulary.name != name:
            raise InputError(
                f"{OPTION}: {str(model)!r} is {reader.vocabulary.name}, and the run was trained in {name}; give that"
            )
        return reader
    for path in _models(shards):
        try:
            reader = PieceReader(path)
        except InputError:  # of another text, and damaged
            continue
        if reader.vocabulary.name == name:
            return reader
    raise InputError(
        f"{OPTION}: the model of {name} is not found beside {str(shards)!r}; name its .model file with --vocabulary"
    )


def _models(shards: Path) -> Iterator[Path]:
    yield from sorted((shards / VOCABULARIES).glob(f"*/{MODEL}"))
    for path in sorted(shards.glob(f"*/{MANIFEST}")):
        try:
            models = json.loads(path.read_text(encoding="utf-8"))["source"].get("models", {})
            yield from (Path(each["path"]) for each in models.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # damaged: it names none

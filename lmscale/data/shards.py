"""The format of prepared text, and its reader: memory-mapped token arrays with a manifest.

A folder holds, for each split (`train`, `heldout`) and each feature (`targets`, and whatever else a Task makes):

    manifest.json                 what is here, where it came from, and a hash of every file
    train-targets-00000.npy ...   tokens of all documents end to end, uint16 (uint32 for larger vocabularies), in shards
    train-targets-offsets.npy     int64 [documents + 1]: where each document starts in the token stream
    train-targets-bytes.npy       int64 [documents]: UTF-8 bytes of text behind each document's tokens
    train-slice-source.npy        int32 [documents]: for each field of `Corpus.slices`, which of the manifest's values

Documents keep one order in all features. The manifest's `digest` covers tokens, offsets and bytes alone, whatever the
shard size, dtype, names, slices or library versions: it is what enters the identity of a run.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError

FORMAT = 2
SPLITS = ("train", "heldout")
MANIFEST = "manifest.json"
FEATURE = "targets"  # the tokens that are scored: every prepared Task makes them
BLOCK_TOKENS = 1 << 22  # tokens hashed at a time
MAPPED_MOST = 256  # shards of a split that are mapped at once: each holds a file open, and many systems allow 1,024
FEATURE_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What a run must know of a tokenizer. `digest` changes whenever the tokenizer would give other tokens."""

    class_name: str
    name: str  # short, for tables: the column `tokenizer`
    size: int  # number of ids, extra ids included
    eos_id: int | None
    digest: str

    @property
    def start_id(self) -> int:
        """The id a model reads before a document's first token: end-of-sequence, else padding (0 in seqio)."""
        return 0 if self.eos_id is None else self.eos_id

    @property
    def dtype(self) -> np.dtype:
        """The smallest stored type that holds every id."""
        return np.dtype("<u2") if self.size <= 1 << 16 else np.dtype("<u4")


class Split:
    """One feature of one split: a stream of tokens and its documents. Files are mapped when first touched."""

    def __init__(
        self,
        folder: Path,
        split: str,
        feature: str,
        vocabulary: Vocabulary,
        counts: Mapping,
        slices: Collection[str] = (),
    ) -> None:
        self._folder, self._name, self._stem, self._slices = folder, split, f"{split}-{feature}", slices
        self.vocabulary = vocabulary
        self.documents: int = counts["documents"]
        self.tokens: int = counts["features"][feature]["tokens"]
        self.total_bytes: int = counts["features"][feature]["bytes"]  # UTF-8 bytes of text
        self._sizes: list[int] = counts["features"][feature]["shards"]
        self._starts = np.concatenate([[0], np.cumsum(self._sizes, dtype=np.int64)]).tolist()
        self._mapped: dict[int, NDArray] = {}

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """int64 [documents + 1]: document d is tokens offsets[d] to offsets[d + 1]."""
        return _map(self._folder / f"{self._stem}-offsets.npy", np.dtype("<i8"), self.documents + 1)

    @cached_property
    def bytes(self) -> NDArray[np.int64]:
        """int64 [documents]: UTF-8 bytes of text of each document."""
        return _map(self._folder / f"{self._stem}-bytes.npy", np.dtype("<i8"), self.documents)

    def slice(self, field: str) -> NDArray[np.int32]:
        """int32 [documents]: for each document the index of its value of `field` in `Shards.slices[field]`.

        Raises InputError for a field that was not kept.
        """
        if field not in self._slices:
            kept = ", ".join(self._slices) or "none"
            raise InputError(f"slice: {field!r} was not kept (kept: {kept}); prepare with --corpus.slices {field}")
        return _map(self._folder / slice_file(self._name, field), np.dtype("<i4"), self.documents)

    def read(self, start: int, stop: int) -> NDArray:
        """Tokens [start, stop) as stored (uint16 or uint32), across shard borders too.

        A range within one shard is a view of the mapped file. Raises IndexError outside [0, tokens].
        """
        if not 0 <= start <= stop <= self.tokens:
            raise IndexError(f"tokens [{start}, {stop}) are not within the {self.tokens} of {self._stem}")
        index = bisect_right(self._starts, start) - 1
        if index < len(self._sizes) and stop <= self._starts[index + 1]:
            return self._shard(index)[start - self._starts[index] : stop - self._starts[index]]
        parts = [np.zeros(0, self.vocabulary.dtype)]
        while start < stop:
            end = min(stop, self._starts[index + 1])
            parts.append(self._shard(index)[start - self._starts[index] : end - self._starts[index]])
            start, index = end, index + 1
        return np.concatenate(parts)

    def document(self, index: int) -> NDArray:
        """All tokens of one document."""
        return self.read(int(self.offsets[index]), int(self.offsets[index + 1]))

    def _shard(self, index: int) -> NDArray:
        if index not in self._mapped:
            if len(self._mapped) >= MAPPED_MOST:  # the first goes; views of it stay good as long as they are held
                self._mapped.pop(next(iter(self._mapped)))
            path = self._folder / f"{self._stem}-{index:05d}.npy"
            self._mapped[index] = _map(path, self.vocabulary.dtype, self._sizes[index])
        return self._mapped[index]


class Shards:
    """A prepared folder. `train` and `heldout` are the feature `targets`; `split` gives any other."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.digest: str = manifest["digest"]
        self.vocabularies = {feature: Vocabulary(**values) for feature, values in manifest["features"].items()}
        self.slices: dict[str, list[str]] = manifest["slices"]  # field -> its values; Split.slice has their indices

    def split(self, split: str, feature: str = FEATURE) -> Split:
        """Raises InputError for a feature that the Task did not make."""
        if feature not in self.vocabularies:
            raise InputError(f"feature: {feature!r} is not among those prepared: {', '.join(self.vocabularies)}")
        counts = self.manifest["splits"][split]
        return Split(self.folder, split, feature, self.vocabularies[feature], counts, self.slices)

    @property
    def entropy_nats(self) -> float | None:
        """The entropy rate of the source in nats a token, of one that is made."""
        return self.manifest.get("entropy_nats")

    @cached_property
    def train(self) -> Split:
        return self.split("train")

    @cached_property
    def heldout(self) -> Split:
        return self.split("heldout")

    def verify(self) -> None:
        """Reads every file through. Raises InputError at the first whose content is not what was prepared."""
        for name, expected in self.manifest["files"].items():
            if file_hash(self.folder / name) != expected["sha256"]:
                raise _damaged(self.folder, f"{name} was changed after preparation")
        for name, counts in self.manifest["splits"].items():
            for feature, expected in counts["features"].items():
                split, tokens = self.split(name, feature), hashlib.sha256()
                for start in range(0, split.tokens, BLOCK_TOKENS):
                    tokens.update(split.read(start, min(start + BLOCK_TOKENS, split.tokens)).astype("<u4").tobytes())
                if stream_digest(tokens.digest(), split.offsets, split.bytes) != expected["digest"]:
                    raise _damaged(self.folder, f"{name}-{feature} does not match its digest")
            for field, values in self.slices.items():
                codes = self.split(name).slice(field)
                if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < len(values):
                    raise _damaged(self.folder, f"{slice_file(name, field)} does not match the values of its field")


def open_shards(folder: Path) -> Shards:
    """Opens a prepared folder: reads its manifest and compares the size of each file, nothing else.

    Raises:
        InputError: the manifest is missing, unreadable, inconsistent or of another format; a file is missing or cut.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"corpus: {str(folder)!r} holds no {MANIFEST}; run 'lmscale prepare'") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _damaged(folder, f"{MANIFEST} is not of format {FORMAT}")
    try:
        shards = Shards(folder, manifest)
        _check_counts(shards)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder, f"{MANIFEST} is inconsistent ({type(error).__name__}: {error})") from None
    for name, expected in manifest["files"].items():
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            raise _damaged(folder, f"{name} is missing ({error.strerror})") from None
        if size != expected["bytes"]:
            raise _damaged(folder, f"{name} has {size} bytes instead of {expected['bytes']}")
    return shards


def _check_counts(shards: Shards) -> None:
    manifest, names = shards.manifest, set()
    if manifest["digest"] != content_digest(manifest["splits"]):
        raise ValueError("digest does not follow from its parts")
    for split in SPLITS:
        for feature in shards.vocabularies:
            counts = manifest["splits"][split]["features"][feature]
            if not FEATURE_NAME.fullmatch(feature) or sum(counts["shards"]) != counts["tokens"]:
                raise ValueError(f"{split}-{feature} does not add up")
            parts = [f"{i:05d}" for i in range(len(counts["shards"]))] + ["offsets", "bytes"]
            names |= {f"{split}-{feature}-{part}.npy" for part in parts}
        for field, values in shards.slices.items():
            if not FEATURE_NAME.fullmatch(field) or not all(isinstance(value, str) for value in values):
                raise ValueError(f"slice {field!r} has values that are no text")
            names.add(slice_file(split, field))
    if names != set(manifest["files"]):
        raise ValueError("the list of files is not that of its shards")
    if not all(isinstance(entry["bytes"], int) and entry["sha256"] for entry in manifest["files"].values()):
        raise ValueError("a file has no size or hash")


def slice_file(split: str, field: str) -> str:
    """The file that holds one field of one split."""
    return f"{split}-slice-{field}.npy"


def _map(path: Path, dtype: np.dtype, size: int) -> NDArray:
    try:
        # An empty file cannot be mapped
        values = np.load(path, mmap_mode="r" if size else None, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _damaged(path.parent, f"{path.name} cannot be read ({error})") from None
    if values.dtype != dtype or values.shape != (size,):
        raise _damaged(path.parent, f"{path.name} holds {values.dtype} {values.shape} instead of {dtype} ({size},)")
    return np.asarray(values)  # still mapped; slices of a np.memmap itself take microseconds


def _damaged(folder: Path, what: str) -> InputError:
    return InputError(f"corpus: {str(folder)!r}: {what}; remove that folder and run 'lmscale prepare' again")


def stream_digest(token_digest: bytes, offsets: NDArray, text_bytes: NDArray) -> str:
    """Digest of one feature of one split. `token_digest` is the SHA-256 of all tokens as little-endian uint32."""
    whole = hashlib.sha256(token_digest)
    whole.update(np.ascontiguousarray(offsets, "<i8").tobytes())
    whole.update(np.ascontiguousarray(text_bytes, "<i8").tobytes())
    return whole.hexdigest()


def content_digest(splits: Mapping[str, Mapping]) -> str:
    """The digest of a whole folder, from the `splits` of its manifest."""
    parts = [
        f"{split} {feature} {counts['digest']}\n"
        for split in SPLITS
        for feature, counts in sorted(splits[split]["features"].items())
    ]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a prepared file. Raises InputError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _damaged(path.parent, f"{path.name} cannot be read ({error.strerror})") from None

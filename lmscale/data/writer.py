"""Writes a prepared folder (its format is described in lmscale.data.shards), in bounded memory and all or nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import uuid
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.data.shards import (
    FEATURE_NAME,
    FORMAT,
    MANIFEST,
    SPLITS,
    Vocabulary,
    content_digest,
    slice_file,
    stream_digest,
)
from lmscale.store.files import sync_folder

SHARD_TOKENS = 1 << 24  # bounds memory: 32 MiB per split and feature as uint16
SLICE_VALUES_MAX = 10_000  # of one field: more are no groups, and the manifest would hold them all
NO_SLICES: Mapping[str, str] = MappingProxyType({})


class _Stream:
    """One split of one feature while it is written: at most one shard of tokens, and what was added last, in memory."""

    def __init__(self, writer: ShardWriter, split: str, feature: str, dtype: np.dtype, shard_tokens: int) -> None:
        self._writer, self._stem, self._dtype, self._shard_tokens = writer, f"{split}-{feature}", dtype, shard_tokens
        self._pending: list[NDArray] = []
        self._pending_tokens = 0
        self._token_hash = hashlib.sha256()
        self.shards: list[int] = []
        self.lengths = array("q")
        self.bytes = array("q")

    def extend(self, tokens: NDArray, lengths: NDArray, text_bytes: NDArray) -> None:
        self._token_hash.update(memoryview(np.ascontiguousarray(tokens, "<u4")))  # pyright: ignore[reportArgumentType]
        self.lengths.frombytes(np.ascontiguousarray(lengths, np.int64).tobytes())
        self.bytes.frombytes(np.ascontiguousarray(text_bytes, np.int64).tobytes())
        self._pending.append(tokens.astype(self._dtype))
        self._pending_tokens += len(tokens)
        if self._pending_tokens >= self._shard_tokens:
            self._flush(keep_rest=True)

    def _flush(self, *, keep_rest: bool) -> None:
        tokens = np.concatenate(self._pending) if self._pending else np.zeros(0, self._dtype)
        while len(tokens) >= self._shard_tokens or (len(tokens) and not keep_rest):
            shard, tokens = tokens[: self._shard_tokens], tokens[self._shard_tokens :]
            self._writer.save(f"{self._stem}-{len(self.shards):05d}.npy", shard)
            self.shards.append(len(shard))
        self._pending, self._pending_tokens = [tokens.copy()], len(tokens)

    def finish(self) -> dict[str, Any]:
        self._flush(keep_rest=False)
        text_bytes = np.asarray(self.bytes, "<i8")
        offsets = np.zeros(len(self.lengths) + 1, "<i8")
        np.cumsum(np.asarray(self.lengths, np.int64), out=offsets[1:])
        self._writer.save(f"{self._stem}-offsets.npy", offsets)
        self._writer.save(f"{self._stem}-bytes.npy", text_bytes)
        return {
            "tokens": int(offsets[-1]),
            "bytes": int(text_bytes.sum()),
            "shards": self.shards,
            "digest": stream_digest(self._token_hash.digest(), offsets, text_bytes),
        }


class _Slice:
    """One field of all documents while they are written: codes in the order in which values are met."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._known: dict[str, int] = {}
        self._codes = {split: array("i") for split in SPLITS}

    def extend(self, split: str, values: Sequence[str]) -> None:
        known, codes = self._known, self._codes[split]
        for value in values:
            codes.append(known.setdefault(value, len(known)))
        if len(known) > SLICE_VALUES_MAX:
            raise InputError(
                f"corpus.slices: {self._field!r} has more than {SLICE_VALUES_MAX} values, which are no groups; name a "
                "field of fewer"
            )

    def finish(self, writer: ShardWriter) -> list[str]:
        """Saves the codes, and returns the values that they count, sorted."""
        values = sorted(self._known)
        order = {value: index for index, value in enumerate(values)}
        renamed = np.array([order[value] for value in self._known], "<i4")
        for split, codes in self._codes.items():
            writer.save(slice_file(split, self._field), renamed[np.asarray(codes, np.int64)])
        return values


class ShardWriter:
    """Streams documents into a hidden folder beside `folder`, and renames it into place when `finish` is called.

    Everything is synced before the rename, so `folder` either holds all or does not exist, also after a kill or a
    power cut. Used as a context manager, it removes the hidden folder when it is left by an exception.
    """

    def __init__(
        self,
        folder: Path,
        vocabularies: Mapping[str, Vocabulary],
        *,
        slices: Sequence[str] = (),
        shard_tokens: int = SHARD_TOKENS,
    ) -> None:
        for feature in vocabularies:
            if not FEATURE_NAME.fullmatch(feature):
                raise InputError(f"corpus.task: feature {feature!r} must be named with letters, digits and '_'")
        self.folder = folder
        self.temporary = folder.with_name(f".{folder.name}.tmp-{uuid.uuid4().hex[:12]}")
        self.temporary.mkdir(parents=True)
        self._vocabularies = dict(sorted(vocabularies.items()))
        self._files: dict[str, dict[str, Any]] = {}
        self._slices = {field: _Slice(field) for field in sorted(slices)}
        self._streams = {
            (split, feature): _Stream(self, split, feature, vocabulary.dtype, shard_tokens)
            for split in SPLITS
            for feature, vocabulary in self._vocabularies.items()
        }

    def add(
        self,
        split: str,
        tokens: Mapping[str, NDArray],
        text_bytes: Mapping[str, int],
        slices: Mapping[str, str] = NO_SLICES,
    ) -> None:
        """Appends one document: integer tokens [n] and UTF-8 bytes of text for each feature, and its fields.

        Raises:
            InputError: a token lies outside its vocabulary.
        """
        self.extend(
            split,
            tokens,
            {feature: np.array([len(tokens[feature])]) for feature in self._vocabularies},
            {feature: np.array([text_bytes[feature]]) for feature in self._vocabularies},
            {field: [slices[field]] for field in self._slices},
        )

    def extend(
        self,
        split: str,
        tokens: Mapping[str, NDArray],
        lengths: Mapping[str, NDArray],
        text_bytes: Mapping[str, NDArray],
        slices: Mapping[str, Sequence[str]],
    ) -> None:
        """Appends many documents: for each feature their tokens end to end, and tokens and bytes of each [documents];
        of each field a value a document.

        Raises:
            InputError: a token lies outside its vocabulary; a field has too many values.
        """
        for feature, vocabulary in self._vocabularies.items():
            values = tokens[feature]
            if len(values) and not 0 <= int(values.min()) <= int(values.max()) < vocabulary.size:
                worst = int(values.max()) if values.max() >= vocabulary.size else int(values.min())
                raise InputError(
                    f"corpus.task: feature {feature!r} holds token {worst}, outside its vocabulary of "
                    f"{vocabulary.size}; mend the Task's vocabulary"
                )
            self._streams[split, feature].extend(values, lengths[feature], text_bytes[feature])
        for field, each in self._slices.items():
            each.extend(split, slices[field])

    def documents(self, split: str) -> int:
        """Documents added to `split` so far."""
        return len(self._streams[split, next(iter(self._vocabularies))].bytes)

    def save(self, name: str, values: NDArray) -> None:
        """Writes one array of the folder and notes its size and hash."""
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(values))
        digest, content = hashlib.sha256(), np.ascontiguousarray(values)
        with (self.temporary / name).open("wb") as stream:
            data = memoryview(content).cast("B") if content.size else b""  # pyright: ignore[reportArgumentType]
            for part in (header.getvalue(), data):
                digest.update(part)
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
            self._files[name] = {"bytes": stream.tell(), "sha256": digest.hexdigest()}

    def finish(self, about: Mapping[str, Any]) -> Path:
        """Writes the manifest (with the entries of `about`) and renames the folder into place. Returns the folder."""
        splits = {
            split: {
                "documents": self.documents(split),
                "features": {feature: self._streams[split, feature].finish() for feature in self._vocabularies},
            }
            for split in SPLITS
        }
        slices = {field: each.finish(self) for field, each in self._slices.items()}
        manifest = {
            "format": FORMAT,
            "digest": content_digest(splits),
            **about,
            "features": {feature: asdict(vocabulary) for feature, vocabulary in self._vocabularies.items()},
            "slices": slices,
            "splits": splits,
            "files": self._files,
        }
        with (self.temporary / MANIFEST).open("w", encoding="utf-8") as stream:
            json.dump(manifest, stream, indent=1, allow_nan=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(self.temporary)
        os.rename(self.temporary, self.folder)
        sync_folder(self.folder.parent)
        return self.folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)

"""The pieces in which a corpus is tokenised: files that a killed preparation leaves, and that are joined at its end.

A piece is an uncompressed .npz whose checksums say whether it is whole: for each side of the hold-out and each feature
the tokens of its documents end to end, how many each has and the bytes behind them; of each field a value a document.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.data.shards import SPLITS
from lmscale.data.writer import ShardWriter

ENDING = ".npz"


def heldout_share(content: bytes) -> float:
    """Where a document falls in [0, 1): the first 53 bits of the SHA-256 of its content."""
    return (int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 11) / (1 << 53)


@dataclass(frozen=True, kw_only=True)
class Side:
    """Documents of one split: by feature their tokens end to end, tokens and bytes of each; by field their values."""

    tokens: Mapping[str, NDArray]
    lengths: Mapping[str, NDArray]
    text_bytes: Mapping[str, NDArray]
    slices: Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What a piece holds. `lowest_share`: where the document falls that is held out first."""

    documents: int
    text_bytes: int
    dropped: int  # documents without a token
    lowest_share: float


def write_piece(path: Path, sides: Mapping[str, Side], counts: Counts) -> None:
    """Writes a piece whole or not at all. (After a power cut it may be cut all the same, which `is_whole` finds.)"""
    arrays: dict[str, NDArray] = {}
    words: dict[str, Any] = {"counts": vars(counts), "slices": {}}
    for split, side in sides.items():
        for feature in side.tokens:
            arrays[f"{split}-{feature}-tokens"] = side.tokens[feature]
            arrays[f"{split}-{feature}-lengths"] = side.lengths[feature]
            arrays[f"{split}-{feature}-bytes"] = side.text_bytes[feature]
        for field, values in side.slices.items():
            known: dict[str, int] = {}
            codes = np.fromiter((known.setdefault(value, len(known)) for value in values), np.int32, len(values))
            arrays[f"{split}-slice-{field}"] = codes
            words["slices"][f"{split}-{field}"] = list(known)
    arrays["words"] = np.frombuffer(json.dumps(words).encode(), np.uint8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]  # numpy 2 has one more argument
    os.replace(temporary, path)


def is_whole(path: Path) -> bool:
    """Whether a piece is there and holds what was written: its checksums are read through."""
    try:
        with zipfile.ZipFile(path) as file:
            return file.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def join_piece(path: Path, writer: ShardWriter, features: Sequence[str], fields: Sequence[str]) -> Counts:
    """Appends a piece to the shards. Raises InputError for one that is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            words = json.loads(file["words"].tobytes())
            for split in SPLITS:
                slices = {}
                for field in fields:
                    values = words["slices"][f"{split}-{field}"]
                    slices[field] = [values[code] for code in file[f"{split}-slice-{field}"].tolist()]
                tokens, lengths, text_bytes = (
                    {feature: file[f"{split}-{feature}-{part}"] for feature in features}
                    for part in ("tokens", "lengths", "bytes")
                )
                writer.extend(split, tokens, lengths, text_bytes, slices)
            return Counts(**words["counts"])
    except InputError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"out: {str(path)!r} is damaged ({error}); remove it and run the command again") from None

"""TensorBoard: a folder of the CSVs that its page downloads, or a folder of its event files. One row a run."""

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.reading.excluded import ExcludedRows
from analysis.reading.json_rows import Columns
from analysis.reading.limits import MAX_BYTES, MAX_EVENT_BYTES, MAX_FILES, MAX_ROW_BYTES, too_many
from analysis.reading.loaded import Loaded
from analysis.reading.rows import numbers

DOWNLOAD = re.compile(r"run-(?P<run>.+)-tag-(?P<tag>.+)\.csv")
HEAD = ["Wall time", "Step", "Value"]
SESSION = "_hparams_/session_start_info"  # the tag under which the hparams plugin stores a run's settings
OWN = {"run_id", "step"}


class Damaged(Exception):
    """An event file that ends inside a record, or whose check sums do not fit."""


def found(folder: Path) -> bool:
    """Whether a folder holds downloads, or event files at any depth."""
    return any(_downloads(folder)) or any(_event_files(folder))


def read(folder: Path) -> Loaded:
    """A row a run, numbered from 1 in the order of names: `run_id`, `step` (the highest), the last value of every tag
    (that of the highest step), and for event files the hyperparameters that the hparams plugin stored.

    A run is a download's run, or a first-level subfolder of a log folder; tags of folders inside it bear their path
    (`validation/epoch_loss`). Runs of damaged files are left out and named. Raises InputError where the package
    tensorboard is missing, and for files that are too large or no such tables.
    """
    return _read_downloads(folder) if any(_downloads(folder)) else _read_events(folder)


def _downloads(folder: Path) -> Iterator[tuple[str, str, Path]]:
    for path in folder.glob("run-*-tag-*.csv"):
        match = DOWNLOAD.fullmatch(path.name)
        if match:
            yield match["run"], match["tag"], path


def _event_files(folder: Path) -> Iterator[Path]:
    seen = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        seen += len(names) + len(folders)
        if seen > MAX_FILES:
            raise too_many(str(folder), f"more than {MAX_FILES:,} files")
        yield from (Path(place) / name for name in sorted(names) if "tfevents" in name)


def _loaded(folder: Path, runs: dict[str, dict[str, Any]], damaged: dict[str, tuple[str, str, str]]) -> Loaded:
    columns, excluded = Columns(str(folder)), ExcludedRows()
    for row, run in enumerate(sorted({*runs, *damaged}), 1):
        if run in damaged:
            column, value, reason = damaged[run]
            excluded.add(np.array([row], np.int64), column, [value], reason)
        else:
            columns.add(row, {"run_id": run, **runs[run]})
    return Loaded(frame=columns.frame(), rows=np.array(columns.rows, np.int64), excluded=excluded)


def _read_downloads(folder: Path) -> Loaded:
    runs: dict[str, dict[str, Any]] = {}
    damaged: dict[str, tuple[str, str, str]] = {}
    files = sorted(_downloads(folder))
    if sum(path.stat().st_size for _, _, path in files) > MAX_BYTES:
        raise too_many(str(folder), f"more than {MAX_BYTES / 1e6:.0f} MB")
    for run, tag, path in files:
        frame = pd.read_csv(path, dtype=str, na_filter=False, encoding="utf-8")
        steps = numbers(frame, "Step") if "Step" in frame else np.array([np.nan])
        if list(frame.columns) != HEAD or np.isnan(steps).any():
            raise InputError(f"runs: {str(path)!r} is no CSV of TensorBoard, with {','.join(HEAD)}; remove it")
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                value = str(frame["Value"].iloc[-1]) if len(frame) else ""
                damaged[run] = (tag, value, "its file ends without a newline and may be cut short; download it again")
        if len(frame):
            last = len(steps) - 1 - int(np.argmax(steps[::-1]))
            values = runs.setdefault(run, {"step": 0.0})
            values["step"] = max(values["step"], float(steps[last]))
            values[f"{tag}_tag" if tag in OWN else tag] = frame["Value"].iloc[last]
    return _loaded(folder, runs, damaged)


def _read_events(folder: Path) -> Loaded:
    files = list(_event_files(folder))
    size = sum(path.stat().st_size for path in files)
    if size > MAX_EVENT_BYTES:
        raise too_many(str(folder), f"{size / 1e9:.0f} GB of event files")
    runs: dict[str, dict[str, Any]] = {}
    settings: dict[str, dict[str, Any]] = {}
    highest: dict[tuple[str, str], int] = {}  # step of a run's value so far: it may have several files
    damaged: dict[str, tuple[str, str, str]] = {}
    for path in files:
        run, *inside = path.relative_to(folder).parent.parts or (".",)
        try:
            last, steps, hparams = _last_values(path)
        except Damaged as error:
            damaged[run] = ("file", path.name, f"{error}; log the run again, or remove the file")
            continue
        values = runs.setdefault(run, {"step": 0.0})
        # SummaryWriter.add_hparams opens a folder of its own for the settings: its metrics are the run's.
        heading = "" if hparams else "".join(f"{part}/" for part in inside)
        for tag, value in last.items():
            name = f"{heading}{tag}"
            if steps[tag] >= highest.get((run, name), steps[tag]):
                highest[run, name] = steps[tag]
                values[f"{name}_tag" if name in OWN else name] = value
        values["step"] = max([values["step"], *map(float, steps.values())])
        settings.setdefault(run, {}).update(hparams)
    for run, hparams in settings.items():
        runs[run].update({f"hparams.{name}" if name in runs[run] else name: v for name, v in hparams.items()})
    return _loaded(folder, runs, damaged)


def _last_values(path: Path) -> tuple[dict[str, float], dict[str, int], dict[str, Any]]:
    """Of one event file: each scalar tag's value at its highest step, that step, and hyperparameters."""
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.plugins.hparams.plugin_data_pb2 import (
            HParamsPluginData,  # pyright: ignore[reportAttributeAccessIssue]
        )
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise InputError(
            "runs: TensorBoard's event files need its package; pip install 'lmscale[tensorboard]', "
            "or download the CSVs from its page"
        ) from None
    last: dict[str, float] = {}
    steps: dict[str, int] = {}
    hparams: dict[str, Any] = {}
    scalars: set[str] = set()  # tags whose first value in this file said that tensors of theirs are scalars
    for record in _records(path):
        try:
            event = Event.FromString(record)
            for value in event.summary.value:
                plugin = value.metadata.plugin_data
                if value.tag == SESSION:
                    stored = HParamsPluginData.FromString(plugin.content).session_start_info.hparams
                    hparams.update({name: _setting(setting) for name, setting in stored.items()})
                    continue
                if plugin.plugin_name == "scalars":
                    scalars.add(value.tag)
                if value.HasField("simple_value"):
                    number = value.simple_value
                elif value.tag in scalars and value.HasField("tensor"):
                    number = float(make_ndarray(value.tensor).reshape(-1)[0])
                else:
                    continue
                if event.step >= steps.get(value.tag, event.step):
                    last[value.tag], steps[value.tag] = number, event.step
        except (DecodeError, ValueError, TypeError, IndexError) as error:
            raise Damaged(f"a record is no event ({str(error)[:60]})") from None
    return last, steps, hparams


def _setting(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    return None if kind in (None, "null_value") else getattr(value, kind)


def _records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file, checked; those above MAX_ROW_BYTES (images, histograms) are passed over.

    A record is its length (8 bytes, little-endian), a check sum of that, the data, a check sum of the data.
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    size = path.stat().st_size
    with path.open("rb") as stream:
        at = 0
        while at < size:
            head = stream.read(12)
            if len(head) < 12:
                raise Damaged("the file ends inside a record")
            length, check = struct.unpack("<QI", head)
            if masked_crc32c(head[:8]) != check:
                raise Damaged("the check sum of a record's length does not fit")
            at += 16 + length
            if at > size:
                raise Damaged("the file ends inside a record")
            if length > MAX_ROW_BYTES:
                stream.seek(at)
                continue
            data = stream.read(length + 4)
            if masked_crc32c(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
                raise Damaged("the check sum of a record does not fit")
            yield data[:-4]

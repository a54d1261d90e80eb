"""Files to frames: CSV, TSV, JSON lines, JSON, Parquet, ours or an export of Weights & Biases or TensorBoard."""

import gzip
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.reading import json_rows, tensorboard_logs, wandb_export
from analysis.reading.limits import MAX_BYTES, MAX_CELLS, MAX_COLUMNS, MAX_JSON_BYTES, MAX_ROW_BYTES, too_many
from analysis.reading.loaded import Loaded

CHUNK = MAX_ROW_BYTES
TSV = (".tsv", ".tab")
KINDS = "CSV, TSV, Parquet, JSON lines (.jsonl), JSON, or a folder of runs.csv or of TensorBoard logs"


def load(path: str | Path) -> Loaded:
    """The rows of a file or folder, as text and numbers, before any check of what they mean.

    The kind goes by the name: .tsv, .tab; .jsonl, .ndjson; .json (an array of objects, or lines); .parquet, .pq;
    anything else is CSV. Gzip and Parquet are known by their first bytes. A folder holds runs.csv, or what TensorBoard
    wrote.
    Lists and bytes in a Parquet file are passed over.
    Raises InputError when the file is missing, of no such kind, damaged, or too large.
    """
    path = Path(path)
    try:
        loaded = wandb_export.expand(_load(path))
        if not len(loaded.frame) and loaded.excluded:
            raise InputError(f"runs: {str(path)!r} holds no row that can be read: {loaded.excluded[0]}")
        return loaded
    except InputError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"runs: {str(path)!r} is a gzip file cut short or damaged; copy it again") from None
    except UnicodeDecodeError as error:
        raise InputError(f"runs: {str(path)!r} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(f"runs: {str(path)!r} cannot be read ({why}); check the path") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning, ValueError) as error:
        raise InputError(
            f"runs: {str(path)!r} is not a table ({str(error)[:200]}); give one header row and one row a run"
        ) from None


def holds_runs(path: Path) -> bool:
    """Whether `load` would find a table here."""
    return path.is_file() or (path.is_dir() and ((path / "runs.csv").is_file() or tensorboard_logs.found(path)))


def _load(path: Path) -> Loaded:
    if path.is_dir() and not (path / "runs.csv").is_file() and tensorboard_logs.found(path):
        return tensorboard_logs.read(path)
    file = path / "runs.csv" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"runs: {str(file)!r} is not a file; give {KINDS}")
    if file.stat().st_size > MAX_BYTES:
        size = f"{file.stat().st_size / 1e6:.0f} MB"
        raise InputError(f"runs: {str(file)!r} is {size}, above the {MAX_BYTES / 1e6:.0f} MB of a table; split it")
    with file.open("rb") as stream:
        magic = stream.read(4)
        stream.seek(max(file.stat().st_size - 4, 0))
        tail = stream.read(4)
    packed = magic[:2] == b"\x1f\x8b"
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if magic == b"PAR1" or suffix in (".parquet", ".pq"):
        if not magic == tail == b"PAR1":
            raise InputError(
                f"runs: {str(file)!r} is no whole Parquet file, which begins and ends with PAR1; copy it again"
            )
        return _parquet(file)

    def opened() -> BinaryIO:
        return cast(BinaryIO, gzip.open(file)) if packed else file.open("rb")

    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(opened, str(file))
    if suffix == ".json":
        return _json(opened, str(file))
    return _csv(opened, str(file), "\t" if suffix in TSV else ",")


def _csv(opened: Callable[[], BinaryIO], source: str, separator: str) -> Loaded:
    with opened() as stream:
        ended = _scan(stream, source, separator.encode())
    with opened() as stream, warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # index_col=False: otherwise a field too many in every row would silently shift every column.
        frame = pd.read_csv(stream, sep=separator, dtype=str, na_filter=False, index_col=False, encoding="utf-8-sig",
                            encoding_errors="strict", skip_blank_lines=False, on_bad_lines="error")  # fmt: skip
    return Loaded(frame=frame, rows=np.arange(2, len(frame) + 2), cut_short=not ended)


def _scan(stream: BinaryIO, source: str, separator: bytes) -> bool:
    """Refuse, in constant memory, what would fill it when parsed; return whether the text ends with an end of line."""
    size = cells = 0
    line = True  # the first is the header
    quoted = False
    last = b"\n"
    while chunk := stream.read(CHUNK):
        size += len(chunk)
        if line and chunk.split(b"\n", 1)[0].count(separator) >= MAX_COLUMNS:
            raise too_many(source, f"more than {MAX_COLUMNS:,} columns")
        ends, quotes = chunk.count(b"\n") + chunk.count(b"\r"), chunk.count(b'"')
        cells += chunk.count(separator) + ends
        if len(chunk) == CHUNK and not ends:
            raise too_many(source, f"a row longer than {MAX_ROW_BYTES / 1e6:.0f} MB")
        if len(chunk) == CHUNK and quoted and not quotes:
            raise too_many(source, f"a quoted cell longer than {MAX_ROW_BYTES / 1e6:.0f} MB, or an open quote")
        if size > MAX_BYTES:
            raise too_many(source, f"more than {MAX_BYTES / 1e6:.0f} MB")
        if cells > MAX_CELLS:
            raise too_many(source, f"more than {MAX_CELLS:,} cells")
        quoted ^= bool(quotes % 2)
        line, last = False, chunk[-1:]
    return last in (b"\n", b"\r")


def _json_lines(opened: Callable[[], BinaryIO], source: str) -> Loaded:
    with opened() as stream:
        frame, rows, excluded = json_rows.read_lines(stream, source)
    return Loaded(frame=frame, rows=np.array(rows, np.int64), excluded=excluded)


def _json(opened: Callable[[], BinaryIO], source: str) -> Loaded:
    with opened() as stream:
        head = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:1] == b"{":
        return _json_lines(opened, source)
    with opened() as stream:
        content = stream.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise too_many(source, f"more than {MAX_JSON_BYTES / 1e6:.0f} MB in one JSON array (write JSON lines instead)")
    frame, rows = json_rows.read_array(content.decode("utf-8-sig"), source)
    return Loaded(frame=frame, rows=np.array(rows, np.int64))


def _parquet(file: Path) -> Loaded:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("runs: a Parquet file needs pyarrow; pip install 'lmscale[parquet]', or give a CSV") from None
    try:
        with pq.ParquetFile(file) as stored:
            held = stored.metadata
            if held.num_columns > MAX_COLUMNS or held.num_rows * max(held.num_columns, 1) > MAX_CELLS:
                raise too_many(str(file), f"{held.num_rows:,} rows of {held.num_columns:,} columns")
            leaves = [stored.schema.column(i) for i in range(held.num_columns)]
        leaves = [leaf for leaf in leaves if leaf.max_repetition_level == 0 and not _bytes(leaf)]
        # As a dictionary a word repeated a million times is held once, until it is known how long they all are.
        words = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        with pq.ParquetFile(file, read_dictionary=words) as stored:
            table = stored.read(columns=[leaf.path for leaf in leaves])
        while any(pa.types.is_struct(field.type) for field in table.schema):
            table = table.flatten()
        letters = 0
        for column in table.columns:
            for chunk in column.chunks if pa.types.is_dictionary(column.type) else ():
                lengths = np.array([len(word) for word in chunk.dictionary.to_pylist()], np.int64)
                letters += int(lengths[chunk.indices.drop_null().to_numpy()].sum())
        if letters > MAX_BYTES:
            raise too_many(str(file), f"{letters / 1e6:.0f} MB of text")
        frame = table.to_pandas(ignore_metadata=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"runs: {str(file)!r} is no whole Parquet file ({str(error)[:120]}); copy it again") from None
    return Loaded(frame=cast(Any, frame), rows=np.arange(1, len(frame) + 1))


def _bytes(leaf: Any) -> bool:
    """Whether a Parquet column holds bytes that are no text."""
    return leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type not in ("STRING", "JSON", "ENUM")

"""The user's files that hold text: plain text and JSON lines, both also as .gz, and Parquet. In bounded memory.

What a file says of a document beside its text (`Corpus.slices`) comes from the other fields of its line or row;
`source` is the file's name where there is no such field.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.document import DOCUMENT_BYTES_MAX, Document, Reading

CHUNK_BYTES = 16 * 1024  # longer texts are cut, so that a single book has pieces to hold out
BLOCK_BYTES = 1 << 20
SOURCE = "source"
BOM = b"\xef\xbb\xbf"
ROWS = 64  # of a Parquet file in memory: each may hold DOCUMENT_BYTES_MAX


def text_documents(path: Path, name: str, corpus: Corpus, reading: Reading) -> Iterator[Document]:
    """A text file, cut into documents of at most CHUNK_BYTES (at a blank line or line end where there is one).

    Cutting starts at the top of the file, so text appended to it leaves all its documents but the last as they were.

    Raises:
        InputError: the file is not UTF-8 (with the offset of the byte) or has a line of more than DOCUMENT_BYTES_MAX,
            unless such are skipped.
    """
    fields = {SOURCE: name} if SOURCE in corpus.slices else {}
    for offset, index, text in _read_chunks(path, CHUNK_BYTES, reading):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            reading.bad(
                "not_utf8",
                f"corpus.files: {str(path)!r} is not UTF-8 (byte 0x{text[error.start]:02x} at offset "
                f"{offset + error.start}); convert it (iconv -t UTF-8) or narrow the pattern",
            )
        else:
            yield Document(name=f"{name}#{index}", text=text, fields=fields)


def json_documents(path: Path, name: str, corpus: Corpus, reading: Reading) -> Iterator[Document]:
    """A file of JSON lines: one document a line, its text in `corpus.text_field`.

    Raises:
        InputError: a line is too long, no UTF-8, no JSON object or without text, unless such are skipped.
    """
    for number, line in lines(path, reading):
        where = f"corpus.files: {str(path)!r} line {number}"
        try:
            row = json.loads(line.removeprefix(BOM).rstrip(b"\r\n").decode())
        except UnicodeDecodeError as error:
            reading.bad("not_utf8", f"{where} is not UTF-8 (byte 0x{line[error.start]:02x} at {error.start} of it)")
            continue
        except (ValueError, RecursionError) as error:
            reading.bad("broken_json", f"{where} is no JSON ({' '.join(str(error).split())[:80]})")
            continue
        if not isinstance(row, dict):
            reading.bad("broken_json", f"{where} is no JSON object, but {type(row).__name__}")
            continue
        document = row_document(row, f"{name}#{number}", where, name, corpus, reading)
        if document is not None:
            yield document


def parquet_documents(path: Path, name: str, corpus: Corpus, reading: Reading) -> Iterator[Document]:
    """A Parquet file: one document a row.

    Raises:
        InputError: pyarrow is not installed; the file is damaged or has no such column; a row has no text.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError(f"corpus.files: {str(path)!r} needs pyarrow; pip install 'lmscale[parquet]'") from None
    number = 0
    try:
        with pq.ParquetFile(path, buffer_size=BLOCK_BYTES, pre_buffer=False) as file:
            there = file.schema_arrow.names
            if corpus.text_field not in there:
                raise _no_field(f"corpus.files: {str(path)!r}", corpus, there)
            columns = [column for column in dict.fromkeys((corpus.text_field, *corpus.slices)) if column in there]
            size, rows = path.stat().st_size, max(1, file.metadata.num_rows)
            start = reading.done
            for batch in file.iter_batches(batch_size=ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    where = f"corpus.files: {str(path)!r} row {number}"
                    document = row_document(row, f"{name}#{number}", where, name, corpus, reading)
                    if document is not None:
                        yield document
                reading.done = start + size * number // rows
        if number == 0:
            _empty(path, reading)
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"corpus.files: {str(path)!r} is no whole Parquet file ({why}); fetch it again or narrow the pattern"
        ) from None


def row_document(
    row: Mapping[str, Any], name: str, where: str, source: str, corpus: Corpus, reading: Reading
) -> Document | None:
    """The document of a row of named values, or None of one that is left out."""
    text = row.get(corpus.text_field)
    if isinstance(text, str):
        try:
            text = text.encode()
        except UnicodeEncodeError:
            reading.bad("not_utf8", f"{where} holds half of a surrogate pair")
            return None
    elif isinstance(text, bytes):
        try:
            text.decode()
        except UnicodeDecodeError as error:
            reading.bad("not_utf8", f"{where} is not UTF-8 (byte 0x{text[error.start]:02x} at {error.start})")
            return None
    else:
        reading.bad("no_text", str(_no_field(where, corpus, list(row))))
        return None
    if not text:
        reading.left_out["empty_text"] += 1
        return None
    if not reading.check_size(len(text), where):
        return None
    fields = {}
    for field in corpus.slices:
        value = row.get(field, source if field == SOURCE else None)
        if isinstance(value, dict | list):
            raise InputError(
                f"corpus.slices: {field!r} holds {type(value).__name__} ({where.partition(': ')[2]}); name plain fields"
            )
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        fields[field] = "" if value is None else str(value)
    return Document(name=name, text=text, fields=fields)


def _no_field(where: str, corpus: Corpus, there: list[str]) -> InputError:
    fields = ", ".join(map(repr, there[:8])) or "none"
    return InputError(
        f"{where} has no text in field {corpus.text_field!r} (its fields: {fields}); name it with --corpus.text-field"
    )


def _open(path: Path) -> IO[bytes]:
    if not path.is_file():  # a pipe or device would block, or never end
        raise InputError(f"corpus.files: {str(path)!r} is not a regular file; remove it or narrow the pattern")
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return path.open("rb", buffering=BLOCK_BYTES)


def _unreadable(path: Path, error: Exception) -> InputError:
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        return InputError(
            f"corpus.files: {str(path)!r} is no whole .gz file ({error}); fetch it again or narrow the pattern"
        )
    why = getattr(error, "strerror", None) or error
    return InputError(f"corpus.files: {str(path)!r} cannot be read ({why}); mend its permissions or narrow the pattern")


class _Progress:
    """Adds what a file's reader has passed, in bytes of the file itself, to a Reading."""

    def __init__(self, path: Path, stream: IO[bytes], reading: Reading) -> None:
        self._reading, self._start = reading, reading.done
        raw = getattr(stream, "fileobj", None)  # of a .gz: the file below
        self._tell = stream.tell if raw is None else raw.tell
        self._size = path.stat().st_size

    def update(self) -> None:
        self._reading.done = self._start + min(self._tell(), self._size)


def lines(path: Path, reading: Reading) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers from 1. Longer ones than a document are bad."""
    number, empty = 0, True
    try:
        with _open(path) as stream:
            progress = _Progress(path, stream, reading)
            while line := stream.readline(DOCUMENT_BYTES_MAX + 1):
                number += 1
                if number % 64 == 0:
                    progress.update()
                if len(line) > DOCUMENT_BYTES_MAX and not line.endswith(b"\n"):
                    size, empty = len(line), False
                    while not line.endswith(b"\n") and (line := stream.readline(BLOCK_BYTES)):
                        size += len(line)
                    reading.check_size(size, f"corpus.files: {str(path)!r} line {number}")
                elif not line.isspace():
                    empty = False
                    yield number, line
            progress.update()
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    if empty:
        _empty(path, reading)


def _empty(path: Path, reading: Reading) -> None:
    reading.bad("empty_file", f"corpus.files: {str(path)!r} is empty; remove it or narrow the pattern")


def _read_chunks(path: Path, chunk_bytes: int, reading: Reading) -> Iterator[tuple[int, int, bytes]]:
    """(offset, number, bytes) of the documents of a text file."""
    index, empty = 0, True
    try:
        with _open(path) as stream:
            progress = _Progress(path, stream, reading)
            for begin, end in _without_long_lines(path, stream, reading):
                stream.seek(begin)
                offset, left, pending = begin, end, b""
                while block := stream.read(
                    BLOCK_BYTES if left is None else min(BLOCK_BYTES, left - offset - len(pending))
                ):
                    empty = False
                    pending += block
                    start = 0
                    while len(pending) - start > chunk_bytes:
                        stop = start + _cut(pending[start : start + chunk_bytes])
                        yield offset + start, index, pending[start:stop]
                        start, index = stop, index + 1
                    pending, offset = pending[start:], offset + start
                    progress.update()
                if pending:
                    yield offset, index, pending
                    index += 1
            progress.update()
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from None
    if empty:
        _empty(path, reading)


def _without_long_lines(path: Path, stream: IO[bytes], reading: Reading) -> Iterator[tuple[int, int | None]]:
    """Stretches of a text file that hold no line longer than a document may be; the end None is that of the file.

    Such a line is no text that was written by lines, and is bad. Files that cannot hold one are not looked through.
    """
    if path.suffix != ".gz" and path.stat().st_size <= DOCUMENT_BYTES_MAX:
        yield 0, None
        return
    number, line_start, offset, kept = 1, 0, 0, 0
    stretches: list[tuple[int, int | None]] = []

    def ended(line_end: int) -> None:
        nonlocal kept
        if line_end - line_start > DOCUMENT_BYTES_MAX:
            reading.check_size(line_end - line_start, f"corpus.files: {str(path)!r} line {number}")
            stretches.append((kept, line_start))
            kept = line_end

    while block := stream.read(BLOCK_BYTES):  # less than a long line: only one that crosses blocks can be one
        last = block.rfind(b"\n")
        if last >= 0:
            first = block.find(b"\n")
            ended(offset + first + 1)
            number += block.count(b"\n")
            line_start = offset + last + 1
        offset += len(block)
    ended(offset)
    stretches.append((kept, None))
    yield from (each for each in stretches if each[1] is None or each[1] > each[0])


def _cut(window: bytes) -> int:
    """Where to end a document that starts with `window`: after a blank line, else a line, else a whole character.

    Cuts in the first half are refused, so that documents stay near their full length.
    """
    half = len(window) // 2
    for end in (max(window.rfind(b"\n\n") + 2, window.rfind(b"\n\r\n") + 3), window.rfind(b"\n") + 1):
        if end > half:
            return end
    end = len(window)
    while end > len(window) - 3 and window[end - 1] & 0xC0 == 0x80:  # step back over continuation bytes
        end -= 1
    if end > 1 and window[end - 1] & 0xC0 == 0xC0:  # and over the first byte of the character
        end -= 1
    return end

"""Files of text, JSON lines and Parquet, compared with what was written into them; and all that may be bad in them."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import document, sources, text_files
from lmscale.data.document import Document, Reading

ROWS = [
    {"text": f"text {i} caf\u00e9 \u4e2d\n", "language": "en" if i % 3 else "fr", "year": 1990 + i % 2}
    for i in range(50)
]
LIMIT = 1 << 16


def read(path: Path, **fields) -> tuple[list[Document], Reading]:
    corpus = Corpus(files=(str(path),), **fields)
    reading = Reading(on_bad=corpus.on_bad)
    return list(sources.documents(corpus, reading)), reading


def lines(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def write_json(path: Path) -> Path:
    path.write_bytes(lines(*ROWS))
    return path


def write_gz(path: Path) -> Path:
    path.write_bytes(gzip.compress(lines(*ROWS)))
    return path


def write_parquet(path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=7)
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.jsonl", write_json), ("a.ndjson", write_json), ("a.json.gz", write_gz), ("a.parquet", write_parquet)],
)
def test_rows_come_back_with_their_fields(tmp_path, name: str, write: Callable[[Path], Path]):
    path = write(tmp_path / name)
    documents, reading = read(path, slices=("language", "year", "source"))
    assert [each.text.decode() for each in documents] == [row["text"] for row in ROWS]
    assert [each.fields["language"] for each in documents] == [row["language"] for row in ROWS]
    assert {each.fields["year"] for each in documents} == {"1990", "1991"}
    assert {each.fields["source"] for each in documents} == {name}
    assert [each.name for each in documents] == [f"{name}#{number}" for number in range(1, 51)]
    assert reading.done == path.stat().st_size
    assert not reading.left_out
    assert [each.fields for each in read(path)[0]] == [{}] * 50


def test_another_field_can_hold_the_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines({"body": "one", "source": "web"}, {"body": "two"}))
    documents, _ = read(tmp_path / "a.jsonl", text_field="body", slices=("source",))
    assert [(each.text, each.fields["source"]) for each in documents] == [(b"one", "web"), (b"two", "a.jsonl")]


def test_text_may_be_compressed_and_says_its_file(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"paragraph\n\n" * 5000))
    documents, _ = read(tmp_path / "a.txt.gz", slices=("source",))
    assert b"".join(each.text for each in documents) == b"paragraph\n\n" * 5000
    assert {each.fields["source"] for each in documents} == {"a.txt.gz"}


GOOD = {"text": "good"}
BAD_LINES = {
    "not_utf8": (b'{"text": "caf\xe9"}', r"'.*a.jsonl' line 2 is not UTF-8 \(byte 0xe9 at 13 of it\)"),
    "broken_json": (b'{"text": "a', r"line 2 is no JSON \(Unterminated string"),
    "no_text": (
        b'{"title": "a", "n": 1}',
        r"line 2 has no text in field 'text' \(its fields: 'title', 'n'\); name it with",
    ),
    "too_long": (json.dumps({"text": "x" * LIMIT}).encode(), r"line 2 has 655\d\d bytes, more than the 65536 of one"),
}
ODD_LINES = {
    "broken_json": [b"[1, 2]", b"null", b'"text"', b"{}}", b"[" * 100_000, b"NaN"],
    "no_text": [b"{}", b'{"text": null}', b'{"text": 5}', b'{"text": ["a"]}'],
    "not_utf8": [b'{"text": "\\ud800"}', b'{"text": "\xff\xfe"}', b"\x80"],
}


@pytest.fixture
def short(monkeypatch) -> None:
    """Documents of at most LIMIT bytes, so that long ones need not be gigabytes."""
    for module in (document, text_files):
        monkeypatch.setattr(module, "DOCUMENT_BYTES_MAX", LIMIT)
    monkeypatch.setattr(text_files, "BLOCK_BYTES", LIMIT // 16)


@pytest.mark.parametrize("reason", BAD_LINES)
def test_a_bad_line_is_named_or_skipped_and_counted(tmp_path, short, reason):
    line, message = BAD_LINES[reason]
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(GOOD, line, GOOD))
    with pytest.raises(InputError, match=rf"^corpus.files: .*{message}.*--corpus.on-bad skip$"):
        read(path)
    documents, reading = read(path, on_bad="skip")
    assert [each.name for each in documents] == ["a.jsonl#1", "a.jsonl#3"]
    assert reading.left_out == {reason: 1}
    assert "line 2" in reading.examples[reason]


@pytest.mark.parametrize("reason", ODD_LINES)
def test_every_odd_line_is_skipped(tmp_path, short, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(GOOD, *ODD_LINES[reason], GOOD))
    documents, reading = read(path, on_bad="skip")
    assert len(documents) == 2
    assert (reading.left_out[reason] + reading.left_out["too_long"], reading.left_out.total()) == (
        len(ODD_LINES[reason]),
        len(ODD_LINES[reason]),
    )


def test_lines_without_text_and_a_mark_at_the_start_are_no_mistake(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        b"\xef\xbb\xbf" + lines(GOOD, b"", {"text": ""}, b"  ", GOOD).replace(b"\n", b"\r\n")
    )
    documents, reading = read(tmp_path / "a.jsonl")
    assert [each.name for each in documents] == ["a.jsonl#1", "a.jsonl#5"]
    assert reading.left_out == {"empty_text": 1}


def test_a_line_without_end_takes_no_memory(tmp_path, short):
    for name, head in (("a.jsonl", b'{"text": "'), ("a.txt", b"")):
        path = tmp_path / name
        with path.open("wb") as stream:
            stream.write(lines(GOOD) + head)
            for _ in range(200):
                stream.write(b"x" * 100_000)
            stream.write(b"\n" + lines(GOOD))
        with pytest.raises(
            InputError, match=rf"line 2 has 2000\d\d\d\d bytes, more than the {LIMIT} of one document; "
        ):
            read(path)
        tracemalloc.start()
        documents, reading = read(path, on_bad="skip")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert b"xx" not in b"".join(each.text for each in documents)
        assert sum(each.text.count(b"good") for each in documents) == 2
        assert reading.left_out == {"too_long": 1}
        assert peak < 6e6


def test_long_lines_of_a_text_leave_all_others(tmp_path, short):
    good = ["first\n" * 30_000, "second\n" * 3, "third\n" * 20_000, "end without a line end"]
    long = "y" * LIMIT + "\n"
    for order in (good, [good[0], long, *good[1:]], [long, long, *good[:3], long], [*good[:3], long[:-1] + "y"]):
        (tmp_path / "a.txt").write_text("".join(order))
        documents, reading = read(tmp_path / "a.txt", on_bad="skip")
        assert b"".join(each.text for each in documents).decode() == "".join(p for p in order if p in good)
        assert reading.left_out.total() == len([p for p in order if p not in good])
        assert len({each.name for each in documents}) == len(documents)


def test_broken_utf8_in_a_text_costs_one_document(tmp_path):
    text = b"".join(b"line %d\n" % i for i in range(20_000))
    broken = text[:100_000] + b"\xff" + text[100_000:]
    (tmp_path / "a.txt").write_bytes(broken)
    documents, reading = read(tmp_path / "a.txt", on_bad="skip")
    assert reading.left_out == {"not_utf8": 1}
    assert "offset 100000" in reading.examples["not_utf8"]
    assert 0 < len(broken) - sum(len(each.text) for each in documents) <= text_files.CHUNK_BYTES


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.bin", "a.npy", "a.parquet"])
def test_empty_files_are_named_or_skipped(tmp_path, name):
    path = tmp_path / name
    if name == "a.parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    elif name == "a.npy":
        import numpy as np

        np.save(path, np.zeros(0, np.uint8))
    else:
        path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    with pytest.raises(InputError, match=rf"^corpus.files: '.*{name}' is empty; remove it"):
        read(path)
    assert read(path, on_bad="skip")[1].left_out == {"empty_file": 1}


@pytest.mark.parametrize(("name", "write"), [("a.jsonl.gz", write_gz), ("a.parquet", write_parquet)])
def test_a_file_that_is_cut_is_refused_always(tmp_path, name, write):
    path = write(tmp_path / name)
    whole = path.read_bytes()
    for size in (3, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=rf"^corpus.files: '.*{name}' is no whole .*; fetch it again"):
            read(path, on_bad="skip")


def test_a_field_that_is_not_there_is_named(tmp_path):
    path = write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"has no text in field 'body' \(its fields: 'text', 'language', 'year'\)"):
        read(path, text_field="body")
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "a", "tags": ["b"]}))
    with pytest.raises(InputError, match=r"^corpus.slices: 'tags' holds list \('.*' line 1\); name plain fields"):
        read(tmp_path / "a.jsonl", slices=("tags",))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(InputError, match=r"^corpus.slices: 'language' is no field of such files, which have 'source'"):
        sources.holds_integers(Corpus(files=(str(tmp_path / "a.txt"),), slices=("language",)))

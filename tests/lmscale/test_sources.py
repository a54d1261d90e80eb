"""The documents of the built-in corpora, compared with the files themselves."""

import os
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.errors import InputError
from lmscale.config import Chain, Corpus, Lexicon
from lmscale.data import sources, text_files
from lmscale.data.document import Reading
from lmscale.data.prepare import ensure_prepared
from lmscale.data.python_source import list_python_source


def test_python_source_is_the_standard_library_without_tests_and_duplicates():
    documents = list(sources.documents(Corpus()))
    names = [document.name for document in documents]
    stdlib = Path(sysconfig.get_path("stdlib"))
    assert names == sorted(names)
    assert {"ast.py", "json/decoder.py", "asyncio/tasks.py"} <= set(names)
    assert not [name for name in names if {"test", "tests", "site-packages"} & set(name.split("/")[:-1])]
    assert all(document.text == (stdlib / document.name).read_bytes() for document in documents)
    assert len({document.text for document in documents}) == len(documents) > 500
    assert sum(len(document.text) for document in documents) > 8e6


def test_what_is_left_out_is_counted(tmp_path):
    (tmp_path / "test").mkdir()
    for name, text in {
        "a.py": b"x = 1\n",
        "b.py": b"x = 1\n",
        "c.py": b"",
        "d.py": b"# caf\xe9\n",
        "_sysconfigdata__linux.py": b"y = 2\n",
        "test/e.py": b"z = 3\n",
        "notes.txt": b"text\n",
    }.items():
        (tmp_path / name).write_bytes(text)
    files, left_out = list_python_source(tmp_path)
    assert [name for name, _ in files] == ["a.py"]
    assert left_out == {"duplicate": 1, "empty": 1, "generated": 1, "not_utf8": 1}


def test_a_python_without_source_is_named(tmp_path):
    with pytest.raises(InputError, match=r"^corpus.task: 'python_source' finds no .py files .* --corpus.files"):
        list_python_source(tmp_path)


def test_fingerprint_follows_names_and_contents_not_the_folder(tmp_path):
    def fingerprint(folder: str, **files: str) -> str | None:
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / name).write_text(text)
        return sources.survey(Corpus(files=(f"{tmp_path}/{folder}/*",))).fingerprint

    first = fingerprint("first", a="one\n", b="two\n")
    assert first == fingerprint("second", a="one\n", b="two\n")
    assert first != fingerprint("renamed", a="one\n", c="two\n")
    assert first != fingerprint("edited", a="one\n", b="two!\n")


def test_globs_cross_folders_and_give_each_file_once(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "deep/er/c.txt", "odd[1].txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    paths = sources.list_files([f"{tmp_path}/**/*.txt", f"{tmp_path}/a.txt", f"{tmp_path}/odd[1].txt"])
    assert [os.path.relpath(os.path.realpath(path), tmp_path) for path in paths] == [
        "a.txt",
        "b.txt",
        "deep/er/c.txt",
        "odd[1].txt",
    ]


@given(
    st.text(alphabet="a\n \u00e9\u4e2d\U0001f600", max_size=400).filter(bool),
    st.integers(min_value=16, max_value=64),
)
def test_chunks_join_to_the_file_and_stay_in_bounds(tmp_path_factory, text, chunk_bytes):
    path = tmp_path_factory.mktemp("chunks") / "book.txt"
    path.write_bytes(text.encode())
    chunks = list(text_files._read_chunks(path, chunk_bytes, Reading(on_bad="refuse")))
    texts = [chunk for _, _, chunk in chunks]
    assert b"".join(texts) == text.encode()
    assert all(len(chunk) <= chunk_bytes and chunk.decode() for chunk in texts)
    assert [offset for offset, _, _ in chunks] == [len(b"".join(texts[:i])) for i in range(len(texts))]


def test_chunks_end_at_blank_lines_and_appending_keeps_them(tmp_path):
    path = tmp_path / "book.txt"
    paragraphs = "".join(f"paragraph {number}\n{'words ' * 50}\n\n" for number in range(2000))
    path.write_text(paragraphs)
    before = [document.text for document in sources.documents(Corpus(files=(str(path),)))]
    assert len(before) > 30
    assert all(text.endswith(b"\n\n") for text in before)
    path.write_text(paragraphs + "more\n" * 5000)
    after = [document.text for document in sources.documents(Corpus(files=(str(path),)))]
    assert after[: len(before) - 1] == before[:-1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"^corpus.files: '.*bad.txt' is empty; remove it"),
        (b"ab\xff", r"^corpus.files: '.*bad.txt' is not UTF-8 \(byte 0xff at offset 2\); convert it"),
        (b"line\n" * 9000 + b"\xe9t\xe9", r"\(byte 0xe9 at offset 45000\)"),
        (b"x" * 40_000 + b"\x80", r"\(byte 0x80 at offset 40000\)"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        list(sources.documents(Corpus(files=(str(tmp_path / "bad.txt"),))))
    assert "\n" not in str(caught.value)


def test_bad_patterns_are_named(tmp_path):
    with pytest.raises(InputError, match=r"^corpus.files: '.*/none\*.txt' matches no file; correct"):
        sources.survey(Corpus(files=(f"{tmp_path}/none*.txt",)))
    with pytest.raises(InputError, match=r"it is a folder: write '.*/\*\*/\*.txt'"):
        sources.survey(Corpus(files=(str(tmp_path),)))
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match=r"is not a regular file"):
        sources.survey(Corpus(files=(f"{tmp_path}/*.txt",)))


def test_the_training_side_loads_no_framework():
    code = (
        "import sys, lmscale.data.sources, lmscale.data.shards, lmscale.data.loader, lmscale.data.prepare\n"
        "sys.exit(', '.join({'tensorflow', 'seqio', 'jax'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert (done.returncode, done.stderr) == (0, "")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@pytest.mark.parametrize(
    "corpus",
    [
        Corpus(task="chain", chain=Chain(states=50, tokens=2000)),
        Corpus(task="lexicon", lexicon=Lexicon(words=50, tokens=2000)),
    ],
    ids=lambda corpus: corpus.task,
)
def test_a_made_text_keeps_no_fields_and_reads_no_other_vocabulary(corpus, tmp_path):
    for changed, line in (
        (replace(corpus, slices=("source",)), "corpus.slices"),
        (replace(corpus, vocabulary="a.model"), "corpus.vocabulary"),
    ):
        with pytest.raises(InputError, match=line):
            ensure_prepared(changed, tmp_path, echo=print)

"""The engine of preparation: pieces, processes, kills. What comes out is compared with one uninterrupted process."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.errors import InputError
from lmscale.config import Cleaning, Corpus
from lmscale.data import prepare_own, tokenise
from lmscale.data.crew import work
from lmscale.data.pieces import is_whole
from lmscale.data.prepare import ensure_prepared, prepare
from lmscale.data.prepared import find_prepared, own_place
from lmscale.data.shards import open_shards

ROOT = Path(__file__).resolve().parents[2]
PIECE_BYTES = 1 << 15

# `python -m lmscale.data.prepare` with pieces so small that a text of a test has many
CHILD = f"""
import sys
from lmscale.data import prepare, prepare_own, tokenise
if __name__ == "__main__":
    tokenise.CHUNK_BYTES, prepare_own.ALONE_BYTES = {PIECE_BYTES}, 0
    sys.exit(prepare.main(sys.argv[1:]))
"""


@pytest.fixture
def small_pieces(monkeypatch) -> None:
    monkeypatch.setattr(tokenise, "CHUNK_BYTES", PIECE_BYTES)
    monkeypatch.setattr(prepare_own, "ALONE_BYTES", 0)


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    with (tmp_path / "text.jsonl").open("w") as stream:
        for i in range(6000):
            row = {"text": f"document {i} says {i * i % 9973} " * 20, "language": "en" if i % 7 else "fr"}
            stream.write(json.dumps(row) + "\n")
    return Corpus(files=(str(tmp_path / "text.jsonl"),), slices=("language",))


def start(corpus: Corpus, root: Path, processes: int, folder: Path) -> subprocess.Popen:
    """A preparation, as a group of processes of its own."""
    (folder / "child.py").write_text(CHILD)
    fields = json.dumps({"files": corpus.files, "slices": corpus.slices})
    command = [sys.executable, str(folder / "child.py"), fields, str(root), "--processes", str(processes)]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def wait_for_pieces(root: Path, count: int) -> list[Path]:
    until = time.monotonic() + 600
    while time.monotonic() < until:
        if len(found := sorted(root.glob(".*.pieces/*.npz"))) >= count:
            return found
        time.sleep(0.005)
    raise AssertionError("no pieces in ten minutes")


def files_of(folder: Path) -> dict:
    return open_shards(folder).manifest["files"]


def test_any_number_of_processes_and_a_kill_give_the_same(tmp_path, corpus, small_pieces):
    (one,) = prepare(corpus, tmp_path / "one", echo=lambda line: None, processes=1)
    (four,) = prepare(corpus, tmp_path / "four", echo=lambda line: None, processes=4)
    killed = tmp_path / "killed"
    with start(corpus, killed, 2, tmp_path) as child:
        kept = wait_for_pieces(killed, 5)
        os.killpg(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert find_prepared(corpus, killed) is None
    before = {path: path.stat().st_mtime_ns for path in kept if is_whole(path)}
    assert before
    with start(corpus, killed, 2, tmp_path) as child:
        said, _ = child.communicate()
    assert child.returncode == 0
    assert "pieces were there from an earlier preparation" in said
    parts = find_prepared(corpus, killed)
    assert parts is not None
    assert files_of(parts[0].folder) == files_of(one.folder) == files_of(four.folder)
    open_shards(parts[0].folder).verify()
    assert not list(killed.glob(".*.pieces"))


def test_processes_end_with_the_one_that_started_them(tmp_path, corpus):
    with start(corpus, tmp_path / "out", 2, tmp_path) as child:
        wait_for_pieces(tmp_path / "out", 1)
        workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        os.kill(child.pid, signal.SIGKILL)
    until = time.monotonic() + 300
    while left := [pid for pid in workers if _runs(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.05)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_damaged_piece_is_made_again(tmp_path, corpus, small_pieces, monkeypatch):
    """What a power cut may leave: a piece under its name, without its content."""
    (truth,) = prepare(corpus, tmp_path / "truth", echo=lambda line: None, processes=1)
    monkeypatch.setattr(prepare_own, "join", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, tmp_path / "out", echo=lambda line: None, processes=1)
    pieces = sorted((tmp_path / "out").glob(".*.pieces/*.npz"))
    content = pieces[1].read_bytes()
    pieces[1].write_bytes(content[: len(content) // 2])
    pieces[2].write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    pieces[3].write_bytes(b"")
    monkeypatch.undo()
    monkeypatch.setattr(tokenise, "CHUNK_BYTES", PIECE_BYTES)
    said: list[str] = []
    (part,) = prepare(corpus, tmp_path / "out", echo=said.append, processes=1)
    assert any(f"{len(pieces) - 3} of {len(pieces)} pieces were there" in line for line in said)
    assert files_of(part.folder) == files_of(truth.folder)


def _interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_the_same_is_never_prepared_twice(tmp_path, corpus):
    (first,) = prepare(corpus, tmp_path / "out", echo=lambda line: None, processes=1)
    made = (first.folder / "manifest.json").stat().st_mtime_ns
    assert prepare(corpus, tmp_path / "out", echo=pytest.fail, processes=1) == (first,)
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "text.jsonl", tmp_path / "moved" / "text.jsonl")
    moved = Corpus(files=(f"{tmp_path}/moved/text.jsonl",), slices=("language",))
    assert prepare(moved, tmp_path / "out", echo=pytest.fail, processes=1) == (first,)
    assert (first.folder / "manifest.json").stat().st_mtime_ns == made


def test_bad_documents_are_counted_in_the_manifest_and_nothing_is_left_of_a_refusal(tmp_path, corpus):
    with (tmp_path / "text.jsonl").open("ab") as stream:
        stream.write(b'{"text": "cut\n' + b'{"title": "none"}\n' * 2)
    with pytest.raises(InputError, match=r"line 6001 is no JSON"):
        prepare(corpus, tmp_path / "out", echo=lambda line: None, processes=1)
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".lock"]
    skipping, said = Corpus(files=corpus.files, on_bad="skip"), []
    (part,) = prepare(skipping, tmp_path / "out", echo=said.append, processes=1)
    assert open_shards(part.folder).manifest["source"]["left_out"] == {"broken_json": 1, "no_text": 2}
    assert any(line.startswith("prepare files: left out 2 x no_text; corpus.files: ") for line in said)


def test_slices_are_kept_by_document(tmp_path, corpus):
    (part,) = prepare(corpus, tmp_path / "out", echo=lambda line: None, processes=1)
    shards = open_shards(part.folder)
    assert shards.slices == {"language": ["en", "fr"]}
    found = {}
    for split in (shards.train, shards.heldout):
        for index, code in enumerate(split.slice("language").tolist()):
            text = bytes((split.document(index)[:-1] - 3).astype("u1")).decode()
            found[int(text.split()[1])] = shards.slices["language"][code]
    assert found == {i: "en" if i % 7 else "fr" for i in range(6000)}
    with pytest.raises(InputError, match=r"^slice: 'source' was not kept \(kept: language\); prepare with"):
        shards.train.slice("source")


def test_a_field_of_too_many_values_is_no_slice(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr("lmscale.data.writer.SLICE_VALUES_MAX", 1)
    with pytest.raises(InputError, match=r"^corpus.slices: 'language' has more than 1 values"):
        prepare(corpus, tmp_path / "out", echo=lambda line: None, processes=1)


def test_a_text_that_changes_meanwhile_is_refused(tmp_path, corpus):
    place = own_place(corpus, tmp_path / "out")
    with (tmp_path / "text.jsonl").open("a") as stream:
        stream.write('{"text": "more"}\n')
    place.folder.parent.mkdir()
    with pytest.raises(InputError, match=r"^corpus: the text of 'files' changed while it was prepared"):
        prepare_own.prepare_own(place, lambda line: None, 1)


def test_another_vocabulary_is_said(tmp_path, corpus):
    import sentencepiece

    models = []
    for size in (60, 70):
        sentencepiece.SentencePieceTrainer.Train(
            input=str(tmp_path / "text.jsonl"), input_sentence_size=200, model_prefix=str(tmp_path / "m"),
            vocab_size=size, model_type="bpe", minloglevel=2, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        )  # fmt: skip
        models.append((tmp_path / "m.model").read_bytes())
    reading = Corpus(files=corpus.files, vocabulary=str(tmp_path / "m.model"))
    folders: list[Path] = []
    said: list[str] = []
    for model in models:
        (tmp_path / "m.model").write_bytes(model)
        (part,) = prepare(reading, tmp_path / "out", echo=said.append, processes=1)
        folders.append(part.folder)
    assert folders[0] != folders[1]
    earlier = f"prepare files: the vocabulary is not that of {folders[0].name}, so the text is prepared again"
    assert earlier in said
    for bad, message in ((b"text", "is no SentencePiece model"), (None, "cannot be read")):
        (tmp_path / "m.model").unlink()
        if bad is not None:
            (tmp_path / "m.model").write_bytes(bad)
        with pytest.raises(InputError, match=rf"^corpus.vocabulary: '.*m.model' {message}"):
            find_prepared(reading, tmp_path / "out")
        (tmp_path / "m.model").touch()


def test_packages_are_a_text_with_their_versions(tmp_path):
    import importlib.metadata

    corpus = Corpus(task="package_source", packages=("hypothesis", "numpy"), slices=("source",))
    (part,) = prepare(corpus, tmp_path / "out", echo=lambda line: None, processes=1)
    shards = open_shards(part.folder)
    versions = {name: importlib.metadata.version(name) for name in corpus.packages}
    assert shards.manifest["source"]["packages"] == versions
    assert shards.slices == {"source": ["hypothesis", "numpy"]}
    assert shards.train.total_bytes > 2e6
    assert find_prepared(Corpus(task="package_source", packages=("numpy",)), tmp_path / "out") is None
    with pytest.raises(InputError, match=r"^corpus.packages: 'no-such-thing' is not installed; pip install it"):
        find_prepared(Corpus(task="package_source", packages=("no-such-thing",)), tmp_path / "out")


class _Fault:
    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, item: int) -> int:
        if item == 3 and self._kind == "input":
            raise InputError("field: value, mend")
        if item == 3 and self._kind == "error":
            raise ZeroDivisionError("by zero")
        if item == 3 and self._kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item


class Make:
    """Picklable: what `work` builds in each process."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self) -> _Fault:
        return _Fault(self.kind)


def test_work_is_done_by_several_and_read_as_needed():
    taken = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    results = []
    for result in work(items(), Make("none"), 2):
        assert len(taken) <= len(results) + 4  # one for each process, one more read, one yielded
        results.append(result)
    assert sorted(results) == [item * item for item in range(20)]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("input", InputError, "^field: value, mend$"),
        ("error", ChildProcessError, "^ZeroDivisionError: by zero$"),
        ("killed", ChildProcessError, r"ended with status -9; was there memory enough\? --processes takes a smaller"),
    ],
)
def test_faults_of_a_process_come_back(kind, error, message):
    with pytest.raises(error, match=message):
        list(work(range(20), Make(kind), 2))


def test_text_is_cleaned_before_it_is_tokenised(tmp_path):
    texts = [f"Document {number} says that {number * number} is the square of {number}." for number in range(60)]
    lines = [json.dumps({"text": text}) for text in (*texts, *texts[:20])]
    (tmp_path / "text.jsonl").write_text("\n".join(lines) + "\n")
    corpus = Corpus(files=(str(tmp_path / "text.jsonl"),), heldout=0.2, cleaning=Cleaning(steps=("exact",)))
    said: list[str] = []
    (part,) = ensure_prepared(corpus, tmp_path / "out", echo=said.append)
    shards = open_shards(part.folder)
    assert shards.train.documents + shards.heldout.documents == 60
    step = shards.manifest["cleaning"]["exact"]
    assert (step["documents_in"], step["documents_out"]) == (80, 60)
    assert any(line.startswith("exact") for line in said)
    (other,) = ensure_prepared(replace(corpus, cleaning=None), tmp_path / "out", echo=said.append)
    assert open_shards(other.folder).train.documents > shards.train.documents
    with pytest.raises(InputError, match=r"corpus.cleaning: 'given' is for lmscale's own"):
        ensure_prepared(Corpus(task="mine", module="mine", cleaning=Cleaning()), tmp_path / "out", echo=said.append)

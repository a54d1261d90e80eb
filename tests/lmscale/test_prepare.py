"""Preparation end to end, compared with the documents themselves. seqio is slow to load: two child processes do it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from user_tasks import CHILD, HARD, TFDS, USER_TASKS

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources
from lmscale.data.prepare import ensure_prepared, main
from lmscale.data.prepared import find_prepared, own_place, task_place
from lmscale.data.shards import Split, open_shards

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def python_source(tmp_path_factory) -> tuple[Path, list[str]]:
    lines: list[str] = []
    (part,) = ensure_prepared(Corpus(), tmp_path_factory.mktemp("python_source"), echo=lines.append)
    assert (part.name, part.rate) == ("python_source", 1.0)
    return part.folder, lines


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> dict[str, Any]:
    """Results of all other preparations, made in one child process: a folder, or the message of an InputError."""
    work = tmp_path_factory.mktemp("prepare")
    (work / "my_tasks.py").write_text(USER_TASKS)
    (work / "my_letters.py").write_text(TFDS)
    (work / "broken.py").write_text("import seqio\n1 / 0\n")
    (work / "books").mkdir()
    for number in range(60):
        (work / "books" / f"{number:03d}.txt").write_text(f"Book {number}: \u4e2d\u6587\r\n" * (number + 1))
    (work / "one.txt").write_text("a small text\n")
    (work / "more").mkdir()
    for number in range(40):
        (work / "more" / f"{number:03d}.txt").write_text(f"added {number}\n" * 50)
    (work / "lines").mkdir()
    for number in range(3):
        lines = "".join(f"line {index} of shard {number}\n" for index in range(40))
        (work / "lines" / f"part-{number}.txt").write_text(lines)
    mine = {"module": "my_tasks", "heldout": 0.2}
    corpora = {
        "files": {"files": ["books/*.txt"], "heldout": 0.2},
        "files_more": {"files": ["books/*.txt", "more/*.txt"], "heldout": 0.2},
        "small": {"files": ["one.txt"]},
        "typo": {"task": "pears", **mine},
        "no_module": {"task": "pairs", "module": "my_taks"},
        "broken": {"task": "pairs", "module": "broken"},
        **{
            task: {"task": task, **mine}
            for task in ("pairs", "integers", "mixed", "no_train", "floats", "outside", "failing", "no_rate", "lines")
        },
        "sliced": {"task": "notes", "slices": ["language", "source"], **mine},
        "unsliced": {"task": "notes", "slices": ["author"], **mine},
        "with_own": {"task": "with_own", "slices": ["source"], **mine},
        "two_vocabularies": {"task": "two_vocabularies", **mine},
        "letters": {
            "task": "tfds:letters",
            "data_dir": "tfds",
            "text_field": "body",
            "slices": ["language", "year"],
            "heldout": 0.2,
        },
        "letters_old": {"task": "tfds:letters:1.0.0", "data_dir": "tfds"},
        "letters_text": {"task": "tfds:letters:1.2.0", "data_dir": "tfds"},
        "lines2": {"task": "lines", "processes": 2, **mine},
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(corpora), json.dumps(compared(work))],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {"work": work, **json.loads(done.stdout.splitlines()[-1])}


def texts(split: Split) -> list[bytes]:
    """Decodes byte tokens without seqio: ids 3 to 258 are bytes, and each document ends with id 1."""
    decoded = []
    for index in range(split.documents):
        tokens = split.document(index)
        assert tokens[-1] == 1
        decoded.append((tokens[:-1] - 3).astype(np.uint8).tobytes())
    return decoded


def compared(work: Path) -> dict[str, dict]:
    """Corpora whose tokens seqio is asked for as well: hard texts in three vocabularies, and integers."""
    from sentencepiece import SentencePieceTrainer

    texts = [text for text in HARD if text] + [f"line {i} counts {i * i}\n" * (i % 5 + 1) for i in range(300)]
    (work / "hard.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    np.save(work / "integers.npy", np.arange(50_000))
    shutil.copyfile(_seqio_model(), work / "unigram.model")
    SentencePieceTrainer.Train(
        sentence_iterator=iter(USER_TASKS.splitlines() + sentences()), model_prefix=str(work / "bpe"), model_type="bpe",
        vocab_size=400, byte_fallback=True, remove_extra_whitespaces=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    hard = {"files": ["hard.jsonl"]}
    return {
        "bytes": hard,
        "unigram": {**hard, "vocabulary": "unigram.model"},
        "bpe": {**hard, "vocabulary": "bpe.model"},
        "as_integers": {"files": ["integers.npy"], "vocab_size": 50_000},
    }


def sentences() -> list[str]:
    """Those of USER_TASKS."""
    return ["this is " + "e" * (i % 20) + " a test " + "t" * (i // 20) + " caf\u00e9" for i in range(300)]


def held_out(text: bytes, share: float) -> bool:
    return int(hashlib.sha256(text).hexdigest()[:16], 16) / 2**64 < share


def test_python_source_is_the_text_byte_for_byte(python_source):
    shards = open_shards(python_source[0])
    truth = [document.text for document in sources.documents(Corpus())]
    assert texts(shards.train) == [text for text in truth if not held_out(text, 0.05)]
    assert texts(shards.heldout) == [text for text in truth if held_out(text, 0.05)]
    for split in (shards.train, shards.heldout):
        assert split.bytes.tolist() == [len(text) for text in texts(split)]
        assert split.tokens == split.total_bytes + split.documents
    shards.verify()


def test_manifest_says_where_tokens_come_from(python_source):
    manifest = open_shards(python_source[0]).manifest
    assert (manifest["corpus"], manifest["task"], manifest["heldout"]) == ("python_source", "python_source", 0.05)
    vocabulary = manifest["features"]["targets"]
    assert (vocabulary["name"], vocabulary["size"], vocabulary["eos_id"]) == ("bytes", 259, 1)
    assert set(manifest["versions"]) == {"python", "numpy"}
    assert manifest["source"]["fingerprint"] == sources.survey(Corpus()).fingerprint
    assert str(Path.home()) not in json.dumps(manifest)


def test_a_prepared_corpus_is_found_and_not_made_again(python_source):
    folder, lines = python_source
    found = find_prepared(Corpus(), folder.parent)
    assert found is not None
    assert [part.folder for part in found] == [folder]
    assert ensure_prepared(Corpus(allow_repeats=True), folder.parent, echo=pytest.fail) == found
    assert find_prepared(Corpus(heldout=0.06), folder.parent) is None
    assert any("documents" in line and "MB/s" in line for line in lines)


def test_user_files_are_prepared(prepared):
    shards = open_shards(Path(prepared["files"]["folder"]))
    truth = [path.read_bytes() for path in sorted((prepared["work"] / "books").iterdir())]
    assert texts(shards.train) == [text for text in truth if not held_out(text, 0.2)]
    assert texts(shards.heldout) == [text for text in truth if held_out(text, 0.2)]


def test_nothing_is_left_of_failed_and_killed_preparations(prepared):
    for root in ("prepared1", "prepared2"):
        assert [path.name for path in (prepared["work"] / root).glob(".*") if path.suffix != ".lock"] == []


def test_adding_text_moves_no_document(prepared):
    before = open_shards(Path(prepared["files"]["folder"]))
    after = open_shards(Path(prepared["files_more"]["folder"]))
    assert set(texts(before.train)) < set(texts(after.train))
    assert set(texts(before.heldout)) < set(texts(after.heldout))
    assert not set(texts(after.train)) & set(texts(after.heldout))


def test_a_users_task_with_two_features_and_sentencepiece(prepared):
    from sentencepiece import SentencePieceProcessor

    shards = open_shards(Path(prepared["pairs"]["folder"]))
    model = SentencePieceProcessor(model_file=_seqio_model())
    truth = sorted(([*model.encode(sentence), 1], [*model.encode(sentence[:12]), 1]) for sentence in sentences())
    pairs = [
        (shards.split(split).document(index).tolist(), shards.split(split, "inputs").document(index).tolist())
        for split in ("train", "heldout")
        for index in range(shards.split(split).documents)
    ]
    assert sorted(pairs) == truth
    assert len({tuple(targets) for targets, _ in pairs}) > 200
    sizes = sum(len(sentence.encode()) for sentence in sentences())
    assert shards.train.total_bytes + shards.heldout.total_bytes == sizes
    assert shards.vocabularies["targets"].name.startswith("sentencepiece-")


@pytest.mark.parametrize("name", ["bytes", "unigram", "bpe", "as_integers"])
def test_tokens_without_tensorflow_are_those_of_seqio(prepared, name):
    found = prepared[name]
    assert found["ours"] == found["theirs"]
    assert found["of_tasks"] == found["theirs"]
    assert found["same_vocabulary"]
    assert found["without_tensorflow"] == (name != "as_integers")
    assert len(found["ours"]) == (4 if name == "as_integers" else 324)


def test_a_tfds_dataset_is_read_from_its_folder(prepared):
    shards = open_shards(Path(prepared["letters"]["folder"]))
    assert shards.slices == {"language": ["en", "fr"], "year": ["1900", "1901"]}
    found = {}
    for split in (shards.train, shards.heldout):
        codes = zip(split.slice("language").tolist(), split.slice("year").tolist(), strict=True)
        for text, (language, year) in zip(texts(split), codes, strict=True):
            found[text.decode()] = shards.slices["language"][language], shards.slices["year"][year]
    assert found == {f"letter {i}": ("en" if i % 4 else "fr", str(1900 + i % 2)) for i in range(200)}


def test_tokens_that_are_no_text(prepared):
    shards = open_shards(Path(prepared["integers"]["folder"]))
    tokens = np.concatenate([split.read(0, split.tokens) for split in (shards.train, shards.heldout)])
    assert tokens.dtype == np.uint32
    assert np.array_equal(np.sort(tokens), np.arange(4000) * 25)
    assert shards.train.vocabulary.eos_id is None
    assert shards.train.total_bytes == 0


def test_a_mixture_is_prepared_task_by_task(prepared):
    names = [(name, rate) for name, rate, _ in prepared["mixed"]["parts"]]
    assert names == [("part0", 0.25), ("part1", 0.75)]
    parts = [open_shards(Path(folder)) for _, _, folder in prepared["mixed"]["parts"]]
    pairs = open_shards(Path(prepared["pairs"]["folder"]))
    assert [shards.train.documents + shards.heldout.documents for shards in parts] == [150, 150]
    tokens = sum(shards.train.tokens + shards.heldout.tokens for shards in parts)
    assert tokens == pairs.train.tokens + pairs.heldout.tokens


def test_a_prepared_mixture_is_found_without_tensorflow(prepared, monkeypatch):
    monkeypatch.chdir(prepared["work"])
    found = find_prepared(Corpus(task="mixed", module="my_tasks", heldout=0.2), Path("prepared1"))
    assert found is not None
    assert [(p.name, p.rate, str(p.folder.resolve())) for p in found] == [*map(tuple, prepared["mixed"]["parts"])]
    assert "my_tasks" not in sys.modules


def test_a_mixture_takes_our_own_sources_and_its_tasks_are_slices(prepared, python_source):
    by_name = {name: open_shards(Path(folder)) for name, _, folder in prepared["with_own"]["parts"]}
    assert {name: shards.slices for name, shards in by_name.items()} == {
        "notes": {"source": ["notes"]},
        "python_source": {"source": ["python_source"]},
    }
    whole = open_shards(python_source[0])
    mine = by_name["python_source"]
    assert mine.train.tokens + mine.heldout.tokens == whole.train.tokens + whole.heldout.tokens


def test_fields_of_a_task_are_kept_by_document(prepared):
    shards = open_shards(Path(prepared["sliced"]["folder"]))
    assert shards.slices == {"language": ["en", "fr"], "source": ["notes"]}
    for split in (shards.train, shards.heldout):
        codes = split.slice("language")
        assert codes.dtype == np.int32
        for text, code in zip(texts(split), codes.tolist(), strict=True):
            number = sentences().index(text.decode())
            assert shards.slices["language"][code] == ("fr" if number % 3 == 1 else "en")
    shards.verify()


def test_shards_of_a_source_are_run_side_by_side_and_give_the_same(prepared):
    one, two = (open_shards(Path(prepared[name]["folder"])) for name in ("lines", "lines2"))
    assert one.digest == two.digest
    assert one.manifest["files"] == two.manifest["files"]
    truth = [f"line {index} of shard {number}".encode() for number in range(3) for index in range(40)]
    assert sorted(texts(one.train) + texts(one.heldout)) == sorted(truth)
    assert texts(one.train) == [text for text in truth if not held_out(text, 0.2)]


def test_a_vocabulary_changed_since_is_named(prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(prepared["work"])
    folder = Path(prepared["pairs"]["folder"])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"]["models"]["targets"]["path"] == str(Path(_seqio_model()).resolve())
    shutil.copytree(folder, tmp_path / folder.name)
    model = tmp_path / "mine.model"
    model.write_bytes(Path(_seqio_model()).read_bytes())
    manifest["source"]["models"]["targets"]["path"] = str(model)
    (tmp_path / folder.name / "manifest.json").write_text(json.dumps(manifest))
    corpus = Corpus(task="pairs", module="my_tasks", heldout=0.2)
    assert find_prepared(corpus, tmp_path) is not None
    model.write_bytes(model.read_bytes() + b"\n")
    with pytest.raises(InputError, match=r"'pairs' was prepared when '.*mine.model', the vocabulary of 'targets', was"):
        find_prepared(corpus, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("small", "corpus.heldout: 0.05 leaves no document to evaluate on among 1; "),
        ("typo", "corpus.task: 'pears' is no registered seqio Task or Mixture; did you mean pairs"),
        ("no_module", "corpus.module: 'my_taks' is not found; did you mean my_tasks?"),
        ("broken", "corpus.module: 'broken' fails to import (ZeroDivisionError: division by zero); mend it"),
        ("no_train", "corpus.task: 'no_train' has no split 'train', only ['test']; add one"),
        ("floats", "corpus.task: feature 'targets' is float32 of rank 1; it must be integers of rank 1"),
        ("outside", "corpus.task: feature 'targets' holds token 100000, outside its vocabulary of 100000"),
        ("failing", "corpus.task: 'failing' fails while it runs ("),
        ("letters_old", "corpus.task: 'tfds:letters:1.0.0' cannot be loaded ("),
        (
            "letters_text",
            "corpus.text_field: 'text' is no field of 'tfds:letters:1.2.0'; name one of body, language, y",
        ),
        ("no_rate", "corpus.task: 'no_rate' gives 'part0' the rate 0.0; it must be positive"),
        ("unsliced", "corpus.slices: 'author' is not kept by 'notes' (its features: language, targets)"),
        ("two_vocabularies", "corpus.task: 'two_vocabularies' mixes 'notes' in vocabulary 'bytes' with 'part0' in"),
    ],
)
def test_bad_corpora_are_named(prepared, name, message):
    assert prepared[name]["error"].startswith(message)
    assert "\n" not in prepared[name]["error"]


def test_a_typo_is_named_without_starting_a_child(tmp_path):
    with pytest.raises(InputError, match=r"^corpus.task: 'python_sorce' .* did you mean python_source\?"):
        ensure_prepared(Corpus(task="python_sorce"), tmp_path, echo=pytest.fail)


def test_a_missing_seqio_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "seqio", None)
    for task, extra in (("tfds:letters", "tfds"), ("mine", "train")):
        with pytest.raises(InputError, match=rf"'{task}' needs seqio and TensorFlow; pip install 'lmscale\[{extra}\]'"):
            ensure_prepared(Corpus(task=task, module="mine", data_dir=str(tmp_path)), tmp_path, echo=pytest.fail)


def test_errors_of_the_child_come_back_as_one_line(tmp_path):
    (tmp_path / "text.txt").write_text("text\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^out: '.*file' cannot be written \(File exists\); choose another") as caught:
        ensure_prepared(Corpus(files=(str(tmp_path / "text.txt"),)), tmp_path / "file", echo=lambda line: None)
    assert "\n" not in str(caught.value)


def test_the_command_of_the_child_ends_with_status_2(tmp_path, capsys):
    assert main([json.dumps({"files": [f"{tmp_path}/none.txt"]}), str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: corpus.files: ")


def test_a_killed_preparation_is_not_found(tmp_path):
    (tmp_path / "text.txt").write_text("text\n")
    corpus = Corpus(files=(str(tmp_path / "text.txt"),))
    folder = own_place(corpus, tmp_path / "prepared").folder
    code = f"""
import os, signal
from pathlib import Path
import numpy as np
from lmscale.data.shards import Vocabulary
from lmscale.data.writer import ShardWriter
vocabulary = Vocabulary(class_name="", name="bytes", size=259, eos_id=1, digest="")
writer = ShardWriter(Path({str(folder)!r}), {{"targets": vocabulary}}, shard_tokens=4)
for _ in range(10):
    writer.add("train", {{"targets": np.array([5, 6, 1])}}, {{"targets": 2}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / "prepared").iterdir())) == 1
    assert find_prepared(corpus, tmp_path / "prepared") is None


def test_a_users_module_enters_the_key_through_its_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = set()
    for text in ("a = 1\n", "a = 2\n"):
        (tmp_path / "tasks_of_mine.py").write_text(text)
        keys.add(task_place(Corpus(task="mine", module="tasks_of_mine"), tmp_path).folder)
    keys.add(task_place(Corpus(task="mine", module="not_there"), tmp_path).folder)
    assert len(keys) == 3
    assert "tasks_of_mine" not in sys.modules


def _seqio_model() -> str:
    import importlib.util

    spec = importlib.util.find_spec("seqio")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return os.path.join(spec.submodule_search_locations[0], "test_data", "sentencepiece", "sentencepiece.model")

"""Hugging Face datasets from folders of this machine, and the line that is said where there are none."""

import json
import sys

import pytest

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.prepare import ensure_prepared, prepare
from lmscale.data.prepared import find_prepared
from lmscale.data.shards import Shards, open_shards

ROWS = [{"body": f"row {i} of a dataset", "language": "en" if i % 4 else "fr"} for i in range(200)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def texts(shards: Shards) -> list[tuple[str, str]]:
    found = []
    for split in (shards.train, shards.heldout):
        for index, code in enumerate(split.slice("language").tolist()):
            text = bytes((split.document(index)[:-1] - 3).astype("u1")).decode()
            found.append((text, shards.slices["language"][code]))
    return sorted(found)


@pytest.mark.parametrize("kind", ["one split", "splits", "data files"])
def test_a_folder_is_read(tmp_path, kind):
    datasets = pytest.importorskip("datasets", reason="comes with the extra 'hf'")
    folder = tmp_path / "data"
    if kind == "data files":
        folder.mkdir()
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        rows = datasets.Dataset.from_list(ROWS)
        (rows if kind == "one split" else datasets.DatasetDict({"train": rows, "test": rows})).save_to_disk(folder)
    corpus = Corpus(task=f"hf:{folder}", text_field="body", slices=("language",), heldout=0.2)
    (part,) = prepare(corpus, tmp_path / "out", echo=lambda line: None, processes=1)
    assert texts(open_shards(part.folder)) == sorted((row["body"], row["language"]) for row in ROWS)
    assert find_prepared(corpus, tmp_path / "out") == (part,)
    with pytest.raises(
        InputError, match=r"'text' is no column of 'hf:.*'; name|has no text in field 'text' \(its fields: 'body'"
    ):
        prepare(Corpus(task=corpus.task), tmp_path / "out", echo=lambda line: None, processes=1)


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    pytest.importorskip("datasets", reason="comes with the extra 'hf'")
    with pytest.raises(
        InputError, match=r"^corpus.task: 'hf:nobody/nothing' cannot be loaded \(.*HF_TOKEN\)$"
    ) as caught:
        ensure_prepared(Corpus(task="hf:nobody/nothing"), tmp_path, echo=lambda line: None)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"^corpus.task: 'hf:/not/there' is no folder, and no name on the hub"):
        ensure_prepared(Corpus(task="hf:/not/there"), tmp_path, echo=pytest.fail)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs the package datasets; pip install 'lmscale\[hf\]'"):
        prepare(Corpus(task=f"hf:{tmp_path}"), tmp_path / "out", echo=lambda line: None, processes=1)

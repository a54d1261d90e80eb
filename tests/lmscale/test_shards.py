"""The prepared format: what is written comes back, and what was damaged is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.errors import InputError
from lmscale.data.shards import Vocabulary, open_shards
from lmscale.data.writer import ShardWriter

BYTES = Vocabulary(class_name="Byte", name="bytes", size=259, eos_id=1, digest="0")
LARGE = Vocabulary(class_name="Large", name="large", size=100_000, eos_id=None, digest="1")


def write(folder: Path, train, heldout, *, vocabulary=BYTES, shard_tokens=1 << 20, **about) -> Path:
    with ShardWriter(folder, {"targets": vocabulary}, shard_tokens=shard_tokens) as writer:
        for split, documents in (("train", train), ("heldout", heldout)):
            for document in documents:
                writer.add(split, {"targets": np.asarray(document, np.int32)}, {"targets": len(document) - 1})
        return writer.finish(about)


documents_of_tokens = st.lists(st.lists(st.integers(0, 258), min_size=1, max_size=30), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(documents_of_tokens, st.integers(1, 50), st.data())
def test_tokens_come_back_across_shard_borders(tmp_path_factory, documents, shard_tokens, data):
    folder = write(tmp_path_factory.mktemp("shards") / "x", documents, [[1]], shard_tokens=shard_tokens)
    train = open_shards(folder).train
    stream = [token for document in documents for token in document]
    assert train.tokens == len(stream)
    assert train.documents == len(documents)
    assert train.total_bytes == sum(train.bytes) == len(stream) - len(documents)
    assert [train.document(index).tolist() for index in range(train.documents)] == documents
    start = data.draw(st.integers(0, len(stream)))
    stop = data.draw(st.integers(start, len(stream)))
    assert train.read(start, stop).tolist() == stream[start:stop]
    open_shards(folder).verify()


def test_digest_covers_content_alone(tmp_path):
    train, heldout = [[5, 6, 1], [7, 1]], [[8, 1]]
    digest = open_shards(write(tmp_path / "a", train, heldout)).digest
    assert digest == open_shards(write(tmp_path / "b", train, heldout, shard_tokens=2, corpus="other")).digest
    assert digest == open_shards(write(tmp_path / "c", train, heldout, vocabulary=LARGE)).digest
    others = [([[5, 6], [1, 7, 1]], heldout), ([[5, 6, 1], [8, 1]], heldout), (heldout, train)]
    digests = {open_shards(write(tmp_path / f"d{i}", *sides)).digest for i, sides in enumerate(others)}
    assert len(digests | {digest}) == 4


def test_dtype_follows_the_vocabulary(tmp_path):
    small = open_shards(write(tmp_path / "small", [[258]], [[1]])).train
    large = open_shards(write(tmp_path / "large", [[99_999]], [[1]], vocabulary=LARGE)).train
    assert (small.read(0, 1).dtype, large.read(0, 1).dtype) == (np.uint16, np.uint32)
    assert (small.vocabulary.start_id, large.vocabulary.start_id) == (1, 0)


def test_tokens_outside_the_vocabulary_are_refused_and_nothing_is_left(tmp_path):
    for token in (259, -1):
        with pytest.raises(InputError, match=rf"holds token {token}, outside its vocabulary of 259"):
            write(tmp_path / "x", [[1, token]], [[1]])
    assert list(tmp_path.iterdir()) == []


def test_reading_outside_the_stream_is_an_error(tmp_path):
    train = open_shards(write(tmp_path / "x", [[1, 2, 3]], [[1]])).train
    for start, stop in ((-1, 1), (0, 4), (2, 1)):
        with pytest.raises(IndexError):
            train.read(start, stop)


def test_a_feature_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="feature: 'inputs' is not among those prepared: targets"):
        open_shards(write(tmp_path / "x", [[1]], [[1]])).split("train", "inputs")


def test_missing_and_truncated_files_are_refused_at_opening(tmp_path):
    folder = write(tmp_path / "x", [[5, 6, 7, 1]] * 9, [[8, 1]], shard_tokens=10)
    shard = folder / "train-targets-00001.npy"
    whole = shard.read_bytes()
    for cut in (0, 1, 60, len(whole) - 1):
        shard.write_bytes(whole[:cut])
        with pytest.raises(
            InputError, match=rf"train-targets-00001.npy has {cut} bytes instead of {len(whole)}; remove"
        ):
            open_shards(folder)
    shard.unlink()
    with pytest.raises(InputError, match=r"train-targets-00001.npy is missing"):
        open_shards(folder)
    with pytest.raises(InputError, match=r"holds no manifest.json; run 'lmscale prepare'"):
        open_shards(tmp_path)


def test_every_edited_byte_is_found_by_verify(tmp_path):
    folder = write(tmp_path / "x", [[5, 6, 7, 1]], [[8, 1]])
    for path in sorted(folder.glob("*.npy")):
        whole = path.read_bytes()
        for position in range(0, len(whole), 7):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(InputError, match=rf"{path.name} was changed after preparation"):
                open_shards(folder).verify()
        path.write_bytes(whole)
    open_shards(folder).verify()


def test_a_manifest_cut_or_edited_is_refused(tmp_path):
    folder = write(tmp_path / "x", [[5, 6, 7, 1]], [[8, 1]])
    path = folder / "manifest.json"
    whole = path.read_text()
    for cut in range(0, len(whole) - 2, 13):
        path.write_text(whole[:cut])
        with pytest.raises(InputError, match="remove that folder"):
            open_shards(folder)
    manifest = json.loads(whole)
    edits = [
        {"format": 1},
        {"digest": "0" * 64},
        {"splits": {}},
        {"features": {"targets": {}}},
        {"files": {**manifest["files"], "../../escape.npy": {"bytes": 1, "sha256": ""}}},
        {"files": {name: {} for name in manifest["files"]}},
    ]
    for edit in edits:
        path.write_text(json.dumps({**manifest, **edit}))
        with pytest.raises(InputError, match="remove that folder"):
            open_shards(folder)


def test_a_pickle_in_place_of_an_array_is_refused(tmp_path):
    folder = write(tmp_path / "x", [[5, 6, 7, 1]], [[8, 1]])
    path = folder / "train-targets-bytes.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name]["bytes"] = path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"train-targets-bytes.npy cannot be read"):
        _ = open_shards(folder).train.bytes


@pytest.mark.parametrize("moment", ["os.fsync", "json.dump", "os.rename"])
def test_a_killed_writer_leaves_no_folder(tmp_path, moment):
    code = f"""
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_shards import write
module, name = {moment!r}.split(".")
setattr(sys.modules[module], name, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL))
write(Path({str(tmp_path)!r}) / "x", [[5, 1]], [[8, 1]])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == -signal.SIGKILL
    assert not (tmp_path / "x").exists()
    assert [path.name.startswith(".x.tmp-") for path in tmp_path.iterdir()] == [True]

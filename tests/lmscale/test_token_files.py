"""Files of integers, which stand for no text: bytes of sound, bases of DNA, tokens of somebody else's."""

import json

import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources
from lmscale.data.prepare import prepare
from lmscale.data.shards import Shards, open_shards


def prepared(folder, *files, **fields) -> Shards:
    corpus = Corpus(files=tuple(map(str, files)), heldout=0.3, **fields)
    (part,) = prepare(corpus, folder / "prepared", echo=lambda line: None, processes=1)
    return open_shards(part.folder)


def stream(shards: Shards) -> np.ndarray:
    return np.concatenate([split.read(0, split.tokens) for split in (shards.train, shards.heldout)])


@pytest.mark.parametrize("name", ["sound.bin", "sound.npy"])
def test_bytes_are_tokens_of_no_text(tmp_path, name):
    sound = np.random.default_rng(0).integers(0, 256, 300_001).astype(np.uint8)
    if name.endswith(".bin"):
        (tmp_path / name).write_bytes(sound.tobytes())
    else:
        np.save(tmp_path / name, sound)
    shards = prepared(tmp_path, tmp_path / name, slices=("source",))
    assert np.array_equal(np.sort(stream(shards)), np.sort(sound))
    assert shards.train.documents + shards.heldout.documents == 19  # of 16,384 each, and a rest
    first = shards.train.document(0)
    assert any(np.array_equal(first, sound[i : i + 16_384]) for i in range(0, 300_000, 16_384))
    assert (shards.train.total_bytes, shards.heldout.total_bytes) == (0, 0)
    assert (shards.train.vocabulary.size, shards.train.vocabulary.eos_id) == (256, None)
    assert shards.slices == {"source": [name]}


def test_tokens_of_two_bytes_and_documents_of_rows(tmp_path):
    tokens = np.random.default_rng(1).integers(0, 50_257, (40, 100)).astype("<u2")
    (tmp_path / "a.bin").write_bytes(tokens.tobytes())
    np.save(tmp_path / "a.npy", tokens.astype(np.int64))
    (document,) = sources.documents(Corpus(files=(f"{tmp_path}/a.bin",), token_type="uint16", vocab_size=50_257))
    assert np.array_equal(np.frombuffer(document.text, "<u4"), tokens.ravel())
    rows = prepared(tmp_path, tmp_path / "a.npy", vocab_size=50_257)
    found = [split.document(i).tolist() for split in (rows.train, rows.heldout) for i in range(split.documents)]
    assert sorted(found) == sorted(tokens.tolist())
    assert rows.train.vocabulary.size == 50_257


@pytest.mark.parametrize(
    ("write", "fields", "message"),
    [
        (
            lambda p: np.save(p / "a.npy", np.arange(300)),
            {},
            r"corpus.vocab_size: 256 ids do not hold the integer 299 of",
        ),
        (lambda p: np.save(p / "a.npy", np.array([-1, 5])), {"vocab_size": 9}, r"do not hold the integer -1"),
        (
            lambda p: np.save(p / "a.npy", np.ones(3)),
            {},
            r"holds float64 of rank 1; it must be integers of rank 1 or 2",
        ),
        (lambda p: np.save(p / "a.npy", np.ones((2, 2, 2), int)), {}, r"holds int64 of rank 3"),
        (lambda p: (p / "a.npy").write_bytes(b"\x93NUMPY"), {}, r"'.*a.npy' is no whole file of integers"),
        (
            lambda p: (p / "a.bin").write_bytes(b"123"),
            {"token_type": "uint16"},
            r"'.*a.bin' is no whole file of integers",
        ),
        (
            lambda p: (p / "a.bin").write_bytes(b"1"),
            {"vocabulary": "x.model"},
            r"corpus.vocabulary: 'x.model' reads text",
        ),
        (
            lambda p: (p / "a.bin").write_bytes(b"1") and (p / "a.txt").write_bytes(b"1"),
            {},
            r"'.*a.bin' holds integers and '.*a.txt' text; name one kind alone",
        ),
    ],
)
def test_what_is_no_stream_of_tokens_is_named(tmp_path, write, fields, message):
    write(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        prepared(tmp_path, tmp_path / "a.*", **fields)
    assert "\n" not in str(caught.value)
    assert [path for path in (tmp_path / "prepared").glob("*") if not path.name.startswith(".")] == []


def test_an_object_array_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="is no whole file of integers"):
        prepared(tmp_path, tmp_path / "a.npy")


def test_the_vocabulary_is_part_of_the_place(tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(200)) * 500)
    first, second = (prepared(tmp_path, tmp_path / "a.bin", vocab_size=size) for size in (200, 256))
    assert first.folder != second.folder
    assert first.digest == second.digest  # the tokens are the same
    assert json.loads((first.folder / "manifest.json").read_text())["features"]["targets"]["size"] == 200

"""Batches and evaluation sets: pure functions, complete, and byte for byte the text."""

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.errors import InputError
from lmscale.data import shards
from lmscale.data.loader import Loader, evaluation_set
from lmscale.data.permutation import permute
from lmscale.data.shards import Split, Vocabulary, open_shards
from lmscale.data.writer import ShardWriter

EOS = 1
BYTES = Vocabulary(class_name="Byte", name="bytes", size=259, eos_id=EOS, digest="0")
SEQUENCE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("loader") / "x", documents(40, 1), documents(25, 2))


def documents(count: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [np.append(random.integers(3, 259, random.integers(0, 120)), EOS) for _ in range(count)]


def write(folder: Path, train: list[np.ndarray], heldout: list[np.ndarray]) -> Path:
    with ShardWriter(folder, {"targets": BYTES}, shard_tokens=500) as writer:
        for split, sides in (("train", train), ("heldout", heldout)):
            for tokens in sides:
                writer.add(split, {"targets": tokens}, {"targets": len(tokens) - 1})
        return writer.finish({})


def loader(folder: Path, batch_sequences: int = 8, seed: int = 3) -> Loader:
    split = open_shards(folder).train
    return Loader(parts=((split, 1.0),), sequence=SEQUENCE, batch_sequences=batch_sequences, seed=seed)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**31 - 1), st.integers(0, 2**40))
def test_permutation_is_a_bijection(size, seed, epoch):
    assert np.array_equal(np.sort(permute(np.arange(size), size, seed=seed, epoch=epoch)), np.arange(size))


def test_permutation_of_a_huge_range_stays_inside_and_distinct():
    size = 10**13 + 37
    images = permute(np.arange(size - 20_000, size), size, seed=0, epoch=0)
    assert images.min() >= 0
    assert images.max() < size
    assert len(set(images.tolist())) == 20_000
    assert abs(images.mean() / size - 0.5) < 0.01  # 5 standard deviations of a uniform sample


def test_permutation_looks_shuffled():
    size = 20_000
    images = [permute(np.arange(size), size, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for one in images:
        assert abs(np.corrcoef(np.arange(size), one)[0, 1]) < 0.035  # 5 / sqrt(size)
        assert np.count_nonzero(np.diff(one) == 1) < 10  # about 1 expected
        assert np.count_nonzero(one == np.arange(size)) < 10
    assert np.count_nonzero(images[0] == images[1]) < 10
    assert np.count_nonzero(images[0] == images[2]) < 10


def test_one_epoch_holds_every_window_once(folder):
    data = loader(folder, batch_sequences=7)
    stream = np.concatenate(documents(40, 1))
    (count,) = data.windows_per_epoch
    assert count == len(stream) // SEQUENCE
    seen = np.concatenate([data.windows(step) for step in range(-(-3 * count // 7))])
    first_inputs = np.concatenate([[EOS], stream])
    expected = [tuple(first_inputs[i * SEQUENCE : (i + 1) * SEQUENCE + 1]) for i in range(count)]
    orders = [[tuple(row) for row in seen[epoch * count : (epoch + 1) * count]] for epoch in range(3)]
    for order in orders:
        assert sorted(order) == sorted(expected)
    assert all(one != other for one, other in pairwise([expected, *orders]))


def test_windows_are_a_pure_function_of_seed_and_step(folder):
    steps = [5, 0, 900, 4, 5, 10_000]
    here = [loader(folder).windows(step).tolist() for step in steps]
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_loader import loader
data = loader(Path({str(folder)!r}))
print([data.windows(step).tolist() for step in {sorted(steps)}])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == str([here[steps.index(step)] for step in sorted(steps)])
    assert loader(folder, seed=4).windows(5).tolist() != here[0]


@pytest.mark.parametrize("batch_sequences", [8, 48, 5000])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_rows_of_the_processes_make_the_batch(folder, processes, batch_sequences):
    data = loader(folder, batch_sequences=batch_sequences)
    size = batch_sequences // processes
    for step in (0, 17):
        parts = [data.windows(step, slice(rank * size, (rank + 1) * size)) for rank in range(processes)]
        assert np.array_equal(np.concatenate(parts), data.windows(step))


def test_the_batch_size_does_not_change_the_order_of_samples(folder):
    small = np.concatenate([loader(folder, batch_sequences=4).windows(step) for step in range(12)])
    large = np.concatenate([loader(folder, batch_sequences=16).windows(step) for step in range(3)])
    assert np.array_equal(small, large)


@dataclass(frozen=True)
class Sized:
    """As much of a split as tells which windows are drawn."""

    tokens: int


@pytest.mark.parametrize(
    ("tokens", "sequence", "batch_sequences", "seed", "steps", "last", "digest"),
    [  # computed by the loader before there were mixtures, in which runs were recorded
        (1600, 16, 8, 3, (0, 1, 17, 900), [51, 97, 58], "e0909674e48b7541"),
        (10_000_000, 128, 4, 0, (0, 1023, 1024, 100_000), [57461, 12462, 16371], "2a2b32d586d5c42d"),
        (7, 7, 5000, 1, (0, 2), [0, 0, 0], "f8c784aa6b57396e"),
        (123_456_789_012, 2048, 512, 2**31 - 1, (0, 7, 10**6), [11483206, 34887552, 11614227], "e54dfb7fd614ad8d"),
        (70_000, 7, 48, 11, (0, 5, 300), [3957, 7215, 7512], "998281077770ea44"),
    ],
)
def test_a_single_text_is_drawn_as_ever(tokens, sequence, batch_sequences, seed, steps, last, digest):
    data = Loader(
        parts=((Sized(tokens), 0.3),),  # pyright: ignore[reportArgumentType]
        sequence=sequence,
        batch_sequences=batch_sequences,
        seed=seed,
    )
    drawn = hashlib.sha256()
    for step in steps:
        part_of, windows = data.samples(step, step + 1)
        assert not part_of.any()
        assert step != steps[-1] or windows[:3].tolist() == last
        drawn.update(windows.astype("<i8").tobytes())
    assert drawn.hexdigest()[:16] == digest


def test_batches_and_evaluation_set_are_as_ever(folder):
    drawn = hashlib.sha256()
    for step in (0, 3, 50, 1000):
        drawn.update(loader(folder).windows(step).astype("<i4").tobytes())
    assert drawn.hexdigest()[:16] == "0a8246d6d73e8b7e"
    for tokens, digest, size in (
        (100, "5288757359bfa067", 98),
        (600, "3b647bd9852d7f6c", 574),
        (10**9, "68537e0eec584ee5", 1682),
    ):
        found = evaluation_set(heldout(folder), sequence=SEQUENCE, tokens=tokens)
        assert (found.digest[:16], found.bytes_scored) == (digest, size)


def test_a_call_holds_the_batches_of_its_steps(folder):
    data = loader(folder, batch_sequences=6)
    for start, stop in ((0, 1), (3, 9), (680, 690)):  # over the border of a block of samples
        for rows in (slice(None), slice(2, 4)):
            one_by_one = np.stack([data.windows(step, rows) for step in range(start, stop)])
            assert np.array_equal(data.batches(start, stop, rows), one_by_one)


def test_no_more_shards_are_mapped_than_may_be(folder, monkeypatch):
    expected = [loader(folder).windows(step).tolist() for step in range(10)]
    monkeypatch.setattr(shards, "MAPPED_MOST", 2)
    data = loader(folder)
    split = data.parts[0][0]
    assert isinstance(split, Split)
    held = split.read(0, 3)
    assert [data.windows(step).tolist() for step in range(10)] == expected
    assert len(split._mapped) == 2
    assert len(split._sizes) == 5
    assert held.tolist() == documents(40, 1)[0][:3].tolist()  # a view outlives its shard's place


def test_unique_tokens(folder):
    data = loader(folder)
    (count,) = data.windows_per_epoch
    assert data.unique_tokens(2) == 2 * 8 * SEQUENCE
    assert data.unique_tokens(10_000) == count * SEQUENCE


def test_text_shorter_than_a_window_is_refused(tmp_path):
    split = open_shards(write(tmp_path / "x", [np.array([5, 1])], [np.array([5, 1])])).train
    with pytest.raises(InputError, match=r"recipe.sequence: 16 exceeds the 2 tokens"):
        Loader(parts=((split, 1.0),), sequence=SEQUENCE, batch_sequences=1, seed=0)


def heldout(folder: Path) -> Split:
    return open_shards(folder).heldout


def test_the_whole_evaluation_set_is_the_text(folder):
    texts = documents(25, 2)
    whole = evaluation_set(heldout(folder), sequence=SEQUENCE, tokens=10**9)
    assert whole.tokens_scored == sum(map(len, texts))
    assert whole.bytes_scored == sum(map(len, texts)) - len(texts)
    assert whole.tokens.shape == (len(whole.documents), SEQUENCE + 1)
    assert (whole.tokens.dtype, whole.weights.dtype) == (np.int32, np.float32)
    for number, text in enumerate(texts):
        rows = np.flatnonzero(whole.documents == number)
        targets = np.concatenate([whole.tokens[row, 1:][whole.weights[row] > 0] for row in rows])
        inputs = np.concatenate([whole.tokens[row, :-1][whole.weights[row] > 0] for row in rows])
        assert np.array_equal(targets, text)
        assert np.array_equal(inputs, np.concatenate([[EOS], text[:-1]]))
    assert not whole.tokens[:, 1:][whole.weights == 0].any()


@pytest.mark.parametrize("tokens", [16, 100, 500, 1000])
def test_a_sample_is_within_bounds_nested_and_exact_in_bytes(folder, tokens):
    sample = evaluation_set(heldout(folder), sequence=SEQUENCE, tokens=tokens)
    assert tokens - SEQUENCE < sample.tokens_scored <= tokens
    targets = sample.tokens[:, 1:][sample.weights > 0]
    assert sample.bytes_scored == np.count_nonzero(targets != EOS)
    larger = evaluation_set(heldout(folder), sequence=SEQUENCE, tokens=2 * tokens)
    rows = {tuple(row) for row in larger.tokens.tolist()}
    assert all(tuple(row) in rows for row in sample.tokens.tolist())


def test_the_sample_spreads_over_documents_and_is_the_same_each_time(folder):
    first = evaluation_set(heldout(folder), sequence=SEQUENCE, tokens=600)
    again = evaluation_set(heldout(folder), sequence=SEQUENCE, tokens=600)
    assert first.digest == again.digest
    assert len(set(first.documents.tolist())) > 12
    others = [(SEQUENCE, 500), (8, 600)]
    digests = {evaluation_set(heldout(folder), sequence=s, tokens=t).digest for s, t in others}
    assert len(digests | {first.digest}) == 3


def test_fewer_tokens_than_a_window_are_refused(tmp_path):
    split = open_shards(write(tmp_path / "x", documents(3, 1), [np.append(np.full(64, 7), EOS)])).heldout
    with pytest.raises(InputError, match="eval_tokens: 0 is less than one window"):
        evaluation_set(split, sequence=SEQUENCE, tokens=0)

"""Counts of n-grams: whatever the batches, saved and gone on with, damaged, bounded."""

from __future__ import annotations

import numpy as np
import pytest
from grams import EOS, LARGE, counted, random_windows, spread

from analysis.errors import InputError
from lmscale import ngram_counts
from lmscale.ngram_counts import NgramCounts


@pytest.mark.parametrize("vocab", [9, LARGE])
@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_counts_do_not_depend_on_batches(tmp_path, monkeypatch, vocab, block):
    windows = random_windows(8, 9, (90, 17))
    windows = windows if vocab == 9 else spread(windows, 9, vocab)
    counted(windows, order=6, vocab=vocab).save(tmp_path / "once.npz")
    monkeypatch.setattr(ngram_counts, "BLOCK_TOKENS", block)
    rng = np.random.default_rng(block)
    counts, start = NgramCounts(order=6, vocab=vocab, eos_id=EOS), 0
    while start < 90:
        stop = start + int(rng.integers(1, 20))
        batch = windows[start:stop].copy()
        counts.add(batch)
        batch[:] = 0  # the caller's array is his again
        start = stop
    counts.save(tmp_path / "parts.npz")
    assert (tmp_path / "once.npz").read_bytes() == (tmp_path / "parts.npz").read_bytes()


def test_saved_counts_go_on(tmp_path):
    windows = random_windows(11, 9, (50, 17))
    counted(windows[:20], order=4, vocab=9, eos_id=None).save(tmp_path / "a.npz")
    again = NgramCounts.load(tmp_path / "a.npz")
    again.add(windows[20:])
    again.save(tmp_path / "b.npz")
    counted(windows, order=4, vocab=9, eos_id=None).save(tmp_path / "c.npz")
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
    assert again.targets == windows[:, 1:].size


@pytest.mark.parametrize("damage", ["cut", "missing", "other", "disordered", "dangling", "sum"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = tmp_path / "a.npz"
    counted(spread(random_windows(1, 9, (20, 9)), 9, LARGE), order=5, vocab=LARGE).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:-100])
        case "missing":
            path.unlink()
        case "other":
            arrays = {"keys_1": arrays["keys_1"]}
        case "disordered":
            arrays["keys_2"] = arrays["keys_2"][::-1]
        case "dangling":
            arrays["keys_5"][-1] += np.uint64(1000 * LARGE)
        case "sum":
            arrays["counts_1"][0] += 1
    if damage not in ("cut", "missing"):
        with path.open("wb") as stream:
            np.savez(stream, **arrays)
    with pytest.raises(InputError, match="holds no counts"):
        NgramCounts.load(path)


def test_each_target_counts_with_the_context_that_its_window_shows():
    windows = np.array([[1, 5, 6, 1, 7], [5, 6, 7, 7, 7]])
    counts = counted(windows, order=3, vocab=10)

    def grams(order: int) -> dict[tuple[int, ...], int]:
        return {
            tuple(int(key) // 10 ** (order - 1 - i) % 10 for i in range(order)): int(n)
            for key, n in zip(counts.keys(order), counts.counts(order), strict=True)
        }

    assert grams(1) == {(1,): 1, (5,): 1, (6,): 2, (7,): 4}  # every target once
    assert grams(2) == {(1, 5): 1, (5, 6): 2, (6, 1): 1, (1, 7): 1, (6, 7): 1, (7, 7): 2}
    assert grams(3) == {(1, 5, 6): 1, (5, 6, 1): 1, (5, 6, 7): 1, (6, 7, 7): 1, (7, 7, 7): 1}  # none over the border
    # (5, 6) after 1; (6, 1) and (6, 7) after 5; (7, 7) after 6 and 7; those that begin with 1 keep their counts
    assert counts.adjusted(2).tolist() == [1, 1, 1, 1, 1, 2]
    assert counts.adjusted(1).tolist() == [1, 1, 1, 3]  # 7 after 1, 6 and 7


def test_memory_is_that_of_the_stored_counts_and_a_bound_stops_it():
    windows = random_windows(1, 30, (400, 33))
    counts = counted(windows, order=6, vocab=30)
    stored = counts.stored(6)
    assert counts.memory_bytes == 12 * stored
    bounded = NgramCounts(order=6, vocab=30, eos_id=EOS, counts_max=stored)
    bounded.add(windows)
    assert bounded.stored(6) == stored
    less = NgramCounts(order=6, vocab=30, eos_id=EOS, counts_max=stored - 1)
    less.add(windows)
    with pytest.raises(InputError, match=f"counts_max: {stored - 1} is less than the {stored} counts"):
        less.stored(6)


def test_no_more_than_a_block_is_held(monkeypatch):
    monkeypatch.setattr(ngram_counts, "BLOCK_TOKENS", 1000)
    counts = NgramCounts(order=1, vocab=9, eos_id=EOS)
    for seed in range(40):
        counts.add(random_windows(seed, 9, (10, 11)))
        assert counts.memory_bytes <= 1100 * 4 + 9 * 12
    assert counts.targets == 40 * 100


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": 7}, "order: 7 is not 1 to 6"),
        ({"vocab": 1}, "vocab: 1 is not"),
        ({"eos_id": 9}, "eos_id: 9 is no id below 9"),
        ({"counts_max": 0}, "counts_max: 0 is below 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        NgramCounts(**{"order": 3, "vocab": 9, "eos_id": EOS} | settings)

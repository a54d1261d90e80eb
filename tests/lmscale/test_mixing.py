"""Samples dealt out by rates: against counting them one by one, and within the bounds that were proved."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.errors import InputError
from lmscale.data.mixing import WHOLE, counts, deal, weights

RATES = st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=12)


@settings(max_examples=100, deadline=None)
@given(RATES, st.integers(0, 10**12))
def test_samples_are_numbered_within_their_parts_without_a_gap(rates, start):
    parts = weights(rates)
    part_of, number = deal(parts, start, start + 3000)
    before, after = counts(parts, start), counts(parts, start + 3000)
    assert (sum(before), sum(after)) == (start, start + 3000)
    for part in range(len(parts)):
        assert number[part_of == part].tolist() == list(range(before[part], after[part]))


@settings(max_examples=100, deadline=None)
@given(RATES, st.integers(0, 10**12))
def test_rates_hold_after_every_sample(rates, samples):
    parts = weights(rates)
    bound = {1: 0, 2: Fraction(1, 2), 3: 1}.get(len(parts), 2)
    for n in (samples, samples + 1, samples + 2, samples + 117):
        for weight, count in zip(parts, counts(parts, n), strict=True):
            assert abs(count - Fraction(weight, sum(parts)) * n) <= bound


def test_counts_of_huge_numbers_are_exact():
    n = 10**30 + 1
    assert counts(weights([3, 1]), n) == (3 * 10**30 // 4 + 1, 10**30 // 4)


def test_pieces_make_the_whole():
    parts = weights([0.5, 0.2, 0.2, 0.07, 0.03])
    whole = deal(parts, 0, 10_000)
    pieces = [deal(parts, start, start + 1250) for start in range(0, 10_000, 1250)]
    for k in range(2):
        assert np.array_equal(np.concatenate([piece[k] for piece in pieces]), whole[k])


def test_equal_rates_take_turns():
    part_of, _ = deal(weights([1, 1, 1, 1]), 0, 400)
    assert all(sorted(part_of[i : i + 4]) == [0, 1, 2, 3] for i in range(0, 400, 4))


def test_rates_are_relative_and_none_is_lost():
    assert weights([2, 1, 1]) == weights([0.5, 0.25, 0.25]) == (WHOLE // 2, WHOLE // 4, WHOLE // 4)
    assert weights([1e308, 1e308]) == (WHOLE // 2, WHOLE // 2)
    assert weights([1, 1e-30])[1] == 1


@pytest.mark.parametrize("rate", [0, -0.5, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(InputError, match=r"corpus.task: .* is no rate for part 'b' of the mixture; make it a positive"):
        weights([0.5, rate], ["a", "b"])
    with pytest.raises(InputError, match=r"for part 1 of"):
        weights([0, 0])
    with pytest.raises(InputError, match="names no text"):
        weights([])

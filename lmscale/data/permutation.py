"""Keyed permutations of ranges of any size, computed value by value: nothing is held."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FEISTEL_ROUNDS = 8  # 4 make a pseudorandom permutation (Luby and Rackoff 1988); small domains want more
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def permute(index: NDArray, size: int, *, seed: int, epoch: NDArray | int) -> NDArray[np.int64]:
    """Images of `index` under a keyed permutation of range(size), computed without holding the permutation.

    A Feistel network over pairs (left, right) with cycle walking, as in Black and Rogaway 2002 (CT-RSA), Sec. 4-5;
    its round function is SplitMix64 (Steele et al. 2014). The sides are near sqrt(size), so few values walk.

    Args:
        index: integers in [0, size), of any shape.
        epoch: each epoch (one for all, or one per index) is another permutation.
    """
    left_size = max(1, math.isqrt(size - 1) + 1)
    right_size = -(-size // left_size)
    sides = np.uint64(left_size), np.uint64(right_size)
    base = _mix(np.asarray(seed, np.uint64) ^ _mix(np.asarray(epoch, np.uint64) + GOLDEN))
    keys = np.broadcast_to(base, np.shape(index)).reshape(-1)
    values = np.asarray(index, np.uint64).reshape(-1)
    result = np.empty_like(values)
    walking = np.arange(values.size)
    while walking.size:
        values = _feistel(values, keys, sides)
        inside = values < size
        result[walking[inside]] = values[inside]
        walking, values, keys = walking[~inside], values[~inside], keys[~inside]
    return result.astype(np.int64).reshape(np.shape(index))


def _feistel(values: NDArray, keys: NDArray, sides: tuple[np.uint64, np.uint64]) -> NDArray:
    left, right = values // sides[1], values % sides[1]
    for round_number in range(FEISTEL_ROUNDS):
        key = _mix(keys + np.uint64(round_number))
        if round_number % 2 == 0:
            left = (left + _mix(key ^ right) % sides[0]) % sides[0]
        else:
            right = (right + _mix(key ^ left) % sides[1]) % sides[1]
    return left * sides[1] + right


def uniform(index: NDArray, *, seed: int, stream: int) -> NDArray[np.float64]:
    """A number of [0, 1) for each index, the same on every machine; `stream` tells apart several for one index."""
    key = _mix(np.asarray(seed, np.uint64) ^ _mix(np.asarray(stream, np.uint64) + GOLDEN))
    return (_mix(key ^ _mix(np.asarray(index, np.uint64))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(values: NDArray) -> NDArray:
    """SplitMix64's output function, on arrays of uint64."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        values = values + GOLDEN
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))

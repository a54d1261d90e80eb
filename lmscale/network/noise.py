"""Numbers that windows carry where an objective draws at random: a window's noise is a function of its number.

In training the number follows from (seed, sample), as the window does; in evaluation from the window's place in its
set, or it asks for one token alone, or for what follows a prompt. So noise is the same wherever a row is computed,
whenever a run is resumed, and for every model that is evaluated.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

EVALUATION_SEED = 1 << 32  # beyond those of training


def numbers(seed: int, samples: NDArray[np.int64]) -> NDArray[np.int32]:
    """A number for each sample: splitmix64 of both (Steele et al. 2014), its upper 31 bits."""
    start = int.from_bytes(hashlib.sha256(f"noise {seed}".encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        mixed = np.asarray(samples, np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(33)).astype(np.int32)


def numbered(windows: NDArray[np.int32], seed: int, samples: NDArray[np.int64]) -> NDArray[np.int32]:
    """Windows [..., S + 1] with the number of each as a further column."""
    column = numbers(seed, samples).reshape(*windows.shape[:-1], 1)
    return np.concatenate([windows, column], axis=-1)


def asking_for(windows: NDArray[np.int32], places: NDArray[np.int64]) -> NDArray[np.int32]:
    """Windows [M, S + 1] in which one target each is masked, and nothing else: a number below 0 says which."""
    return np.concatenate([windows, -1 - places[:, None].astype(np.int32)], axis=1)


def prompted(windows: NDArray[np.int32], prompts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Windows [M, S + 1] that are read up to so many targets each, at least none, and written from there on: a number
    below 0 says it.
    """
    return np.concatenate([windows, -1 - prompts[:, None].astype(np.int32)], axis=1)

"""Minima and level crossings of many functions of one variable at once: rows of one array computation."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.laws import Array

GRID = 240  # points of log N over which a minimum is looked for
NARROWINGS = 60  # golden sections, each to .618 of the last: 1e-12 of a grid step
SECTIONS, ROUNDS = 64, 9  # of `sectioned`: 700 e-folds become 4e-14
HALVINGS = 80  # of a bracket: 700 e-folds become less than float64 resolves

Function = Callable[[Array], Array]
Test = Callable[[Array], NDArray[np.bool_]]


def minimum(function: Function, low: ArrayLike, high: ArrayLike) -> Array:
    """Where each function is lowest between `low` and `high` [...]: `function` maps points [...] to values [...].

    The best point of a grid, then golden sections between its neighbours. Values may be infinite.
    """
    low, high = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
    values = np.stack([function(low + fraction * (high - low)) for fraction in np.linspace(0.0, 1.0, GRID)])
    best = np.argmin(values, axis=0)
    step = (high - low) / (GRID - 1)
    left, right = low + np.maximum(best - 1, 0) * step, low + np.minimum(best + 1, GRID - 1) * step
    golden = (np.sqrt(5.0) - 1) / 2
    for _ in range(NARROWINGS):
        first, second = right - golden * (right - left), left + golden * (right - left)
        smaller = function(first) < function(second)
        left, right = np.where(smaller, left, first), np.where(smaller, second, right)
    return 0.5 * (left + right)


def crossing(above: Test, outside: ArrayLike, inside: ArrayLike) -> Array:
    """Between `outside` [...], where `above` holds, and `inside`, where it does not: where it changes, by halving.

    Where it holds at neither, `outside`'s end is returned.
    """
    far, near = np.broadcast_arrays(np.asarray(outside, np.float64), np.asarray(inside, np.float64))
    end, open_end = far, ~above(far)
    for _ in range(HALVINGS):
        middle = 0.5 * (far + near)
        holds = above(middle)
        far, near = np.where(holds, middle, far), np.where(holds, near, middle)
    return np.where(open_end, end, 0.5 * (far + near))


def sectioned(above: Test, outside: ArrayLike, inside: ArrayLike) -> Array:
    """As `crossing`, in ROUNDS calls of `above` on [SECTIONS + 1, ...] points each, where a call is dear."""
    far, near = np.broadcast_arrays(np.asarray(outside, np.float64), np.asarray(inside, np.float64))
    parts = np.linspace(0.0, 1.0, SECTIONS + 1).reshape(-1, *(1,) * far.ndim)
    for _ in range(ROUNDS):
        points = far + parts * (near - far)
        last = np.maximum(np.cumprod(above(points), axis=0).sum(axis=0) - 1, 0)
        far, near = (np.take_along_axis(points, np.minimum(last + k, SECTIONS)[None], axis=0)[0] for k in (0, 1))
    return 0.5 * (far + near)

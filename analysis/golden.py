"""Minima and level crossings of many functions of one variable at once: rows of one array computation."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.laws import Array

GRID = 240  # points of log N over which a minimum is looked for
NARROWINGS = 60  # golden sections, each to .618 of the last: 1e-12 of a grid step
SECTIONS, ROUNDS = 64, 9  # of `sectioned`: 700 e-folds become 4e-14
HALVINGS = 80  # of a bracket: 700 e-folds become less than float64 resolves

Function = Callable[[Array], Array]


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


def crossing(above: Callable[[Array], Any], outside: ArrayLike, inside: ArrayLike) -> Array:
    """Between `outside` [...], where `above` holds, and `inside`, where it does not: where it changes, by halving.

    Where it holds at neither, `outside`'s end is returned.
    """
    outside, inside = np.broadcast_arrays(np.asarray(outside, np.float64), np.asarray(inside, np.float64))
    open_end = ~above(outside)
    end = outside
    for _ in range(HALVINGS):
        middle = 0.5 * (outside + inside)
        holds = above(middle)
        outside, inside = np.where(holds, middle, outside), np.where(holds, inside, middle)
    return np.where(open_end, end, 0.5 * (outside + inside))


def sectioned(above: Callable[[Array], Any], outside: ArrayLike, inside: ArrayLike) -> Array:
    """As `crossing`, in ROUNDS calls of `above` on [SECTIONS + 1, ...] points each, where a call is dear."""
    outside, inside = np.broadcast_arrays(np.asarray(outside, np.float64), np.asarray(inside, np.float64))
    parts = np.linspace(0.0, 1.0, SECTIONS + 1).reshape(-1, *(1,) * outside.ndim)
    for _ in range(ROUNDS):
        points = outside + parts * (inside - outside)
        last = np.maximum(np.cumprod(above(points), axis=0).sum(axis=0) - 1, 0)
        low, high = (np.take_along_axis(points, np.minimum(last + k, SECTIONS)[None], axis=0)[0] for k in (0, 1))
        outside, inside = low, high
    return 0.5 * (outside + inside)

"""The slope of a line through points that err in clusters: its standard error, interval and test, for few clusters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from analysis.laws import Array
from analysis.uncertainty import CONFIDENCE

LEAST_CLUSTERS = 3


@dataclass(frozen=True, kw_only=True)
class Line:
    """y = level + coefficients . (x - centre), x of k variables. slope: along the direction asked for, with its stderr
    and degrees of freedom; p_value: two-sided, of a slope of zero.
    """

    level: float
    coefficients: Array
    centre: Array
    slope: float
    stderr: float
    degrees: float
    p_value: float

    def __call__(self, x: ArrayLike) -> float:
        """y at one point, of k variables."""
        return self.level + float(self.coefficients @ (np.atleast_1d(x) - self.centre))

    @property
    def interval(self) -> tuple[float, float]:
        """Of the slope, 95 %, by Student's t."""
        half = float(stdtrit(self.degrees, 0.5 + CONFIDENCE / 2)) * self.stderr
        return self.slope - half, self.slope + half


def line(x: Array, y: Array, clusters: Sequence[str], along: ArrayLike = 1.0) -> Line | None:
    """Least squares of y [n] on x [n] or [n, k], n rows of which those of one cluster err together.

    The slope is that of y where x moves by `along`. Its variance is CR2 (Bell & McCaffrey 2002): residuals of each
    cluster are blown up by (I - H)^-1/2, so that it is unbiased where errors are alike; Student's t has their
    Satterthwaite degrees of freedom, which stay honest with few clusters and with clusters of uneven reach (Imbens &
    Kolesar 2016). Where every row is a cluster it is HC2.
    None where x does not vary in all its directions, or fewer than LEAST_CLUSTERS clusters are there.
    """
    names, index = np.unique(np.asarray(clusters, str), return_inverse=True)
    x, direction = np.atleast_2d(x.T).T, np.atleast_1d(np.asarray(along, np.float64))
    centre = x.mean(axis=0)
    design = np.column_stack([np.ones(len(x)), x - centre])
    if len(names) < LEAST_CLUSTERS or len(x) <= design.shape[1] or not varies(x):
        return None
    inverse = np.linalg.inv(design.T @ design)
    fitted = inverse @ (design.T @ y)
    residual, hat = y - design @ fitted, design @ inverse @ design.T
    towards = inverse @ np.concatenate([[0.0], direction])
    influence, scores = np.zeros((len(x), len(names))), np.zeros(len(names))
    for g in range(len(names)):
        rows = np.flatnonzero(index == g)
        values, vectors = np.linalg.eigh(np.eye(len(rows)) - hat[np.ix_(rows, rows)])
        root = np.where(values > 1e-10, 1.0 / np.sqrt(np.maximum(values, 1e-10)), 0.0)
        weight = (vectors * root) @ vectors.T @ (design[rows] @ towards)
        scores[g] = float(weight @ residual[rows])
        influence[rows, g] += weight
        influence[:, g] -= hat[:, rows] @ weight
    working = influence.T @ influence
    degrees = float(np.trace(working) ** 2 / np.sum(working**2))
    slope, stderr = float(direction @ fitted[1:]), float(np.sqrt(scores @ scores))
    tail = float(stdtr(degrees, -abs(slope) / stderr)) if stderr > 0 else float(slope == 0) / 2
    return Line(
        level=float(fitted[0]),
        coefficients=fitted[1:],
        centre=centre,
        slope=slope,
        stderr=stderr,
        degrees=degrees,
        p_value=2 * tail,
    )


def varies(x: Array) -> bool:
    """Whether points [n, k] are spread in every direction: in none less than a hundredth of the widest."""
    spread = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    return bool(spread[-1] > max(0.01 * spread[0], 1e-9))


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for there being several: rejecting those below a level keeps the chance of any false rejection
    below it, whatever their dependence (Holm 1979, Scand. J. Statist. 6:65).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted

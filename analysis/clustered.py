"""The slope of a line through points that err in clusters: its standard error, interval and test, for few clusters."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from analysis.laws import Array
from analysis.uncertainty import CONFIDENCE

LEAST_CLUSTERS = 3


@dataclass(frozen=True, kw_only=True)
class Line:
    """y = level + slope (x - centre). stderr and degrees are of the slope; p_value: two-sided, of a slope of zero."""

    level: float
    slope: float
    centre: float
    stderr: float
    degrees: float
    p_value: float

    def __call__(self, x: float) -> float:
        return self.level + self.slope * (x - self.centre)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by Student's t."""
        half = float(stdtrit(self.degrees, 0.5 + CONFIDENCE / 2)) * self.stderr
        return self.slope - half, self.slope + half


def line(x: Array, y: Array, clusters: list[str]) -> Line | None:
    """Least squares of y [n] on x [n], n rows of which those of one cluster err together.

    The variance is CR2 (Bell & McCaffrey 2002): residuals of each cluster are blown up by (I - H)^-1/2, so that it is
    unbiased where errors are alike; Student's t has their Satterthwaite degrees of freedom, which stay honest with few
    clusters and with clusters of uneven reach (Imbens & Kolesar 2016). Where every row is a cluster it is HC2.
    None where x does not vary, or fewer than LEAST_CLUSTERS clusters are there.
    """
    names, index = np.unique(np.asarray(clusters, str), return_inverse=True)
    centre = float(x.mean())
    design = np.column_stack([np.ones(len(x)), x - centre])
    spread = float(design[:, 1] @ design[:, 1])
    if len(names) < LEAST_CLUSTERS or len(x) < 3 or spread <= 1e-12 * len(x):
        return None
    inverse = np.diag([1.0 / len(x), 1.0 / spread])
    level, slope = (float(v) for v in inverse @ (design.T @ y))
    residual = y - level - slope * design[:, 1]
    hat = design @ inverse @ design.T
    influence, scores = np.zeros((len(x), len(names))), np.zeros(len(names))
    for g in range(len(names)):
        rows = np.flatnonzero(index == g)
        values, vectors = np.linalg.eigh(np.eye(len(rows)) - hat[np.ix_(rows, rows)])
        root = np.where(values > 1e-10, 1.0 / np.sqrt(np.maximum(values, 1e-10)), 0.0)
        weight = (vectors * root) @ vectors.T @ design[rows, 1] / spread
        scores[g] = float(weight @ residual[rows])
        influence[rows, g] += weight
        influence[:, g] -= hat[:, rows] @ weight
    working = influence.T @ influence
    degrees = float(np.trace(working) ** 2 / np.sum(working**2))
    stderr = float(np.sqrt(scores @ scores))
    tail = float(stdtr(degrees, -abs(slope) / stderr)) if stderr > 0 else float(slope == 0) / 2
    return Line(level=level, slope=slope, centre=centre, stderr=stderr, degrees=degrees, p_value=2 * tail)


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

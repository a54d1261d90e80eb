"""How far a fit strays: the covariance of a Huber estimator whose errors run together within trajectories.

The fit weighs every run alike, and so pays for what the runs of a trajectory share: V = H^-1 M H^-1 with H of the
objective's curvature and M of its slopes, summed over trajectories (Huber 1967; Liang & Zeger 1986, eq. 6).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from analysis.errors import InputError
from analysis.laws import Array
from analysis.solving.solve import HUBER_DELTA

POINTS = 40  # Gauss & Legendre, of each integral of `_both_inside`


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Normal errors of log L, of standard deviation `sd`; the runs of a trajectory have `shared` of its variance alike.

    Raises InputError for a sd that is not positive and a share outside 0 to 1.
    """

    sd: float
    shared: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.sd <= 10:
            raise InputError(f"residual_sd: {self.sd} is no relative error; give a positive number such as 0.005")
        if not 0 <= self.shared <= 1:
            raise InputError(f"shared: {self.shared} is no share of a variance; give a number from 0 to 1 such as 0.5")

    def draw(self, trajectory: NDArray[np.int64], count: int, rng: np.random.Generator) -> Array:
        """Errors [count, n] of runs whose trajectories are numbered [n] from 0."""
        shared = rng.normal(size=(count, int(trajectory.max()) + 1))[:, trajectory]
        own = rng.normal(size=(count, len(trajectory)))
        return self.sd * (math.sqrt(self.shared) * shared + math.sqrt(1 - self.shared) * own)

    def moments(self, delta: float = HUBER_DELTA) -> tuple[float, float]:
        """(own, together): variances of a run's slope in the objective, and its covariance with that of another run of
        its trajectory, over the square of the mean curvature. M is then own x H + together x the products of pairs.
        """
        k = delta / self.sd
        inside = math.erf(k / math.sqrt(2))
        # Price 1958: the covariance of clipped normals grows with their correlation as both lie inside the corners
        nodes, weights = np.polynomial.legendre.leggauss(POINTS)
        reached = 0.5 * self.shared * (1 + nodes)
        together = 0.5 * self.shared * float(weights @ _both_inside(k, reached)) if self.shared else 0.0
        return self.sd**2 * huber_factor(k), self.sd**2 * together / inside**2


def huber_factor(k: float) -> float:
    """Variance of the Huber estimator over that of least squares, normal errors, corner at k standard deviations
    (Huber 1964).
    """
    inside = math.erf(k / math.sqrt(2))
    density = math.exp(-0.5 * k * k) / math.sqrt(2 * math.pi)
    return (inside - 2 * k * density + k * k * (1 - inside)) / (inside * inside)


def _both_inside(k: float, correlation: Array) -> Array:
    """P(|X| < k, |Y| < k) of standard normals of correlations [m]."""
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    reach = min(k, 9.0)
    x = reach * nodes
    spread = np.sqrt(1 - np.minimum(correlation, 1 - 1e-12) ** 2)[:, None]
    centre = correlation[:, None] * x
    share = ndtr((k - centre) / spread) - ndtr((-k - centre) / spread)
    return reach * (share * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)) @ weights


def covariance(jacobian: Array, trajectory: NDArray[np.int64], noise: Noise, delta: float = HUBER_DELTA) -> Array:
    """Of the K coordinates, [..., K, K], from the derivatives of log L of n runs in them, [..., n, K]."""
    own, together = noise.moments(delta)
    gram = np.swapaxes(jacobian, -1, -2) @ jacobian
    inverse: Any = np.linalg.pinv(gram, hermitian=True)
    found: Array = (own - together) * inverse
    if together > 0:
        member = (trajectory == np.arange(int(trajectory.max()) + 1)[:, None]).astype(np.float64)
        sums = member @ jacobian
        found += together * inverse @ (np.swapaxes(sums, -1, -2) @ sums) @ inverse
    return found

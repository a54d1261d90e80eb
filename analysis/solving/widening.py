"""How much wider an interval is than the standard error says, because the spread of the errors must be told as well.

`lmscale fit` draws that spread for every resample (analysis.uncertainty): Student's t where rows are independent, the
posterior of two variances where a few trajectories err together. What that comes to is computed on simulated residuals.
"""

from collections.abc import Mapping

import numpy as np
from scipy.stats import t as student

from analysis.deciding.planned import Planned
from analysis.laws import Array
from analysis.solving.sandwich import Noise
from analysis.solving.solve import HUBER_DELTA
from analysis.uncertainty import CONFIDENCE, Resampling

STUDIES, DRAWS = 60, 200  # simulated residuals, and variances drawn from each


def resampling_of(planned: Planned) -> Resampling:
    """How a fit of these runs will be resampled."""
    names = [str(number) for number in planned.trajectory]
    return Resampling.of(planned.params, names, clustered=planned.trajectories < len(planned))


def widening(
    planned: Planned, noise: Noise, jacobian: Array, residuals: Array, slopes: Mapping[str, Array], seed: int
) -> dict[str, float]:
    """Of each quantity: the median 95 % interval over that of a fit which knew the noise.

    jacobian [n, K] of log L; residuals [R, n] of simulated fits; slopes [K] of each quantity.
    """
    resampling, (runs, free) = resampling_of(planned), jacobian.shape
    usual = float(student.ppf(0.5 + CONFIDENCE / 2, 10**9))
    if resampling.kind != "effects":
        sizes = int(resampling.size.max()) + 1
        degrees = planned.trajectories - sizes if resampling.kind == "trajectories" else runs - free
        return dict.fromkeys(slopes, float(student.ppf(0.5 + CONFIDENCE / 2, max(degrees, 1))) / usual)
    # per unit of a run's own variance and of the variance shared, as the Huber estimator has them at this noise
    own, together = (Noise(sd=noise.sd, shared=noise.shared or 0.5)).moments(HUBER_DELTA)
    per_run, per_pair = own / noise.sd**2, together / noise.sd**2 / (noise.shared or 0.5)
    inverse = np.linalg.pinv(jacobian.T @ jacobian, hermitian=True)
    sums = np.zeros((int(resampling.trajectory.max()) + 1, free))
    np.add.at(sums, resampling.trajectory, jacobian)
    rng = np.random.default_rng([seed, 5])
    drawn = [resampling.variances(r, jacobian, count=DRAWS, rng=rng) for r in residuals[:STUDIES]]
    shared, rest = (np.array([pair[side] for pair in drawn]) for side in (0, 1))
    normal = np.abs(rng.normal(size=shared.shape))
    found = {}
    for name, slope in slopes.items():
        row = inverse @ slope
        alone, pairs = float(slope @ row), float(np.sum((sums @ row) ** 2))

        def variance(s: Array | float, r: Array | float, alone: float = alone, pairs: float = pairs) -> Array:
            return np.asarray(per_run * (s + r) * alone + per_pair * s * (pairs - alone))

        known = variance(noise.shared * noise.sd**2, (1 - noise.shared) * noise.sd**2)
        half = np.quantile(normal * np.sqrt(np.maximum(variance(shared, rest), 0.0)), CONFIDENCE, axis=1)
        found[name] = float(np.median(half) / (usual * np.sqrt(known)))
    return found

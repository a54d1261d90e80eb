"""Resampling that respects trajectories: rows of one trajectory share its seed and its trunk, and err together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.laws import Array

CONFIDENCE = 0.95
CLUSTERS_TO_RESAMPLE = 15  # trajectories; fewer cannot be resampled as wholes, Cameron, Gelbach & Miller 2008, Sec. V
WEBB = np.sqrt([1.5, 1.0, 0.5]) * np.array([[1.0], [-1.0]])  # six-point weights for few clusters, Webb 2014, Sec. 4
LEAST_LEFT = 0.05  # of a residual's variance after the fit: a run that alone fixes a parameter has none left
ROUNDS = 200  # of drawing, before a design that keeps losing its sizes is refused


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """targets [1 or R, n], log losses; weights [1 or R, n], how often each run was drawn."""

    targets: Array
    weights: Array


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How this table is resampled. kind: rows, trajectories or wild; description: one line for the answer.

    size, trajectory [n]: group numbers.
    """

    kind: str
    description: str
    size: NDArray[np.int64]
    trajectory: NDArray[np.int64]

    @classmethod
    def of(cls, params: Array, trajectory: list[str], *, clustered: bool) -> "Resampling":
        """Choose the resampling from what the table tells.

        Independent rows: rows. At least 15 trajectories, two or more of each size: trajectories within size.
        Otherwise residuals are flipped and scaled, one weight a trajectory (wild cluster bootstrap).
        """
        size = np.unique(params, return_inverse=True)[1].astype(np.int64)
        group = np.unique(np.asarray(trajectory, str), return_inverse=True)[1].astype(np.int64)
        count = int(group.max()) + 1
        if not clustered or count == len(params):
            kind, description = "rows", f"bootstrap of {len(params)} rows"
        else:
            pairs = np.unique(np.column_stack([size, group]), axis=0)
            per_size = np.bincount(pairs[:, 0])
            if count >= CLUSTERS_TO_RESAMPLE and per_size.min() >= 2:
                kind, description = "trajectories", f"bootstrap of {count} trajectories within {per_size.size} sizes"
            else:
                kind = "wild"
                description = f"wild cluster bootstrap of the residuals of {count} trajectories"
        return cls(kind=kind, description=description, size=size, trajectory=group)

    def errors(self, residual: Array, jacobian: Array) -> Array:
        """Errors [n] of the runs, from the residuals [n] of a fit and its Jacobian [n, K], which are smaller.

        Residuals are enlarged by what the fit absorbed: HC2 for independent rows, and for trajectories its clustered
        form CR2 (Bell & McCaffrey 2002). With few trajectories a robust fit passes exactly through some runs, whose
        residuals would then never vary: those of the linearised least-squares fit take their place.
        """
        hat = jacobian @ np.linalg.pinv(jacobian)
        if self.kind != "wild":
            return residual / np.sqrt(np.maximum(1.0 - np.diag(hat), LEAST_LEFT))
        plain = residual - hat @ residual
        out = plain.copy()
        for group in range(int(self.trajectory.max()) + 1):
            members = np.flatnonzero(self.trajectory == group)
            values, vectors = np.linalg.eigh(np.eye(len(members)) - hat[np.ix_(members, members)])
            shrink = np.sqrt(np.maximum(values, LEAST_LEFT))
            out[members] = vectors @ ((vectors.T @ plain[members]) / shrink)
        return out

    def draw(
        self, fitted: Array, residual: Array, errors: Array, *, free: int, count: int, rng: np.random.Generator
    ) -> Resamples:
        """`count` resamples of runs whose log loss is fitted + residual and errs by `errors`, [n] each.

        `free` parameters were fitted: a resample keeps more distinct runs than that.
        """
        runs = len(fitted)
        if self.kind == "wild":
            clusters = int(self.trajectory.max()) + 1
            flip = rng.choice(WEBB.ravel(), size=(count, clusters))[:, self.trajectory]
            # The spread itself is known from so many trajectories alone: Student's t instead of the normal.
            spread = np.sqrt((clusters - 1) / rng.chisquare(clusters - 1, size=(count, 1)))
            return Resamples(targets=fitted + flip * spread * errors, weights=np.ones((1, runs)))
        weights = np.empty((0, runs))
        for _ in range(ROUNDS):
            drawn = self._weights(count, rng)
            weights = np.concatenate([weights, drawn[self._usable(drawn, free)]])[:count]
            if len(weights) == count:
                return Resamples(targets=(fitted + residual)[None], weights=weights)
        raise InputError(
            f"runs: {runs} rows give too few resamples that keep every size; add runs, or use --bootstrap 0"
        )

    def _weights(self, count: int, rng: np.random.Generator) -> Array:
        runs = len(self.size)
        if self.kind == "rows":
            return rng.multinomial(runs, np.full(runs, 1.0 / runs), size=count).astype(np.float64)
        weights = np.zeros((count, int(self.trajectory.max()) + 1))
        for size in range(int(self.size.max()) + 1):
            members = np.unique(self.trajectory[self.size == size])
            weights[:, members] += rng.multinomial(len(members), np.full(len(members), 1.0 / len(members)), size=count)
        return weights[:, self.trajectory]

    def _usable(self, weights: Array, free: int) -> NDArray[np.bool_]:
        """No size is lost where each has several rows; always three sizes and more runs than parameters remain."""
        present = weights > 0
        sizes = int(self.size.max()) + 1
        if sizes == len(self.size):
            return present.sum(axis=1) > free
        member = np.zeros((len(self.size), sizes))
        member[np.arange(len(self.size)), self.size] = 1.0
        kept = (present.astype(np.float64) @ member > 0).sum(axis=1)
        repeated = bool(np.bincount(self.size).min() >= 2)
        return (present.sum(axis=1) > free) & (kept >= (sizes if repeated else 3))


def interval(values: Array, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Percentile interval over the first axis, the resamples."""
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(values, [tail, 100.0 - tail], axis=0)
    return low, high

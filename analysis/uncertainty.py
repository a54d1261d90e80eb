"""Resampling that respects trajectories: rows of one trajectory share its seed and its trunk, and err together.

What is resampled depends on how much there is of it. Many independent rows are drawn with replacement; of few rows the
residuals are, because a grid that lost a third of its runs is another design than the one fitted, and its refits
spread otherwise. Many trajectories are drawn within their size; few cannot be, and their errors are drawn from the
model of a random effect per trajectory. Small samples know even the spread of their errors roughly: every resample of
the small designs has a spread of its own, drawn from what the data tell, so that its percentiles are Student's t and
not the normal's. `analysis.coverage` measures what comes of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.laws import Array

CONFIDENCE = 0.95
ROWS_TO_RESAMPLE = 100  # independent rows; at 64, intervals from resampled rows are a tenth wider than they need be
CLUSTERS_TO_RESAMPLE = 15  # trajectories; fewer are too few to be resampled, as Cameron, Gelbach & Miller 2008 show
LEAST_LEFT = 0.05  # of a residual's variance after the fit: a run that alone fixes a parameter has none left
PRIOR = 1.5  # weight of the shared variance in the prior's shrinkage factor, see `Resampling.variances`
SHARES = 400  # values of the shared part of the variance at which its posterior is tabulated
OUTLYING = 4.0  # standard deviations, beyond which an error is not one of the others
ROUNDS = 200  # of drawing, before a design that keeps losing its sizes is refused


def require_resamples(bootstrap: int, seed: int, *, usual: int = 1000) -> None:
    """Raise InputError unless `bootstrap` is a number of resamples (none, or two and more) and `seed` one of theirs."""
    if not isinstance(bootstrap, int | np.integer) or bootstrap < 0 or bootstrap == 1:
        raise InputError(f"bootstrap: {bootstrap} resamples make no interval; give 0 for none or {usual}")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed: {seed} is no seed; give a whole number from 0 on")


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """log_errors [1 or R, n], of each run's loss; weights [1 or R, n], how often each run was drawn.

    spread [R]: how far the refit of a resample is to be taken from the fit, where the draw itself cannot say it.
    new_run [R]: the log error of one new run, of a trajectory of its own, as each resample has it.
    """

    log_errors: Array
    weights: Array
    spread: Array
    new_run: Array


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How this table is resampled; description: one line for the answer.

    kind: rows, residuals, trajectories or effects. size, trajectory [n]: group numbers.
    """

    kind: str
    description: str
    size: NDArray[np.int64]
    trajectory: NDArray[np.int64]

    @classmethod
    def of(cls, params: Array, trajectory: list[str], *, clustered: bool) -> "Resampling":
        """Choose the resampling from what the table tells.

        Independent rows: rows from 100 on, residuals below. At least 15 trajectories, two or more of each size:
        trajectories within size. Otherwise effects: a random effect per trajectory beside the error of each row.
        """
        size = np.unique(params, return_inverse=True)[1].astype(np.int64)
        group = np.unique(np.asarray(trajectory, str), return_inverse=True)[1].astype(np.int64)
        count = int(group.max()) + 1
        if not clustered or count == len(params):
            if len(params) >= ROWS_TO_RESAMPLE:
                kind, description = "rows", f"bootstrap of {len(params)} rows"
            else:
                kind, description = "residuals", f"bootstrap of the residuals of {len(params)} rows"
        else:
            pairs = np.unique(np.column_stack([size, group]), axis=0)
            per_size = np.bincount(pairs[:, 0])
            if count >= CLUSTERS_TO_RESAMPLE and per_size.min() >= 2:
                kind, description = "trajectories", f"bootstrap of {count} trajectories within {per_size.size} sizes"
            else:
                kind = "effects"
                description = f"parametric bootstrap with a random effect for each of {count} trajectories"
        return cls(kind=kind, description=description, size=size, trajectory=group)

    def draw(self, residual: Array, jacobian: Array, *, count: int, rng: np.random.Generator) -> Resamples:
        """`count` resamples of runs, from the log residuals [n] of their fit and its Jacobian [n, K].

        Raises InputError for a design whose resamples lose its sizes.
        """
        runs = len(residual)
        if self.kind == "effects":
            shared, own = self.variances(residual, jacobian, count=count, rng=rng)
            clusters = int(self.trajectory.max()) + 1
            effects = np.sqrt(shared)[:, None] * rng.normal(size=(count, clusters))
            noise = effects[:, self.trajectory] + np.sqrt(own)[:, None] * rng.normal(size=(count, runs))
            new = np.sqrt(shared + own) * rng.normal(size=count)
            return Resamples(log_errors=noise, weights=np.ones((1, runs)), spread=np.ones(count), new_run=new)
        errors = as_new(residual, jacobian)
        spread, new = self._spread(jacobian.shape[1], count, rng), rng.choice(errors, size=count)
        if self.kind == "residuals":
            noise = spread[:, None] * rng.choice(errors - errors.mean(), size=(count, runs))
            return Resamples(log_errors=noise, weights=np.ones((1, runs)), spread=np.ones(count), new_run=spread * new)
        weights = np.empty((0, runs))
        for _ in range(ROUNDS):
            drawn = self._weights(count, rng)
            weights = np.concatenate([weights, drawn[self._usable(drawn, jacobian.shape[1])]])[:count]
            if len(weights) == count:
                return Resamples(log_errors=residual[None], weights=weights, spread=spread, new_run=spread * new)
        raise InputError(
            f"runs: {runs} rows give too few resamples that keep every size; add runs, or use --bootstrap 0"
        )

    def variances(
        self, residual: Array, jacobian: Array, *, count: int, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Variances [R] of a trajectory's shared error and of a row's own, drawn from their posterior.

        From the restricted likelihood (Patterson & Thompson 1971) of the residuals [n] of the fit linearised by its
        Jacobian [n, K], normal errors: what the fitted parameters absorb is in none of it, so that with four
        trajectories, three of which fix L0, A and alpha, the shared variance stays as uncertain as it is. The prior is
        flat in the shrinkage factor own / (own + PRIOR x shared) and in the logarithm of the whole variance. PRIOR was
        chosen by coverage, between 1, flat in the shared part, and the rows per trajectory of Daniels 1999: with four
        trajectories of three rows, a third or seven tenths of the variance shared, the first covers 97 or 94 %, the
        second 95 or 90 %.
        """
        runs, clusters = len(residual), int(self.trajectory.max()) + 1
        basis = _column_space(jacobian)
        usual = _usual(residual, jacobian)
        left = usual - basis @ (basis.T @ usual)
        degrees = runs - basis.shape[1]
        total = float(left @ left)
        if degrees < 1 or not total > 0:
            return np.zeros(count), np.zeros(count)
        # Z'MZ, the trajectories as the fit leaves them: its eigenvectors are independent contrasts of variance
        # own + eigenvalue x shared, and all the other contrasts have variance own.
        sums = np.zeros((clusters, basis.shape[1]))
        np.add.at(sums, self.trajectory, basis)
        members = np.bincount(self.trajectory, minlength=clusters).astype(np.float64)
        values, vectors = np.linalg.eigh(np.diag(members) - sums @ sums.T)
        telling = values > 1e-10 * members.max()
        values, vectors = values[telling][-degrees:], vectors[:, telling][:, -degrees:]
        between = (vectors.T @ np.bincount(self.trajectory, left, clusters)) ** 2 / values
        within = max(total - float(between.sum()), 0.0)
        shrinkage = (np.arange(SHARES) + 0.5) / SHARES
        share = (1.0 - shrinkage) / (1.0 - shrinkage + PRIOR * shrinkage)
        variance = (1.0 - share)[:, None] + share[:, None] * values
        square = (between / variance).sum(axis=1) + within / (1.0 - share)
        log_density = -0.5 * (np.log(variance).sum(axis=1) + (degrees - len(values)) * np.log(1.0 - share))
        log_density -= 0.5 * degrees * np.log(square)
        density = np.exp(log_density - log_density.max())
        index = rng.choice(SHARES, size=count, p=density / density.sum())
        scale = square[index] / rng.chisquare(degrees, size=count)
        return share[index] * scale, (1.0 - share[index]) * scale

    def _spread(self, free: int, count: int, rng: np.random.Generator) -> Array:
        """[R] draws of the true standard deviation of errors over the one estimated: Student's t over the normal."""
        runs, sizes = len(self.size), int(self.size.max()) + 1
        degrees = int(self.trajectory.max()) + 1 - sizes if self.kind == "trajectories" else runs - free
        degrees = max(degrees, 1)
        return np.sqrt(degrees / rng.chisquare(degrees, size=count))

    def _weights(self, count: int, rng: np.random.Generator) -> Array:
        runs = len(self.size)
        if self.kind == "rows":
            return rng.multinomial(runs, np.full(runs, 1.0 / runs), size=count).astype(np.float64)
        weights = np.zeros((count, int(self.trajectory.max()) + 1))
        for size in range(int(self.size.max()) + 1):
            members = np.unique(self.trajectory[self.size == size])
            # m drawn of m vary too little by (m - 1) / m, half for two seeds; m - 1 of m, upweighted, vary as much as
            # they should (Rao & Wu 1988).
            drawn = rng.multinomial(len(members) - 1, np.full(len(members), 1.0 / len(members)), size=count)
            weights[:, members] += drawn * (len(members) / (len(members) - 1))
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


def as_new(residual: Array, jacobian: Array) -> Array:
    """Errors [n] as new runs would show them, from the residuals [n] of a fit and its Jacobian [n, K].

    Residuals are smaller than errors by what the fit absorbed: HC2 (MacKinnon & White 1985) undoes it. A robust fit
    passes exactly through some runs, whose residuals say nothing: those of the linearised least-squares fit are used.
    An outlier, which the robust fit did not follow, must not be spread over the others there: what exceeds OUTLYING
    standard deviations stays with its own run.
    """
    basis = _column_space(jacobian)
    usual = _usual(residual, jacobian)
    plain = usual - basis @ (basis.T @ usual) + (residual - usual)
    return plain / np.sqrt(np.maximum(1.0 - np.sum(basis**2, axis=1), LEAST_LEFT))


def residual_sd(residuals: Array, free: int) -> float:
    """Standard deviation of errors behind log residuals [n] of a fit of `free` parameters, resistant to outliers."""
    # A fit with a small delta passes through as many runs as it has parameters: these say nothing of the spread.
    telling = np.sort(np.abs(residuals))[min(free, len(residuals) - 1) :]
    return 1.4826 * float(np.median(telling))  # normal consistency of the median absolute deviation


def _usual(residual: Array, jacobian: Array) -> Array:
    """Residuals [n] of a fit of K parameters, outliers cut to OUTLYING standard deviations."""
    limit = OUTLYING * residual_sd(residual, jacobian.shape[1])
    return np.clip(residual, -limit, limit) if limit > 0 else residual


def _column_space(jacobian: Array) -> Array:
    """Orthonormal basis [n, rank] of the columns of a Jacobian [n, K]."""
    scale = np.linalg.norm(jacobian, axis=0)
    left, values, _ = np.linalg.svd(jacobian / np.where(scale > 0, scale, 1.0), full_matrices=False)
    return left[:, values > 1e-12 * values[0]]


def interval(values: Array, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Percentile interval over the first axis, the R resamples: order statistics p (R + 1).

    A new draw like them falls inside with the probability stated, for any R (Davison & Hinkley 1997, Ch. 2).
    """
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(values, [tail, 100.0 - tail], axis=0, method="weibull")
    return low, high

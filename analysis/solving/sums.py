"""The laws whose log is a log-sum-exp of linear functions: Chinchilla, its equal-exponent form, the interaction law."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from analysis.laws import Array, Chinchilla, EqualExponent, Law
from analysis.rivals import Interaction
from analysis.solving.form import EXPONENT_BOUNDS, Form, Runs, base_box, base_law, base_theta, columns
from analysis.solving.model import LogSumExp

POINTS = 24  # of each exponent in the grid on which the fit is searched for
REGIONS = 3  # along each exponent: the best point of every region is a start
LEAST_TERM = 0.2  # of the lowest loss: a start with a term of nothing has no slope to leave by
KAPPA_BOUND = 1.0


@dataclass(frozen=True, kw_only=True)
class ChinchillaForm(Form):
    """theta = (log A N0^-alpha, log B D0^-beta, log L0, alpha, beta)."""

    fits: ClassVar[type[Law]] = Chinchilla
    names: ClassVar[tuple[str, ...]] = ("A", "B", "L0", "alpha", "beta")
    fixable: ClassVar[tuple[str, ...]] = names

    @classmethod
    def box(cls, runs: Runs, log_n0: float, log_d0: float) -> tuple[Array, Array]:
        return base_box(runs, log_n0, log_d0)

    def model(self, runs: Runs) -> LogSumExp:
        x, y = self.offsets(runs)
        features = np.zeros((3, x.size, 5))
        features[0, :, 0], features[0, :, 3] = 1.0, -x
        features[1, :, 1], features[1, :, 4] = 1.0, -y
        features[2, :, 2] = 1.0
        return LogSumExp(features)

    def starts(self, runs: Runs) -> Array:
        return np.clip(projected(runs, *self.offsets(runs)), self.lower, self.upper)

    def theta(self, law: Any) -> Array:
        return base_theta(self, law)

    def law(self, theta: Array) -> Chinchilla:
        return base_law(self, *columns(theta))


@dataclass(frozen=True, kw_only=True)
class EqualForm(Form):
    """theta = (log A N0^-alpha, log B D0^-alpha, log L0, alpha)."""

    fits: ClassVar[type[Law]] = EqualExponent
    names: ClassVar[tuple[str, ...]] = ("A", "B", "L0", "alpha")
    telling: ClassVar[tuple[str, ...]] = ("A", "B", "alpha")
    apart: ClassVar[tuple[str, ...]] = telling
    fixable: ClassVar[tuple[str, ...]] = names

    @classmethod
    def box(cls, runs: Runs, log_n0: float, log_d0: float) -> tuple[Array, Array]:
        lower, upper = base_box(runs, log_n0, log_d0)
        return lower[:4], upper[:4]

    def model(self, runs: Runs) -> LogSumExp:
        x, y = self.offsets(runs)
        features = np.zeros((3, x.size, 4))
        features[0, :, 0], features[0, :, 3] = 1.0, -x
        features[1, :, 1], features[1, :, 3] = 1.0, -y
        features[2, :, 2] = 1.0
        return LogSumExp(features)

    def starts(self, runs: Runs) -> Array:
        return np.clip(projected(runs, *self.offsets(runs), equal=True)[:, :4], self.lower, self.upper)

    def theta(self, law: Any) -> Array:
        return base_theta(self, law.chinchilla)[:4]

    def law(self, theta: Array) -> EqualExponent:
        a, b, e, alpha = columns(theta)
        plain = base_law(self, a, b, e, alpha, alpha)
        return EqualExponent(A=plain.A, B=plain.B, L0=plain.L0, alpha=alpha)


@dataclass(frozen=True, kw_only=True)
class InteractionForm(Form):
    """theta = (log A N0^-alpha, log B D0^-beta N0^-kappa, log L0, alpha, beta, kappa)."""

    fits: ClassVar[type[Law]] = Interaction
    names: ClassVar[tuple[str, ...]] = ("A", "B", "L0", "alpha", "beta", "kappa")
    telling: ClassVar[tuple[str, ...]] = ("A", "B", "alpha", "beta", "kappa")
    fixable: ClassVar[tuple[str, ...]] = ("L0", "alpha", "beta", "kappa")

    @classmethod
    def box(cls, runs: Runs, log_n0: float, log_d0: float) -> tuple[Array, Array]:
        lower, upper = base_box(runs, log_n0, log_d0)
        return np.append(lower, -KAPPA_BOUND), np.append(upper, KAPPA_BOUND)

    def model(self, runs: Runs) -> LogSumExp:
        x, y = self.offsets(runs)
        features = np.zeros((3, x.size, 6))
        features[0, :, 0], features[0, :, 3] = 1.0, -x
        features[1, :, 1], features[1, :, 4], features[1, :, 5] = 1.0, -y, -x
        features[2, :, 2] = 1.0
        return LogSumExp(features)

    def starts(self, runs: Runs) -> Array:
        base = projected(runs, *self.offsets(runs))
        kappas = (-0.1, 0.0, 0.1)
        starts = np.concatenate([np.column_stack([base, np.full(len(base), kappa)]) for kappa in kappas])
        return np.clip(starts, self.lower, self.upper)

    def theta(self, law: Any) -> Array:
        theta = np.append(base_theta(self, law), law.kappa)
        theta[1] -= law.kappa * self.log_n0
        return theta

    def law(self, theta: Array) -> Interaction:
        a, b, e, alpha, beta, kappa = columns(theta)
        return Interaction(
            A=np.exp(a + alpha * self.log_n0),
            B=np.exp(b + beta * self.log_d0 + kappa * self.log_n0),
            L0=np.exp(e),
            alpha=alpha,
            beta=beta,
            kappa=kappa,
        )


def projected(runs: Runs, x: Array, y: Array, *, equal: bool = False) -> Array:
    """Starts [S, 5] in Chinchilla's coordinates, by variable projection on a dense grid of both exponents.

    Given alpha and beta the law is linear in A, B and L0, whose relative least-squares values come in closed form
    (Golub & Pereyra 1973). What is left is a surface over two exponents: every local minimum of the grid is a start,
    and so is the best point of each of its regions, so that agreement among starts means something.
    """
    exponents = np.geomspace(1.5 * EXPONENT_BOUNDS[0], 0.95 * EXPONENT_BOUNDS[1], POINTS)
    loss = runs.loss_nats
    basis = [np.exp(-exponents[:, None] * offset) / loss for offset in (x, y)]
    amplitudes, misfit = _nonnegative(basis[0], basis[1], 1.0 / loss)
    padded = np.pad(misfit, 1, constant_values=np.inf)
    around = [padded[1 + i : 1 + i + POINTS, 1 + j : 1 + j + POINTS] for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    chosen = {(int(i), int(j)) for i, j in np.argwhere(misfit < np.minimum.reduce(around))}
    if equal:
        chosen = {(i, i) for i in range(1, POINTS, 2)}
    else:
        width = POINTS // REGIONS
        for i in range(0, POINTS, width):
            for j in range(0, POINTS, width):
                best = np.unravel_index(np.argmin(misfit[i : i + width, j : j + width]), (width, width))
                chosen.add((i + int(best[0]), j + int(best[1])))
    index = np.array(sorted(chosen))
    least = LEAST_TERM * float(loss.min())
    linear = np.log(np.maximum(amplitudes[index[:, 0], index[:, 1]], least))
    return np.column_stack([linear, exponents[index[:, 0]], exponents[index[:, 1]]])


def _nonnegative(u: Array, v: Array, e: Array) -> tuple[Array, Array]:
    """Least squares of 1 on u_i, v_j, e with coefficients not negative, for all i, j: [I, J, 3] and its misfit [I, J].

    u [I, n], v [J, n], e [n]. Three coefficients have few sets of zeros: each is solved, the best admissible kept.
    """
    shape = (len(u), len(v))
    gram, right = np.empty((*shape, 3, 3)), np.empty((*shape, 3))
    gram[..., 0, 0], gram[..., 1, 1], gram[..., 2, 2] = (u * u).sum(1)[:, None], (v * v).sum(1)[None], e @ e
    gram[..., 0, 1] = gram[..., 1, 0] = u @ v.T
    gram[..., 0, 2] = gram[..., 2, 0] = (u @ e)[:, None]
    gram[..., 1, 2] = gram[..., 2, 1] = (v @ e)[None]
    right[..., 0], right[..., 1], right[..., 2] = u.sum(1)[:, None], v.sum(1)[None], e.sum()
    best, misfit = np.zeros((*shape, 3)), np.full(shape, np.inf)
    for kept in ([0, 1, 2], [0, 1], [0, 2], [1, 2], [0], [1], [2]):
        part = gram[..., kept, :][..., kept]
        scale = np.einsum("...kk->...k", part)
        ridge = 1e-12 * scale[..., None] * np.eye(len(kept))
        found = np.linalg.solve(part + ridge, right[..., kept][..., None])[..., 0]
        # |1 - Xc|^2 without its constant: -right . c at the least-squares solution.
        gained = np.where((found >= 0).all(-1), -np.sum(found * right[..., kept], axis=-1), np.inf)
        better = gained < misfit
        misfit = np.where(better, gained, misfit)
        full = np.zeros((*shape, 3))
        full[..., kept] = found
        best = np.where(better[..., None], full, best)
    return best, misfit

"""A law as the solver sees it: log L of every run at many points of parameter space, with exact derivatives.

Two kinds. `LogSumExp` is a law whose terms are exponentials of linear functions of its coordinates: value, gradient
and Hessian are a few matrix products, whatever the number of starts and resamples. `Differentiated` takes any
expression, and its gradient from dual numbers; its Hessian is that of Gauss and Newton, without the law's own
curvature, which the residuals of a good fit make small.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.laws import Array
from analysis.solving.dual import Dual

STEEP = 50.0  # of log N or log D from their means: beyond, exponentials might overflow unless scaled


class Model(Protocol):
    """size: coordinates K. arrays: how many [P, n] it holds at a time. log_loss: log L [P, n] at theta [P, K] and what
    the derivatives need of it."""

    size: int
    arrays: int

    def log_loss(self, theta: Array) -> tuple[Array, Any]: ...

    def gradient(self, slope: Array, state: Any) -> Array:
        """sum_i slope_i J_i, [P, K], with J_i the derivative of log L_i and slope [P, n]."""
        ...

    def curvature(self, outer: Array, slope: Array | None, state: Any) -> Array:
        """sum_i outer_i J_i J_i' + slope_i (second derivative of log L_i), [P, K, K]."""
        ...

    def jacobian(self, theta: Array) -> tuple[Array, Array]:
        """log L [n] and J [n, K] at one theta [K]."""
        ...


class LogSumExp:
    """log L_i = log sum_t exp(features_ti . theta); features [T, n, K]."""

    def __init__(self, features: Array) -> None:
        self.features = features
        self.count, _, self.size = features.shape
        self.arrays = 1  # the unit: a few, whatever K
        self.active = [np.flatnonzero(np.any(f != 0, axis=0)) for f in features]
        self.columns = [np.ascontiguousarray(f[:, k]) for f, k in zip(features, self.active, strict=True)]
        self.terms = [
            (k, np.ascontiguousarray(c.T), bool(np.all(c == c[0])))
            for k, c in zip(self.active, self.columns, strict=True)
        ]
        self.steep = float(np.abs(features).max()) > STEEP
        self.pairs: list[tuple[int, int, NDArray[np.int64], NDArray[np.int64], Array]] = []
        for t in range(self.count):
            for u in range(t, self.count):
                i, j = (m.ravel() for m in np.meshgrid(self.active[t], self.active[u], indexing="ij"))
                product = (self.columns[t][:, :, None] * self.columns[u][:, None, :]).reshape(len(features[t]), -1)
                self.pairs.append((t, u, i, j, product))

    def log_loss(self, theta: Array) -> tuple[Array, list[Array]]:
        """log L [P, n] and the share of each term in L, T arrays [P, n]."""
        # A term that is the same for every run (L0) needs one exponential, not n: these are most of the time.
        z = [theta[:, k] @ (c[:, :1] if same else c) for k, c, same in self.terms]
        top = np.maximum.reduce([term.max(axis=1) for term in z])[:, None] if self.steep else 0.0
        shares = [np.exp(term - top if self.steep else term) for term in z]
        total = sum(shares[1:], shares[0])
        inverse = 1.0 / total
        return np.log(total) + top, [share * inverse for share in shares]

    def gradient(self, slope: Array, state: list[Array]) -> Array:
        gradient = np.zeros((slope.shape[0], self.size), slope.dtype)
        for share, active, columns in zip(state, self.active, self.columns, strict=True):
            gradient[:, active] += (slope * share) @ columns
        return gradient

    def curvature(self, outer: Array, slope: Array | None, state: list[Array]) -> Array:
        # Second derivatives of log L are sum_t share_t G_t G_t' - J J', hence the slope in both places.
        outer = outer if slope is None else outer - slope
        matrix = np.zeros((outer.shape[0], self.size, self.size), outer.dtype)
        for t, u, i, j, product in self.pairs:
            if u == t:
                first = outer * state[t]
                weight = first * state[t]
                if slope is not None:
                    weight += slope * state[t]
            else:
                weight = first * state[u]  # pyright: ignore[reportPossiblyUnboundVariable]
            block = weight @ product
            matrix[:, i, j] += block
            if t != u:
                matrix[:, j, i] += block
        return matrix

    def jacobian(self, theta: Array) -> tuple[Array, Array]:
        value, shares = self.log_loss(theta[None])
        return value[0], np.einsum("tn,tnk->nk", np.concatenate(shares), self.features)


class Differentiated:
    """log L by any function of K dual numbers [P, 1], giving a dual number [P, n]."""

    def __init__(self, function: Callable[[list[Dual]], Dual], size: int) -> None:
        self.function = function
        self.size = self.arrays = size

    def log_loss(self, theta: Array) -> tuple[Array, Array]:
        out = self.function(Dual.variables(theta))
        return out.value, out.slopes

    def gradient(self, slope: Array, state: Array) -> Array:
        return np.einsum("pn,kpn->pk", slope, state)

    def curvature(self, outer: Array, slope: Array | None, state: Array) -> Array:
        first = np.moveaxis(state, 1, 0)
        return np.matmul(first * outer[:, None, :], np.swapaxes(first, 1, 2))

    def jacobian(self, theta: Array) -> tuple[Array, Array]:
        value, slopes = self.log_loss(theta[None])
        return value[0], slopes[:, 0].T

"""Compute-optimal power laws N* ~ C^a, D* ~ C^b and the loss along them, fitted to optima found at several budgets."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from analysis.laws import MOST_LOG, Array, Optimum, budgets
from analysis.uncertainty import interval

Compute = Literal["given", "6nd"]  # of a budget or a point: as its table says, or 6 N D

LOSS_EXPONENTS = (0.01, 1.0)  # of the loss along the frontier; Chinchilla's own is alpha beta / (alpha + beta)
LEAST_FOR_INTERVAL = 3  # optima: two give a line and nothing to judge it by
LEAST_FOR_FLOOR = 4  # optima from which an irreducible loss can be told beside a coefficient and an exponent
BLOCK = 2_000_000  # elements of one array of the search over exponents, 16 MB


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """y = exp(log_coefficient) C^exponent; numbers, or arrays [R, 1] that hold one value per resample."""

    log_coefficient: Any
    exponent: Any

    @property
    def coefficient(self) -> Any:
        return np.exp(np.clip(self.log_coefficient, -MOST_LOG, MOST_LOG))

    def __call__(self, flops: ArrayLike) -> Array:
        # As in analysis.laws: a hopeless resample may lie beyond float64, and stays printable.
        logs = self.log_coefficient + self.exponent * np.log(np.asarray(flops, np.float64))
        return np.exp(np.clip(logs, -MOST_LOG, MOST_LOG))


@dataclass(frozen=True, kw_only=True)
class LossLaw:
    """L = L0 + k C^-c in nats, the form of the loss along the compute-optimal frontier of Hoffmann et al. 2022, eq. 4.

    log_k is log k; L0 is 0 where too few optima were given to tell it. Numbers, or arrays [R, 1].
    """

    L0: Any
    log_k: Any
    c: Any

    def __call__(self, flops: ArrayLike) -> Array:
        logs = self.log_k - self.c * np.log(np.asarray(flops, np.float64))
        return self.L0 + np.exp(np.clip(logs, -MOST_LOG, MOST_LOG))


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """What approaches 1 and 2 find: N*, D* and loss as functions of compute."""

    params: PowerLaw
    tokens: PowerLaw
    loss: LossLaw

    @classmethod
    def from_numbers(cls, numbers: Array) -> "Frontier":
        """Inverse of `numbers`: [7] gives laws of numbers, [R, 7] laws of [R, 1]."""
        n, a, d, b, l0, k, c = (numbers[:, i : i + 1] if numbers.ndim == 2 else float(numbers[i]) for i in range(7))
        return cls(
            params=PowerLaw(log_coefficient=n, exponent=a),
            tokens=PowerLaw(log_coefficient=d, exponent=b),
            loss=LossLaw(L0=l0, log_k=k, c=c),
        )

    @property
    def numbers(self) -> Array:
        """[R, 7]: log coefficient and exponent of N* and of D*, then L0, log k, c; one row for laws of numbers."""
        params, tokens, loss = self.params, self.tokens, self.loss
        values = (params.log_coefficient, params.exponent, tokens.log_coefficient, tokens.exponent,
                  loss.L0, loss.log_k, loss.c)  # fmt: skip
        return np.column_stack([np.atleast_1d(np.asarray(value, np.float64)).reshape(-1) for value in values])

    @property
    def exponents(self) -> dict[str, Any]:
        """a, b of N* ~ C^a, D* ~ C^b."""
        return {"a": self.params.exponent, "b": self.tokens.exponent}

    def optimum(self, flops: ArrayLike) -> Optimum:
        """N*, D* and loss of each budget; [n], or [R, n] of resamples. Raises InputError for a budget that is none."""
        flops = budgets(flops)
        return Optimum(flops=flops, params=self.params(flops), tokens=self.tokens(flops), loss_nats=self.loss(flops))


def power_law(flops: Array, values: Array, weights: Array | None = None) -> PowerLaw:
    """Weighted least squares of log values on log flops.

    flops, values, weights: [n], or [R, n] for R resamples at once (a result of shape [R, 1]). A point that is NaN or of
    weight 0 is left out. A resample with fewer than two different budgets gives NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y, w = np.broadcast_arrays(np.log(flops), np.log(values), 1.0 if weights is None else weights)
    w = np.where(np.isfinite(x) & np.isfinite(y), w, 0.0)
    x, y = np.where(w > 0, x, 0.0), np.where(w > 0, y, 0.0)
    total = np.maximum(w.sum(-1, keepdims=True), np.finfo(np.float64).tiny)
    mean_x, mean_y = (w * x).sum(-1, keepdims=True) / total, (w * y).sum(-1, keepdims=True) / total
    spread = (w * (x - mean_x) ** 2).sum(-1, keepdims=True)
    told = spread > 1e-12 * total
    slope = (w * (x - mean_x) * (y - mean_y)).sum(-1, keepdims=True) / np.where(told, spread, 1.0)
    slope = np.where(told, slope, np.nan)
    if slope.ndim == 1:
        return PowerLaw(log_coefficient=float((mean_y - slope * mean_x)[0]), exponent=float(slope[0]))
    return PowerLaw(log_coefficient=mean_y - slope * mean_x, exponent=slope)


def loss_law(flops: Array, losses: Array, weights: Array | None = None) -> LossLaw:
    """Least squares of the relative error of L0 + k C^-c, with L0 >= 0 and c in LOSS_EXPONENTS.

    Shapes as in power_law. L0 and k are linear and solved for (variable projection), c is searched on a grid that is
    refined three times. With fewer than LEAST_FOR_FLOOR optima L0 is 0.
    """
    with np.errstate(invalid="ignore"):
        x, y, w = np.broadcast_arrays(np.log(flops), losses, 1.0 if weights is None else weights)
    single = x.ndim == 1
    x, y, w = (np.atleast_2d(np.asarray(v, np.float64)) for v in (x, y, w))
    w = np.where(np.isfinite(x) & np.isfinite(y), w, 0.0)
    x, y = np.where(w > 0, x, 0.0), np.where(w > 0, y, 1.0)
    centre = (w * x).sum(-1, keepdims=True) / np.maximum(w.sum(-1, keepdims=True), np.finfo(np.float64).tiny)
    floor = (w > 0).sum(-1) >= LEAST_FOR_FLOOR
    found = np.empty((len(x), 3))
    block = max(1, BLOCK // (32 * x.shape[-1]))
    for first in range(0, len(x), block):
        part = slice(first, first + block)
        found[part] = _search(x[part] - centre[part], y[part], w[part], floor[part])
    l0, log_k, c = found[:, :1], found[:, 1:2], found[:, 2:]
    log_k = log_k + c * centre
    if single:
        return LossLaw(L0=float(l0[0, 0]), log_k=float(log_k[0, 0]), c=float(c[0, 0]))
    return LossLaw(L0=l0, log_k=log_k, c=c)


def unexplained(flops: Array, params: Array, sds: Array) -> tuple[float, float]:
    """Rms distance of log N* [n] from the weighted line over its sds [n], and the sd that, added to them, makes that 1.

    Needs three budgets or more. The second is the random effect of Paule & Mandel 1982, by bisection.
    """

    def ratio(extra: float) -> float:
        weights = 1.0 / (sds**2 + extra**2)
        distance = np.log(params / power_law(flops, params, weights)(flops))
        return math.sqrt(float((weights * distance**2).sum()) / (len(flops) - 2))

    alone, low, high = ratio(0.0), 0.0, float(np.ptp(np.log(params))) + 1.0
    if alone <= 1:
        return alone, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(middle) > 1 else (low, middle)
    return alone, high


def intervals_of(samples: Frontier) -> dict[str, tuple[float, float]]:
    """95 % intervals of a, b and of the coefficients of N* and D*; resamples that gave no law are passed over."""
    ends = {
        "a": samples.params.exponent,
        "b": samples.tokens.exponent,
        "params_coefficient": samples.params.coefficient,
        "tokens_coefficient": samples.tokens.coefficient,
    }
    pairs = {name: interval(value[np.isfinite(value)]) for name, value in ends.items()}
    return {name: (float(low), float(high)) for name, (low, high) in pairs.items()}


def _search(x: Array, y: Array, w: Array, floor: Any) -> Array:
    """(L0, log k, c) [R, 3] of resamples x, y, w [R, n]."""
    low, high = LOSS_EXPONENTS
    grid = np.broadcast_to(np.geomspace(low, high, 32), (len(x), 32))
    here: list[Array] = []
    for _ in range(4):
        l0, k, cost = _linear(x, y, w, floor, grid)
        best = cost.argmin(axis=1)[:, None]
        near = [np.take_along_axis(grid, np.clip(best + step, 0, grid.shape[1] - 1), 1) for step in (-1, 1)]
        here = [np.take_along_axis(v, best, 1)[:, 0] for v in (l0, np.log(np.maximum(k, 1e-300)), grid)]
        grid = near[0] + (near[1] - near[0]) * np.linspace(0.0, 1.0, 16)
    return np.column_stack(here)


def _linear(x: Array, y: Array, w: Array, floor: Any, c: Array) -> tuple[Array, Array, Array]:
    """L0, k and the weighted sum of squared relative errors [R, c] for exponents c [R, c]."""
    u = np.exp(-c[:, :, None] * x[:, None, :]) / y[:, None, :]
    v, w = (1.0 / y)[:, None, :], w[:, None, :]
    uu, uv, vv = (w * u * u).sum(-1), (w * u * v).sum(-1), (w * v * v).sum(-1)
    ur, vr = (w * u).sum(-1), (w * v).sum(-1)
    determinant = np.maximum(uu * vv - uv * uv, 1e-14 * uu * vv + 1e-300)
    l0 = np.where(floor[:, None], (uu * vr - uv * ur) / determinant, 0.0)
    k = (vv * ur - uv * vr) / determinant
    alone = (l0 <= 0) | (k <= 0)
    l0, k = np.where(alone, 0.0, l0), np.where(alone, ur / np.maximum(uu, 1e-300), k)
    error = l0[:, :, None] * v + k[:, :, None] * u - 1.0
    return l0, k, (w * error**2).sum(-1)

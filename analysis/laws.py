"""The laws L(N, D), each with its prediction, its optimum under a budget, and the form in which it is fitted.

A law's parameters may be numbers, or arrays of shape [R, 1] holding one value per resample: predictions and optima
then broadcast to [R, points], which is how every interval of this package is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.errors import InputError

Array = NDArray[np.float64]

FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6 N D, Kaplan et al. 2020, Sec. 2.1
EXPONENT_BOUNDS = (0.01, 2.0)  # alpha, beta: the range of starts of Hoffmann et al. 2022, App. D.3, without its zero
MOST_LOG = 300.0  # of a count: its powers up to EXPONENT_BOUNDS then stay inside float64
L0_FLOOR = 1e-4  # of the lowest loss: a fit that stops there has found no irreducible loss


def flops_6nd(params: ArrayLike, tokens: ArrayLike) -> Array:
    """Training FLOPs as 6 N D in float64 (int64 would overflow above 9.2e18)."""
    return FLOPS_PER_PARAM_TOKEN * np.asarray(params, np.float64) * np.asarray(tokens, np.float64)


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best split of a budget. Shapes follow the law's parameters and the budgets."""

    flops: Array
    params: Array
    tokens: Array
    loss_nats: Array


class Law(Protocol):
    """What fitting, uncertainty, plots and backtests ask of every law."""

    name: ClassVar[str]
    description: ClassVar[str]

    @property
    def parameters(self) -> dict[str, Any]: ...

    @property
    def exponents(self) -> dict[str, Any]: ...

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> Array: ...

    def optimum(self, flops: ArrayLike) -> Optimum: ...


class Form(Protocol):
    """A law as it is fitted: log L = log sum_t exp(features_t . theta), with theta inside a box.

    `names` are the law's parameters in the order of theta's coordinates, so that a bound met can be named.
    """

    names: ClassVar[tuple[str, ...]]

    @property
    def lower(self) -> Array: ...

    @property
    def upper(self) -> Array: ...

    def features(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        """[T terms, n runs, K coordinates]."""
        ...

    def starts(self, params: Array, tokens: Array, loss_nats: Array) -> Array:
        """[S, K], spread over the box."""
        ...

    def theta(self, law: Any) -> Array:
        """[K], the coordinates of a law."""
        ...

    def law(self, theta: Array) -> "Chinchilla":
        """theta [K] gives numbers, theta [R, K] a law whose parameters are [R, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Chinchilla:
    """L(N, D) = A / N^alpha + B / D^beta + L0 (Hoffmann et al. 2022, eq. 2), nats per token.

    Raises InputError for a parameter that is not finite and positive (L0 may be zero).
    """

    A: Any
    B: Any
    L0: Any
    alpha: Any
    beta: Any

    name: ClassVar[str] = "chinchilla"
    description: ClassVar[str] = "L(N, D) = A/N^alpha + B/D^beta + L0; Hoffmann et al. 2022 (arXiv:2203.15556), eq. 2"

    def __post_init__(self) -> None:
        for name, value in self.parameters.items():
            values = np.asarray(value, np.float64)
            if not np.all(np.isfinite(values)) or np.any(values < 0) or (name != "L0" and np.any(values == 0)):
                raise InputError(f"{name}: {value} is no parameter of {self.name}; give a finite positive number")

    @property
    def parameters(self) -> dict[str, Any]:
        return {"L0": self.L0, "A": self.A, "B": self.B, "alpha": self.alpha, "beta": self.beta}

    @property
    def exponents(self) -> dict[str, Any]:
        """a, b of N* ~ C^a, D* ~ C^b (Hoffmann et al. 2022, eq. 4)."""
        total = self.alpha + self.beta
        return {"a": self.beta / total, "b": self.alpha / total}

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        """Loss in nats per token of runs with `params` parameters trained on `tokens` tokens."""
        log_n, log_d = np.log(np.asarray(params, np.float64)), np.log(np.asarray(tokens, np.float64))
        return np.exp(np.log(self.A) - self.alpha * log_n) + np.exp(np.log(self.B) - self.beta * log_d) + self.L0

    def optimum(self, flops: ArrayLike) -> Optimum:
        """N*, D* and loss of each budget C = 6 N D, by the closed form of Hoffmann et al. 2022, eq. 4.

        N* = G (C/6)^a, D* = (C/6)^b / G with G = (alpha A / (beta B))^(1 / (alpha + beta)).
        Raises InputError for a budget that is not finite and positive.
        """
        flops = np.asarray(flops, np.float64)
        if not np.all(np.isfinite(flops) & (flops > 0)):
            raise InputError(f"flops: {flops} is no budget; give finite positive FLOPs such as 1e21")
        log_g = np.log(self.alpha * self.A) - np.log(self.beta * self.B)
        log_product = np.log(flops / FLOPS_PER_PARAM_TOKEN)
        total = self.alpha + self.beta
        # A resample at the edge of the box may put N* beyond float64; 1e130 stands for "no idea" and stays printable.
        log_params = np.clip((log_g + self.beta * log_product) / total, -MOST_LOG, MOST_LOG)
        params, tokens = np.exp(log_params), np.exp(np.clip(log_product - log_params, -MOST_LOG, MOST_LOG))
        return Optimum(flops=flops, params=params, tokens=tokens, loss_nats=self.predict(params, tokens))


@dataclass(frozen=True, kw_only=True)
class ChinchillaForm:
    """Chinchilla in centred coordinates theta = (log A N0^-alpha, log B D0^-beta, log L0, alpha, beta).

    N0 and D0 are the geometric means of the runs. Raw (log A, alpha) are correlated to more than .99 on any real
    grid; centred, the Hessian is well conditioned.
    """

    log_n0: float
    log_d0: float
    lower: Array
    upper: Array

    names: ClassVar[tuple[str, ...]] = ("A", "B", "L0", "alpha", "beta")

    @classmethod
    def of(cls, params: Array, tokens: Array, loss_nats: Array) -> "ChinchillaForm":
        low, high = float(np.log(loss_nats.min())), float(np.log(loss_nats.max()))
        floor = low + float(np.log(L0_FLOOR))
        return cls(
            log_n0=float(np.log(params).mean()),
            log_d0=float(np.log(tokens).mean()),
            lower=np.array([floor, floor, floor, EXPONENT_BOUNDS[0], EXPONENT_BOUNDS[0]]),
            upper=np.array([high + 3.0, high + 3.0, high, EXPONENT_BOUNDS[1], EXPONENT_BOUNDS[1]]),
        )

    def features(self, params: ArrayLike, tokens: ArrayLike) -> Array:
        x = np.log(np.asarray(params, np.float64)) - self.log_n0
        y = np.log(np.asarray(tokens, np.float64)) - self.log_d0
        features = np.zeros((3, x.size, 5))
        features[0, :, 0], features[0, :, 3] = 1.0, -x
        features[1, :, 1], features[1, :, 4] = 1.0, -y
        features[2, :, 2] = 1.0
        return features

    def starts(self, params: Array, tokens: Array, loss_nats: Array) -> Array:
        """A grid over alpha, beta and L0; A and B, being linear, by least squares (variable projection)."""
        exponents, shares = (0.1, 0.3, 0.5, 0.9, 1.6), (0.02, 0.3, 0.6, 0.8, 0.95)
        grid = np.array([(s, a, b) for s in shares for a in exponents for b in exponents])
        l0, alpha, beta = grid[:, :1] * loss_nats.min(), grid[:, 1:2], grid[:, 2:]
        u = np.exp(-alpha * (np.log(params) - self.log_n0)) / loss_nats
        v = np.exp(-beta * (np.log(tokens) - self.log_d0)) / loss_nats
        rest = 1.0 - l0 / loss_nats
        uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
        ur, vr = (u * rest).sum(1), (v * rest).sum(1)
        determinant = np.maximum(uu * vv - uv * uv, 1e-12 * uu * vv)
        least = 0.01 * loss_nats.min()
        first = np.maximum((vv * ur - uv * vr) / determinant, least)
        second = np.maximum((uu * vr - uv * ur) / determinant, least)
        theta = np.column_stack([np.log(first), np.log(second), np.log(l0[:, 0]), alpha[:, 0], beta[:, 0]])
        return np.clip(theta, self.lower, self.upper)

    def theta(self, law: Chinchilla) -> Array:
        log_l0 = np.log(law.L0) if law.L0 > 0 else self.lower[2]
        n_term, d_term = np.log(law.A) - law.alpha * self.log_n0, np.log(law.B) - law.beta * self.log_d0
        return np.array([n_term, d_term, log_l0, law.alpha, law.beta], np.float64)

    def law(self, theta: Array) -> Chinchilla:
        a, b, e, alpha, beta = (theta[..., k, None] if theta.ndim == 2 else float(theta[k]) for k in range(5))
        return Chinchilla(
            A=np.exp(a + alpha * self.log_n0), B=np.exp(b + beta * self.log_d0), L0=np.exp(e), alpha=alpha, beta=beta
        )


FORMS: Mapping[str, type[ChinchillaForm]] = {Chinchilla.name: ChinchillaForm}

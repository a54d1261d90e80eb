"""The law L(N, D) of Hoffmann et al. 2022 and what every law offers: prediction, optimum under a budget, source.

A law's parameters may be numbers, or arrays of shape [R, 1] holding one value per resample: predictions and optima
then broadcast to [R, points], which is how every interval of this package is made.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.errors import InputError

Array = NDArray[np.float64]

FLOPS_PER_PARAM_TOKEN = 6.0  # C = 6 N D, Kaplan et al. 2020, Sec. 2.1
MOST_LOG = 300.0  # of a count: its powers up to two then stay inside float64


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


class Law(ABC):
    """What fitting, uncertainty, plots and backtests ask of every law. Each is a frozen dataclass of its parameters.

    `unique_tokens` is the text there is; a law of which `models_repeats` is false counts a repeated token as a new one.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    models_repeats: ClassVar[bool] = False
    signed: ClassVar[tuple[str, ...]] = ()  # parameters of either sign; L0 may be zero, all others are positive

    def __post_init__(self) -> None:
        for name, value in self.parameters.items():
            values = np.asarray(value, np.float64)
            wrong = not np.all(np.isfinite(values))
            if name not in self.signed:
                wrong |= bool(np.any(values < 0) or (name != "L0" and np.any(values == 0)))
            if wrong:
                raise InputError(f"{name}: {value} is no parameter of {self.name}; give a finite positive number")

    @property
    def parameters(self) -> dict[str, Any]:
        """The law's parameters by name, in the order in which they are shown."""
        return {field.name: getattr(self, field.name) for field in fields(cast(Any, self))}

    @property
    def exponents(self) -> dict[str, Any]:
        """a, b of N* ~ C^a, D* ~ C^b, with text that never runs out (Hoffmann et al. 2022, eq. 4)."""
        alpha, beta = self.parameters["alpha"], self.parameters["beta"]
        return {"a": beta / (alpha + beta), "b": alpha / (alpha + beta)}

    @abstractmethod
    def predict(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike | None = None) -> Array:
        """Loss in nats per token of runs with `params` parameters trained on `tokens` tokens."""
        ...

    @abstractmethod
    def optimum(self, flops: ArrayLike, unique_tokens: ArrayLike | None = None) -> Optimum:
        """N*, D* and loss of each budget C = 6 N D. Raises InputError for a budget not finite and positive."""
        ...


def budgets(flops: ArrayLike) -> Array:
    """FLOPs in float64. Raises InputError for one that is not finite and positive, or that no size could spend."""
    values = np.asarray(flops, np.float64)
    if not np.all(np.isfinite(values) & (values > 0)):
        raise InputError(f"flops: {values} is no budget; give finite positive FLOPs such as 1e21")
    return values


def split(law: Law, flops: Array, log_params: Array, unique_tokens: ArrayLike | None = None) -> Optimum:
    """The optimum whose log N* is given; C = 6 N D fixes its tokens.

    A resample at the edge of the box may put N* beyond float64; e^300 stands for "no idea" and stays printable.
    """
    log_params = np.clip(log_params, -MOST_LOG, MOST_LOG)
    log_tokens = np.clip(np.log(flops / FLOPS_PER_PARAM_TOKEN) - log_params, -MOST_LOG, MOST_LOG)
    params, tokens = np.exp(log_params), np.exp(log_tokens)
    return Optimum(flops=flops, params=params, tokens=tokens, loss_nats=law.predict(params, tokens, unique_tokens))


def logs(params: ArrayLike, tokens: ArrayLike) -> tuple[Array, Array]:
    """log N and log D in float64."""
    return np.log(np.asarray(params, np.float64)), np.log(np.asarray(tokens, np.float64))


@dataclass(frozen=True, kw_only=True)
class Chinchilla(Law):
    """L(N, D) = A / N^alpha + B / D^beta + L0 (Hoffmann et al. 2022, eq. 2), nats per token.

    Raises InputError for a parameter that is not finite and positive (L0 may be zero).
    """

    L0: Any
    A: Any
    B: Any
    alpha: Any
    beta: Any

    name: ClassVar[str] = "chinchilla"
    description: ClassVar[str] = "L(N, D) = A/N^alpha + B/D^beta + L0; Hoffmann et al. 2022 (arXiv:2203.15556), eq. 2"

    def predict(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike | None = None) -> Array:
        log_n, log_d = logs(params, tokens)
        return np.exp(np.log(self.A) - self.alpha * log_n) + np.exp(np.log(self.B) - self.beta * log_d) + self.L0

    def optimum(self, flops: ArrayLike, unique_tokens: ArrayLike | None = None) -> Optimum:
        """N*, D* and loss of each budget C = 6 N D, by the closed form of Hoffmann et al. 2022, eq. 4.

        N* = G (C/6)^a, D* = (C/6)^b / G with G = (alpha A / (beta B))^(1 / (alpha + beta)).
        Raises InputError for a budget that is not finite and positive.
        """
        flops = budgets(flops)
        log_g = np.log(self.alpha * self.A) - np.log(self.beta * self.B)
        log_params = (log_g + self.beta * np.log(flops / FLOPS_PER_PARAM_TOKEN)) / (self.alpha + self.beta)
        return split(self, flops, log_params)


@dataclass(frozen=True, kw_only=True)
class EqualExponent(Law):
    """Chinchilla with one exponent, L(N, D) = A / N^alpha + B / D^alpha + L0, so that N* and D* grow alike.

    Raises InputError for a parameter that is not finite and positive (L0 may be zero).
    """

    L0: Any
    A: Any
    B: Any
    alpha: Any

    name: ClassVar[str] = "equal"
    description: ClassVar[str] = (
        "L(N, D) = A/N^alpha + B/D^alpha + L0; as Muennighoff et al. 2023 (arXiv:2305.16264) fit it"
    )

    @property
    def chinchilla(self) -> Chinchilla:
        """The same law with both exponents."""
        return Chinchilla(A=self.A, B=self.B, L0=self.L0, alpha=self.alpha, beta=self.alpha)

    @property
    def exponents(self) -> dict[str, Any]:
        return self.chinchilla.exponents

    def predict(self, params: ArrayLike, tokens: ArrayLike, unique_tokens: ArrayLike | None = None) -> Array:
        return self.chinchilla.predict(params, tokens)

    def optimum(self, flops: ArrayLike, unique_tokens: ArrayLike | None = None) -> Optimum:
        return self.chinchilla.optimum(flops)

"""The coordinates in which laws are fitted: centred, inside a box, each law's own model of log L.

Raw (log A, alpha) are correlated to more than .99 on any real grid. Coordinates count N and D from the geometric means
of the runs, so that theta = (log A N0^-alpha, log B D0^-beta, log L0, alpha, beta, ...) has a well-conditioned Hessian.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from analysis.errors import InputError
from analysis.laws import Array, Chinchilla, Law
from analysis.solving.model import Model

EXPONENT_BOUNDS = (0.01, 2.0)  # alpha, beta: the range of starts of Hoffmann et al. 2022, App. D.3, without its zero
L0_FLOOR = 1e-4  # of the lowest loss: a fit that stops there has found no irreducible loss
SLACK = 1e-9


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What a law is fitted to, [n] each: parameters, tokens, losses in nats, unique tokens (None where unknown)."""

    params: Array
    tokens: Array
    loss_nats: Array
    unique_tokens: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Form(ABC):
    """A law as it is fitted. theta lies between lower and upper [K], equal for a parameter held at a given value.

    fits: the law. names: of theta's coordinates, so that a bound met can be named. telling: those without which
    exponents mean nothing. apart: those that only runs in which N and D vary apart can tell, once two of them are
    free. fixable: those that can be held; logs: of these, those whose coordinate is a logarithm.
    """

    log_n0: float
    log_d0: float
    lower: Array
    upper: Array

    fits: ClassVar[type[Law]]
    names: ClassVar[tuple[str, ...]]
    telling: ClassVar[tuple[str, ...]] = ("A", "B", "alpha", "beta")
    apart: ClassVar[tuple[str, ...]] = ("A", "B", "alpha", "beta")
    fixable: ClassVar[tuple[str, ...]]
    logs: ClassVar[tuple[str, ...]] = ("A", "B", "L0")

    @classmethod
    def of(cls, runs: Runs, fixed: Mapping[str, float] | None = None) -> Self:
        """The form for these runs, with the parameters in `fixed` held. Raises InputError where one cannot be."""
        fixed = fixed or {}
        for name, value in fixed.items():
            if name not in cls.fixable:
                raise InputError(f"fix: {name} cannot be held; choose among {', '.join(cls.fixable)}")
            number = isinstance(value, int | float | np.number) and bool(np.isfinite(value))
            if not number or (value <= 0 and name not in cls.fits.signed):
                raise InputError(f"fix: {name}={value} is no value of it; give a finite positive number")
        # A coefficient is held at its own value only if its coordinate is not shifted by the exponent beside it.
        log_n0 = 0.0 if "A" in fixed else float(np.log(runs.params).mean())
        log_d0 = 0.0 if "B" in fixed else float(np.log(runs.tokens).mean())
        lower, upper = cls.box(runs, log_n0, log_d0)
        for name, value in fixed.items():
            k, coordinate = cls.names.index(name), float(np.log(value) if name in cls.logs else value)
            # A box that is a point is that of a parameter held at a usual value: it may be held at any other.
            if lower[k] < upper[k] and not lower[k] - SLACK <= coordinate <= upper[k] + SLACK:
                raise InputError(f"fix: {name}={value} is outside the range in which the law is fitted; give another")
            lower[k] = upper[k] = coordinate
        return cls(log_n0=log_n0, log_d0=log_d0, lower=lower, upper=upper)

    @property
    def free(self) -> tuple[str, ...]:
        """The names that the runs must tell: those not held."""
        return tuple(name for name, free in zip(self.names, self.upper > self.lower, strict=True) if free)

    @classmethod
    @abstractmethod
    def box(cls, runs: Runs, log_n0: float, log_d0: float) -> tuple[Array, Array]: ...

    @abstractmethod
    def model(self, runs: Runs) -> Model: ...

    @abstractmethod
    def starts(self, runs: Runs) -> Array:
        """[S, K], spread over the box."""
        ...

    @abstractmethod
    def theta(self, law: Any) -> Array:
        """[K], the coordinates of a law."""
        ...

    @abstractmethod
    def law(self, theta: Array) -> Law:
        """theta [K] gives numbers, theta [R, K] a law whose parameters are [R, 1]."""
        ...

    def log_l0(self, law: Any) -> float:
        """The coordinate of L0: the lower bound where it is zero."""
        return float(np.log(law.L0)) if law.L0 > 0 else float(self.lower[self.names.index("L0")])

    def offsets(self, runs: Runs) -> tuple[Array, Array]:
        """log N and log D of the runs, counted from their centres."""
        return np.log(runs.params) - self.log_n0, np.log(runs.tokens) - self.log_d0


def columns(theta: Array) -> list[Any]:
    """theta's coordinates as numbers, or as [R, 1] columns."""
    return [theta[:, k, None] if theta.ndim == 2 else float(theta[k]) for k in range(theta.shape[-1])]


def base_theta(form: Form, law: Any) -> Array:
    """[5], (log A N0^-alpha, log B D0^-beta, log L0, alpha, beta) of a law that has these parameters."""
    n_term, d_term = np.log(law.A) - law.alpha * form.log_n0, np.log(law.B) - law.beta * form.log_d0
    return np.array([n_term, d_term, form.log_l0(law), law.alpha, law.beta], np.float64)


def base_law(form: Form, a: Any, b: Any, e: Any, alpha: Any, beta: Any) -> Chinchilla:
    """The inverse of `base_theta`, of numbers or of columns [R, 1]."""
    return Chinchilla(
        A=np.exp(a + alpha * form.log_n0), B=np.exp(b + beta * form.log_d0), L0=np.exp(e), alpha=alpha, beta=beta
    )


def base_box(runs: Runs, log_n0: float, log_d0: float) -> tuple[Array, Array]:
    """The box of (A, B, L0, alpha, beta): terms up to e^3 of the largest loss, exponents in EXPONENT_BOUNDS."""
    low, high = float(np.log(runs.loss_nats.min())), float(np.log(runs.loss_nats.max()))
    floor = low + float(np.log(L0_FLOOR))
    # Not centred, where a coefficient is held, log A reaches as far as the steepest exponent takes it.
    reach = [
        0.0 if abs(float(x.mean())) < 1e-9 else EXPONENT_BOUNDS[1] * float(x.max())
        for x in (np.log(runs.params) - log_n0, np.log(runs.tokens) - log_d0)
    ]
    lower = np.array([floor, floor, floor, EXPONENT_BOUNDS[0], EXPONENT_BOUNDS[0]])
    upper = np.array([high + 3.0 + reach[0], high + 3.0 + reach[1], high, EXPONENT_BOUNDS[1], EXPONENT_BOUNDS[1]])
    return lower, upper

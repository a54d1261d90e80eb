"""Dual numbers: an expression written once gives its value and its exact first derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.laws import Array


@dataclass(frozen=True)
class Dual:
    """value [P, n] (or [P, 1]) and slopes [K, P, n], its derivatives in K variables."""

    value: Array
    slopes: Array

    @classmethod
    def variables(cls, theta: Array) -> list[Dual]:
        """The K coordinates of theta [P, K], each [P, 1]."""
        size = theta.shape[1]
        return [
            cls(theta[:, k, None], np.eye(size)[:, k, None, None] * np.ones((1, len(theta), 1))) for k in range(size)
        ]

    @classmethod
    def constant(cls, value: Array, size: int) -> Dual:
        """Numbers [n] that depend on none of the K variables."""
        return cls(value[None], np.zeros((size, 1, len(value))))

    def __add__(self, other: Dual | Array | float) -> Dual:
        if isinstance(other, Dual):
            return Dual(self.value + other.value, self.slopes + other.slopes)
        value = self.value + other
        return Dual(value, np.broadcast_to(self.slopes, (len(self.slopes), *value.shape)))

    __radd__ = __add__

    def __neg__(self) -> Dual:
        return Dual(-self.value, -self.slopes)

    def __sub__(self, other: Dual | Array | float) -> Dual:
        return self + (-other)

    def __rsub__(self, other: Array | float) -> Dual:
        return -self + other

    def __mul__(self, other: Dual | Array | float) -> Dual:
        if isinstance(other, Dual):
            return Dual(self.value * other.value, self.slopes * other.value + other.slopes * self.value)
        return Dual(self.value * other, self.slopes * other)

    __rmul__ = __mul__

    def __truediv__(self, other: Dual | Array | float) -> Dual:
        if isinstance(other, Dual):
            value = self.value / other.value
            return Dual(value, (self.slopes - other.slopes * value) / other.value)
        return Dual(self.value / other, self.slopes / other)

    def __rtruediv__(self, other: Array | float) -> Dual:
        value = other / self.value
        return Dual(value, -self.slopes * value / self.value)

    __array_ufunc__ = None  # numpy arrays then leave their operators to this class


def exp(x: Dual) -> Dual:
    value = np.exp(x.value)
    return Dual(value, x.slopes * value)


def log(x: Dual) -> Dual:
    return Dual(np.log(x.value), x.slopes / x.value)


def logaddexp(x: Dual, y: Dual) -> Dual:
    """log(e^x + e^y)."""
    value = np.logaddexp(x.value, y.value)
    return Dual(value, x.slopes * np.exp(x.value - value) + y.slopes * np.exp(y.value - value))


def softplus(x: Dual) -> Dual:
    """log(1 + e^x)."""
    value = np.logaddexp(0.0, x.value)
    return Dual(value, x.slopes * np.exp(x.value - value))


def minimum(x: Dual, y: Dual) -> Dual:
    """The smaller of the two, with its derivatives."""
    first = x.value <= y.value
    return Dual(np.where(first, x.value, y.value), np.where(first, x.slopes, y.slopes))

"""From loss to the error on a task: the two forms of the second stage, fitted from many starts with all resamples.

Err(L) = eps - k exp(-gamma L), Gadre et al. 2024 (arXiv:2403.08540), eq. 5; and a sigmoid whose lower end is chance,
after the ladder of Bhagia et al. 2024 (arXiv:2412.04403), Sec. 3.2, which fits that end too.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike

from analysis.laws import Array
from analysis.solving import dual
from analysis.solving.dual import Dual
from analysis.solving.model import Differentiated
from analysis.solving.search import distinct_optima
from analysis.solving.solve import Loss, minimise
from analysis.uncertainty import Resampling

LEAST_SQUARES = Loss(kind="mse")  # of residuals of the error, as Gadre et al. fit
FREE = 3  # parameters of either form


class Link(ABC):
    """The error that a loss goes with. Parameters are numbers, or [R, 1] of resamples, and predictions follow them."""

    name: ClassVar[str]
    description: ClassVar[str]

    @property
    def parameters(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(cast(Any, self)) if f.name != "chance"}

    @abstractmethod
    def predict(self, loss_nats: ArrayLike) -> Array:
        """Share of the task that goes wrong, within 0 and 1, at losses [n] or [R, n]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Exponential(Link):
    """Err = eps - k exp(-gamma L)."""

    eps: Any
    k: Any
    gamma: Any

    name: ClassVar[str] = "exponential"
    description: ClassVar[str] = "Err = eps - k exp(-gamma L); Gadre et al. 2024 (arXiv:2403.08540), eq. 5"

    def predict(self, loss_nats: ArrayLike) -> Array:
        return np.clip(self.eps - self.k * np.exp(-self.gamma * np.asarray(loss_nats, np.float64)), 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Sigmoid(Link):
    """1 - Err = chance + (top - chance) / (1 + exp(slope (L - middle))). chance is given, not fitted."""

    top: Any
    slope: Any
    middle: Any
    chance: float

    name: ClassVar[str] = "sigmoid"
    description: ClassVar[str] = (
        "1 - Err = chance + (top - chance) / (1 + exp(slope (L - middle))); after Bhagia et al. 2024 (arXiv:2412.04403)"
    )

    def predict(self, loss_nats: ArrayLike) -> Array:
        z = self.slope * (np.asarray(loss_nats, np.float64) - self.middle)
        return 1.0 - self.chance - (self.top - self.chance) * np.exp(-np.logaddexp(0.0, z))


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """A form in the solver's coordinates: its error as dual numbers, its box, starts [P, 3], and the link of theta."""

    error: Callable[[list[Dual]], Dual]
    lower: Array
    upper: Array
    starts: Array
    link: Callable[[Array], Link]


def _exponential(loss: Array, error: Array) -> _Shape:
    """Coordinates eps, log of the part below it at the mean loss, log gamma."""
    centre, spread = float(loss.mean()), max(float(np.ptp(loss)), 1e-6)

    def value(theta: list[Dual]) -> Dual:
        eps, log_part, log_gamma = theta
        return eps - dual.exp(log_part - dual.exp(log_gamma) * (loss - centre))

    def link(theta: Array) -> Link:
        eps, log_part, log_gamma = (theta[..., k, None] if theta.ndim > 1 else theta[k] for k in range(FREE))
        gamma = np.exp(log_gamma)
        return Exponential(eps=eps, k=np.exp(log_part + gamma * centre), gamma=gamma)

    top, range_ = float(error.max()), max(float(np.ptp(error)), 1e-6)
    grid = product(top + range_ * np.array([0.01, 0.3, 1.0]), range_ * np.array([0.1, 0.5, 2.0]), [0.3, 1.0, 3.0, 9.0])
    starts = np.array([(eps, np.log(part), np.log(rate / spread)) for eps, part, rate in grid])
    lower = np.array([-1.0, -30.0, np.log(1e-3 / spread)])
    upper = np.array([3.0, 10.0, np.log(30.0 / spread)])
    return _Shape(error=value, lower=lower, upper=upper, starts=np.clip(starts, lower, upper), link=link)


def _sigmoid(loss: Array, error: Array, chance: float) -> _Shape:
    """Coordinates top, log slope, middle."""
    spread = max(float(np.ptp(loss)), 1e-6)

    def value(theta: list[Dual]) -> Dual:
        top, log_slope, middle = theta
        fall = dual.softplus(dual.exp(log_slope) * (loss - middle))
        return (1.0 - chance) - (top - chance) * dual.exp(-fall)

    def link(theta: Array) -> Link:
        top, log_slope, middle = (theta[..., k, None] if theta.ndim > 1 else theta[k] for k in range(FREE))
        return Sigmoid(top=top, slope=np.exp(log_slope), middle=middle, chance=chance)

    best = min(max(1.0 - float(error.min()), chance + 0.01), 1.0)
    grid = product([best, (1 + best) / 2, 1.0], np.array([1.5, 4.0, 12.0]) / spread, np.quantile(loss, [0, 0.3, 0.7]))
    starts = np.array([(top, np.log(slope), middle) for top, slope, middle in grid])
    # a curve that has bent on neither side of what was measured tells its middle no better than this
    lower = np.array([chance, np.log(0.05 / spread), loss.min() - 2 * spread])
    upper = np.array([1.0, np.log(100.0 / spread), loss.max() + 2 * spread])
    return _Shape(error=value, lower=lower, upper=upper, starts=np.clip(starts, lower, upper), link=link)


FORMS: Mapping[str, Callable[[Array, Array, float | None], _Shape]] = {
    Exponential.name: lambda loss, error, _: _exponential(loss, error),
    Sigmoid.name: lambda loss, error, chance: _sigmoid(loss, error, 0.0 if chance is None else chance),
}


@dataclass(frozen=True, kw_only=True)
class LinkFit:
    """link: as numbers; samples: [R, 1] of resamples (None without). residuals [n]: measured error less the link's.

    errors [R]: of one new run, drawn with each resample. at_bounds: parameters at the end of what they may be.
    """

    link: Link
    samples: Link | None
    residuals: Array
    errors: Array
    at_bounds: tuple[str, ...]
    agreement: float
    resampling: str

    @property
    def scatter(self) -> float:
        """Standard deviation of the error about the link."""
        return float(np.sqrt(np.sum(self.residuals**2) / max(len(self.residuals) - FREE, 1)))


def fit_link(
    form: str, loss: Array, error: Array, resampling: Resampling, *, chance: float | None, bootstrap: int, seed: int
) -> LinkFit:
    """Least squares of errors [n] on losses [n], n > 3, and its refits to `bootstrap` resamples of the runs."""
    shape = FORMS[form](loss, error, chance)
    model = Differentiated(shape.error, FREE)
    one = np.ones((1, len(loss)))
    found = minimise(model, error[None], one, shape.starts, shape.lower, shape.upper, loss=LEAST_SQUARES)
    best = int(np.argmin(found.objective))
    theta, lowest = found.theta[best], float(found.objective[best])
    fitted, jacobian = model.jacobian(theta)
    near = 1e-6 * (shape.upper - shape.lower)
    at_end = (theta < shape.lower + near) | (theta > shape.upper - near)
    link = shape.link(theta)
    samples, errors = None, np.empty(0)
    if bootstrap:
        rng = np.random.default_rng([seed, 5])
        drawn = resampling.draw(error - fitted, jacobian[:, ~at_end], count=bootstrap, rng=rng)
        targets, own, least = fitted + drawn.log_errors, np.repeat(theta[None], bootstrap, axis=0), None
        for start in distinct_optima(found):
            begin = np.repeat(found.theta[start][None], bootstrap, axis=0)
            solved = minimise(model, targets, drawn.weights, begin, shape.lower, shape.upper, loss=LEAST_SQUARES)
            better = np.ones(bootstrap, bool) if least is None else solved.objective < least
            own[better] = solved.theta[better]
            least = solved.objective if least is None else np.minimum(least, solved.objective)
        moved = np.clip(theta + drawn.spread[:, None] * (own - theta), shape.lower, shape.upper)
        samples, errors = shape.link(moved), drawn.new_run
    return LinkFit(
        link=link,
        samples=samples,
        residuals=error - fitted,
        errors=errors,
        at_bounds=tuple(name for name, end in zip(link.parameters, at_end, strict=True) if end),
        agreement=float(np.mean(found.objective <= lowest * (1 + 1e-6) + 1e-12)),
        resampling=resampling.description if bootstrap else "none",
    )

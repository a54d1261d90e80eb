"""The laws whose log is no log-sum-exp of linear functions, by dual numbers: coupled, Kaplan's, repeats, broken.

Their starts are the optima of Chinchilla's law on the same runs, crossed with a few values of what they add to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np

from analysis.errors import InputError
from analysis.laws import MOST_LOG, Array, Law
from analysis.rivals import BrokenCompute, Coupled, Kaplan, Repeats
from analysis.solving import dual
from analysis.solving.dual import Dual
from analysis.solving.form import EXPONENT_BOUNDS, Form, Runs, base_box, base_law, base_theta, columns
from analysis.solving.model import Differentiated
from analysis.solving.solve import Loss, minimise
from analysis.solving.sums import ChinchillaForm

GAMMA_BOUNDS = (0.02, 20.0)
MOST_EXCESS = 50.0  # log of parameters over the useful: far beyond any R_N*, and its exponential stays finite
BREAK_WIDTH = 1.0  # e-folds of compute over which a break bends, f of Caballero et al. 2023, unless another is held
REPEAT_BOUNDS = (1e-2, 1e4)  # R_D*, R_N*: Muennighoff et al. 2023 find 15.4 and 5.3


@dataclass(frozen=True, kw_only=True)
class CoupledForm(Form):
    """theta = (log A N0^-alpha, log B D0^-beta, log L0, alpha, beta, log gamma)."""

    fits: ClassVar[type[Law]] = Coupled
    names: ClassVar[tuple[str, ...]] = ("A", "B", "L0", "alpha", "beta", "gamma")
    fixable: ClassVar[tuple[str, ...]] = names
    logs: ClassVar[tuple[str, ...]] = (*Form.logs, "gamma")

    @classmethod
    def box(cls, runs: Runs, log_n0: float, log_d0: float) -> tuple[Array, Array]:
        lower, upper = base_box(runs, log_n0, log_d0)
        return np.append(lower, np.log(GAMMA_BOUNDS[0])), np.append(upper, np.log(GAMMA_BOUNDS[1]))

    def model(self, runs: Runs) -> Differentiated:
        x, y = self.offsets(runs)

        def log_loss(theta: list[Dual]) -> Dual:
            a, b, e, alpha, beta, log_gamma = theta
            gamma = dual.exp(log_gamma)
            reducible = gamma * dual.logaddexp((a - alpha * x) / gamma, (b - beta * y) / gamma)
            return dual.logaddexp(reducible, e)

        return Differentiated(log_loss, len(self.names))

    def starts(self, runs: Runs) -> Array:
        base = _chinchilla(self, runs)
        return _crossed(self, base, [np.log((0.1, 0.5, 1.0, 2.0))])

    def theta(self, law: Any) -> Array:
        return np.append(base_theta(self, law), np.log(law.gamma))

    def law(self, theta: Array) -> Coupled:
        *five, log_gamma = columns(theta)
        return Coupled(**base_law(self, *five).parameters, gamma=np.exp(log_gamma))


@dataclass(frozen=True, kw_only=True)
class KaplanForm(Form):
    """theta = (alpha log N_c / N0, beta log D_c / D0, alpha, beta)."""

    fits: ClassVar[type[Law]] = Kaplan
    names: ClassVar[tuple[str, ...]] = ("N_c", "D_c", "alpha", "beta")
    telling: ClassVar[tuple[str, ...]] = names
    apart: ClassVar[tuple[str, ...]] = names
    fixable: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    @classmethod
    def box(cls, runs: Runs, log_n0: float, log_d0: float) -> tuple[Array, Array]:
        low, high = float(np.log(runs.loss_nats.min())), float(np.log(runs.loss_nats.max()))
        least, most = EXPONENT_BOUNDS
        return np.array([low - 5.0, low - 5.0, 0.1 * least, 0.1 * least]), np.array([high + 3, high + 3, most, most])

    def model(self, runs: Runs) -> Differentiated:
        x, y = self.offsets(runs)

        def log_loss(theta: list[Dual]) -> Dual:
            a, b, alpha, beta = theta
            return beta * dual.logaddexp((a - alpha * x) / beta, (b - beta * y) / beta)

        return Differentiated(log_loss, len(self.names))

    def starts(self, runs: Runs) -> Array:
        level = float(np.log(runs.loss_nats).mean())
        exponents = (0.03, 0.08, 0.2, 0.5)
        starts = [(level - s * beta, level - beta, alpha, beta)
                  for alpha, beta, s in product(exponents, exponents, (0.3, 2.0))]  # fmt: skip
        return np.clip(np.array(starts), self.lower, self.upper)

    def theta(self, law: Any) -> Array:
        a, b = law.alpha * (np.log(law.N_c) - self.log_n0), law.beta * (np.log(law.D_c) - self.log_d0)
        return np.array([a, b, law.alpha, law.beta], np.float64)

    def law(self, theta: Array) -> Kaplan:
        a, b, alpha, beta = columns(theta)
        return Kaplan(
            N_c=np.exp(np.clip(a / alpha + self.log_n0, -MOST_LOG, MOST_LOG)),
            D_c=np.exp(np.clip(b / beta + self.log_d0, -MOST_LOG, MOST_LOG)),
            alpha=alpha,
            beta=beta,
        )


@dataclass(frozen=True, kw_only=True)
class RepeatsForm(Form):
    """theta = (log A N0^-alpha, log B D0^-beta, log L0, alpha, beta, log R_D*, log R_N*)."""

    fits: ClassVar[type[Law]] = Repeats
    names: ClassVar[tuple[str, ...]] = ("A", "B", "L0", "alpha", "beta", "R_D", "R_N")
    fixable: ClassVar[tuple[str, ...]] = names
    logs: ClassVar[tuple[str, ...]] = (*Form.logs, "R_D", "R_N")

    @classmethod
    def box(cls, runs: Runs, log_n0: float, log_d0: float) -> tuple[Array, Array]:
        if not np.any(runs.tokens > 1.001 * _unique_tokens(runs)):
            raise InputError("unique_tokens: no run repeats text, so R_D* and R_N* cannot be told; fit chinchilla")
        lower, upper = base_box(runs, log_n0, log_d0)
        low, high = np.log(REPEAT_BOUNDS)
        return np.append(lower, [low, low]), np.append(upper, [high, high])

    def model(self, runs: Runs) -> Differentiated:
        unique = np.minimum(runs.tokens, _unique_tokens(runs))
        x, log_u = np.log(runs.params) - self.log_n0, np.log(unique) - self.log_d0
        again = runs.tokens / unique - 1
        most = Dual.constant(np.full(1, MOST_EXCESS), len(self.names))

        def log_loss(theta: list[Dual]) -> Dual:
            a, b, e, alpha, beta, log_r_d, log_r_n = theta
            r_d, r_n = dual.exp(log_r_d), dual.exp(log_r_n)
            # Repeats.predict, with log G = log G0 + n0 a' - d0 b' in the centred coordinates, where the shifts cancel.
            log_g = (a - b + dual.log(alpha / beta)) / (alpha + beta)
            log_base = dual.minimum(log_g + beta / alpha * (log_u + log_g), Dual.constant(x, len(theta)))
            excess = dual.exp(dual.minimum(x - log_base, most)) - 1.0
            log_n = log_base + dual.log(1.0 + r_n * (1.0 - dual.exp(-excess / r_n)))
            log_d = log_u + dual.log(1.0 + r_d * (1.0 - dual.exp(-again / r_d)))
            return dual.logaddexp(dual.logaddexp(a - alpha * log_n, b - beta * log_d), e)

        return Differentiated(log_loss, len(self.names))

    def starts(self, runs: Runs) -> Array:
        unique = _unique_tokens(runs)
        fresh = runs.tokens <= 1.01 * unique
        base = runs
        if fresh.sum() > 10:  # Chinchilla's law knows nothing of the others
            base = Runs(params=runs.params[fresh], tokens=runs.tokens[fresh], loss_nats=runs.loss_nats[fresh])
        return _crossed(self, _chinchilla(self, base), [np.log((1.0, 10.0, 100.0))] * 2)

    def theta(self, law: Any) -> Array:
        return np.append(base_theta(self, law), np.log([law.R_D, law.R_N]))

    def law(self, theta: Array) -> Repeats:
        *five, log_r_d, log_r_n = columns(theta)
        return Repeats(**base_law(self, *five).parameters, R_D=np.exp(log_r_d), R_N=np.exp(log_r_n))


@dataclass(frozen=True, kw_only=True)
class BrokenForm(Form):
    """theta = (log L0, log F(C0), c0, c1, log C_b / C0, log f, log N*(C0) / N0, alpha, beta), C0 = 6 N0 D0.

    The width f of the break is held (at one e-fold of compute unless told otherwise): few tables resolve it.
    """

    fits: ClassVar[type[Law]] = BrokenCompute
    names: ClassVar[tuple[str, ...]] = ("L0", "F", "c0", "c1", "C_b", "f", "G", "alpha", "beta")
    telling: ClassVar[tuple[str, ...]] = ("F", "c0", "G", "alpha", "beta")
    apart: ClassVar[tuple[str, ...]] = ("alpha", "beta")
    fixable: ClassVar[tuple[str, ...]] = ("L0", "c0", "c1", "f", "alpha", "beta")
    logs: ClassVar[tuple[str, ...]] = (*Form.logs, "f")

    @classmethod
    def box(cls, runs: Runs, log_n0: float, log_d0: float) -> tuple[Array, Array]:
        base_lower, base_upper = base_box(runs, log_n0, log_d0)
        z = np.log(runs.params) - log_n0 + np.log(runs.tokens) - log_d0
        ends = np.quantile(z, [0.1, 0.9])
        least, most = EXPONENT_BOUNDS
        lower = [base_lower[2], base_lower[0], 0.1 * least, -1.0, ends[0], np.log(BREAK_WIDTH), -20.0, least, least]
        upper = [
            base_upper[2],
            base_upper[0],
            most,
            1.0,
            max(ends[1], ends[0] + 0.1),
            np.log(BREAK_WIDTH),
            20.0,
            most,
            most,
        ]
        return np.array(lower), np.array(upper)

    def model(self, runs: Runs) -> Differentiated:
        x, y = self.offsets(runs)
        z = x + y

        def log_loss(theta: list[Dual]) -> Dual:
            e, log_f, c0, c1, z_b, log_width, g, alpha, beta = theta
            width, total = dual.exp(log_width), alpha + beta
            off = x - g - beta / total * z
            frontier = log_f - c0 * z - c1 * width * dual.softplus((z - z_b) / width)
            aside = dual.logaddexp(dual.log(beta) - alpha * off, dual.log(alpha) + beta * off) - dual.log(total)
            return dual.logaddexp(frontier + aside, e)

        return Differentiated(log_loss, len(self.names))

    def starts(self, runs: Runs) -> Array:
        starts = []
        for a, b, e, alpha, beta in _chinchilla(self, runs):
            total = alpha + beta
            g = (np.log(alpha / beta) + a - b) / total
            log_f = np.logaddexp(a - alpha * g, b + beta * g)
            for c1, place in product((-0.05, 0.05), (0.2, 0.5, 0.8)):
                z_b = self.lower[4] + place * (self.upper[4] - self.lower[4])
                starts.append([e, log_f, alpha * beta / total, c1, z_b, self.lower[5], g, alpha, beta])
        return np.clip(np.array(starts), self.lower, self.upper)

    def theta(self, law: Any) -> Array:
        log_c0 = np.log(6.0) + self.log_n0 + self.log_d0
        best = np.log(law.G) + law.beta / (law.alpha + law.beta) * (self.log_n0 + self.log_d0)
        return np.array(
            [self.log_l0(law), np.log(law.F) - law.c0 * log_c0, law.c0, law.c1, np.log(law.C_b) - log_c0, np.log(law.f),
             best - self.log_n0, law.alpha, law.beta], np.float64)  # fmt: skip

    def law(self, theta: Array) -> BrokenCompute:
        e, log_f, c0, c1, z_b, log_width, g, alpha, beta = columns(theta)
        log_c0 = np.log(6.0) + self.log_n0 + self.log_d0
        log_g = g + self.log_n0 - beta / (alpha + beta) * (self.log_n0 + self.log_d0)
        return BrokenCompute(
            L0=np.exp(e),
            F=np.exp(np.clip(log_f + c0 * log_c0, -MOST_LOG, MOST_LOG)),
            c0=c0,
            c1=c1,
            C_b=np.exp(z_b + log_c0),
            f=np.exp(log_width),
            G=np.exp(np.clip(log_g, -MOST_LOG, MOST_LOG)),
            alpha=alpha,
            beta=beta,
        )


def _unique_tokens(runs: Runs) -> Array:
    """[n]. Raises InputError where the table does not say them."""
    if runs.unique_tokens is None:
        raise InputError(
            f"unique_tokens: the law {Repeats.name!r} needs this column; name yours with "
            "--columns unique_tokens=YOUR_COLUMN"
        )
    return runs.unique_tokens


def _chinchilla(form: Form, runs: Runs) -> Array:
    """Distinct optima [M, 5] of Chinchilla's law on these runs, in the centres of `form`."""
    lower, upper = base_box(runs, form.log_n0, form.log_d0)
    plain = ChinchillaForm(log_n0=form.log_n0, log_d0=form.log_d0, lower=lower, upper=upper)
    one = np.ones((1, len(runs.params)))
    loss = Loss()
    found = minimise(
        plain.model(runs), loss.target(runs.loss_nats)[None], one, plain.starts(runs), lower, upper, loss=loss
    )
    order = np.argsort(found.objective)[:8]
    return np.unique(found.theta[order].round(3), axis=0)[:3]


def _crossed(form: Form, base: Array, extras: Sequence[Array]) -> Array:
    starts = [[*first, *rest] for first in base for rest in product(*extras)]
    return np.clip(np.array(starts), form.lower, form.upper)

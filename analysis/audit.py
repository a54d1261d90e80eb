"""What a design can tell: the interval of N* to expect from a grid of runs, before or after spending it.

Linearised: the covariance of an M-estimator at a given law, noise and design (Huber 1981, Sec. 7.6), carried to log N*
by the delta method. Errors are normal, and may run together within trajectories; analysis.expected simulates instead.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.laws import Array, Law, flops_6nd
from analysis.solving.form import Runs
from analysis.solving.forms import form_of
from analysis.solving.identify import require_identifiable
from analysis.solving.sandwich import Noise, covariance
from analysis.solving.targets import slopes

NORMAL_975 = 1.959964  # 97.5 % point of the standard normal distribution


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Expected knowledge of N* at budget `flops` from a design of `runs` runs costing `total_flops` (6ND).

    sd_log_params: standard error of log N*; factor: high end of its 95 % interval over the low end.
    """

    flops: float
    runs: int
    largest_flops: float
    total_flops: float
    sd_log_params: float

    @property
    def factor(self) -> float:
        return math.exp(min(2 * NORMAL_975 * self.sd_log_params, 690.0))


def audit(
    params: Array,
    tokens: Array,
    law: Law,
    *,
    residual_sd: float,
    flops: float,
    delta: float = 1e-3,
    trajectory: NDArray[np.int64] | None = None,
    shared: float = 0.0,
) -> Audit:
    """Expected interval of N* at `flops` if runs (params, tokens) [n] with relative error `residual_sd` are fitted.

    trajectory [n] numbers those that err together, in `shared` of the variance; None: each run errs by itself.
    Raises InputError for a design from which no law can be told, and for a residual_sd that is not positive.
    """
    noise = Noise(sd=residual_sd, shared=0.0 if trajectory is None else shared)
    require_identifiable(params, tokens, free=len(form_of(law.name).names))
    jacobian, slope = sensitivities(params, tokens, law, flops)
    numbers = np.arange(len(params)) if trajectory is None else trajectory
    spread = covariance(jacobian, numbers, noise, delta)
    compute = flops_6nd(params, tokens)
    return Audit(
        flops=float(flops),
        runs=len(params),
        largest_flops=float(compute.max()),
        total_flops=float(compute.sum()),
        sd_log_params=float(np.sqrt(slope @ spread @ slope)),
    )


def sensitivities(params: Array, tokens: Array, law: Law, flops: float) -> tuple[Array, Array]:
    """How log L of each run answers to the K coordinates in which `law` is fitted, [n, K]; and how log N* at the budget
    `flops` does, [K].

    The coordinates are logarithms and exponents, counted from the middle of the runs (analysis.solving.form): all of
    order one.
    """
    runs = Runs(params=params, tokens=tokens, loss_nats=law.predict(params, tokens))
    form = form_of(law.name).of(runs)
    theta = form.theta(law)
    return form.model(runs).jacobian(theta)[1], slopes(form, theta[None], flops)["N*"][0]


def larger(params: Array, tokens: Array, *, times_flops: float) -> tuple[Array, Array]:
    """The design once more with sizes and token counts both sqrt(times_flops) larger, added to itself."""
    scale = math.sqrt(times_flops)
    return np.concatenate([params, scale * params]), np.concatenate([tokens, scale * tokens])

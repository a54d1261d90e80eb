"""Profile likelihood: the interval of a quantity is every value to which the fit can be held at little cost.

Nothing is linearised and nothing resampled, so that it stands beside the bootstrap as another witness. The cost is
measured by the fit's own objective: for sums of Huber losses, T = 2 (D(held) - D(free)) / lambda with
lambda = E psi^2 / E psi' is chi-squared with one degree of freedom (Schrader & Hettmansperger 1980).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, root_scalar
from scipy.special import erf, ndtr
from scipy.stats import f as f_distribution

from analysis.errors import InputError
from analysis.fit import Fit
from analysis.laws import Array
from analysis.uncertainty import CONFIDENCE, Resampling, residual_sd

STEP = 1e-6  # of central differences in theta, whose entries are of order one
WINSOR = 2.0  # standard deviations at which residuals are cut before their spread is taken: 92 % efficient, no outlier
STRIDE = 0.7  # between values held, in standard errors
MOST_STRIDES = 200  # to a side; an interval wider than a hundred standard errors is called open
HELD = 1e-5  # standard errors by which a quantity may miss the value it is held to
EDGE = 1e-7  # by which theta may leave its box
RESTARTS = 3  # of the optimiser at each value held: a fresh curvature carries it past corners of the Huber losses
SIMULATED = 40_000  # draws of the statistic's distribution where rows share trajectories


@dataclass(frozen=True, kw_only=True)
class LikelihoodProfile:
    """The interval of a quantity; open_low, open_high: whether an end is only where the box of the fit stops it.

    values, statistic [P]: values held and their T; critical: the T at the ends. assumes: of the errors, one line.
    """

    quantity: str
    estimate: float
    interval: tuple[float, float]
    open_low: bool
    open_high: bool
    values: Array
    statistic: Array
    critical: float
    assumes: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is profiled. residuals: theta [R, K] to [R, n]; quantity: theta [R, K] to [R]; theta [K] is the optimum.

    objective: sum over runs of weight x Huber(delta) of the residuals, with theta inside [lower, upper].
    """

    residuals: Callable[[Array], Array]
    quantity: Callable[[Array], Array]
    theta: Array
    lower: Array
    upper: Array
    delta: float
    weight: Array

    def objective(self, theta: Array) -> tuple[float, Array]:
        """D and its gradient [K]."""
        residual, jacobian = _derivative(self.residuals, theta)
        size = np.abs(residual)
        value = np.where(size <= self.delta, 0.5 * residual**2, self.delta * (size - 0.5 * self.delta))
        slope = self.weight * np.clip(residual, -self.delta, self.delta)
        return float(self.weight @ value), jacobian.T @ slope


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values held [P], ascending, their statistic [P], the ends of the interval, and whether each is open."""

    values: Array
    statistic: Array
    ends: tuple[float, float]
    open: tuple[bool, bool]


def profile_likelihood(
    fit: Fit, quantity: str, *, flops: float | None = None, confidence: float = CONFIDENCE
) -> LikelihoodProfile:
    """Profile interval of a parameter or exponent of the law, or of `params` (N*), `tokens` (D*) or `loss_nats`.

    The last three are those of the optimum of a budget `flops`. T is held against F(1, runs - parameters), which is
    right for independent normal errors of one spread. From as many independent rows on as are resampled as rows, it
    is scaled to hold for spreads that differ; where rows share trajectories, by what a random effect per trajectory
    does to the quantity, its variances as uncertain as `Resampling.variances` says (Rotnitzky & Jewell 1990 on
    likelihood ratios of correlated data).
    Raises InputError for an unknown quantity, and for a budget that is missing, not wanted or no budget.
    """
    named = {**fit.law.parameters, **fit.law.exponents}
    at_budget = ("params", "tokens", "loss_nats")
    if quantity not in named and quantity not in at_budget:
        raise InputError(f"quantity: {quantity!r} is unknown; choose one of {', '.join((*named, *at_budget))}")
    if (flops is None) == (quantity in at_budget):
        mend = "give a budget such as 1e21" if flops is None else "leave it out"
        raise InputError(f"flops: {flops} for {quantity}; {mend}")
    if not 0 < confidence < 1:
        raise InputError(f"confidence: {confidence} is no probability; give one such as 0.95")
    table = fit.table
    measured = fit.loss.target(table.loss_nats)
    # Held parameters are no part of the search.
    free = np.flatnonzero(fit.form.upper > fit.form.lower)
    optimum = np.asarray(fit.form.theta(fit.law), np.float64)

    def whole(theta: Array) -> Array:
        full = np.repeat(optimum[None], len(theta), axis=0)
        full[:, free] = theta
        return full

    def residuals(theta: Array) -> Array:
        predicted = fit.form.law(whole(theta)).predict(table.params, table.tokens, table.unique_tokens)
        return (np.log(predicted) if fit.loss.residual == "log" else predicted) - measured

    # Positive quantities that span decades are stepped through in their logarithm; T does not know the difference.
    logarithmic = quantity not in ("L0", *fit.law.exponents) and not quantity.startswith(("alpha", "beta"))

    def value(theta: Array) -> Array:
        law = fit.form.law(whole(theta))
        if quantity in at_budget:
            found = getattr(law.optimum(float(flops or 0.0)), quantity)
        else:
            found = {**law.parameters, **law.exponents}[quantity]
        found = np.broadcast_to(np.asarray(found, np.float64), (len(theta), 1))[:, 0]
        return np.log(np.maximum(found, np.finfo(float).tiny)) if logarithmic else found

    problem = Problem(
        residuals=residuals,
        quantity=value,
        theta=optimum[free],
        lower=fit.form.lower[free],
        upper=fit.form.upper[free],
        delta=fit.loss.corner,
        weight=fit.weight,
    )
    resampling = Resampling.of(table.params, table.trajectory, clustered=table.clustered)
    if resampling.kind in ("effects", "trajectories"):
        critical = _clustered_critical(problem, resampling, confidence, fit.seed)
        assumes = "normal errors, of which rows of one trajectory share a part"
    else:
        critical = float(f_distribution.ppf(confidence, 1, len(table) - len(free)))
        assumes = "independent normal errors of one spread"
        if resampling.kind == "rows":
            critical *= _unequal(problem)
            assumes = "independent errors, whose spread may differ from run to run"
    curve = trace(problem, critical)
    restore = math.exp if logarithmic else float
    return LikelihoodProfile(
        quantity=quantity,
        estimate=restore(float(value(problem.theta[None])[0])),
        interval=(restore(curve.ends[0]), restore(curve.ends[1])),
        open_low=curve.open[0],
        open_high=curve.open[1],
        values=np.exp(curve.values) if logarithmic else curve.values,
        statistic=curve.statistic,
        critical=critical,
        assumes=assumes,
    )


def trace(problem: Problem, critical: float) -> Curve:
    """Hold the quantity ever further from its estimate on both sides until T exceeds `critical`.

    Each held fit starts from the one before, so the curve is that of the optimum's own valley.
    """
    holder = _Holder.of(problem)
    if not holder.error > 0:  # nothing in theta moves it
        ends = (holder.estimate, holder.estimate)
        return Curve(values=np.array([holder.estimate]), statistic=np.zeros(1), ends=ends, open=(True, True))
    below, low = _march(holder, -1.0, critical)
    above, high = _march(holder, 1.0, critical)
    points = sorted([*below, (holder.estimate, 0.0), *above])
    values, statistic = (np.array(column) for column in zip(*points, strict=True))
    ends = (points[0][0] if low is None else low, points[-1][0] if high is None else high)
    return Curve(values=values, statistic=statistic, ends=ends, open=(low is None, high is None))


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """Fits with the quantity held. theta = optimum + shape z [K]: in z, T is nearly a sum of squares.

    error: standard error of the quantity; unit: lambda; lowest: D of the optimum.
    """

    problem: Problem
    estimate: float
    error: float
    shape: Array
    unit: float
    lowest: float

    @classmethod
    def of(cls, problem: Problem) -> "_Holder":
        residual, jacobian = _derivative(problem.residuals, problem.theta)
        estimate, slope = _slope(problem, problem.theta)
        sd = spread(residual, len(problem.theta))
        square, inside = _moments(problem.delta / sd)
        unit = sd**2 * square / inside
        scale = np.linalg.norm(jacobian, axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        _, values, right = np.linalg.svd(jacobian / scale, full_matrices=False)
        values = np.maximum(values, 1e-6 * values[0])
        shape = (right.T / values) * math.sqrt(unit / inside) / scale[:, None]
        error, lowest = float(np.linalg.norm(shape.T @ slope)), problem.objective(problem.theta)[0]
        return cls(problem=problem, estimate=estimate, error=error, shape=shape, unit=unit, lowest=lowest)

    def at(self, target: float, start: Array) -> tuple[float, Array] | None:
        """T and z [K] with the quantity at `target`, from z = start; None where the box does not let it there."""
        lower, upper = self.problem.lower, self.problem.upper

        def inside(z: Array) -> Array:  # the optimiser looks over the edge, where a law may not exist
            return np.clip(self._theta(z), lower, upper)

        def cost(z: Array) -> tuple[float, Array]:
            value, gradient = self.problem.objective(inside(z))
            return 2 * (value - self.lowest) / self.unit, 2 * self.shape.T @ gradient / self.unit

        def miss(z: Array) -> float:
            return (float(self.problem.quantity(inside(z)[None])[0]) - target) / self.error

        constraints = [
            {
                "type": "eq",
                "fun": miss,
                "jac": lambda z: self.shape.T @ _slope(self.problem, inside(z))[1] / self.error,
            },
            {"type": "ineq", "fun": lambda z: self._theta(z) - lower, "jac": lambda z: self.shape},
            {"type": "ineq", "fun": lambda z: upper - self._theta(z), "jac": lambda z: -self.shape},
        ]
        z, best, options = start, None, {"maxiter": 100, "ftol": 1e-9}
        for _ in range(RESTARTS):
            found = minimize(cost, z, jac=True, method="SLSQP", constraints=constraints, options=options)
            z, place = found.x, self._theta(found.x)
            outside = float(np.max(np.maximum(lower - place, place - upper)))
            if not (abs(miss(z)) < HELD and outside < EDGE):
                break
            gained = math.inf if best is None else best[0] - found.fun
            if gained > 0:
                best = (float(found.fun), z)
            if gained < 1e-4:
                break
        return None if best is None else (max(best[0], 0.0), best[1])

    def _theta(self, z: Array) -> Array:
        return self.problem.theta + self.shape @ z


def _march(holder: _Holder, sign: float, critical: float) -> tuple[list[tuple[float, float]], float | None]:
    """Values held and their T on one side, and where T is critical (None where it never is)."""
    points: list[tuple[float, float]] = []
    z, last, stride = np.zeros(len(holder.problem.theta)), holder.estimate, STRIDE * holder.error
    for _ in range(MOST_STRIDES):
        target = last + sign * stride
        found = holder.at(target, z)
        if found is None:  # the edge of the box is near: ever smaller strides towards it
            stride *= 0.5
            if stride < 0.03 * holder.error:
                break
            continue
        points.append((target, found[0]))
        if found[0] > critical:

            def short(value: float, start: Array = z) -> float:
                inner = holder.at(value, start)
                return -1.0 if inner is None else math.sqrt(critical) - math.sqrt(inner[0])

            return points, float(root_scalar(short, bracket=(last, target), xtol=1e-3 * holder.error).root)
        z, last = found[1], target
    return points, None


def spread(residual: Array, free: int) -> float:
    """Standard deviation of normal errors behind the residuals [n] of a fit of `free` parameters, outliers cut."""
    limit = WINSOR * residual_sd(residual, free)
    cut = float(np.sum(np.clip(residual, -limit, limit) ** 2))
    return max(math.sqrt(cut / (max(len(residual) - free, 1) * _moments(WINSOR)[0])), 1e-12)


def _moments(k: float) -> tuple[float, float]:
    """E psi^2 and E psi' of psi(z) = clip(z, -k, k) for a standard normal z."""
    inside = float(erf(k / math.sqrt(2)))
    density = math.exp(-0.5 * min(k, 40.0) ** 2) / math.sqrt(2 * math.pi)
    return inside - 2 * k * density + min(k, 1e9) ** 2 * (1 - inside), inside


def _unequal(problem: Problem) -> float:
    """Expected T over one, when runs [n] differ in spread: the sandwich variance over what the curvature promises.

    A Huber loss much narrower than the errors has its curvature from the density of errors at zero; it is smoothed by
    a normal kernel (Powell 1991 for least absolute deviations), which the least-squares end does not feel.
    """
    residual, jacobian = _derivative(problem.residuals, problem.theta)
    slope = _slope(problem, problem.theta)[1]
    runs, free = jacobian.shape
    sd = spread(residual, free)
    square, inside = _moments(problem.delta / sd)
    width = 1.06 * sd * runs**-0.2  # the normal-reference bandwidth, Silverman 1986, Sec. 3.4.2
    curvature = ndtr((residual + problem.delta) / width) - ndtr((residual - problem.delta) / width)
    inverse = np.linalg.pinv(jacobian.T @ (curvature[:, None] * jacobian))
    pull = jacobian @ (inverse @ slope) * np.clip(residual, -problem.delta, problem.delta)
    promised = float(slope @ inverse @ slope) * sd**2 * square / inside
    if not promised > 0:
        return 1.0
    return float(pull @ pull) / promised * runs / (runs - free)


def _clustered_critical(problem: Problem, resampling: Resampling, confidence: float, seed: int) -> float:
    """Quantile of T when the variances of trajectories and rows are those that the data allow."""
    residual, jacobian = _derivative(problem.residuals, problem.theta)
    slope = _slope(problem, problem.theta)[1]
    pull = np.linalg.pinv(jacobian).T @ slope  # of each run on the quantity
    together = float(np.sum(np.bincount(resampling.trajectory, pull) ** 2))
    alone = float(pull @ pull)
    if not alone > 0:  # no run moves it, as where it is held: there is nothing to trace
        return 1.0
    rng = np.random.default_rng([seed, 2])
    shared, own = resampling.variances(-residual, jacobian, count=SIMULATED, rng=rng)
    sd = spread(residual, len(problem.theta))
    statistic = (shared * together / alone + own) / sd**2 * rng.normal(size=SIMULATED) ** 2
    return float(np.quantile(statistic, confidence))


def _slope(problem: Problem, theta: Array) -> tuple[float, Array]:
    """The quantity and its gradient [K]."""
    value, jacobian = _derivative(lambda many: problem.quantity(many)[:, None], theta)
    return float(value[0]), jacobian[0]


def _derivative(function: Callable[[Array], Array], theta: Array) -> tuple[Array, Array]:
    """The value [n] at theta [K] and its Jacobian [n, K] by central differences."""
    steps = STEP * np.eye(len(theta))
    stacked = function(np.vstack([theta[None], theta + steps, theta - steps]))
    high, low = stacked[1 : len(theta) + 1], stacked[len(theta) + 1 :]
    return stacked[0], ((high - low) / (2 * STEP)).T

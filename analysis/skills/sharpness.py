"""Whether a jump of a score survives a metric that changes with every change of a probability.

Exact match of K tokens, each right with probability p, is p^K: it jumps where p only grows (Schaeffer et al. 2023,
arXiv:2304.15004). So the question is put to a continuous metric of the same outputs, as two hypotheses over the scale x
(in logarithms):

- smooth: a + b x + J S((x - c) / w), S the logistic curve, whose middle 80 % takes at least WIDE of all scales;
- step: a + B ((1 - f) x / range + f [x > c]), of whose change at least the share f >= HALF comes between two scales.

Neither holds the other. The statistic is n log of the ratio of their sums of squares, each weighed by the errors over
items, and its distribution under either is drawn from the fitted one (Cox 1961; Williams 1970 for the bootstrap). Each
is rejected at LEVEL by itself, so that runs too few or too noisy reject neither and tell nothing.

Where the main metric by itself jumps, it is also drawn from the smooth continuous one, through the monotone link that
the runs show and with its own errors over items: how often such metrics jump as much says whether the link makes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import fdtrc

from analysis.errors import InputError
from analysis.laws import Array
from analysis.page.chart import counted
from analysis.skills.abilities import MAIN, Ability, Metric, beside, better, growing

LEVEL = 0.01
WIDE = 0.25  # of the range of log scale, for the middle 80 % of a smooth change
HALF = 0.5
TENTHS = 2 * np.log(9.0)  # of a logistic curve, from 10 to 90 %, in units of its w
LEAST_SCALES = 7  # two more than a smooth curve has parameters
LEAST_DRAWS = 200
WIDTHS, CENTRES, SHARES = 8, 33, (0.5, 0.6, 0.75, 0.9, 1.0, 1.15)

Verdict = Literal["sharp", "smooth", "steep", "made by the metric", "no change", "not told"]


@dataclass(frozen=True, kw_only=True)
class Jump:
    """What one metric tells. p_smooth, p_step: of either hypothesis; at: the scale (as `growing` has it) where a step
    fits best, and share, how much of the change it makes there. change: over all scales, along the smooth curve; told:
    whether it is told from none.
    """

    metric: str
    p_smooth: float
    p_step: float
    at: float
    share: float
    change: float
    told: bool

    @property
    def verdict(self) -> Verdict:
        if not self.told:
            return "no change"
        match self.p_smooth < LEVEL, self.p_step < LEVEL:
            case True, False:
                return "sharp"
            case False, True:
                return "smooth"
            case True, True:
                return "steep"
        return "not told"


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """One task: its main metric, and a continuous one of the same outputs (None where the task has none).

    p_link: how often a main metric drawn from the smooth continuous one jumps as much (None where it does not jump).
    """

    task: str
    against: str
    runs: int
    main: Jump
    continuous: Jump | None
    p_link: float | None
    verdict: Verdict
    draws: int


def sharpness(ability: Ability, against: str = "flops", *, draws: int = 1000, seed: int = 0) -> Sharpness:
    """Test one task. Raises InputError for fewer than LEAST_SCALES scales and draws that allow no p-value so low."""
    if draws < LEAST_DRAWS:
        raise InputError(f"bootstrap: {draws} draws tell no p-value below {LEVEL:g}; give at least {LEAST_DRAWS}")
    x = growing(ability.table, against)
    scales = len(np.unique(np.round(x, 6)))
    if scales < LEAST_SCALES:
        raise InputError(
            f"runs: {counted(scales, 'scale')} tell no jump from a smooth rise; give at least {LEAST_SCALES}"
        )
    curves, rng = _Curves.over(x, beside(ability.table, against)), np.random.default_rng([seed, 6])
    main = _jump(curves, ability.main, ability.items, draws, rng)
    metric = ability.continuous
    if metric is None:
        verdict: Verdict = main.verdict if main.verdict in ("smooth", "no change") else "not told"
        return Sharpness(task=ability.task, against=against, runs=len(x), main=main, continuous=None, p_link=None,
                         verdict=verdict, draws=draws)  # fmt: skip
    told = _jump(curves, metric, ability.items, draws, rng)
    p_link = None
    if main.told and main.p_smooth < LEVEL and told.told:
        p_link = _link(curves, ability, metric, draws, rng)
    verdict = told.verdict
    if verdict == "smooth" and p_link is not None:
        verdict = "made by the metric"
    return Sharpness(task=ability.task, against=against, runs=len(x), main=main, continuous=told, p_link=p_link,
                     verdict=verdict, draws=draws)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Curves:
    """All curves of either hypothesis over x [n], as designs [G, n, 3 + k] and [H, n, 2 + k]; what each stands for.

    smooth [G]: those whose middle 80 % is wide enough; the others only tell how large errors are. at, shares [H]: of
    the steps, in units of x and of the change.
    """

    x: Array
    designs: Array
    smooth: NDArray[np.bool_]
    steps: Array
    at: Array
    shares: Array

    @classmethod
    def over(cls, x: Array, other: Array) -> "_Curves":
        """other [n, k]: what else moves a score, in proportion, under both hypotheses."""
        low, reach = float(x.min()), float(np.ptp(x))
        z = (x - low) / reach
        scales = np.unique(np.round(z, 9))
        gap = float(np.min(np.diff(scales)))
        widths = np.geomspace(WIDE, TENTHS, WIDTHS)
        between = np.geomspace(max(gap, 0.02), WIDE, 5)[:-1] if gap < WIDE else np.empty(0)
        width, centre = (m.ravel() for m in np.meshgrid(np.append(between, widths), np.linspace(-0.25, 1.25, CENTRES)))
        rise = 0.5 * (1 + np.tanh(0.5 * TENTHS * (z[None] - centre[:, None]) / width[:, None]))
        columns = [np.ones(len(x)), z, *other.T]
        designs = np.stack([*(np.broadcast_to(c, rise.shape) for c in columns), rise], axis=2)
        middles = (scales[1:] + scales[:-1]) / 2
        share, at = (m.ravel() for m in np.meshgrid(SHARES, middles))
        step = (1 - share)[:, None] * z[None] + share[:, None] * (z[None] > at[:, None])
        columns = [np.ones(len(x)), *other.T]
        steps = np.stack([*(np.broadcast_to(c, step.shape) for c in columns), step], axis=2)
        smooth = width >= WIDE * (1 - 1e-9)
        return cls(x=x, designs=designs, smooth=smooth, steps=steps, at=low + at * reach, shares=share)

    def weighed(self, sd: Array) -> "_Weighed":
        return _Weighed(curves=self, sd=sd, smooth=_basis(self.designs / sd[None, :, None]),
                        steps=_basis(self.steps / sd[None, :, None]))  # fmt: skip


def _basis(designs: Array) -> Array:
    """Orthonormal columns [G, n, K] of designs, of which those that stand for nothing beside the others are none."""
    left, values, _ = np.linalg.svd(designs, full_matrices=False)
    return left * (values > 1e-6 * values[:, :1])[:, None, :]


@dataclass(frozen=True, kw_only=True)
class _Weighed:
    """The curves with the errors sd [n] of a metric divided out: bases of its columns."""

    curves: _Curves
    sd: Array
    smooth: Array
    steps: Array

    def squares(self, y: Array) -> tuple[Array, Array]:
        """Sums of squares of y [R, n] about every smooth curve [R, G] and every step [R, H]."""
        scaled = y / self.sd
        total = np.sum(scaled**2, axis=1)[:, None]
        return tuple(  # pyright: ignore[reportReturnType]
            np.maximum(total - np.sum(np.einsum("rn,gnk->rgk", scaled, basis, optimize=True) ** 2, axis=2), 1e-12)
            for basis in (self.smooth, self.steps)
        )

    def statistic(self, y: Array) -> Array:
        """n log(smooth / step) [R]: high where a step fits better."""
        smooth, step = self.squares(y)
        wide = smooth[:, self.curves.smooth].min(axis=1)
        return y.shape[1] * np.log(wide / step.min(axis=1))

    def fitted(self, y: Array) -> tuple[Array, Array, int]:
        """y [n] along the smooth curve and along the step that fit best, and the number of that step."""
        smooth, step = (each[0] for each in self.squares(y[None]))
        wide = int(np.flatnonzero(self.curves.smooth)[np.argmin(smooth[self.curves.smooth])])
        sharp = int(np.argmin(step))
        shown = [basis @ (basis.T @ (y / self.sd)) * self.sd for basis in (self.smooth[wide], self.steps[sharp])]
        return shown[0], shown[1], sharp


def _jump(curves: _Curves, metric: Metric, items: int, draws: int, rng: np.random.Generator) -> Jump:
    y, sd = better(metric), errors_over_items(metric, items)
    if np.ptp(y) == 0:
        return Jump(metric=metric.name, p_smooth=1, p_step=1, at=np.nan, share=0, change=0, told=False)
    weighed = curves.weighed(sd)
    smooth, step, sharp = weighed.fitted(y)
    best = min(float(each[0].min()) for each in weighed.squares(y[None]))
    designs = curves.designs
    left = max(len(y) - designs.shape[2] - 2, 1)
    # errors over items are the least there is: runs differ by their seeds as well, by as much as they are seen to
    known = np.isfinite(metric.stderr).all() or (items and metric.name in MAIN)
    excess = np.sqrt(max(best / left, 1.0 if known else 0.0))
    flat = float(np.sum(((y - np.average(y, weights=sd**-2)) / sd) ** 2))
    more = designs.shape[2] + 1  # beside the mean: the columns of the curve, its middle and its width
    told = bool(fdtrc(more, left, (flat / best - 1) * left / more) < LEVEL)
    measured = float(weighed.statistic(y[None])[0])
    noise = excess * sd * rng.normal(size=(draws, len(y)))
    under_smooth, under_step = weighed.statistic(smooth + noise), weighed.statistic(step + noise)
    order = np.argsort(curves.x, kind="stable")
    change = float(smooth[order[-1]] - smooth[order[0]])
    return Jump(
        metric=metric.name,
        p_smooth=float((1 + np.sum(under_smooth >= measured)) / (1 + draws)),
        p_step=float((1 + np.sum(under_step <= measured)) / (1 + draws)),
        at=float(curves.at[sharp]),
        share=float(min(curves.shares[sharp], 1.0)),
        change=change,
        told=told,
    )


def errors_over_items(metric: Metric, items: int) -> Array:
    """Standard errors [n] of a metric's runs, of a perplexity those of its logarithm (`better`).

    Those that are not told, or zero because all items went alike, are set: a share of no or all of n items has that of
    (k + 1) / (n + 2); without a number of items, a third of the median.
    """
    stderr = np.where(metric.stderr > 0, metric.stderr, np.nan)
    if metric.name == "perplexity":
        stderr = stderr / metric.value
    if items and metric.name in MAIN:
        hits = np.rint(metric.value * items)
        share = (hits + 1) / (items + 2)
        return np.fmax(np.nan_to_num(stderr), np.sqrt(share * (1 - share) / items))
    known = stderr[np.isfinite(stderr)]
    if known.size == 0:
        return np.full(stderr.shape, max(float(np.std(better(metric))), 1e-12))
    return np.fmax(np.nan_to_num(stderr), float(np.median(known)) / 3)


def _link(curves: _Curves, ability: Ability, metric: Metric, draws: int, rng: np.random.Generator) -> float:
    """How often the main metric jumps as it did, drawn from the smooth continuous one through their monotone link."""
    y, u = better(ability.main), better(metric)
    smooth, _, _ = curves.weighed(errors_over_items(metric, ability.items)).fitted(u)
    order = np.argsort(u, kind="stable")
    link = isotonic_regression(y[order]).x
    expected = np.interp(smooth, u[order], link)
    sd = errors_over_items(ability.main, ability.items)
    if ability.items and ability.main.name in ("accuracy", "exact_match"):
        drawn = rng.binomial(ability.items, np.clip(expected, 0, 1), size=(draws, len(y))) / ability.items
    else:
        drawn = expected + sd * rng.normal(size=(draws, len(y)))
    weighed = curves.weighed(sd)
    measured = float(weighed.statistic(y[None])[0])
    return float((1 + np.sum(weighed.statistic(drawn) >= measured)) / (1 + draws))


def every_sharpness(
    abilities: Sequence[Ability], against: str, *, draws: int, seed: int
) -> tuple[list[Sharpness], dict[str, str]]:
    """Every task that can be tested, and why the others cannot."""
    found, refused = [], {}
    for ability in abilities:
        try:
            found.append(sharpness(ability, against, draws=draws, seed=seed))
        except InputError as error:
            refused[ability.task] = str(error)
    return found, refused

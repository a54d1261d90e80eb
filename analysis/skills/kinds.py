"""How a score changes with scale: rising, flat, falling, U-shaped or the inverse, tested over all tasks at once.

A trend is a slope away from zero. A turn is told by the two-lines test of Simonsohn 2018 (Adv. Meth. Pract. Psych. Sci.
1:538): two lines of opposite sign, each told from zero, meet at a break that is set where the weaker one gains most. A
quadratic (Lind & Mehlum 2010, Oxf. Bull. Econ. Stat. 72:109) would call a score that is flat at chance and then rises
U-shaped, because the parabola has to turn; two lines do not. That larger models may do worse: McKenzie et al. 2023
(arXiv:2306.09479); that they then may do better again: Wei et al. 2022 (arXiv:2211.02011).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis.laws import Array
from analysis.page.chart import counted
from analysis.skills.abilities import SHARES, Ability, beside, better, clusters, growing
from analysis.solving.clustered import Line, holm, line

LEVEL = 0.05  # chance that any task is given a trend or a turn that it has not
FLAT = 0.05  # change of a share over all scales: an interval within it is as good as none
LEAST_SCALES = 4
LEAST_SIDE = 3  # scales on either side of a break

Kind = Literal["rising", "falling", "flat", "U-shaped", "inverted-U", "not told"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Two lines that meet at `scale` (as `growing` has it): their slopes with 95 % intervals; p_value: the larger."""

    scale: float
    before: float
    after: float
    before_interval: tuple[float, float]
    after_interval: tuple[float, float]
    p_value: float


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """One task. change: of its score, in the direction of better, over all scales, along a straight line.

    p_values: of no slope, and of the turn, as they are and for all tests of all tasks (Holm 1979). reason: why the kind
    is not told. turn: None where too few scales allow one or the two lines are of one sign.
    """

    task: str
    metric: str
    runs: int
    kind: Kind
    change: float
    interval: tuple[float, float]
    p_trend: float
    p_trend_adjusted: float
    turn: Turn | None
    p_turn_adjusted: float
    reason: str = ""


def scaling_kinds(abilities: Sequence[Ability], against: str) -> tuple[Scaling, ...]:
    """The kind of every task, by its main metric against a scale (abilities.SCALES), at LEVEL over all of them."""
    found = [_tested(ability, against) for ability in abilities]
    told = [i for i, each in enumerate(found) if not each.reason]
    turning = [i for i in told if found[i].turn is not None]
    p_turns = [turn.p_value for i in turning if (turn := found[i].turn) is not None]
    adjusted = holm([*(found[i].p_trend for i in told), *p_turns])
    trend, turn = dict(zip(told, adjusted, strict=False)), dict(zip(turning, adjusted[len(told) :], strict=True))
    return tuple(_named(each, trend.get(i, 1.0), turn.get(i, 1.0)) for i, each in enumerate(found))


def _tested(ability: Ability, against: str) -> Scaling:
    """With its p-values unadjusted and no kind yet."""
    metric, x = ability.main, growing(ability.table, against)
    y, groups = better(metric), clusters(ability.table)
    scales = len(np.unique(np.round(x, 2)))
    bare = Scaling(task=ability.task, metric=metric.name, runs=len(x), kind="not told", change=0.0,
                   interval=(np.nan, np.nan), p_trend=1.0, p_trend_adjusted=1.0, turn=None,
                   p_turn_adjusted=1.0)  # fmt: skip
    if scales < LEAST_SCALES:
        return replace(bare, reason=f"{counted(scales, 'scale')}, fewer than {LEAST_SCALES}")
    if np.ptp(y) == 0:
        return replace(bare, kind="flat", interval=(0.0, 0.0))
    other = beside(ability.table, against)
    along = np.eye(1 + other.shape[1])[0]
    fall = line(np.column_stack([x, other]), y, groups, along)
    if fall is None:
        return replace(bare, reason="runs of fewer than three trajectories")
    reach = float(np.ptp(x))
    low, high = fall.interval
    return replace(
        bare,
        change=fall.slope * reach,
        interval=(low * reach, high * reach),
        p_trend=fall.p_value,
        turn=two_lines(x, y, groups, other),
    )


def _named(found: Scaling, trend: float, turn: float) -> Scaling:
    kind: Kind = found.kind
    reason = found.reason
    if found.turn is not None and turn < LEVEL:
        kind = "U-shaped" if found.turn.before < 0 else "inverted-U"
    elif trend < LEVEL:
        kind = "rising" if found.change > 0 else "falling"
    elif kind != "flat" and not reason:
        low, high = found.interval
        flat = found.metric in SHARES and max(-low, high) <= FLAT
        kind = "flat" if flat else kind
        unsure = "may be of either sign" if low <= 0 <= high else "is not told from none over so many tests"
        reason = "" if flat else f"its change {unsure}; add scales or items"
    return replace(found, kind=kind, reason=reason, p_trend_adjusted=trend, p_turn_adjusted=turn)


def two_lines(x: Array, y: Array, groups: Sequence[str], other: Array | None = None) -> Turn | None:
    """Two lines of opposite sign through y [n] over x [n], with the break set as Simonsohn's Robin Hood does.

    other [n, k]: what else moves y, in proportion.

    A smooth curve (a cubic, where he has a spline: grids are small) is most extreme somewhere inside; the break begins
    in the middle of what is within one standard error of that, and moves there towards the stronger of the two lines,
    to give the weaker more runs. None where either side has fewer than LEAST_SIDE scales, and where both lines rise or
    both fall.
    """
    x = np.round(x, 6)  # a break is compared with scales as they are told apart
    scales = np.unique(x)
    if len(scales) < 2 * LEAST_SIDE:
        return None
    inner = scales[LEAST_SIDE - 1 : len(scales) - LEAST_SIDE]  # a break belongs to its left side
    centred = (x - x.mean()) / np.ptp(x)
    other = np.empty((len(x), 0)) if other is None else other
    design = np.column_stack([np.vander(centred, 4), other])
    fitted, *_ = np.linalg.lstsq(design, y, rcond=None)
    at = np.vander((scales - x.mean()) / np.ptp(x), 4)
    curve = at @ fitted[:4]
    left = max(len(x) - design.shape[1], 1)
    reach = np.sum((at @ np.linalg.pinv(design)[:4]) ** 2, axis=1)
    stderr = np.sqrt(np.sum((y - design @ fitted) ** 2) / left * reach)
    middle = np.isin(scales, inner)
    trend = float(np.sign(curve[-1] - curve[0])) or 1.0
    turns = []
    for extreme in (np.argmax, np.argmin):
        peak = int(np.flatnonzero(middle)[extreme(curve[middle])])
        flat = scales[middle & (np.abs(curve - curve[peak]) <= stderr[peak])]
        first = _broken(x, y, groups, other, float(np.median(flat)))
        if first is None:
            continue
        before, after = (abs(each.slope) / max(each.stderr, 1e-300) for each in first)
        share = after / (before + after)
        second = _broken(x, y, groups, other, at_break := float(np.quantile(flat, share)))
        if second is None:
            continue
        left_line, right_line = second
        if left_line.slope * right_line.slope < 0:
            turns.append(
                Turn(scale=at_break, before=left_line.slope, after=right_line.slope, before_interval=left_line.interval,
                     after_interval=right_line.interval, p_value=max(left_line.p_value, right_line.p_value))
            )  # fmt: skip
    # a peak and a trough may both be there; the one told better is the turn, and of equals that against the trend
    return min(turns, key=lambda turn: (turn.p_value, trend * turn.after), default=None)


def _broken(x: Array, y: Array, groups: Sequence[str], other: Array, at: float) -> tuple[Line, Line] | None:
    """Both lines of a regression that is interrupted at a scale, with a step between them as his has."""
    right = x > at + 1e-9
    design = np.column_stack([np.where(right, 0.0, x - at), np.where(right, x - at, 0.0), right])
    scaled = other / np.abs(other).max(initial=1e-9)
    design = np.column_stack([design / np.array([np.ptp(x), np.ptp(x), 1.0]), scaled])
    along = (row / np.ptp(x) for row in np.eye(design.shape[1])[:2])
    before, after = (line(design, y, groups, direction) for direction in along)
    return None if before is None or after is None else (before, after)

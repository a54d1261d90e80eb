"""One IsoFLOP profile: the loss of runs of one budget against their size, and where it is lowest."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator

from analysis.errors import InputError, require_choice
from analysis.laws import Array

Method = Literal["parabola", "akima"]
Response = Literal["log_loss", "loss"]
SameSize = Literal["mean", "best"]

LEAST_SIZES = {"parabola": 4, "akima": 3}  # 3 determine a parabola and leave no error; Porian et al. 2024 ask for 3
WINDOW = 4.0  # a cubic term in log N shifts a parabola's minimum by (beta - alpha) log(WINDOW)^2 / 10, at most 4 %
WINDOW_SIZES = 5  # a window that holds fewer is widened to the nearest five
WIDEST = 100.0  # largest over smallest size under one parabola
OFF_CENTRE = 0.8  # of the half-width in log N: a minimum farther out is an extrapolation of one arm
AKIMA_POINTS = 25  # per gap between sizes, Porian et al. 2024 (their public code)
SAME_SIZE = 1e-3  # relative; runs of one budget closer than this are replicas
BLOCK = 4_000_000  # elements of one interpolated array, 32 MB


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How profiles are read. window: factor in N either side of the minimum that a parabola covers; inf for all."""

    method: Method
    response: Response
    window: float
    same_size: SameSize

    def __post_init__(self) -> None:
        for name, kind in (("method", Method), ("response", Response), ("same_size", SameSize)):
            require_choice(name, getattr(self, name), kind)
        if not self.window > 1:
            raise InputError(f"window: {self.window} is no factor in N; give one above 1 such as 4, or inf for all")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Runs of one budget and their minimum.

    params, tokens, loss_nats [m]: one point a size, ascending in N. used [m]: points under the parabola, or all.
    flops: of the budget; runs, spread: how many rows, and their largest over smallest FLOPs. optimum: N*, D*, loss
    (None where rejected). centring: of log N* in the points used, -1 and 1 at their ends; width: their largest over
    smallest size. sd_log_params: of log N* under the noise; share: of resamples with a minimum (None: no resamples).
    reason: why it is rejected, empty where it is not.
    """

    flops: float
    runs: int
    spread: float
    params: Array
    tokens: Array
    loss_nats: Array
    used: NDArray[np.bool_]
    optimum: tuple[float, float, float] | None
    centring: float
    width: float
    sd_log_params: float | None = None
    share: float | None = None
    reason: str = ""


def one_per_size(params: Array, tokens: Array, loss_nats: Array, same_size: SameSize) -> tuple[Array, Array, Array]:
    """Runs [n] of one budget as one point a size [m], ascending: geometric means, or the run of lowest loss."""
    order = np.argsort(params, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(np.log(params[order])) > SAME_SIZE) + 1)
    if same_size == "best":
        best = np.array([g[np.argmin(loss_nats[g])] for g in groups])
        return params[best], tokens[best], loss_nats[best]
    n, d, loss = (np.exp([np.log(v[g]).mean() for g in groups]) for v in (params, tokens, loss_nats))
    return n, d, loss


def read_profile(
    flops: float, spread: float, params: Array, tokens: Array, loss_nats: Array, shape: Shape, reason: str = ""
) -> Profile:
    """The profile of runs [n] of one budget, rejected with its reason where it has no convex interior minimum."""
    runs = len(params)
    if runs:
        params, tokens, loss_nats = one_per_size(params, tokens, loss_nats, shape.same_size)
    x, y = np.log(params), _response(loss_nats, shape)
    used = np.ones(len(params), bool)
    least = LEAST_SIZES[shape.method]
    if not reason and len(params) < least:
        reason = f"{len(params)} size{'s' * (len(params) != 1)}, a profile needs {least}"
    if not reason and shape.method == "parabola":
        used = _window(x, y, math.log(shape.window))
    width = float(np.exp(np.ptp(x[used]))) if len(x) else 1.0
    optimum, centring = None, math.nan
    if not reason and shape.method == "parabola":
        if np.argmin(y) in (0, len(y) - 1):
            side = "smallest" if np.argmin(y) == 0 else "largest"
            reason = f"its lowest loss is at its {side} size: no interior minimum"
        elif _parabola(x[used], y[used][None])[2][0] <= 0:
            reason = "not convex: the parabola opens downwards"
        elif width > WIDEST and math.isfinite(shape.window):
            reason = f"its points span a factor {width:.3g} in N, too wide for a parabola; add sizes or take akima"
    if not reason:
        log_n, loss = minima(x, loss_nats[None], used, shape)
        if not np.isfinite(log_n[0]):
            reason = "the minimum of its curve lies at the edge of its sizes"
        else:
            inside = x[used]
            centring = float((2 * log_n[0] - inside[0] - inside[-1]) / (inside[-1] - inside[0]))
            optimum = (float(np.exp(log_n[0])), float(np.exp(np.interp(log_n[0], x, np.log(tokens)))), float(loss[0]))
            if shape.method == "parabola" and abs(centring) > OFF_CENTRE:
                side, optimum = ("smallest" if centring < 0 else "largest"), None
                reason = f"its minimum is off centre, next to the {side} size under the parabola; add sizes beyond it"
    return Profile(
        flops=flops,
        runs=runs,
        spread=spread,
        params=params,
        tokens=tokens,
        loss_nats=loss_nats,
        used=used,
        optimum=optimum,
        centring=centring,
        width=width,
        reason=reason,
    )


def minima(x: Array, losses: Array, used: NDArray[np.bool_], shape: Shape) -> tuple[Array, Array]:
    """log N* [R] and loss there [R] of profiles `losses` [R, m] over log sizes x [m]; NaN where there is no minimum."""
    y = _response(losses, shape)
    if shape.method == "akima":
        return _akima_minima(x, y, shape)
    x, y = x[used], y[:, used]
    constant, slope, curvature = _parabola(x, y)
    convex = curvature > 0
    bend = np.where(convex, curvature, 1.0)
    offset = -slope / (2.0 * bend)
    log_n = x.mean() + offset
    inside = convex & (log_n > x[0]) & (log_n < x[-1])
    lowest = constant - slope**2 / (4.0 * bend)
    return np.where(inside, log_n, np.nan), _loss(np.where(inside, lowest, np.nan), shape)


def curve(profile: Profile, shape: Shape, params: Array) -> Array:
    """Loss in nats [k] of the profile's parabola, or interpolation, at sizes params [k]."""
    x, y = np.log(profile.params), _response(profile.loss_nats, shape)
    if shape.method == "akima":
        return _loss(Akima1DInterpolator(x, y)(np.log(params)), shape)
    constant, slope, curvature = (float(v[0]) for v in _parabola(x[profile.used], y[profile.used][None]))
    offset = np.log(params) - x[profile.used].mean()
    return _loss(constant + slope * offset + curvature * offset**2, shape)


def residuals_of_parabola(profile: Profile, shape: Shape) -> tuple[Array, int]:
    """Log residuals about a parabola near the minimum, and the degrees of freedom it leaves: what noise is read from.

    For Akima, which passes through every point, the parabola is that of the default window.
    """
    x, y = np.log(profile.params), np.log(profile.loss_nats)
    near = profile.used if shape.method == "parabola" else _window(x, y, math.log(WINDOW))
    basis = np.vander(x[near] - x[near].mean(), 3)
    rest = y[near] - basis @ np.linalg.lstsq(basis, y[near], rcond=None)[0]
    return rest, max(int(near.sum()) - 3, 0)


def _response(loss_nats: Array, shape: Shape) -> Array:
    return np.log(loss_nats) if shape.response == "log_loss" else loss_nats


def _loss(response: Array, shape: Shape) -> Array:
    return np.exp(response) if shape.response == "log_loss" else response


def _parabola(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Constant, slope and curvature [R] of least-squares parabolas of y [R, m] in x - mean(x)."""
    basis = np.vander(x - x.mean(), 3, increasing=True)
    constant, slope, curvature = (y @ np.linalg.pinv(basis).T).T
    return constant, slope, curvature


def _window(x: Array, y: Array, half_width: float) -> NDArray[np.bool_]:
    """Points within half_width of the minimum, centred on the parabola's own minimum as often as that moves it."""
    centre, seen = x[np.argmin(y)], []
    while True:
        distance = np.abs(x - centre)
        near = distance <= half_width
        if near.sum() < min(WINDOW_SIZES, len(x)):
            near = distance <= np.sort(distance)[min(WINDOW_SIZES, len(x)) - 1]
        if any(np.array_equal(near, other) for other in seen):
            return near
        seen.append(near)
        _, slope, curvature = (float(v[0]) for v in _parabola(x[near], y[near][None]))
        if curvature <= 0:
            return near
        centre = float(np.clip(x[near].mean() - slope / (2 * curvature), x[0], x[-1]))


def _akima_minima(x: Array, y: Array, shape: Shape) -> tuple[Array, Array]:
    grid = np.linspace(x[0], x[-1], AKIMA_POINTS * (len(x) - 1))
    log_n, lowest = np.empty(len(y)), np.empty(len(y))
    block = max(1, BLOCK // len(grid))
    for first in range(0, len(y), block):
        part = slice(first, first + block)
        values = Akima1DInterpolator(x, y[part].T)(grid)
        best = values.argmin(axis=0)
        inside = (best > 0) & (best < len(grid) - 1)
        log_n[part] = np.where(inside, grid[best], np.nan)
        lowest[part] = np.where(inside, np.take_along_axis(values, best[None], 0)[0], np.nan)
    return log_n, _loss(lowest, shape)

"""A comparison as a figure: both frontiers with their runs, and the multiplier over the losses that both reach."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.fit import Fit
from analysis.multiplier import Multiplier
from analysis.plots import blank_figure, draw_legend
from analysis.uncertainty import interval

COLOURS = ("#0072b2", "#d55e00")  # Okabe & Ito 2008


def effective_compute(found: Multiplier, first: Fit, second: Fit) -> Figure:
    """Left, loss against compute: runs, frontiers, their bands. Right, the multiplier at each loss, its interval."""
    figure, (left, right) = blank_figure(2)
    for name, fit, colour in zip((found.first, found.second), (first, second), COLOURS, strict=True):
        _frontier(left, name, fit, colour)
    left.set(xscale="log", xlabel="training compute, 6ND (FLOPs)", ylabel="loss (nats per token)")
    left.set_title(f"{found.first} and {found.second}", loc="left")
    at = np.array([row.loss_nats for row in found.rows])
    ratio = np.array([row.multiplier for row in found.rows])
    right.plot(at, ratio, color="black", marker="o", markersize=4, linewidth=1.2, label="multiplier")
    told = [(row.loss_nats, *row.interval) for row in found.rows if row.interval is not None]
    drawn = np.array([row for row in told if row[1] > 0 and math.isfinite(row[2])]).reshape(-1, 3)
    if len(drawn):
        right.fill_between(drawn[:, 0], drawn[:, 1], drawn[:, 2], color="0.85", linewidth=0, label="its 95 % interval")
    right.axhline(1.0, color="0.4", linewidth=0.8, linestyle="--", label="equal")
    right.set(xlabel="loss (nats per token)", ylabel=f"compute of {found.second} / {found.first}")
    right.invert_xaxis()  # to the right is more compute, as on the left
    right.set_title("Effective compute", loc="left")
    draw_legend(figure)
    return figure


def _frontier(axes: Axes, name: str, fit: Fit, colour: str) -> None:
    compute = fit.table.flops_6nd
    reach = np.geomspace(compute.min(), compute.max(), 80)
    axes.scatter(compute, fit.table.loss_nats, s=12, color=colour, alpha=0.5, linewidths=0)
    axes.plot(reach, fit.law.optimum(reach).loss_nats, color=colour, linewidth=1.6, label=f"{name}: frontier")
    if fit.samples is not None:
        low, high = interval(fit.samples.optimum(reach).loss_nats)
        axes.fill_between(reach, low, high, color=colour, alpha=0.2, linewidth=0)

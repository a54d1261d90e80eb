"""A design over the loss surface: planned and suggested runs, the compute-optimal frontier, N* of the budget asked."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from analysis.deciding.planned import Planned
from analysis.deciding.prior import Prior
from analysis.expected import Expected
from analysis.laws import FLOPS_PER_PARAM_TOKEN
from analysis.plots import COLOURS, HELD_OUT, blank_figure, draw_legend

POINTS, LEVELS = 160, 14
ROOM = 2.0  # beyond the runs, on every side
BEFORE, AFTER = "0.55", "black"


def design_figure(
    planned: Planned, prior: Prior, flops: float, suggested: Planned | None, now: Expected | None, then: Expected | None
) -> Figure:
    """Loss over parameters and tokens by the prior's law; the interval of N* at `flops` to expect, with and without the
    suggested runs, along the line of that budget.
    """
    figure, (axes,) = blank_figure(1)
    runs = planned if suggested is None else planned.joined(suggested)
    best = prior.law.optimum(flops)
    ends = [row["N*"].interval for row in (now, then) if row is not None]
    # an interval of no idea would leave nothing of the runs to be seen
    known = [n for pair in ends for n in pair if float(best.params) / 30 < n < float(best.params) * 30]
    sizes = np.array([*runs.params, float(best.params), *known])
    counts = np.array([*runs.tokens, float(best.tokens), *(flops / (FLOPS_PER_PARAM_TOKEN * n) for n in known)])
    n = np.geomspace(sizes.min() / ROOM, sizes.max() * ROOM, POINTS)
    d = np.geomspace(counts.min() / ROOM, counts.max() * ROOM, POINTS)
    loss = np.asarray(prior.law.predict(n[None], d[:, None]), np.float64)
    levels = np.exp(np.linspace(np.log(loss.min()), np.log(loss.max()), LEVELS))
    lines = axes.contour(n, d, loss, levels=levels, cmap=COLOURS, linewidths=0.8)
    axes.clabel(lines, fmt="%.3g", fontsize=7)
    budgets = np.geomspace(6 * n[0] * d[0], 6 * n[-1] * d[-1], POINTS)
    frontier = prior.law.optimum(budgets)
    axes.plot(frontier.params, frontier.tokens, "--", color="black", linewidth=1.2, label="compute-optimal frontier")
    axes.plot(n, flops / (FLOPS_PER_PARAM_TOKEN * n), ":", color="0.4", linewidth=1, label=f"{flops:.2g} FLOPs")
    for each, colour, width, label in (
        (now, BEFORE, 7, "N* to expect, planned runs"),
        (then, AFTER, 3, "N* to expect, with the suggested"),
    ):
        if each is not None:
            span = np.geomspace(*each["N*"].interval, 30)
            axes.plot(span, flops / (FLOPS_PER_PARAM_TOKEN * span), color=colour, linewidth=width, label=label,
                      solid_capstyle="butt")  # fmt: skip
    axes.plot(float(best.params), float(best.tokens), "D", color="white", markeredgecolor="black", zorder=5)
    axes.scatter(planned.params, planned.tokens, s=30, color="0.25", edgecolors="white", linewidths=0.5, zorder=4,
                 label=f"{len(planned)} runs planned")  # fmt: skip
    if suggested is not None:
        axes.scatter(suggested.params, suggested.tokens, s=46, marker="s", color=HELD_OUT, edgecolors="white",
                     linewidths=0.5, zorder=6, label=f"{len(suggested)} runs suggested, in their order")  # fmt: skip
        for k, (x, y) in enumerate(zip(suggested.params, suggested.tokens, strict=True)):
            axes.annotate(str(k + 1), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8, color=HELD_OUT)
    axes.set(xscale="log", yscale="log", xlim=(n[0], n[-1]), ylim=(d[0], d[-1]), xlabel="parameters N",
             ylabel="tokens D")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator())
        axis.set_major_formatter(EngFormatter(sep=" "))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(f"Where runs tell most of N*: loss (nats) by {prior.source}", loc="left")
    draw_legend(figure)
    return figure

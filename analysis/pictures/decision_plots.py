"""A decision as a figure: loss against size at each budget, the sizes that are as good, and how sure N* is."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from analysis.decision import Decision
from analysis.laws import FLOPS_PER_PARAM_TOKEN
from analysis.plots import blank_figure, draw_legend

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe & Ito 2008
REACH = 12.0  # times N*, to either side


def near_optimum(decision: Decision) -> Figure:
    """A curve a budget: loss above its best, in nats, over N; thick where within epsilon; N* with its 95 % interval."""
    figure, (axes,) = blank_figure(1)
    within = decision.near[0].within_nats
    unique = decision.limited[0].unique_tokens if decision.limited else None
    for i, (row, near) in enumerate(zip(decision.rows, decision.near, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        low, high = max(row.params / REACH, 1.0), min(row.params * REACH, row.flops / FLOPS_PER_PARAM_TOKEN)
        for (left, right), thick in (((low, high), 1.2), ((near.params_low, near.params_high), 3.5)):
            sizes = np.geomspace(max(left, low), min(right, high), 200)
            loss = decision.fit.law.predict(sizes, row.flops / (FLOPS_PER_PARAM_TOKEN * sizes), unique)
            named = f"{row.flops:.1e} FLOPs ({row.where})" if thick < 2 else None
            axes.plot(sizes, loss - row.loss_nats, color=colour, linewidth=thick, label=named)
        bars = None
        if row.params_interval is not None:
            bars = [[max(row.params - row.params_interval[0], 0)], [max(row.params_interval[1] - row.params, 0)]]
        at = -within * (0.4 + 0.35 * i)
        axes.errorbar(row.params, at, xerr=bars, fmt="D", markersize=5, color=colour, capsize=3, linewidth=1.2)
    axes.axhline(within, color="0.4", linewidth=0.8, linestyle="--", label=f"{within:g} nats above the best")
    axes.set(xscale="log", xlabel="parameters N, with tokens D = C / 6N", ylabel="loss above the best (nats)")
    axes.set_ylim(-within * (0.8 + 0.35 * len(decision.rows)), 8 * within)
    axes.xaxis.set_major_locator(LogLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())
    shown = ", N* and its 95 % interval below" if decision.fit.samples is not None else ", N* below"
    axes.set_title(f"How flat the optimum is: sizes as good are thick{shown}", loc="left")
    draw_legend(figure)
    return figure

"""Recall of planted facts against how often the training text holds them, as a figure."""

import numpy as np
from matplotlib.figure import Figure

from analysis.comparing.recall import Recall, cells_of
from analysis.plots import COLOURS, blank_figure, draw_legend
from analysis.words.summary import count


def recall_figure(result: Recall) -> Figure:
    """Recall against repeats, a line for each size (and token count), with Wilson intervals, and chance."""
    figure, (axes,) = blank_figure(1)
    points = sorted({(cell.params, cell.tokens) for cell in result.cells})
    several = len({tokens for _, tokens in points}) > 1
    for i, (params, tokens) in enumerate(points):
        cells = cells_of(result, params, tokens)
        colour = COLOURS(0.9 * i / max(1, len(points) - 1))
        shift = 1.05 ** (i - (len(points) - 1) / 2)  # lest bars hide each other
        x = np.array([cell.repeats for cell in cells]) * shift
        y = np.array([cell.recall for cell in cells])
        ends = np.array([cell.interval for cell in cells]).T
        named = f"{count(params)} parameters" + (f", {count(tokens)} tokens" if several else "")
        axes.errorbar(x, y, yerr=np.abs(ends - y), fmt="o-", color=colour, markersize=4.5, linewidth=1.3, capsize=2,
                      label=named)  # fmt: skip
    axes.axhline(result.chance, color="0.35", linestyle=":", linewidth=1.2, label="guessing")
    axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel="times that the training text holds the fact")
    axes.set_ylabel("share of facts recalled")
    axes.set_title("Recall of planted facts, 95 % intervals", loc="left")
    draw_legend(figure)
    return figure

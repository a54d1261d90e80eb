"""Figures of groups side by side: loss against parameters and tokens, loss by length of context."""

from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from analysis.comparing.compared import Comparison, Point, of_unit
from analysis.plots import COLOURS, blank_figure, draw_legend
from analysis.words.summary import count

MARKERS = "osD^vP*X"
FAINT = 0.3  # lines beside the best


def losses(result: Comparison) -> Figure:
    """A row a unit: loss against N, a line a token count, the most of them strong; against D, a line a size, that of
    the lowest loss strong.
    """
    rows = of_unit(result)
    figure = Figure(figsize=(8.6, 1.6 + 2.9 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), 2, squeeze=False, sharex="col")
    for (left, right), (unit, groups) in zip(panels, rows, strict=True):
        for axes in (left, right):
            axes.grid(True, which="major", color="0.9", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set(xscale="log", yscale="log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        right.sharey(left)
        right.tick_params(labelleft=False)
        left.set_ylabel(unit if unit.startswith("bits") else unit.replace(", ", ",\n"))
        for group in groups:
            mine = [point for point in result.points if point.group == group]
            best = result.best(group)
            _lines(left, result, mine, "params", "tokens", best.tokens, label=True)
            _lines(right, result, mine, "tokens", "size", best.size, label=False)
    for axes, name in zip(panels[-1], ("params", "tokens"), strict=True):
        values = [getattr(point, name) for point in result.points]
        axes.set_xlim(min(values) / 1.4, max(values) * 1.4)
        _counts(axes)
    counted = any(point.size.startswith("order") for point in result.points)
    panels[-1][0].set_xlabel("parameters N" + " (of an n-gram: stored counts)" * counted)
    panels[-1][1].set_xlabel("training tokens D")
    panels[0][0].set_title("Loss against N, most tokens strong", loc="left", fontsize=10)
    panels[0][1].set_title("Loss against D, best size strong", loc="left", fontsize=10)
    draw_legend(figure)
    return figure


def contexts(result: Comparison) -> Figure:
    """Loss of the best size of each causal group against tokens of context, with standard errors over documents."""
    figure, (axes,) = blank_figure(1)
    tokens = {context.best.tokens for context in result.contexts}
    for context in result.contexts:
        best = context.best
        colour, marker = _style(result, best.group)
        named = f"{best.group}, {best.size}" + ("" if len(tokens) == 1 else f" at {count(best.tokens)} tokens")
        axes.errorbar(context.high, context.bits, yerr=np.nan_to_num(context.stderr), color=colour, marker=marker,
                      markersize=4.5, linewidth=1.4, capsize=2, label=named)  # fmt: skip
    axes.set(xscale="log", ylabel="held-out loss (bits per token)")
    axes.set_xlabel("tokens of context, up to")
    axes.xaxis.set_major_locator(LogLocator(base=2))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    at = f" at {count(tokens.pop())} tokens" if len(tokens) == 1 else ""
    axes.set_title(f"Loss by length of context, best size of each {result.by}{at}", loc="left")
    draw_legend(figure)
    return figure


def _style(result: Comparison, group: str) -> tuple[tuple[float, ...], str]:
    place = result.groups.index(group)
    return COLOURS(0.9 * place / max(1, len(result.groups) - 1)), MARKERS[place % len(MARKERS)]


def _lines(
    axes: Axes, result: Comparison, mine: list[Point], x: str, apart: str, strong: object, *, label: bool
) -> None:
    """The points of one group over their `x`, a line for each value of `apart`."""

    def key(point: Point) -> tuple:
        return str(getattr(point, apart)), getattr(point, x)

    for _, points in groupby(sorted(mine, key=key), lambda point: getattr(point, apart)):
        line = list(points)
        is_strong = getattr(line[0], apart) == strong
        colour, marker = _style(result, line[0].group)
        bars = np.nan_to_num([point.stderr for point in line])
        axes.errorbar([getattr(point, x) for point in line], [point.loss for point in line], yerr=bars, color=colour,
                      marker=marker, markersize=4 if is_strong else 2.5, linewidth=1.5 if is_strong else 0.8,
                      alpha=1.0 if is_strong else FAINT, zorder=3 if is_strong else 2,
                      label=line[0].group if label and is_strong else None)  # fmt: skip


def _counts(axes: Axes) -> None:
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0) if high > 20 * low else (1.0, 2.0, 4.0, 7.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())

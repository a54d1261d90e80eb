"""Fits to figures: loss against compute, residuals, IsoFLOP view. Figures are built without pyplot's global state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from analysis.backtest import Backtest
from analysis.errors import InputError
from analysis.fit import Fit
from analysis.laws import FLOPS_PER_PARAM_TOKEN, Array
from analysis.solving.identify import distinct
from analysis.uncertainty import interval
from analysis.words.summary import count

COLOURS = colormaps["viridis"]  # ordered in lightness: readable by the colour-blind and in grey
FEW_SIZES = 8  # as many curves have a legend entry each; more share a colour bar
HELD_OUT = "#d55e00"  # vermilion of Okabe & Ito 2008, apart from every colour of viridis


def loss_against_compute(fit: Fit, backtest: Backtest | None = None) -> Figure:
    """Runs coloured by size, the law of each size, the compute-optimal frontier with its band, held-out runs."""
    figure, (axes,) = blank_figure(1)
    compute, sizes = fit.table.flops_6nd, _shown_sizes(fit.table.params)
    few = distinct(fit.table.params) <= FEW_SIZES
    norm = LogNorm(fit.table.params.min() / 1.05, fit.table.params.max() * 1.3)
    colours = COLOURS(norm(fit.table.params))
    reach = np.geomspace(compute.min() / 1.5, compute.max() * 10, 120)
    best = fit.law.optimum(reach)
    axes.plot(reach, best.loss_nats, color="black", linestyle="--", linewidth=1.4, label="compute-optimal frontier")
    if fit.samples is not None:
        low, high = interval(fit.samples.optimum(reach).loss_nats)
        axes.fill_between(reach, low, high, color="0.82", linewidth=0, label="its 95 % interval")
    tokens = fit.table.tokens
    for size in sizes:
        span = np.geomspace(tokens.min() / 1.3, tokens.max() * 1.3, 60)
        named = f"law at {count(size)} parameters" if few else None
        colour = COLOURS(norm(size))
        line = FLOPS_PER_PARAM_TOKEN * size * span
        axes.plot(line, fit.law.predict(size, span), color=colour, linewidth=1.1, label=named)
    axes.scatter(compute, fit.table.loss_nats, c=colours, s=26, edgecolors="white", linewidths=0.5, zorder=3)
    if backtest is not None:
        for i, row in enumerate(backtest.rows):
            named = "held out: measured" if i == 0 else None
            axes.scatter(row.flops, row.measured, s=120, facecolors="none", edgecolors=HELD_OUT, linewidths=1.6,
                         zorder=4, label=named)  # fmt: skip
            ends = row.interval or (row.predicted, row.predicted)
            bars = [[max(row.predicted - ends[0], 0.0)], [max(ends[1] - row.predicted, 0.0)]]
            axes.errorbar(row.flops, row.predicted, yerr=bars, fmt="x", color=HELD_OUT, capsize=3, zorder=4,
                          label="held out: predicted, 95 %" if i == 0 else None)  # fmt: skip
    axes.axvspan(compute.max(), reach[-1], color="0.95", zorder=0, linewidth=0)
    axes.annotate("extrapolation", (compute.max(), 0.985), xycoords=("data", "axes fraction"), xytext=(6, 0),
                  textcoords="offset points", va="top", fontsize=8, color="0.35")  # fmt: skip
    axes.set(xscale="log", xlim=(reach[0], reach[-1]), ylabel="held-out loss (nats per token)")
    axes.set_xlabel("training compute, 6ND (FLOPs)")
    losses = fit.table.loss_nats
    room = 0.08 * (losses.max() - losses.min())
    axes.set_ylim(min(losses.min(), float(best.loss_nats.min())) - room, losses.max() + 2 * room)
    axes.set_title(f"Loss against compute: {len(fit.table)} runs and the fitted law{_text(fit)}", loc="left")
    if not few:
        draw_colour_bar(figure, axes, norm)
    draw_legend(figure)
    return figure


def residuals(fit: Fit) -> Figure:
    """Measured over predicted loss, in per cent, against compute and against size."""
    figure, panels = blank_figure(2)
    percent = 100 * np.expm1(fit.residuals)
    norm = LogNorm(fit.table.params.min() / 1.05, fit.table.params.max() * 1.3)
    colours = COLOURS(norm(fit.table.params))
    median = 100 * fit.residual_median
    for axes, x, label in (
        (panels[0], fit.table.flops_6nd, "training compute, 6ND (FLOPs)"),
        (panels[1], fit.table.params, "parameters N"),
    ):
        axes.axhspan(
            -median,
            median,
            color="0.88",
            linewidth=0,
            label="half of the runs lie within" if axes is panels[0] else None,
        )
        axes.axhline(0, color="black", linewidth=0.8)
        axes.scatter(x, percent, c=colours, s=26, edgecolors="white", linewidths=0.5, zorder=3)
        axes.set(xscale="log", xlabel=label)
    panels[0].set_ylabel("measured / predicted loss - 1 (%)")
    limit = 1.15 * max(float(np.abs(percent).max()), 0.01)
    panels[0].set_ylim(-limit, limit)
    panels[1].sharey(panels[0])
    panels[1].tick_params(labelleft=False)
    _counts(panels[1])
    panels[0].set_title(f"Residuals of the fit: median {median:.2g} %", loc="left")
    draw_colour_bar(figure, panels[1], norm)
    draw_legend(figure)
    return figure


def isoflop(fit: Fit) -> Figure:
    """The law's loss against N at budgets over the fitted range and at ten times its end; minima with intervals."""
    figure, (axes,) = blank_figure(1)
    compute = fit.table.flops_6nd
    inside = np.geomspace(np.quantile(compute, 0.1), compute.max(), 5)
    budgets = np.append(inside, 10 * compute.max())
    best = fit.law.optimum(budgets)
    norm = LogNorm(budgets[0] / 1.05, budgets[-1] * 2)
    left = min(fit.table.params.min(), float(best.params.min())) / 2.0
    right = max(fit.table.params.max(), float(best.params.max())) * 2.5
    span = np.geomspace(left, right, 160)
    drawn = None if fit.samples is None else fit.samples.optimum(budgets)
    # Grids seldom hold runs of one budget: each run is shown at the nearest, its own residual above or below the curve.
    nearest = np.argmin(np.abs(np.log(compute[:, None] / inside)), axis=1)
    highest = 0.0
    for i, budget in enumerate(budgets):
        colour, beyond = COLOURS(norm(budget)), budget > compute.max() * 1.001
        curve = fit.law.predict(span, budget / (FLOPS_PER_PARAM_TOKEN * span))
        named = f"{budget:.1e} FLOPs" + (" (extrapolated)" if beyond else "")
        axes.plot(span, curve, color=colour, linewidth=1.3, linestyle=":" if beyond else "-", label=named)
        mine = nearest == i
        moved = fit.law.predict(fit.table.params, budget / (FLOPS_PER_PARAM_TOKEN * fit.table.params))
        measured = (moved * np.exp(fit.residuals))[mine]
        axes.scatter(fit.table.params[mine], measured, color=colour, s=26, edgecolors="white", linewidths=0.5, zorder=3)
        highest = max(highest, measured.max(initial=0.0))
        bars = None
        if drawn is not None:
            low, high = interval(drawn.params[:, i])
            bars = [[max(best.params[i] - low, 0.0)], [max(high - best.params[i], 0.0)]]
        named = None if i else "minimum N*" + (", 95 % interval" if bars else "")
        axes.errorbar(best.params[i], best.loss_nats[i], xerr=bars, fmt="D", markersize=5, color="black",
                      markerfacecolor=colour, capsize=3, linewidth=1, zorder=4, label=named)  # fmt: skip
    axes.scatter([], [], color="0.5", s=26, label="runs, moved along the law\nto the nearest budget")
    axes.set(xscale="log", xlim=(left, right), xlabel="parameters N, with tokens D = C / 6N",
             ylabel="loss (nats per token)")  # fmt: skip
    _counts(axes)
    room = 0.06 * (highest - best.loss_nats.min())
    axes.set_ylim(best.loss_nats.min() - room, highest + room)
    axes.set_title(f"Which size for a budget: the fitted law at constant compute{_text(fit)}", loc="left")
    draw_legend(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG, or an SVG where the name ends so. Raises InputError when the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        figure.savefig(part, format=path.suffix.removeprefix(".") or "png", dpi=150)
        part.replace(path)
    except OSError as error:
        raise InputError(
            f"figures: {str(path)!r} cannot be written ({error.strerror}); choose another folder"
        ) from None
    return path


def save_both(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG, for a page, and as SVG, for print. Raises InputError as `save` does."""
    return [save(figure, folder / f"{name}{suffix}") for suffix in (".png", ".svg")]


def file_part(name: str) -> str:
    """A name as a part of a file's."""
    return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)[:60]


def blank_figure(panels: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(8.6, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(1, panels, i + 1) for i in range(panels)]
    for each in axes:
        each.grid(True, which="major", color="0.9", linewidth=0.6)
        each.set_axisbelow(True)
        each.spines[["top", "right"]].set_visible(False)
        each.yaxis.set_major_locator(MaxNLocator(7))
    return figure, axes


def _text(fit: Fit) -> str:
    """What the curves of a law that knows repeats take for granted, beside runs that may repeat text."""
    return ", text never repeated" if fit.law.models_repeats else ""


def _shown_sizes(params: Array) -> Array:
    """Every size where there are few, otherwise seven spread over them."""
    if distinct(params) <= FEW_SIZES:
        ordered = np.sort(params)
        return ordered[np.concatenate([[True], np.diff(np.log(ordered)) > 0.01])]
    return np.geomspace(params.min(), params.max(), 7)


def _counts(axes: Axes) -> None:
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if _decades(axes) < 2.6 else (1.0, 3.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _decades(axes: Axes) -> float:
    low, high = axes.get_xlim()
    return float(np.log10(high / low))


def draw_colour_bar(figure: Figure, axes: Axes, norm: Any) -> None:
    bar = figure.colorbar(ScalarMappable(norm=norm, cmap=COLOURS), ax=axes, pad=0.02)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    bar.ax.yaxis.set_major_formatter(EngFormatter(sep=" "))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label("parameters N")


def draw_legend(figure: Figure) -> None:
    """Of all that is labelled in a figure, if anything is."""
    if not any(axes.get_legend_handles_labels()[1] for axes in figure.axes):
        return
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)

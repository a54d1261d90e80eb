"""Loss that rounded weights add, as text, as JSON and as a figure."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from analysis.comparing.precision import QUADRATIC, PrecisionFit
from analysis.laws import MOST_LOG, Array
from analysis.plots import COLOURS, FEW_SIZES, blank_figure, draw_colour_bar, draw_legend
from analysis.solving.identify import distinct
from analysis.words.summary import columns, count, number, table_lines, warning_lines

FORM = "added = C_T D^gamma_D / N^gamma_N exp(-P / gamma_P), P in bits"


def precision_text(result: PrecisionFit) -> str:
    """What each precision adds, then the law with its intervals, or why there is none, then what to be warned of."""
    rows = []
    for level in result.levels:
        ratio = "-" if level.ratio is None else f"{level.ratio:.2f} +- {level.ratio_stderr:.2f}"
        rows.append((f"int{level.bits}", str(level.runs), str(level.told),
                     *(f"{value:+.2g}" for value in (level.least, level.median, level.greatest)), ratio))  # fmt: skip
    head = ("precision", "runs", "told from 0", "least added", "median", "greatest (nats)", "measured / law")
    scale = "of an output" if result.group is None else f"of {result.group} inputs of an output"
    lines = [
        *table_lines(result.table),
        f"added  loss with rounded weights less loss without, on {result.task!r}; one scale for the weights {scale}",
        "",
        *columns(head, rows),
        "",
    ]
    if result.law is None:
        return "\n".join([*lines, f"no law: {result.reason}", *warning_lines(result.warnings)])
    lines.append(f"law  {FORM}")
    cells = []
    for name, value in parameters(result).items():
        ends = result.intervals.get(name)
        cells.append(
            (name, number(value, ends), f"{number(ends[0], ends)} to {number(ends[1], ends)}" if ends else "-")
        )
    lines += columns(("parameter", "value", "95 % interval"), cells)
    lines += [
        "",
        f"scatter  {100 * result.scatter:.2g} % of runs about the law, beside the errors of measurement",
        f"intervals  {result.bootstrap} resamples, {result.resampling}",
        "gamma_D - gamma_N is 0 where D / N alone matters; gamma_P is "
        f"{QUADRATIC:.3f} where loss is quadratic in the weights' errors",
        *warning_lines(result.warnings),
    ]
    return "\n".join(lines)


def parameters(result: PrecisionFit) -> dict[str, float]:
    """Of the law, if there is one; with the difference of its exponents."""
    law = result.law
    if law is None:
        return {}
    return {
        "C_T": math.exp(min(max(law.log_C_T, -MOST_LOG), MOST_LOG)),
        "gamma_D": law.gamma_D,
        "gamma_N": law.gamma_N,
        "gamma_D - gamma_N": law.gamma_D - law.gamma_N,
        "gamma_P": law.gamma_P,
    }


def precision_json(result: PrecisionFit) -> dict[str, Any]:
    """The same in full precision, with the points."""
    points = result.points
    return {
        "task": result.task,
        "group": result.group,
        "runs": len(result.table),
        "identifiable": result.law is not None,
        "reason": result.reason,
        "parameters": parameters(result) or None,
        "intervals": {name: list(ends) for name, ends in result.intervals.items()},
        "scatter": result.scatter if result.law else None,
        "levels": [asdict(level) for level in result.levels],
        "points": [
            dict(zip(("params", "tokens", "bits", "added", "stderr"), map(float, row), strict=True))
            for row in zip(points.params, points.tokens, points.bits, points.added, points.stderr, strict=True)
        ],
        "bootstrap": result.bootstrap,
        "resampling": result.resampling,
        "excluded": [asdict(row) for row in result.table.excluded],
        "notes": list(result.table.notes),
        "warnings": list(result.warnings),
    }


def precision_figure(result: PrecisionFit) -> Figure:
    """Loss added against tokens per parameter: a panel a precision, a colour a size, the law where there is one.

    The axes are logarithmic: a run that adds nothing, or less, or less than the axis shows, is a triangle at its foot.
    """
    points, bits = result.points, [level.bits for level in result.levels]
    figure, panels = blank_figure(len(bits))
    figure.set_size_inches(max(8.6, 2.9 * len(bits)), 4.8)
    norm = LogNorm(points.params.min() / 1.05, points.params.max() * 1.3)
    low, high = _reach(result)
    for axes, precision in zip(panels, bits, strict=True):
        here = points.bits == precision
        for size in np.unique(points.params):
            mine = here & (points.params == size)
            order = np.argsort(points.tokens[mine])
            tokens, added, stderr = (x[mine][order] for x in (points.tokens, points.added, points.stderr))
            _draw(axes, tokens / size, added, stderr, low, COLOURS(norm(size)))
            if result.law is not None and mine.any():
                span = np.geomspace(tokens[0] / 1.15, tokens[-1] * 1.15, 30)
                axes.plot(span / size, result.law(size, span, precision), color=COLOURS(norm(size)), linewidth=1.2)
            elif mine.any():
                shown = added > low
                axes.plot((tokens / size)[shown], added[shown], color=COLOURS(norm(size)), linewidth=0.8, linestyle=":")
        ratio = points.tokens / points.params
        axes.set(xscale="log", yscale="log", ylim=(low / 1.6, high * 2), xlim=(ratio.min() / 1.5, ratio.max() * 1.5))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(LogLocator(numticks=12))
        axes.set_title(f"int{precision}" + (f", {result.group} inputs a scale" if result.group else ""), fontsize=10)
        axes.set_xlabel("tokens per parameter, D / N")
        if axes is not panels[0]:
            axes.tick_params(labelleft=False)
    panels[0].set_ylabel("loss added by rounding (nats per token)")
    figure.suptitle("Loss that rounded weights add, against tokens per parameter", fontsize=12, x=0.02, ha="left")
    _explain(figure, panels, result, norm, foot=bool((points.added <= low).any()))
    return figure


def _reach(result: PrecisionFit) -> tuple[float, float]:
    """The least and the greatest added loss to show: noise below what is told from zero does not stretch the axis."""
    points = result.points
    shown = points.added[points.told] if points.told.any() else points.added[points.added > 0]
    if shown.size == 0:
        return 1e-6, 1e-3
    return float(shown.min()) / 1.5, float(shown.max())


def _draw(axes: Axes, ratio: Array, added: Array, stderr: Array, low: float, colour: Any) -> None:
    """The runs of one size with their standard errors; those beyond the foot of the axis at it."""
    shown = added > low
    bars = np.stack([np.minimum(stderr, added - low / 1.6).clip(0), stderr])
    axes.errorbar(ratio[shown], added[shown], yerr=bars[:, shown], fmt="o", markersize=4.5, color=colour, linewidth=1,
                  markeredgecolor="white", markeredgewidth=0.4, zorder=3)  # fmt: skip
    axes.scatter(ratio[~shown], np.full((~shown).sum(), low / 1.25), marker="v", s=24, facecolors="none",
                 edgecolors=[colour], linewidths=1.1, zorder=3)  # fmt: skip


def _explain(figure: Figure, panels: Any, result: PrecisionFit, norm: LogNorm, *, foot: bool) -> None:
    """A legend entry a size where they are few, else a colour bar; what lines and triangles are."""
    sizes = np.unique(result.points.params)
    if distinct(result.points.params) <= FEW_SIZES:
        for size in sizes:
            panels[0].plot([], [], "o-", color=COLOURS(norm(size)), markersize=4.5, label=f"{count(size)} parameters")
    else:
        draw_colour_bar(figure, panels[-1], norm)
    lines = "law" if result.law is not None else "no law: runs of one size"
    style = "-" if result.law is not None else ":"
    handles = [Line2D([], [], color="0.35", linestyle=style, label=f"lines: {lines}; bars: one standard error")]
    if foot:
        words = "at the foot: adds nothing, less, or below the axis"
        handles.append(Line2D([], [], marker="v", linestyle="", markerfacecolor="none", color="0.35", label=words))
    for handle in handles:
        panels[0].add_line(handle)
    draw_legend(figure)

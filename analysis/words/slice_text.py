"""Groups of documents as text, as JSON and as a figure."""

from dataclasses import asdict
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.comparing.gaps import LEVEL
from analysis.comparing.slices import POWER, SlicedFit, SliceGroup
from analysis.laws import FLOPS_PER_PARAM_TOKEN
from analysis.plots import COLOURS, blank_figure, draw_legend
from analysis.words.summary import columns, count, number, table_lines, warning_lines

MOST_PAIRS = 20  # shown, those that widen first
CURVE_POINTS = 80


def slices_text(result: SlicedFit) -> str:
    """Each group and its law, then the gaps of all pairs, then what to be warned of."""
    rows = []
    for group in result.groups:
        ends = group.interval
        span = f"{number(ends[0], ends)} to {number(ends[1], ends)}" if ends else "-"
        sizes = ["-" if value is None else count(value) for value in (group.documents, group.tokens)]
        rows.append(
            (group.name, *sizes, str(len(group.table)), f"{group.smallest:.4f}", f"{group.largest:.4f}", group.form,
             number(group.exponent, ends), span)
        )  # fmt: skip
    head = ("group", "documents", "tokens", "runs", "smallest", "largest", "form", "exponent", "95 % interval")
    lines = [*table_lines(result.table), "", *columns(head, rows), ""]
    lines.append(
        "smallest, largest: loss in nats at the least and the most compute; exponent: c of L - L0 ~ C^-c along the "
        "frontier of a law,"
    )
    lines.append(f"c of L ~ C^-c for a {POWER}")
    lines += [f"{group.name}: no law, {group.why}" for group in result.groups if group.why]
    if result.gaps:
        shown = sorted(result.gaps, key=lambda gap: gap.p_adjusted)[:MOST_PAIRS]
        cells = [
            (f"{gap.first} - {gap.second}", f"{gap.smallest_nats:+.4f}", f"{gap.largest_nats:+.4f}",
             f"{gap.smallest_ratio:.4f}", f"{gap.largest_ratio:.4f}", f"{gap.p_adjusted:.2g}",
             "yes" if gap.widens else "no")
            for gap in shown
        ]  # fmt: skip
        head = ("groups", "gap, smallest", "largest (nats)", "ratio, smallest", "largest", "p (Holm)", "widens")
        lines += ["", *columns(head, cells), ""]
        lines.append(
            f"A gap widens where its slope, as N and D grow alike, is above zero both in nats and as a ratio, at "
            f"{LEVEL:.0%} over all {len(result.gaps)} pairs"
        )
        lines.append("(two-sided, Holm; errors clustered by trajectory, Bell & McCaffrey).")
    return "\n".join([*lines, *warning_lines(result.warnings)])


def slices_json(result: SlicedFit) -> dict[str, Any]:
    """The same in full precision."""
    return {
        "slice": result.field,
        "level": LEVEL,
        "runs": len(result.table),
        "groups": [_group_json(group) for group in result.groups],
        "gaps": [asdict(gap) for gap in result.gaps],
        "excluded": [asdict(row) for row in result.table.excluded],
        "notes": list(result.table.notes),
        "warnings": list(result.warnings),
    }


def _group_json(group: SliceGroup) -> dict[str, Any]:
    fitted = group.fit
    return {
        "group": group.name,
        "documents": group.documents,
        "tokens": group.tokens,
        "runs": len(group.table),
        "form": group.form,
        "why": group.why,
        "parameters": None if fitted is None else {k: float(v) for k, v in fitted.law.parameters.items()},
        "intervals": None if fitted is None else {k: list(v) for k, v in fitted.intervals.items()},
        "exponent": group.exponent,
        "interval": None if group.interval is None else list(group.interval),
        "smallest": group.smallest,
        "largest": group.largest,
        "warnings": [] if fitted is None else list(fitted.warnings),
    }


def loss_by_group(result: SlicedFit) -> Figure:
    """Loss of each group against compute: the runs with their standard errors, and the law or the line of each."""
    figure, (axes,) = blank_figure(1)
    for i, group in enumerate(result.groups):
        colour = COLOURS(0.9 * i / max(1, len(result.groups) - 1))
        compute = group.table.flops_6nd
        bars = np.nan_to_num(group.stderr)
        axes.errorbar(compute, group.table.loss_nats, yerr=bars, fmt="o", markersize=4.5, color=colour, linewidth=1,
                      markeredgecolor="white", markeredgewidth=0.4, zorder=3)  # fmt: skip
        reach = np.geomspace(compute.min(), compute.max(), CURVE_POINTS)
        if group.fit is None:
            curve = np.exp([group.line(float(np.log(flops))) for flops in reach])
            named = f"{group.name}: L ~ C^-{group.exponent:.3f}"
        else:
            curve = group.fit.law.optimum(reach).loss_nats
            named = f"{group.name}: frontier, L - L0 ~ C^-{group.exponent:.3f}"
        axes.plot(reach, curve, color=colour, linewidth=1.3, linestyle="-" if group.fit else "--", label=named)
    axes.set(xscale="log", ylabel="held-out loss (nats per token)")
    axes.set_xlabel(f"training compute, {FLOPS_PER_PARAM_TOKEN:.0f}ND (FLOPs); bars: standard error over documents")
    axes.set_title(f"Loss by {result.field} against compute", loc="left")
    draw_legend(figure)
    return figure

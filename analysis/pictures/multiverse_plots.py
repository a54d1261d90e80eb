"""The multiverse as a specification curve (Simonsohn et al. 2020): N* of every universe, and what each chose."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from analysis.multiverse import Multiverse

DEFAULT, OTHERS, BAND = "#d55e00", "#0072b2", "0.88"  # Okabe & Ito 2008
NAMES = {"params": {"all": "all", "matrices": "no embeddings"}, "flops": {"6nd": "6ND", "exact": "exact"}}


def specification_curve(found: Multiverse) -> Figure:
    """Above, N* in all parameters of each universe, in order; below, a mark for every choice that it made."""
    rows = [(c.factor, c.choice) for c in found.choices]
    figure = Figure(figsize=(8.6, 3.4 + 0.21 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.0, 0.21 * max(len(rows), 1)))
    at = np.arange(len(found.universes))
    sizes = np.array([u.params_all for u in found.universes], np.float64)
    default = np.array([u.default for u in found.universes], bool)
    if found.params_interval is not None:
        above.axhspan(*found.params_interval, color=BAND, linewidth=0, label="95 % interval of the default")
    above.scatter(at[~default], sizes[~default], s=9, color=OTHERS, label="a combination of choices")
    above.scatter(at[default], sizes[default], s=70, marker="D", color=DEFAULT, zorder=3, label="the default")
    above.axhline(found.params[1], color="0.3", linewidth=0.8, linestyle="--", label="median")
    above.set(yscale="log", ylabel="N* (all parameters)")
    decades = np.log10(above.get_ylim()[1] / above.get_ylim()[0])
    above.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.6 else (1.0,)))
    above.yaxis.set_major_formatter(EngFormatter(sep=" "))
    above.yaxis.set_minor_formatter(NullFormatter())
    above.set_title(f"N* at {found.flops:.2e} FLOPs under {len(at)} combinations of choices", loc="left")
    for k, (factor, choice) in enumerate(rows):
        chose = np.array([u.choice(factor) == choice for u in found.universes], bool)
        below.scatter(at[chose], np.full(chose.sum(), k), marker="|", s=16, linewidths=0.8, color=OTHERS)
        both = chose & default
        below.scatter(at[both], np.full(both.sum(), k), marker="D", s=22, color=DEFAULT, zorder=3)
    below.set_yticks(
        range(len(rows)), [f"{factor}: {NAMES.get(factor, {}).get(choice, choice)}" for factor, choice in rows]
    )
    below.tick_params(axis="y", labelsize=7, length=0)
    below.set_ylim(len(rows) - 0.5, -0.5)
    below.set_xlabel("combinations, from the smallest N* to the largest")
    breaks = [k - 0.5 for k in range(1, len(rows)) if rows[k][0] != rows[k - 1][0]]
    for line in breaks:
        below.axhline(line, color="0.85", linewidth=0.8)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, axis="y", which="major", color="0.93", linewidth=0.5)
        axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure

"""Figures of abilities: metrics of a task beside one another, its law in two stages, prompts against fine-tuning."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from analysis.emergence import Emergence, Staged, TaskAnswer
from analysis.plots import COLOURS, FEW_SIZES, HELD_OUT, blank_figure, draw_colour_bar, draw_legend, file_part
from analysis.skills.abilities import Ability, Metric, scale_of
from analysis.skills.prompting import Prompting
from analysis.skills.sharpness import Sharpness
from analysis.solving.identify import distinct
from analysis.words.summary import count

LABELS = {"params": "parameters N", "tokens": "tokens D", "flops": "training compute, 6ND (FLOPs)",
          "loss": "loss (nats per token)"}  # fmt: skip
NAMES = {"accuracy": "accuracy", "exact_match": "exact match", "correct_prob": "probability of the right option",
         "log_prob": "log-probability of the answer (nats)", "log_prob_per_byte": "log-probability a byte (nats)",
         "token_edit_distance": "token edit distance", "brier": "Brier score", "perplexity": "perplexity"}  # fmt: skip
PANELS = ("accuracy", "exact_match", "token_edit_distance", "brier", "log_prob", "log_prob_per_byte", "correct_prob",
          "perplexity")  # fmt: skip
MOST_PANELS = 5
PANEL_WIDTH = 3.4  # inches
FORMS = ("#0072b2", "#009e73")  # Okabe & Ito 2008


def ability_figures(result: Emergence) -> Mapping[str, Figure]:
    """Two figures a task, by name: its metrics over the scale, and its law where it has one."""
    found: dict[str, Figure] = {}
    for answer in result.tasks:
        name = file_part(answer.ability.task)
        found[name] = metrics_figure(answer.ability, result.against, answer.sharpness)
        if answer.laws:
            found[f"{name}_two_stages"] = law_figure(answer)
    return found


def metrics_figure(ability: Ability, against: str, tested: Sharpness | None = None) -> Figure:
    """A panel a metric of the same outputs, each with 95 % intervals and what guessing gets."""
    names = [ability.main.name, *(name for name in PANELS if name in ability.metrics and name != ability.main.name)]
    names = [name for name in names if name != "log_prob_per_byte" or "log_prob" not in names][:MOST_PANELS]
    figure, panels = blank_figure(len(names))
    figure.set_size_inches(max(6.4, PANEL_WIDTH * len(names)), 4.6)
    params = ability.table.params
    norm = LogNorm(params.min() / 1.05, params.max() * 1.3)
    few = distinct(params) <= FEW_SIZES
    jumps = {} if tested is None else {jump.metric: jump for jump in (tested.main, tested.continuous) if jump}
    for axes, name in zip(panels, names, strict=True):
        metric = ability.metrics[name]
        _draw_metric(axes, ability, metric, against, norm)
        verdict = f"\n{jumps[name].verdict}" if name in jumps else ""
        better = "lower is better" if metric.lower_is_better else "higher is better"
        axes.set_title(f"{NAMES.get(name, name)}\n({better}){verdict}", fontsize=9)
        if metric.chance is not None:
            axes.axhline(metric.chance, color="0.35", linestyle=":", linewidth=1.2)
    if few:
        for size in np.unique(params):
            panels[0].plot([], [], "o", color=COLOURS(norm(size)), markersize=4.5, label=f"{count(size)} parameters")
    else:
        draw_colour_bar(figure, panels[-1], norm)
    if any(ability.metrics[name].chance is not None for name in names):
        panels[0].plot([], [], color="0.35", linestyle=":", linewidth=1.2, label="guessing")
    items = f", {ability.items} items" if ability.items else ""
    figure.suptitle(f"{_plain(ability.task)}: the same outputs by {len(names)} metrics{items}" if len(names) > 1
                    else f"{_plain(ability.task)}{items}", fontsize=12, x=0.02, ha="left")  # fmt: skip
    draw_legend(figure)
    return figure


def _draw_metric(axes: Axes, ability: Ability, metric: Metric, against: str, norm: LogNorm) -> None:
    """Points with intervals, the runs of one size joined where there are several."""
    table = ability.table
    x = scale_of(table, against)
    for size in np.unique(table.params):
        mine = np.flatnonzero(table.params == size)
        mine = mine[np.argsort(x[mine], kind="stable")]
        colour = COLOURS(norm(size))
        value = metric.value[mine]
        bars = np.nan_to_num(np.stack([value - metric.low[mine], metric.high[mine] - value]).clip(0))
        axes.errorbar(x[mine], value, yerr=bars if bars.any() else None, fmt="o", color=colour, markersize=4.5,
                      linewidth=1.0, capsize=2, markeredgecolor="white", markeredgewidth=0.4)  # fmt: skip
        if against != "loss":  # seeds of one scale differ in their loss
            at = np.unique(x[mine])
            axes.plot(at, [value[x[mine] == each].mean() for each in at], color=colour, linewidth=1.0)
    if against == "loss":
        axes.invert_xaxis()
    else:
        axes.set_xscale("log")
        _counts(axes, against)
    if metric.name == "perplexity" and metric.value.max() > 20 * metric.value.min():
        axes.set_yscale("log")
    axes.set_xlabel(LABELS[against], fontsize=9)


def _counts(axes: Axes, against: str) -> None:
    low, high = axes.get_xlim()
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(LogLocator(numticks=5) if high > 100 * low else LogLocator(subs=(1.0, 3.0)))
    if against != "flops":
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))


def law_figure(answer: TaskAnswer) -> Figure:
    """Left, loss to score by either form; right, what both stages predict of runs held out against what they scored."""
    figure, (left, right) = blank_figure(2)
    figure.set_size_inches(9.6, 4.8)
    best = answer.laws[0].stages
    table, metric = best.table, answer.ability.main
    loss = table.loss_nats
    span = np.linspace(loss.min() - 0.15 * np.ptp(loss), loss.max() + 0.05 * np.ptp(loss), 120)
    for colour, style, each in zip(FORMS, ("-", "--"), answer.laws, strict=False):
        score, ends = each.stages.at_loss(span)
        left.plot(span, score, color=colour, linestyle=style, linewidth=1.5, label=f"{each.stages.form} form")
        if ends is not None and each is answer.laws[0]:
            left.fill_between(span, *ends, color=colour, alpha=0.15, linewidth=0, label="its 95 % interval")
    bars = np.nan_to_num(np.stack([metric.value - metric.low, metric.high - metric.value]).clip(0))
    norm = LogNorm(table.params.min() / 1.05, table.params.max() * 1.3)
    if bars.any():
        left.errorbar(loss, metric.value, yerr=bars, fmt="none", color="0.6", linewidth=0.8, zorder=2)
    left.scatter(loss, metric.value, c=COLOURS(norm(table.params)), s=26, edgecolors="white", linewidths=0.5, zorder=3)
    if metric.chance is not None:
        left.axhline(metric.chance, color="0.35", linestyle=":", linewidth=1.2, label="guessing")
    left.set(xlabel="loss (nats per token), falling to the right", ylabel=NAMES.get(metric.name, metric.name))
    left.invert_xaxis()
    left.set_title("loss to score", fontsize=10)
    _draw_held_out(right, answer.laws)
    right.set_title("runs of largest compute, from the others", fontsize=10)
    draw_colour_bar(figure, left, norm)
    title = f"{_plain(answer.ability.task)}: from compute to {NAMES.get(metric.name, metric.name)} in two stages"
    figure.suptitle(title, fontsize=12, x=0.02, ha="left")
    draw_legend(figure)
    return figure


def _draw_held_out(axes: Axes, laws: tuple[Staged, ...]) -> None:
    """Predicted against measured, with the interval of a new run."""
    shown = [(form, row) for form in laws for row in form.held_out]
    if not shown:
        axes.text(0.5, 0.5, "none can be held out", ha="center", va="center", transform=axes.transAxes, color="0.35")
        axes.set(xticks=[], yticks=[])
        return
    span = max(float(np.ptp([row.measured for _, row in shown])), 0.02)
    for i, (colour, marker, each) in enumerate(zip(FORMS, ("o", "s"), laws, strict=False)):
        rows = each.held_out
        if not rows:
            continue
        predicted, measured = (np.array([getattr(row, name) for row in rows]) for name in ("predicted", "measured"))
        ends = np.array([row.interval or (row.predicted, row.predicted) for row in rows]).T
        beside = 0.012 * span * (i - 0.5)  # lest bars hide each other
        bars = np.abs(ends - predicted)
        axes.errorbar(measured + beside, predicted, yerr=bars, fmt=marker, color=colour, markersize=5, linewidth=1,
                      capsize=3, alpha=0.85)  # fmt: skip
    values = np.array([value for _, row in shown for value in (row.measured, row.predicted)])
    low, high = values.min(), values.max()
    room = max(0.15 * (high - low), 0.01)
    axes.plot([low - room, high + room], [low - room, high + room], color=HELD_OUT, linewidth=1, label="as measured")
    axes.set(xlabel="measured score", ylabel="predicted, with the 95 % interval of a new run")


def prompting_figure(result: Prompting) -> Figure:
    """A panel a size: fine-tuned scores over labelled examples, prompts over theirs, and where one overtakes."""
    figure, panels = blank_figure(len(result.sizes))
    figure.set_size_inches(max(7.0, PANEL_WIDTH * len(result.sizes)), 4.6)
    top = max(point.interval[1] for size in result.sizes for point in (*size.shots, *size.labelled))
    for axes, size in zip(panels, result.sizes, strict=True):
        first = axes is panels[0]
        for points, colour, marker, label in (
            (size.labelled, FORMS[0], "o-", "fine-tuned, over labelled examples"),
            (size.shots, HELD_OUT, "s--", "prompted, over examples in the prompt (left end: none)"),
        ):
            x = np.array([max(point.examples, 0.5) for point in points])
            y, ends = np.array([p.score for p in points]), np.array([p.interval for p in points]).T
            axes.errorbar(x, y, yerr=np.abs(ends - y), fmt=marker, color=colour, markersize=4.5, linewidth=1.2,
                          capsize=2, label=label if first else None)  # fmt: skip
        axes.axhline(
            size.best.score, color=HELD_OUT, linewidth=0.8, linestyle=":", label="best prompt" if first else None
        )
        counts = [point.examples for point in size.labelled]
        if np.isfinite(size.crossing) and size.crossing > 0:
            axes.axvline(size.crossing, color="0.3", linewidth=1.0, label="fine-tuning overtakes" if first else None)
        if size.ahead > 0 and size.high > 0:
            ends = max(size.low, counts[0]), min(size.high, counts[-1])
            axes.axvspan(*ends, color="0.9", zorder=0, linewidth=0, label="its 95 % interval" if first else None)
        if result.chance is not None:
            axes.axhline(result.chance, color="0.35", linestyle=":", linewidth=1.2, label="guessing" if first else None)
        axes.set(xscale="log", ylim=(-0.03, min(1.05, top * 1.08 + 0.03)), xlabel="examples")
        axes.set_title(f"{count(size.params)} parameters", fontsize=10)
    panels[0].set_ylabel(NAMES.get(result.metric, result.metric))
    figure.suptitle(f"{_plain(result.task)}: fine-tune or prompt", fontsize=12, x=0.02, ha="left")
    draw_legend(figure)
    return figure


def _plain(text: str) -> str:
    """A name that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")[:60]

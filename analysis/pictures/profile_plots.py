"""Figures of approaches 1 and 2, and the one of all three approaches. The look is that of analysis.plots."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from analysis.approaches import Approaches
from analysis.envelope import Envelope
from analysis.isoflop import IsoFlop
from analysis.laws import Array
from analysis.plots import COLOURS, blank_figure, draw_colour_bar, draw_legend
from analysis.profiles.powerlaw import Frontier, PowerLaw
from analysis.profiles.profile import WINDOW, Profile, curve
from analysis.uncertainty import interval

FEW_BUDGETS = 9  # as many profiles have a legend entry each
METHOD_COLOURS = {"envelope": "#0072b2", "isoflop": "#d55e00", "parametric": "#009e73"}  # Okabe & Ito 2008
METHOD_LINES = {"envelope": "-", "isoflop": "--", "parametric": "-."}
METHOD_NAMES = {"envelope": "1 envelope", "isoflop": "2 IsoFLOP", "parametric": "3 parametric"}


def isoflop_profiles(found: IsoFlop) -> Figure:
    """Loss against N of every budget with its curve and minimum, and N* against compute with the power law."""
    figure, (left, right) = blank_figure(2)
    shown = [profile for profile in found.profiles if profile.optimum or len(profile.params) > 2]
    flops = np.array([profile.flops for profile in shown])
    norm = LogNorm(flops.min() / 1.05, flops.max() * 2)
    few = len(shown) <= FEW_BUDGETS
    for profile in shown:
        colour = COLOURS(norm(profile.flops))
        if profile.optimum is None:
            left.scatter(profile.params, profile.loss_nats, s=14, facecolors="none", edgecolors="0.7", linewidths=0.7)
            continue
        named = f"{profile.flops:.2g} FLOPs" if few else None
        left.scatter(
            profile.params, profile.loss_nats, color=colour, s=18, edgecolors="white", linewidths=0.4, zorder=3
        )
        ends = profile.params[profile.used][[0, -1]]
        span = np.geomspace(ends[0], ends[1], 200)
        left.plot(span, curve(profile, found.shape, span), color=colour, linewidth=1.2, label=named)
        left.scatter(
            profile.optimum[0], profile.optimum[2], color=colour, marker="D", s=34, edgecolors="black", zorder=4
        )
    left.scatter([], [], color="0.5", marker="D", s=34, edgecolors="black", label="minimum N*")
    if any(profile.optimum is None for profile in shown):
        left.scatter([], [], s=14, facecolors="none", edgecolors="0.7", label="budget without a usable minimum")
    left.set(xscale="log", xlabel="parameters N", ylabel="loss (nats per token)")
    _sizes_across(left)
    # Runs far from any minimum would otherwise squeeze the profiles into a corner.
    lowest = min(float(profile.loss_nats.min()) for profile in found.accepted)
    top = max(_near_minimum(profile) for profile in found.accepted)
    left.set_ylim(lowest - 0.05 * (top - lowest), top + 0.08 * (top - lowest))
    left.set_title(f"Profiles of {len(found.accepted)} budgets", loc="left")
    points = found.points
    _law(right, points[0], found.frontier, found.samples)
    sds = [profile.sd_log_params for profile in found.accepted]
    bars = None
    if all(sd is not None for sd in sds):
        bars = points[1] * np.expm1(1.96 * np.outer([1, 1], np.array(sds, np.float64)) * [[-1], [1]]) * [[-1], [1]]
    right.errorbar(points[0], points[1], yerr=bars, fmt="none", ecolor="0.4", elinewidth=0.9, capsize=2, zorder=3)
    right.scatter(points[0], points[1], color=COLOURS(norm(points[0])), marker="D", s=34, edgecolors="black", zorder=4)
    _named_law(right, found.frontier.params, found.intervals)
    if not few:
        _budget_bar(figure, right, norm)
    draw_legend(figure)
    return figure


def envelope_curves(found: Envelope) -> Figure:
    """Curves coloured by size with their lower envelope, and the sizes on it against compute with the power law."""
    figure, (left, right) = blank_figure(2)
    sizes = np.array([curve.params for curve in found.curves.curves])
    norm = LogNorm(sizes.min() / 1.05, sizes.max() * 1.3)
    for each in found.curves.curves:
        compute = each.flops if found.compute == "given" else each.flops_6nd
        marker = "o" if len(compute) <= 30 else None
        left.plot(compute, each.loss_nats, color=COLOURS(norm(each.params)), linewidth=0.9, marker=marker, markersize=3)
    if found.estimator == "runs":
        order = np.argsort(found.points[0])
        left.scatter(found.points[0][order], found.points[3][order], s=40, facecolors="none", edgecolors="black",
                     zorder=4, label="run that none undercuts")  # fmt: skip
    else:
        left.plot(found.flops, found.loss_nats, color="black", linewidth=1.6, label="lower envelope", zorder=4)
    left.set(xscale="log", xlabel="training compute (FLOPs)", ylabel="loss (nats per token)")
    losses = np.concatenate([each.loss_nats for each in found.curves.curves])
    low, top = losses.min(), max(np.quantile(losses, 0.97), float(np.nanmax(found.points[3])))
    left.set_ylim(low - 0.03 * (top - low), top + 0.05 * (top - low))
    left.set_title(f"{len(found.curves.curves)} curves, one a {found.curves.joined}", loc="left")
    _law(right, found.points[0], found.frontier, found.samples)
    what = {"crossings": "envelope passes to the next size", "points": "size on the envelope", "runs": None}
    right.scatter(found.points[0], found.points[1], s=24, color="black", zorder=4, label=what[found.estimator])
    if found.estimator != "runs":
        right.step(found.flops, np.where(found.inside, found.size, np.nan), where="mid", color="0.6", linewidth=1,
                   label="best size, between two others" if found.estimator == "crossings" else None)  # fmt: skip
    _named_law(right, found.frontier.params, found.intervals)
    draw_colour_bar(figure, right, norm)
    draw_legend(figure)
    return figure


def three_approaches(found: Approaches) -> Figure:
    """N* and loss against compute by every approach that the runs allow, with 95 % bands and measured optima."""
    figure, (left, right) = blank_figure(2)
    reach = _reach(found)
    largest = max(answer.flops_max for answer in found.answers)
    for answer in found.answers:
        colour, style = METHOD_COLOURS[answer.method], METHOD_LINES[answer.method]
        source = {"envelope": found.envelope, "isoflop": found.isoflop}.get(answer.method)
        law = found.fit.law if source is None else source.frontier
        samples = found.fit.samples if source is None else source.samples
        best, drawn = law.optimum(reach), None if samples is None else samples.optimum(reach)
        ends = "" if answer.a_interval is None else f" [{answer.a_interval[0]:.2f}, {answer.a_interval[1]:.2f}]"
        named = f"{METHOD_NAMES[answer.method]}: a = {answer.a:.2f}{ends}"
        for axes, name, label in ((left, "params", named), (right, "loss_nats", None)):
            axes.plot(reach, getattr(best, name), color=colour, linestyle=style, linewidth=1.6, label=label, zorder=3)
            if drawn is not None:
                low, high = interval(getattr(drawn, name))
                axes.fill_between(reach, low, high, color=colour, alpha=0.14, linewidth=0)
        if source is not None:
            marker = "o" if answer.method == "envelope" else "D"
            left.scatter(source.points[0], source.points[1], s=22, color=colour, marker=marker, edgecolors="white",
                         linewidths=0.5, zorder=4)  # fmt: skip
            right.scatter(source.points[0], source.points[3], s=22, color=colour, marker=marker, edgecolors="white",
                          linewidths=0.5, zorder=4)  # fmt: skip
    for axes in (left, right):
        axes.axvspan(largest, reach[-1], color="0.95", zorder=0, linewidth=0)
        axes.set(xscale="log", xlim=(reach[0], reach[-1]), xlabel="training compute, 6ND (FLOPs)")
    left.annotate("extrapolation", (1.0, 0.02), xycoords="axes fraction", ha="right", xytext=(-3, 0),
                  textcoords="offset points", fontsize=8, color="0.35")  # fmt: skip
    left.set(yscale="log", ylabel="compute-optimal parameters N*")
    right.set_ylabel("loss at N* (nats per token)")
    for method, _ in found.refused:
        left.plot([], [], color="none", label=f"{METHOD_NAMES[method]}: not available")
    _hold(left, found, "params")
    _hold(right, found, "loss_nats")
    _counts_up(left)
    left.set_title("Compute-optimal size by each approach", loc="left")
    right.set_title("Loss there", loc="left")
    draw_legend(figure)
    return figure


def _near_minimum(profile: Profile) -> float:
    """Highest loss of a profile's points within a factor WINDOW of its minimum."""
    if profile.optimum is None:
        return -np.inf
    near = np.abs(np.log(profile.params / profile.optimum[0])) <= np.log(WINDOW)
    return float(profile.loss_nats[near].max(initial=profile.optimum[2]))


def _reach(found: Approaches) -> Array:
    """Compute from the first optimum measured to ten times the largest."""
    firsts = [source.points[0].min() for source in (found.envelope, found.isoflop) if source is not None]
    firsts.append(float(np.quantile(found.fit.table.flops_6nd, 0.1)))
    return np.geomspace(min(firsts) / 1.5, 10 * max(answer.flops_max for answer in found.answers), 100)


def _hold(axes: Axes, found: Approaches, name: str) -> None:
    """Limits by the curves and optima: one approach with a hopeless band must not hide the others."""
    values = [line.get_ydata() for line in axes.get_lines()]
    kept = np.concatenate([np.asarray(value, np.float64) for value in values])
    low, high = float(np.nanmin(kept)), float(np.nanmax(kept))
    if name == "params":
        axes.set_ylim(low / 2, high * 3)
    else:
        axes.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))


def _law(axes: Axes, flops: Array, frontier: Frontier, samples: Frontier | None) -> None:
    reach = np.geomspace(flops.min() / 2, flops.max() * 10, 80)
    axes.plot(reach, frontier.params(reach), color="black", linestyle="--", linewidth=1.3, label="power law of N*")
    if samples is not None:
        low, high = interval(samples.params(reach))
        axes.fill_between(reach, low, high, color="0.85", linewidth=0, label="its 95 % interval")
    axes.set(xscale="log", yscale="log", xlim=(reach[0], reach[-1]), xlabel="training compute (FLOPs)",
             ylabel="parameters N*")  # fmt: skip
    axes.axvspan(flops.max(), reach[-1], color="0.96", zorder=0, linewidth=0)
    axes.annotate("extrapolation", (1.0, 0.02), xycoords="axes fraction", ha="right", xytext=(-3, 0),
                  textcoords="offset points", fontsize=8, color="0.35")  # fmt: skip
    fitted = frontier.params(reach)
    axes.set_ylim(fitted.min() / 3, fitted.max() * 3)
    _counts_up(axes)


def _named_law(axes: Axes, law: PowerLaw, intervals: dict[str, tuple[float, float]]) -> None:
    ends = "" if "a" not in intervals else f" [{intervals['a'][0]:.3f}, {intervals['a'][1]:.3f}]"
    axes.set_title(f"N* ~ C^a, a = {law.exponent:.3f}{ends}", loc="left")


def _sizes_across(axes: Axes) -> None:
    """Ticks of sizes on a narrow panel."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 15 else (1.0,)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _counts_up(axes: Axes) -> None:
    low, high = axes.get_ylim()
    few = np.log10(high / low) < 2.6
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axes.yaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _budget_bar(figure: Figure, axes: Axes, norm: LogNorm) -> None:
    figure.colorbar(ScalarMappable(norm=norm, cmap=COLOURS), ax=axes, pad=0.02).set_label("budget (FLOPs)")

"""The figures of a report that test its answer: other approaches, residuals, runs held out, every choice."""

import numpy as np

from analysis.multiverse import FACTORS
from analysis.page.chart import (
    BLACK,
    COLOURS,
    GREY,
    SYMBOLS,
    Chart,
    Row,
    axis,
    band,
    bars,
    counted,
    line,
    marks,
    ticks,
    told,
)
from analysis.page.report_figures import FLOPS, NATS, SIZES, reach, run_marks
from analysis.profiles.profile import curve
from analysis.report import Report
from analysis.uncertainty import interval
from analysis.words.decision_text import loss_cell
from analysis.words.summary import quantity

METHODS = {
    "envelope": (COLOURS[0], "solid", SYMBOLS[0], "1 envelope", "rgba(0,114,178,0.14)"),
    "isoflop": (COLOURS[1], "dash", SYMBOLS[1], "2 IsoFLOP", "rgba(213,94,0,0.14)"),
    "parametric": (COLOURS[2], "dashdot", SYMBOLS[2], "3 parametric", "rgba(0,158,115,0.14)"),
}


def profiles(report: Report) -> Chart | None:
    """IsoFLOP profiles: loss against N at each budget, its curve and minimum."""
    found = report.approaches.isoflop
    if found is None:
        return None
    head: Row = ("budget (FLOPs)", "runs", "sizes", "minimum N*", "D*", "loss (nats)", "not used because")
    traces, rows, losses = [], [], []
    for i, profile in enumerate(found.profiles):
        best = profile.optimum
        cells = ("-",) * 3 if best is None else (quantity(best[0]), quantity(best[1]), f"{best[2]:.4f}")
        rows.append((f"{profile.flops:.2e}", str(profile.runs), str(len(profile.params)), *cells, profile.reason))
        if best is None:
            continue
        colour, symbol = COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)]
        group = {"legendgroup": str(i)}
        ends = profile.params[profile.used][[0, -1]]
        span = np.geomspace(ends[0], ends[1], 60)
        name = f"{profile.flops:.2g} FLOPs"
        traces.append(line(span, curve(profile, found.shape, span), name=name, colour=colour, showlegend=False) | group)
        marker = {"color": colour, "symbol": symbol, "size": 6}
        points = marks(profile.params, profile.loss_nats, name=name, text=[], marker=marker) | group
        traces.append(points | {"hovertemplate": "N %{x:.3s}<br>loss %{y:.4f} nats<extra></extra>"})
        marker = {"color": colour, "symbol": symbol, "size": 13, "line": {"color": BLACK, "width": 2}}
        mark = marks([best[0]], [best[2]], name=name, text=told(head, rows[-1:]), marker=marker, showlegend=False)
        traces.append(mark | group)
        near = np.abs(np.log(profile.params / best[0])) < np.log(6)
        losses += [best[2], *profile.loss_nats[near].tolist()]
    sizes = np.concatenate([profile.params for profile in found.accepted])
    room = 0.06 * (max(losses) - min(losses))
    return Chart(
        name="isoflop",
        title="IsoFLOP profiles (approach 2)",
        caption="Runs of one budget against their size; outlined marks are the minima of the curves.",
        traces=traces,
        layout={
            "xaxis": axis(SIZES, log=True, **ticks(sizes.min(), sizes.max())),
            "yaxis": axis(NATS, range=[min(losses) - room, max(losses) + room]),
        },
        head=head,
        rows=tuple(rows),
    )


def envelope(report: Report) -> Chart | None:
    """Loss curves of all sizes and what their lower envelope says."""
    found = report.approaches.envelope
    if found is None:
        return None
    head: Row = ("compute (FLOPs)", "N", "D", "loss (nats)")
    shown = found.curves.curves[:: max(1, len(found.curves.curves) // 60)]  # more could not be told apart
    sizes = sorted({each.params for each in shown})
    traces = []
    for each in shown:
        shade = int(190 - 150 * sizes.index(each.params) / max(1, len(sizes) - 1))
        several = {"mode": "lines"} if len(each.flops) > 1 else {"mode": "markers"}
        traces.append(
            marks(each.flops_6nd, each.loss_nats, name=f"N {quantity(each.params)}", text=[], showlegend=False,
                  line={"color": f"rgb({shade},{shade},{shade + 40})", "width": 1}, marker={"size": 4}, **several)
            | {"hovertemplate": f"N {quantity(each.params)}<br>C %{{x:.3s}}<br>loss %{{y:.4f}} nats<extra></extra>"}
        )  # fmt: skip
    order = np.argsort(found.points[0])
    c, n, d, loss = found.points[:, order]
    rows = [
        (f"{ci:.2e}", quantity(ni), quantity(di), f"{li:.4f}") for ci, ni, di, li in zip(c, n, d, loss, strict=True)
    ]
    named = {"crossings": "the envelope passes to the next size", "points": "on the envelope", "runs": "none undercuts"}
    marker = {"color": COLOURS[1], "symbol": "diamond", "size": 9, "line": {"color": BLACK, "width": 1}}
    if found.estimator != "runs":
        traces.append(line(found.flops, found.loss_nats, name="lower envelope", colour=BLACK, width=2.5))
    traces.append(marks(c, loss, name=named[found.estimator], text=told(head, rows), marker=marker))
    every = np.concatenate([each.loss_nats for each in shown])
    low, top = float(every.min()), max(float(np.quantile(every, 0.9)), float(loss.max()))
    fewer = "" if len(shown) == len(found.curves.curves) else f" {len(shown)} of {len(found.curves.curves)} are drawn."
    return Chart(
        name="envelope",
        title="Envelope of the training curves (approach 1)",
        caption=f"One curve a {found.curves.joined}; larger models are darker.{fewer}",
        traces=traces,
        layout={
            "xaxis": axis(FLOPS, log=True, exponentformat="power", **ticks(found.flops[0], found.flops[-1])),
            "yaxis": axis(NATS, range=[low - 0.04 * (top - low), top + 0.08 * (top - low)]),
        },
        head=head,
        rows=tuple(rows),
    )


def approaches(report: Report) -> Chart | None:
    """N* against compute by every approach that the runs allow."""
    found, flops = report.approaches, reach(report)
    head: Row = ("approach", "a (N* ~ C^a)", "b (D* ~ C^b)", "optima or runs")
    traces, rows, values = [], [], []
    for answer in found.answers:
        colour, dash, symbol, named, shade = METHODS[answer.method]
        source = {"envelope": found.envelope, "isoflop": found.isoflop}.get(answer.method)
        law = found.fit.law if source is None else source.frontier
        samples = found.fit.samples if source is None else source.samples
        if samples is not None:
            drawn = samples.optimum(flops).params
            traces.append(band(flops, *interval(drawn), name=named, colour=shade, showlegend=False, legendgroup=named))
        best = law.optimum(flops).params
        values += [best.min(), best.max()]
        rows.append((named, _exponent(answer.a, answer.a_interval), _exponent(answer.b, answer.b_interval),
                     str(answer.optima)))  # fmt: skip
        traces.append(line(flops, best, name=named, colour=colour, dash=dash, legendgroup=named))
        at = np.geomspace(flops[0], flops[-1], 6)
        marker = {"color": colour, "symbol": symbol, "size": 9}
        traces.append(marks(at, law.optimum(at).params, name=named, text=told(head, [rows[-1]] * 6), marker=marker,
                            showlegend=False, legendgroup=named))  # fmt: skip
    rows += [(METHODS[method][3], "no answer, see “Not in this report”", "-", "-") for method, _ in found.refused]
    if not traces:
        return None
    return Chart(
        name="approaches",
        title="The compute-optimal size by each approach",
        caption="The three approaches of Hoffmann et al. 2022, with 95 % bands where there are resamples."
        + "".join(f" {told_line}." for told_line in found.disagreements),
        traces=traces,
        layout={
            "xaxis": axis(FLOPS, log=True, exponentformat="power", **ticks(flops[0], flops[-1])),
            "yaxis": axis("N*", log=True, **ticks(min(values), max(values)),
                          range=[float(np.log10(min(values) / 3)), float(np.log10(max(values) * 3))]),
        },
        head=head,
        rows=tuple(rows),
    )  # fmt: skip


def _exponent(value: float, ends: tuple[float, float] | None) -> str:
    return f"{value:.3f}" + ("" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]")


def residuals(report: Report) -> Chart:
    """What the law leaves over, against compute."""
    fit = report.fit
    percent = 100 * np.expm1(fit.residuals)
    median, compute = 100 * fit.residual_median, fit.table.flops_6nd
    ends = [float(compute.min()), float(compute.max())]
    return Chart(
        name="residuals",
        title="Residuals",
        caption=f"Measured over predicted loss. Half of the runs lie within {median:.2g} % (shaded); a slope or a bend "
        "would say that the law is wrong.",
        traces=[
            band(ends, [-median] * 2, [median] * 2, name="half of the runs"),
            line(ends, [0, 0], name="the law", colour=BLACK, width=1, showlegend=False),
            run_marks(report, compute, percent),
        ],
        layout={
            "xaxis": axis(FLOPS, log=True, exponentformat="power", **ticks(*ends)),
            "yaxis": axis("measured / predicted - 1 (%)"),
        },
    )


def held_out(report: Report) -> Chart | None:
    """The runs of largest compute as the others predict them."""
    found = report.backtest
    if found is None:
        return None
    head: Row = ("held-out run", "FLOPs (6ND)", "predicted", "measured", "error", "95 % interval", "inside")
    rows = []
    for row in found.rows:
        inside = "-" if row.covered is None else "yes" if row.covered else "no"
        ends = "none" if row.interval is None else f"{row.interval[0]:.4f} to {row.interval[1]:.4f}"
        rows.append((row.run[:60], f"{row.flops:.2e}", f"{row.predicted:.4f}", f"{row.measured:.4f}",
                     f"{100 * row.relative_error:+.2f} %", ends, inside))  # fmt: skip
    predicted = np.array([row.predicted for row in found.rows])
    measured = np.array([row.measured for row in found.rows])
    error = {}
    if found.rows[0].interval is not None:
        low, high = np.array([row.interval for row in found.rows], np.float64).T
        error["error_y"] = bars(predicted, low, high)
    both = [float(min(predicted.min(), measured.min())), float(max(predicted.max(), measured.max()))]
    marker = {"color": COLOURS[1], "symbol": "diamond", "size": 8, "line": {"color": "white", "width": 0.6}}
    covered = "" if found.coverage is None else f"; {found.coverage:.0%} of them inside their 95 % intervals"
    return Chart(
        name="backtest",
        title="Backtest: the largest runs, predicted from the others",
        caption=f"{counted(len(rows), 'run')} held out, {len(found.fit.table)} fitted: mean error "
        f"{100 * found.mean_relative_error:.2f} %, largest {100 * found.max_relative_error:.2f} %{covered}.",
        traces=[
            line(both, both, name="predicted = measured", colour=GREY, dash="dash", width=1),
            marks(measured, predicted, name="held out", text=told(head, rows), marker=marker, **error),
        ],
        layout={"xaxis": axis("measured loss (nats)"), "yaxis": axis("predicted loss (nats)")},
        head=head,
        rows=tuple(rows),
    )


def every_choice(report: Report) -> Chart | None:
    """N* under every combination of choices, in order."""
    found = report.multiverse
    if found is None:
        return None
    head: Row = (*FACTORS, "N* (all parameters)", "loss (nats)")
    rows = [
        (*(u.choice(factor) for factor in FACTORS), quantity(u.params_all or 0.0), loss_cell(u.loss_nats or 0.0, None))
        for u in found.universes
    ]
    sizes = np.array([u.params_all for u in found.universes], np.float64)
    default = np.array([u.default for u in found.universes], bool)
    at, text = np.arange(1, len(sizes) + 1), np.array(told(head, rows), object)
    traces = [
        marks(at[chosen], sizes[chosen], name=name, text=text[chosen].tolist(),
              marker={"color": colour, "symbol": symbol, "size": size})
        for chosen, name, colour, symbol, size in (
            (~default, "a combination of choices", COLOURS[0], "circle", 6),
            (default, "the default", COLOURS[1], "diamond", 13),
        )
    ]  # fmt: skip
    traces.append(line([1, len(sizes)], [found.params[1]] * 2, name="median", colour=GREY, dash="dash", width=1))
    return Chart(
        name="multiverse",
        title=f"N* at {found.flops:.2e} FLOPs under every choice",
        caption=f"{len(sizes)} combinations of law, loss, runs left out and what is counted: "
        f"{quantity(found.params[0])} to {quantity(found.params[2])}, median {quantity(found.params[1])}. "
        "The spread is of choices, not of noise.",
        traces=traces,
        layout={
            "xaxis": axis("combinations, from the smallest N* to the largest"),
            "yaxis": axis("N* (all parameters)", log=True, **ticks(sizes.min(), sizes.max())),
        },
        head=head,
        rows=tuple(rows),
    )

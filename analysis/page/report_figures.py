"""A report to interactive figures: each shows what its table says, and nothing where the runs tell nothing."""

import numpy as np

from analysis.errors import InputError
from analysis.laws import FLOPS_PER_PARAM_TOKEN, Array, Optimum
from analysis.page.chart import (
    BLACK,
    COLOURS,
    GREY,
    SCALE,
    SYMBOLS,
    Chart,
    Row,
    axis,
    band,
    bars,
    line,
    marks,
    short,
    ticks,
    told,
)
from analysis.report import Report
from analysis.uncertainty import interval
from analysis.words.decision_text import loss_cell, quantity_cell
from analysis.words.summary import count, quantity

REACH = 12.0  # times N*, to either side
GRID = 60  # points of the loss surface along each axis
BEYOND = 10.0  # times the largest compute, to which frontiers are drawn
HEAD_RUNS: Row = ("run", "parameters", "tokens", "FLOPs (6ND)", "loss (nats)", "law (nats)", "residual")
FLOPS, SIZES, NATS = "training compute, 6ND (FLOPs)", "parameters N", "loss (nats per token)"


def run_rows(report: Report) -> list[Row]:
    """Each run as the tables and the pointer tell it."""
    fit = report.fit
    predicted = fit.table.loss_nats * np.exp(-fit.residuals)
    columns = (fit.table.params, fit.table.tokens, fit.table.flops_6nd, fit.table.loss_nats, predicted, fit.residuals)
    return [
        (str(name)[:60], quantity(n), quantity(d), f"{c:.2e}", f"{loss:.4f}", f"{law:.4f}",
         f"{100 * np.expm1(r):+.2f} %")
        for name, n, d, c, loss, law, r in zip(fit.table.frame["run_id"], *columns, strict=True)
    ]  # fmt: skip


def run_marks(report: Report, x: Array, y: Array, **more) -> dict:
    """The runs as points coloured by size, with a bar that says which colour is which size."""
    sizes = np.log10(report.fit.table.params)
    at = np.linspace(sizes.min(), sizes.max(), 4) if np.ptp(sizes) > 0 else sizes[:1]
    bar = {
        "title": {"text": "N", "side": "top"},
        "tickvals": short(at),
        "ticktext": [quantity(10**v, 2) for v in at],
        "thickness": 10,
        "len": 0.9,
    }
    marker = {"color": short(sizes), "colorscale": SCALE, "size": 7, "colorbar": bar}
    marker["line"] = {"color": "white", "width": 0.6}
    text = told(HEAD_RUNS, run_rows(report))
    return marks(x, y, name="runs", text=text, marker=marker, **more)


def near_optimum(report: Report) -> Chart | None:
    """Loss above the best over N for each budget: how flat the optimum is, and how sure."""
    decision = report.decision
    if decision is None:
        return None
    within = decision.near[0].within_nats
    head: Row = ("FLOPs (6ND)", "the data", "parameters N*", "tokens D*", "loss (nats)", "D*/N*", "as good sizes")
    traces, rows = [], []
    for i, (row, near) in enumerate(zip(decision.rows, decision.near, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        named, group = f"{row.flops:.1e} FLOPs ({row.where})", {"legendgroup": str(i)}
        low, high = max(row.params / REACH, 1.0), min(row.params * REACH, row.flops / FLOPS_PER_PARAM_TOKEN)
        for left, right, width in ((low, high, 1.5), (near.params_low, near.params_high, 5)):
            n = np.geomspace(max(left, low), min(right, high), 80)
            y = decision.fit.law.predict(n, row.flops / (FLOPS_PER_PARAM_TOKEN * n)) - row.loss_nats
            dash = ("solid", "dash", "dot", "dashdot")[i % 4] if width < 2 else "solid"
            traces.append(line(n, y, name=named, colour=colour, dash=dash, width=width, showlegend=width < 2) | group)
        rows.append((
            f"{row.flops:.2e}", row.where, quantity_cell(row.params, row.params_interval, " "),
            quantity_cell(row.tokens, row.tokens_interval, " "), loss_cell(row.loss_nats, row.loss_interval),
            f"{row.tokens_per_param:.3g}", f"{quantity(near.params_low, 2)} to {quantity(near.params_high, 2)}",
        ))  # fmt: skip
        error = {}
        if row.params_interval is not None:
            error["error_x"] = bars(np.array([row.params]), [row.params_interval[0]], [row.params_interval[1]])
        at = -within * (0.5 + 0.45 * i)
        marker = {"color": colour, "symbol": SYMBOLS[i % len(SYMBOLS)], "size": 10}
        text = told(head, rows[-1:])
        traces.append(marks([row.params], [at], name=named, text=text, marker=marker, showlegend=False) | error | group)
    ends = [min(row.params for row in decision.rows) / REACH, max(row.params for row in decision.rows) * REACH]
    traces.append(line(ends, [within, within], name=f"{within:g} nats above", colour=GREY, dash="dash", width=1))
    drawn = "with its 95 % interval" if decision.fit.samples is not None else "without an interval: no resamples"
    return Chart(
        name="optimum",
        title="The best size, and how flat the optimum is",
        caption=f"Loss above the best of each budget, for models of other sizes. Thick: within {within:g} nats. "
        f"Marks below zero: N* {drawn}.",
        traces=traces,
        layout={
            "xaxis": axis("parameters N, with tokens D = C / 6N", log=True, **ticks(*ends)),
            "yaxis": axis("loss above the best (nats)", range=[-within * (1 + 0.45 * len(rows)), 8 * within]),
        },
        head=head,
        rows=tuple(rows),
    )


def best_along(report: Report, flops: Array) -> tuple[Optimum, Optimum | None] | None:
    """The optimum over budgets [n] and over resamples; None where the law tells none."""
    fit = report.fit
    if report.decision is None:
        return None
    try:
        best = fit.law.optimum(flops)
    except InputError:
        return None
    good = np.isfinite(best.loss_nats).all() and np.isfinite(best.params).all()
    return (best, None if fit.samples is None else fit.samples.optimum(flops)) if good else None


def reach(report: Report) -> Array:
    compute = report.fit.table.flops_6nd
    return np.geomspace(compute.min() / 1.5, BEYOND * compute.max(), 90)


def frontier(report: Report) -> Chart:
    """Loss against compute: runs, the compute-optimal frontier with its band."""
    table, flops = report.fit.table, reach(report)
    compute, traces = table.flops_6nd, []
    found = best_along(report, flops)
    low = float(table.loss_nats.min())
    caption = "Each run's loss; colour is its size."
    if found is not None:
        best, drawn = found
        low = min(low, float(best.loss_nats.min()))
        if drawn is not None:
            traces.append(band(flops, *interval(drawn.loss_nats), name="95 % interval of the frontier"))
        traces.append(line(flops, best.loss_nats, name="compute-optimal frontier", colour=BLACK, dash="dash"))
        caption += " No run should lie far below the frontier; right of the largest run it is extrapolated."
        if drawn is None:
            caption += " It has no band: no resamples."
    traces.append(run_marks(report, compute, table.loss_nats))
    room = 0.06 * (table.loss_nats.max() - low) or 0.1
    shade = {"type": "rect", "xref": "x", "yref": "paper", "x0": float(compute.max()), "x1": float(flops[-1]), "y0": 0}
    shade |= {"y1": 1, "fillcolor": "rgba(0,0,0,0.04)", "line": {"width": 0}, "layer": "below"}
    return Chart(
        name="frontier",
        title="Loss against compute",
        caption=caption,
        traces=traces,
        layout={
            "xaxis": axis(FLOPS, log=True, exponentformat="power", **ticks(flops[0], flops[-1])),
            "yaxis": axis(NATS, range=[low - room, float(table.loss_nats.max()) + room]),
            "shapes": [shade],
        },
    )


def surface(report: Report) -> Chart:
    """The law over sizes and token counts, with the runs and the optimal path."""
    fit, table = report.fit, report.fit.table
    n = np.geomspace(table.params.min() / 2, table.params.max() * 4, GRID)
    d = np.geomspace(table.tokens.min() / 2, table.tokens.max() * 4, GRID)
    loss = fit.law.predict(*np.meshgrid(n, d))
    traces = [{
        "type": "contour", "x": short(n), "y": short(d), "z": [short(row) for row in loss], "colorscale": SCALE,
        "reversescale": True, "ncontours": 18, "contours": {"showlabels": True, "labelfont": {"size": 10}},
        "line": {"width": 0.7}, "colorbar": {"title": {"text": "nats", "side": "top"}, "thickness": 10},
        "hovertemplate": "N %{x:.3s}<br>D %{y:.3s}<br>law %{z:.4f} nats<extra></extra>", "name": "law",
    }]  # fmt: skip
    found = best_along(report, reach(report))
    if found is not None:
        path = found[0]
        inside = (path.params > n[0]) & (path.params < n[-1]) & (path.tokens > d[0]) & (path.tokens < d[-1])
        x, y = (np.where(inside, values, np.nan) for values in (path.params, path.tokens))
        traces.append(line(x, y, name="compute-optimal N*, D*", colour="#d55e00", dash="dash", width=3))
    text = told(HEAD_RUNS, run_rows(report))
    marker = {"color": "white", "size": 7, "line": {"color": BLACK, "width": 1.2}}
    traces.append(marks(table.params, table.tokens, name="runs", text=text, marker=marker))
    return Chart(
        name="surface",
        title="The loss surface",
        caption=f"The fitted law ({fit.law.description}) over sizes and tokens. Away from the runs it is extrapolated.",
        traces=traces,
        layout={
            "xaxis": axis(SIZES, log=True, **ticks(n[0], n[-1]), range=[float(np.log10(n[0])), float(np.log10(n[-1]))]),
            "yaxis": axis("tokens D", log=True, **ticks(d[0], d[-1]), range=[*map(float, np.log10(d[[0, -1]]))]),
        },
    )


def recall_chart(report: Report) -> Chart | None:
    """Recall of planted facts against how often they were read."""
    found = report.recall
    if found is None:
        return None
    head: Row = ("parameters", "tokens", "repeats", "asked", "recall", "95 % interval", "log-prob.", "p (Holm)")
    traces, rows = [], []
    for i, (n, d) in enumerate(sorted({(cell.params, cell.tokens) for cell in found.cells})):
        cells = [cell for cell in found.cells if (cell.params, cell.tokens) == (n, d)]
        mine = [
            (count(n), count(d), f"{c.repeats:g}", str(c.facts), f"{c.recall:.3f}",
             f"{c.interval[0]:.3f} to {c.interval[1]:.3f}", f"{c.log_prob:.3f}", f"{c.p_adjusted:.2g}")
            for c in cells
        ]  # fmt: skip
        share = np.array([cell.recall for cell in cells])
        ends = np.array([cell.interval for cell in cells]).T
        colour = COLOURS[i % len(COLOURS)]
        marker = {"color": colour, "symbol": SYMBOLS[i % len(SYMBOLS)], "size": 9}
        more = {"mode": "lines+markers", "line": {"color": colour, "width": 1.5}, "error_y": bars(share, *ends)}
        x = [cell.repeats for cell in cells]
        traces.append(marks(x, share, name=f"{count(n)} parameters, {count(d)} tokens", text=told(head, mine),
                            marker=marker, **more))  # fmt: skip
        rows += mine
    x = [min(c.repeats for c in found.cells), max(c.repeats for c in found.cells)]
    traces.append(line(x, [found.chance] * 2, name="guessing", colour=GREY, dash="dot"))
    return Chart(
        name="recall",
        title="Planted facts recalled",
        caption="Share of facts known against how often the training text holds them, with Wilson's 95 % intervals.",
        traces=traces,
        layout={
            "xaxis": axis("times that the training text holds the fact", log=True, dtick=1),
            "yaxis": axis("share recalled", range=[-0.03, 1.05]),
        },
        head=head,
        rows=tuple(rows),
    )

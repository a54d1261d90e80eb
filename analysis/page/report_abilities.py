"""Abilities in a report: scores against compute, what two stages predict, kinds of scaling, whether jumps are real."""

import html

import numpy as np

from analysis.emergence import Emergence, TaskAnswer
from analysis.page.chart import BLACK, COLOURS, GREY, SYMBOLS, Chart, Row, axis, bars, line, marks, ticks, told
from analysis.report import Report
from analysis.skills.sharpness import LEVEL, Jump
from analysis.words.emergence_text import kind_row, p_text, said, scale_text
from analysis.words.summary import quantity

LEAST_P = 1e-4  # shown of a p-value


def ability_charts(report: Report) -> list[Chart]:
    """Those parts of which there is something to show."""
    found = report.abilities
    if found is None:
        return []
    charts = (_scores(found), _predicted(found), _kinds(found), _jumps(found))
    return [chart for chart in charts if chart is not None]


def _look(i: int) -> dict:
    turn = i // len(COLOURS)  # the seventh has the first colour again, and another shape
    return {"color": COLOURS[i % len(COLOURS)], "symbol": SYMBOLS[(i + turn) % len(SYMBOLS)], "size": 7}


def _span(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}" if np.isfinite([low, high]).all() else "-"


def _scores(found: Emergence) -> Chart:
    """The main metric of every task against compute."""
    head: Row = ("task", "metric", "run", "parameters", "tokens", "score", "95 % interval", "chance")
    traces, rows, levels = [], [], {}
    for i, answer in enumerate(found.tasks):
        ability, metric = answer.ability, answer.ability.main
        table, order = ability.table, np.argsort(answer.ability.table.flops_6nd, kind="stable")
        chance = "-" if metric.chance is None else f"{metric.chance:.3g}"
        if metric.chance is not None:
            levels.setdefault(round(metric.chance, 6), None)
        mine = [
            (ability.task[:60], metric.name, str(table.frame["run_id"].iloc[k])[:60],
             quantity(float(table.params[k])), quantity(float(table.tokens[k])), f"{metric.value[k]:.3f}",
             _span(float(metric.low[k]), float(metric.high[k])), chance)
            for k in order.tolist()
        ]  # fmt: skip
        known = np.isfinite(metric.low[order]) & np.isfinite(metric.high[order])
        value = metric.value[order]
        more = {"error_y": bars(value, np.where(known, metric.low[order], value),
                                np.where(known, metric.high[order], value))}  # fmt: skip
        traces.append(marks(table.flops_6nd[order], value, name=html.escape(ability.task[:60]), text=told(head, mine),
                            marker=_look(i), **(more if known.any() else {})))  # fmt: skip
        rows += mine
    compute = np.concatenate([answer.ability.table.flops_6nd for answer in found.tasks])
    ends = [float(compute.min()), float(compute.max())]
    for level in levels:
        traces.append(line(ends, [level, level], name=f"guessing, {level:.3g}", colour=GREY, dash="dot", width=1))
    return Chart(
        name="abilities",
        title="Abilities against compute",
        caption="Each run's score on each task, with its 95 % interval over items and what guessing gets.",
        traces=traces,
        layout={
            "xaxis": axis("training compute, 6ND (FLOPs)", log=True, exponentformat="power", **ticks(*ends)),
            "yaxis": axis("score"),
        },
        head=head,
        rows=tuple(rows),
    )


def _predicted(found: Emergence) -> Chart | None:
    """Runs of largest compute as two stages, fitted to the others, predict them: the form of less scatter."""
    head: Row = ("task", "form", "run", "predicted", "95 % interval", "measured", "error (points)", "inside")
    traces, rows, values = [], [], []
    for i, answer in enumerate(found.tasks):
        if not answer.laws or not answer.laws[0].held_out:
            continue
        best = answer.laws[0]
        mine = [
            (answer.ability.task[:60], best.stages.form, row.run[:60], f"{row.predicted:.3f}",
             _span(*row.interval) if row.interval else "-", f"{row.measured:.3f}", f"{100 * row.error:+.2f}",
             "-" if row.covered is None else "yes" if row.covered else "no")
            for row in best.held_out
        ]  # fmt: skip
        predicted = np.array([row.predicted for row in best.held_out])
        measured = [row.measured for row in best.held_out]
        ends = np.array([row.interval or (row.predicted, row.predicted) for row in best.held_out]).T
        traces.append(marks(measured, predicted, name=html.escape(answer.ability.task[:60]), text=told(head, mine),
                            marker=_look(i), error_y=bars(predicted, *ends)))  # fmt: skip
        values += [*measured, *predicted]
        rows += mine
    if not rows:
        return None
    ends = [min(values) - 0.02, max(values) + 0.02]
    traces.append(line(ends, ends, name="as measured", colour=BLACK, dash="dash", width=1))
    return Chart(
        name="two-stages",
        title="From compute to a task in two stages",
        caption="Loss from parameters and tokens by the law, score from loss; both fitted to the runs of less compute. "
        "Bars: 95 % interval of a new run. Source: Gadre et al. 2024; Bhagia et al. 2024.",
        traces=traces,
        layout={"xaxis": axis("measured score"), "yaxis": axis("predicted score")},
        head=head,
        rows=tuple(rows),
    )


def _kinds(found: Emergence) -> Chart:
    """The change of every score over all scales, and its kind."""
    head: Row = ("task", "kind", "change", "95 % interval", "p of no trend", "p of no turn", "why")
    rows = [kind_row(answer) for answer in found.tasks]
    change = np.array([answer.scaling.change for answer in found.tasks])
    ends = np.array([answer.scaling.interval for answer in found.tasks]).T
    ends = np.where(np.isfinite(ends), ends, change)
    names = [html.escape(answer.ability.task[:40]) for answer in found.tasks]
    trace = marks([0.0], [0.0], name="change", text=told(head, rows), marker={"color": COLOURS[0], "size": 9})
    trace |= {"x": change.tolist(), "y": names, "error_x": bars(change, *ends), "showlegend": False}
    return Chart(
        name="scaling-kinds",
        title="Kinds of scaling",
        caption="Change of each score towards better over all scales, with its 95 % interval; p-values are adjusted "
        "for all tests (Holm 1979). Turns by the two-lines test of Simonsohn 2018.",
        traces=[trace],
        layout={"xaxis": axis("change of the score over all scales", zeroline=True),
                "yaxis": {"type": "category", "automargin": True, "autorange": "reversed"}},
        head=head,
        rows=tuple(rows),
    )  # fmt: skip


def _jumps(found: Emergence) -> Chart | None:
    """Both p-values of the metric that is continuous, else of the main one."""
    head: Row = ("task", "metric", "p of a smooth change", "p of a step", "best step at", "this metric", "the task")
    rows: list[Row] = []
    chosen: list[tuple[TaskAnswer, Jump, Row]] = []
    for answer in found.tasks:
        tested = answer.sharpness
        if tested is None:
            continue
        words = said(tested).partition(": ")[2]
        for jump in filter(None, (tested.main, tested.continuous)):
            row: Row = (answer.ability.task[:60], jump.metric, p_text(jump.p_smooth), p_text(jump.p_step),
                        scale_text(jump.at, found.against), jump.verdict,
                        words if jump is tested.main else "")  # fmt: skip
            rows.append(row)
            if jump is (tested.continuous or tested.main):
                chosen.append((answer, jump, row))
    if not rows:
        return None
    names = [html.escape(answer.ability.task[:40]) for answer, _, _ in chosen]
    text = told(head, [row for _, _, row in chosen])
    traces = []
    for i, (label, name) in enumerate((("a smooth change", "p_smooth"), ("a step", "p_step"))):
        trace = marks([0.0], [0.0], name=f"p of {label}", text=text, marker=_look(i) | {"size": 9})
        traces.append(trace | {"x": [max(getattr(jump, name), LEAST_P) for _, jump, _ in chosen], "y": names})
    rejected = {"type": "line", "xref": "x", "yref": "paper", "x0": LEVEL, "x1": LEVEL, "y0": 0, "y1": 1,
                "line": {"color": GREY, "dash": "dash", "width": 1}}  # fmt: skip
    return Chart(
        name="jumps",
        title="Do jumps survive a continuous metric?",
        caption=f"Left of the dashed line ({LEVEL:g}) a hypothesis is rejected: a step alone rejected is a smooth "
        "ability, whatever accuracy does; a smooth change alone rejected is a sharp one (Schaeffer et al. 2023).",
        traces=traces,
        layout={"xaxis": axis("p-value", log=True, dtick=1, exponentformat="power"), "shapes": [rejected],
                "yaxis": {"type": "category", "automargin": True, "autorange": "reversed"}},
        head=head,
        rows=tuple(rows),
    )  # fmt: skip

"""A report as one HTML file that needs nothing else: plotly.js, figures, tables, words."""

import html
import json
from collections.abc import Sequence
from importlib.util import find_spec

from analysis.errors import InputError
from analysis.page import report_abilities, report_figures, report_tests
from analysis.page.chart import Chart, counted
from analysis.page.checklist import NOT_RECORDED
from analysis.page.page_parts import SCRIPT, STYLE
from analysis.report import Report
from analysis.words.decision_text import counting_lines, loss_cell, quantity_cell
from analysis.words.summary import count, honesty_lines, number

MOST_EXCLUDED = 1000  # rows listed one by one
NONE = '<p class="none">None.</p>'


def require_plotly() -> None:
    """Raises InputError where plotly is not installed, before anything is fitted."""
    if find_spec("plotly") is None:
        raise InputError("plotly: is not installed, and draws the report's figures; pip install 'lmscale[report]'")


def charts(report: Report) -> list[Chart]:
    """All figures that the runs allow, in the order of the page."""
    found = [
        report_figures.near_optimum(report),
        report_figures.frontier(report),
        report_figures.surface(report),
        report_tests.profiles(report),
        report_tests.envelope(report),
        report_tests.approaches(report),
        report_tests.residuals(report),
        report_tests.held_out(report),
        report_tests.every_choice(report),
        report_figures.recall_chart(report),
        *report_abilities.ability_charts(report),
    ]
    return [chart for chart in found if chart is not None]


def page(report: Report) -> str:
    """The whole file. Raises InputError where plotly is not installed."""
    require_plotly()
    from plotly.offline import get_plotlyjs

    drawn = charts(report)
    figures = {chart.name: {"data": chart.traces, "layout": chart.layout} for chart in drawn}
    told = json.dumps(figures, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    body = [
        f"<header><h1>{_e(report.title)}</h1>"
        f"<p>{_e(report.source)} · {report.made.isoformat()} · lmscale report</p></header>",
        _section("answer", "The answer", _answer(report)),
        _section("warnings", "Warnings", _listed(report.warnings)),
        *(_figure(chart) for chart in drawn),
        _section("missing", "Not in this report", _missing(report)),
        _section("law", "The law", _law(report)),
        _section("runs", "Runs fitted", _runs(report)),
        _section("excluded", "Left out", _excluded(report)),
        _section("checklist", "Checklist", _checklist(report)),
    ]
    return "\n".join([
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_e(report.title)}: report</title>",
        '<link rel="icon" href="data:,">',
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>",
        *body,
        "</main>",
        f'<script type="application/json" id="figures">{told}</script>',
        _script(get_plotlyjs()),
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ])  # fmt: skip


def _script(text: str) -> str:
    safe = text.replace("</script", "<\\/script")
    return f"<script>{safe}</script>"


def _answer(report: Report) -> str:
    fit, decision = report.fit, report.decision
    if decision is None:
        lines = [
            f'<p class="big">These runs tell no best size by the fitted law: {_e(report.missing["decision"])}.</p>'
        ]
        others = [answer for answer in report.approaches.answers if answer.method != "parametric"]
        if others:
            lines.append("<p>The other approaches answer below; read their warnings.</p>")
        return "\n".join(lines)
    row = decision.rows[0]
    sure = "95 % intervals in brackets" if fit.samples is not None else "without intervals: no resamples were asked for"
    lines = [
        f'<p class="big">For {row.flops:.2e} FLOPs ({_e(row.where)}{" the data" if row.where == "within" else ""}): '
        f"train <b>{_e(quantity_cell(row.params, row.params_interval, ' '))} parameters</b> on "
        f"<b>{_e(quantity_cell(row.tokens, row.tokens_interval, ' '))} tokens</b>, to a loss of "
        f"<b>{_e(loss_cell(row.loss_nats, row.loss_interval))} nats</b> a token.</p>",
        f"<p>From {len(fit.table)} runs of {count(fit.table.params.min())} to {count(fit.table.params.max())} "
        f"parameters; {sure}. Other budgets stand in the table below the first figure.</p>",
    ]
    if any(r.extrapolation > 1.001 for r in decision.rows):
        lines.append(f"<p>Beyond {fit.flops_max:.2e} FLOPs, the largest run, answers are extrapolated.</p>")
    if any(r.params_interval is None for r in decision.rows) and fit.samples is not None:
        lines.append("<p>Where no interval stands, too many resamples have no best size to give it an end.</p>")
    lines += [f'<p class="honest">{_e(line)}</p>' for line in honesty_lines(fit) if line]
    ways = counting_lines(decision, 110)
    if ways:
        lines.append(f"<details><summary>By approach and by what is counted</summary><pre>{_e(chr(10).join(ways[1:]))}"
                     "</pre></details>")  # fmt: skip
    return "\n".join(lines)


def _law(report: Report) -> str:
    fit = report.fit
    shown = {**fit.law.parameters, **(fit.law.exponents if fit.identifiable else {})}
    rows = []
    for name, value in shown.items():
        ends = fit.intervals.get(name)
        span = (
            "held" if name in fit.fixed else f"{number(ends[0], ends)} to {number(ends[1], ends)}" if ends else "none"
        )
        rows.append((name, number(float(value), ends), span))
    told = "" if fit.identifiable else f"<p>Exponents of the optimum are not told: {_e(fit.reason)}.</p>"
    return f"<p>{_e(fit.law.description)}</p>{told}" + _table(("parameter", "value", "95 % interval"), rows)


def _missing(report: Report) -> str:
    lines = [f"{name}: {why}" for name, why in report.missing.items() if name != "decision"]
    lines += [f"{method} (approach): {why}" for method, why in report.approaches.refused]
    return _listed(lines)


def _runs(report: Report) -> str:
    notes = "".join(f"<p>{_e(note)}</p>" for note in report.fit.table.notes)
    table = _table(report_figures.HEAD_RUNS, report_figures.run_rows(report))
    return f"{notes}<details><summary>{len(report.fit.table)} runs</summary>{table}</details>"


def _excluded(report: Report) -> str:
    rows = report.fit.table.excluded
    if not len(rows):
        return NONE
    shown = [(str(row.row), row.column, str(row.value), row.reason) for row in rows[:MOST_EXCLUDED]]
    more = (
        f"<p>and {len(rows) - MOST_EXCLUDED} more; lmscale fit --json lists all.</p>" if len(rows) > len(shown) else ""
    )
    opened = " open" if len(shown) <= 10 else ""
    table = _table(("row", "column", "value", "why"), shown)
    return f"<details{opened}><summary>{counted(len(rows), 'row')}</summary>{table}{more}</details>"


def _checklist(report: Report) -> str:
    items = report.checklist
    known = sum(item.recorded for item in items)
    lines = [
        "<p>After Li, Kudugunta and Zettlemoyer 2025, “(Mis)Fitting: a survey of scaling laws” (arXiv:2502.18969), "
        f"in our words. {known} of {len(items)} are answered from the records; the author has to answer the others.</p>"
    ]
    rows = [(item.part, item.question, item.answer) for item in items]
    lines.append(_table(("part", "question", "answer"), rows, faint=NOT_RECORDED))
    return "\n".join(lines)


def _figure(chart: Chart) -> str:
    table = ""
    if chart.rows:
        opened = " open" if len(chart.rows) <= 6 else ""
        inner = _table(chart.head, chart.rows)
        table = f"<details{opened}><summary>Table: {counted(len(chart.rows), 'row')}</summary>{inner}</details>"
    words = f"<p>{_e(chart.caption)}</p>"
    plot = f'<div class="plot" id="plot-{chart.name}" role="img" aria-label="{_e(chart.title)}"></div>'
    return _section(chart.name, chart.title, words + plot + table)


def _section(name: str, title: str, inner: str) -> str:
    return f'<section id="{name}">\n<h2>{_e(title)}</h2>\n{inner}\n</section>'


def _listed(lines: Sequence[str]) -> str:
    if not lines:
        return NONE
    return "<ul>" + "".join(f"<li>{_e(line)}</li>" for line in lines) + "</ul>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], faint: str = "") -> str:
    def cell(text: str) -> str:
        return f'<td class="faint">{_e(text)}</td>' if faint and text == faint else f"<td>{_e(text)}</td>"

    top = "".join(f'<th scope="col">{_e(name)}</th>' for name in head)
    body = "\n".join("<tr>" + "".join(cell(text) for text in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _e(text: str) -> str:
    return html.escape(str(text), quote=True)

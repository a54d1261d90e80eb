"""A fit, its optima and its backtest as plain text that a person reads in one look."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.audit import Audit, audit, larger
from analysis.backtest import Backtest, Origin, Standing
from analysis.errors import InputError
from analysis.fit import Fit
from analysis.optimal import optimal
from analysis.solving.verdict import FEW_RUNS
from analysis.table import Table
from analysis.uncertainty import residual_sd

if TYPE_CHECKING:
    from analysis.likelihood import LikelihoodProfile

PREFIXES = ("", "k", "M", "G", "T", "P", "E")
WIDE = 2.0  # high end of the interval of N* over its low end, beyond which the answer is called a demonstration
MOST_LISTED = 8
MORE_FLOPS = 10.0  # how much larger the largest run of the study proposed is


def count(value: float) -> str:
    """20000 as '20 k', 57312345 as '57.3 M': a number known exactly, in three digits."""
    head, _, prefix = quantity(value).partition(" ")
    return f"{float(head):g} {prefix}".strip()


def quantity(value: float, digits: int = 3) -> str:
    """1234567 as '1.23 M'; outside 1 to 1e21 as a power of ten."""
    if value == 0 or not math.isfinite(value) or not 1 <= abs(value) < 1e21:
        return f"{value:.{max(digits - 1, 0)}e}" if math.isfinite(value) else "?"
    rounded = float(f"{value:.{max(digits - 1, 0)}e}")
    power = min(math.floor(math.log10(abs(rounded)) / 3 + 1e-9), len(PREFIXES) - 1)
    scaled = rounded / 1000.0**power
    places = max(digits - 1 - math.floor(math.log10(abs(scaled)) + 1e-9), 0)
    return f"{scaled:.{places}f} {PREFIXES[power]}".strip()


def digits_for(low: float, high: float) -> int:
    """Significant digits that an interval of positive numbers supports."""
    width = math.log(high / low) if 0 < low <= high else math.inf
    return 1 if width > 1.5 else 2 if width > 0.1 else 3 if width > 0.01 else 4


def number(value: float, ends: tuple[float, float] | None) -> str:
    """A value with as many digits as its interval supports, for parameters and losses."""
    digits = 4 if ends is None else digits_for(*ends) + 1
    if value == 0 or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    places = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{float(f'{value:.{digits - 1}e}'):,.{places}f}"


def fit_text(fit: Fit, profiles: "Mapping[str, LikelihoodProfile] | None" = None) -> str:
    """The law, its intervals, its quality, its warnings; profile intervals beside them where they were asked for."""
    lines = [*table_lines(fit.table), "", f"law  {fit.law.description}"]
    rows = []
    named = {"a": "a   (N* ~ C^a)", "b": "b   (D* ~ C^b)"}
    shown = {**fit.law.parameters, **(fit.law.exponents if fit.identifiable else {})}
    for name, value in shown.items():
        ends = fit.intervals.get(name)
        span = f"{number(ends[0], ends)} to {number(ends[1], ends)}" if ends else "-"
        row = [named.get(name, name), number(float(value), ends), "held" if name in fit.fixed else span]
        if profiles:
            row.append(_profile(profiles.get(name)))
        rows.append(row)
    head = ["parameter", "value", "95 % interval"]
    if profiles:
        head.append("profile likelihood")
    lines += columns(head, rows)
    lines += [
        "",
        f"residuals  median {100 * fit.residual_median:.2g} %, largest {100 * max(abs(fit.residuals)):.2g} %",
        f"objective  {fit.objective:.10g} ({fit.loss.description}), gradient {fit.gradient_norm:.1g}, "
        f"condition {fit.condition:.2g}, {fit.agreement:.0%} of {fit.starts} starts agree",
        f"intervals  {fit.bootstrap} resamples, {fit.resampling}",
        *_entropy_lines(fit),
        *warning_lines(fit.warnings),
        *honesty_lines(fit),
    ]
    return "\n".join(lines)


def _entropy_lines(fit: Fit) -> list[str]:
    """What L0 should be, of a source whose entropy rate is known."""
    entropy, ends = fit.table.entropy_nats, fit.intervals.get("L0")
    if entropy is None:
        return []
    line = f"source  has {entropy:.4f} nats a token, the least that any model can lose"
    if ends:
        held = "holds" if ends[0] <= entropy <= ends[1] else "MISSES"
        line += f": L0's interval, {ends[1] - ends[0]:.2g} wide, {held} it"
    return [line]


def _profile(found: "LikelihoodProfile | None") -> str:
    if found is None:
        return "-"
    low, high = found.interval
    ends = (number(low, found.interval), number(high, found.interval))
    return ("below " if found.open_low else "") + ends[0] + " to " + ("above " if found.open_high else "") + ends[1]


def backtest_text(result: Backtest) -> str:
    """Each run held out, as predicted from the others."""
    cells = []
    for row in result.rows:
        span = "-" if row.interval is None else f"{row.interval[0]:.4g} to {row.interval[1]:.4g}"
        inside = "-" if row.covered is None else "yes" if row.covered else "no"
        error = f"{100 * row.relative_error:+.2f} %"
        cells.append(
            (row.run[:32], f"{row.flops:.2e}", f"{row.predicted:.4g}", f"{row.measured:.4g}", error, span, inside)
        )
    head = ("held-out run", "FLOPs", "predicted", "measured", "error", "95 % interval", "inside")
    rest = len(result.fit.table)
    summary = f"fitted on the {rest} other runs: mean error {100 * result.mean_relative_error:.2f} %, "
    summary += f"largest {100 * result.max_relative_error:.2f} %"
    return "\n".join([*columns(head, cells), "", summary, *warning_lines(result.fit.warnings)])


def rolling_text(table: Table, origins: Sequence[Origin], standings: Sequence[Standing]) -> str:
    """Every origin of a rolling test, then the laws, best first."""
    head = ("fitted up to", "runs", "predicted", "reach", "law", "mean error", "largest", "covered", "width")
    cells = []
    last = 0.0
    for origin in origins:
        same, last = origin.flops == last, origin.flops
        left = ["", "", "", ""] if same else [
            f"{origin.flops:.2e} FLOPs", str(origin.fitted), str(origin.predicted), f"{origin.reach:.3g} x"
        ]  # fmt: skip
        if origin.reason:
            cells.append((*left, origin.law, origin.reason, "", "", ""))
            continue
        cells.append((*left, origin.law, _percent(origin.mean_relative_error), _percent(origin.max_relative_error),
                      _percent(origin.coverage, 0), _percent(origin.width)))  # fmt: skip
    lines = [*table_lines(table), "", *columns(head, cells), ""]
    rows = [
        (
            s.law,
            str(s.origins),
            _percent(s.mean_relative_error),
            _percent(s.max_relative_error),
            _percent(s.coverage, 0),
        )
        for s in standings
    ]
    lines += columns(("law, best first", "origins", "mean error", "largest", "covered (of 95 %)"), rows)
    return "\n".join(lines)


def _percent(value: float | None, places: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{places}f} %"


def table_lines(table: Table) -> list[str]:
    """What was fitted and what was left out, row by row."""
    params, tokens = table.params, table.tokens
    lines = [
        f"{len(table)} runs  {count(params.min())} to {count(params.max())} parameters, "
        f"{count(tokens.min())} to {count(tokens.max())} tokens"
    ]
    lines += [f"note  {note}" for note in table.notes]
    if table.excluded:
        lines.append(f"left out  {len(table.excluded)} rows")
        lines += [f"  {excluded}" for excluded in table.excluded[:MOST_LISTED]]
        if len(table.excluded) > MOST_LISTED:
            lines.append(f"  and {len(table.excluded) - MOST_LISTED} more, all listed with --json")
    return lines


def warning_lines(warnings: Sequence[str]) -> list[str]:
    return ["", *(f"warning: {warning}" for warning in warnings)] if warnings else []


def study_ahead(fit: Fit) -> tuple[Audit, Audit] | None:
    """Expected knowledge of N* at 10 x the largest compute, from this design and from one with 10 x larger runs too."""
    if not fit.identifiable:
        return None
    params, tokens = fit.table.params, fit.table.tokens
    sd = max(residual_sd(fit.residuals, len(fit.form.names)), 1e-6)
    budget = 10 * fit.flops_max
    try:
        now, then = (
            audit(n, d, fit.law, residual_sd=sd, flops=budget, delta=fit.loss.corner)
            for n, d in ((params, tokens), larger(params, tokens, times_flops=MORE_FLOPS))
        )
    except InputError:  # a law at the edge of its box has no linearisation; there is nothing honest to promise
        return None
    return now, then


def honesty_lines(fit: Fit) -> list[str]:
    """How much of a demonstration this is, and what a larger study would buy; nothing for a study that is neither."""
    try:
        ends = optimal(fit, [10 * fit.flops_max])[0].params_interval
    except InputError:  # a law without a best size there
        ends = None
    width = ends[1] / ends[0] if ends else math.nan
    if len(fit.table) >= FEW_RUNS and not width > WIDE:
        return []
    lines = ["", f"This is a demonstration: {len(fit.table)} runs, largest {fit.flops_max:.1e} FLOPs."]
    if ends:
        lines.append(
            f"At 10 x that compute N* is known within a factor of {_factor(width)} "
            f"({quantity(ends[0], 2)} to {quantity(ends[1], 2)})."
        )
    studies = study_ahead(fit)
    if studies is not None:
        now, then = studies
        times = _factor(then.total_flops / now.total_flops)
        lines.append(
            f"Running the grid once more with sizes and tokens {math.sqrt(MORE_FLOPS):.2g} x larger ({then.runs} runs, "
            f"{times} x the compute in all) would narrow that:\nby the linearised audit, which takes runs as "
            f"independent, from a factor of {_factor(now.factor)} to {_factor(then.factor)}."
        )
    return lines


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Text in aligned columns under a ruled head."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    return [lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]


def _factor(value: float) -> str:
    return f"{value:.3g}" if value < 1e4 else "more than 10,000"

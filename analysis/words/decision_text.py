"""A decision as a table that a person reads in one look: a column a budget, warnings last."""

import math
import textwrap
from collections.abc import Mapping, Sequence

from analysis.deciding.counting import CountedAnswer
from analysis.deciding.near_best import NearBest
from analysis.decision import Decision
from analysis.words.summary import columns, digits_for, honesty_lines, quantity, warning_lines

LEFT = 16  # characters of the names of the rows
NARROWEST = 16  # of a column; as many budgets stand side by side as the width allows

Interval = tuple[float, float] | None


def decision_text(
    decision: Decision, extra: Sequence[Mapping[str, str]] = (), *, width: int = 100, notes: Sequence[str] = ()
) -> str:
    """The table, then the approaches and countings that differ, then warnings and how far to trust them.

    extra: of each budget, further named rows (a shape, a cost). notes: on them. width: of the screen, in characters.
    """
    fit = decision.fit
    blocks = [_block(decision, i, extra[i] if extra else {}) for i in range(len(decision.rows))]
    column = max(NARROWEST, *(len(cell) + 2 for block in blocks for cell in block.values()))
    beside = max(1, (width - LEFT) // column)
    lines: list[str] = []
    for first in range(0, len(blocks), beside):
        lines += _side_by_side(blocks[first : first + beside], column)
        lines.append("")
    lines += [part for note in (*_notes(decision), *notes) for part in wrapped(note, width)]
    lines += counting_lines(decision, width)
    lines += [part for line in honesty_lines(fit) for part in wrapped(line, width)]
    lines += [part for line in warning_lines(decision.warnings) for part in wrapped(line, width)]
    return "\n".join(lines)


def wrapped(line: str, width: int) -> list[str]:
    """A sentence in lines of the screen's width."""
    return textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False) or [""]


def _notes(decision: Decision) -> list[str]:
    fit, near = decision.fit, decision.near[0]
    lines = []
    if any(row.extrapolation > 1.001 for row in decision.rows):
        lines.append(f"Beyond the largest run fitted ({fit.flops_max:.2e} FLOPs) these are extrapolations.")
    if fit.samples is not None:
        lines.append(f"Brackets: 95 % intervals, {fit.bootstrap} resamples, {fit.resampling}.")
    waste = "Waste: FLOPs beyond those with which the best size reaches the same loss"
    likely = "; at N*, not exceeded in 95 % of the resamples." if near.likely_wasted is not None else "."
    lines.append(f"As good: sizes within {near.within_nats:g} nats of the best. {waste}{likely}")
    return lines


def counting_lines(decision: Decision, width: int = 100) -> list[str]:
    """Approaches and ways of counting side by side, at the largest budget; nothing where there is one answer alone."""
    budget = decision.rows[-1].flops
    here = [answer for answer in decision.counted.answers if answer.row.flops == budget]
    if len(here) < 2:
        return []
    head = ("approach", "counted", "N*", "D*", "loss" if width < 100 else "loss (nats)", "a (N* ~ C^a)")
    kept = len(head) if width >= 110 else len(head) - 1
    lines = ["", f"At {budget:.2e} FLOPs by approach and by what is counted (N* in all parameters):", ""]
    lines += columns(head[:kept], [_counted(answer, width < 100)[:kept] for answer in here])
    missing = sorted({name.rpartition(", ")[2] for name, _ in decision.approaches.refused})
    if missing:
        told = f"This table has no answer by {' and '.join(missing)} in 6ND; the command of that name says why."
        lines += wrapped(told, width)
    return [*lines, *(part for line in decision.approaches.disagreements for part in wrapped(line, width))]


def _counted(answer: CountedAnswer, narrow: bool) -> tuple[str, ...]:
    row = answer.row
    n, d = (
        quantity_cell(value, ends, " ")
        for value, ends in ((answer.params_all, answer.params_all_interval), (row.tokens, row.tokens_interval))
    )
    loss = loss_cell(row.loss_nats, row.loss_interval)
    a = f"{answer.a:.2f}" + (
        "" if answer.a_interval is None else f" [{answer.a_interval[0]:.2f}, {answer.a_interval[1]:.2f}]"
    )
    return answer.method, str(answer.counting), n, d, loss.partition(" ")[0] if narrow else loss, a


def _block(decision: Decision, i: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Named cells of one budget; a name of blanks is a line below the one before."""
    row, near = decision.rows[i], decision.near[i]
    cells = {
        "FLOPs (6ND)": f"{row.flops:.2e}",
        "the data": row.where,
        **_valued("parameters N*", row.params, row.params_interval),
        **_valued("tokens D*", row.tokens, row.tokens_interval),
        "loss (nats)": loss_cell(row.loss_nats, None),
    }
    if row.loss_interval is not None:
        cells["loss (nats) "] = loss_cell(row.loss_nats, row.loss_interval).partition(" ")[2]
        cells["loss (nats)"] = loss_cell(row.loss_nats, row.loss_interval).partition(" ")[0]
    cells["D*/N*"] = f"{row.tokens_per_param:.3g}"
    cells |= _flatness(near)
    if decision.served:
        s = decision.served[i]
        cells |= _valued("served: N", s.params, s.params_interval)
        cells |= _valued("served: D", s.tokens, s.tokens_interval)
        cells["served: saves"] = f"{s.saved:.0%} of FLOPs" if s.saved >= 0.005 else "nothing"
    return {**cells, **extra}


def _flatness(near: NearBest) -> dict[str, str]:
    cells = {"as good: N": f"{quantity(near.params_low, 2)} to {quantity(near.params_high, 2)}"}
    if near.likely_wasted is not None:
        cells["waste at N*"] = f"up to {_percent(near.likely_wasted)}"
    told = {w.factor: w for w in near.wrong}
    for factor in (0.5, 2.0):
        if factor in told:
            name = "at N*/2" if factor < 1 else "at 2 N*"
            cells[f"  {name}"] = f"{_percent(told[factor].wasted)}, +{told[factor].excess_nats:.2g} nats"
    return cells


def _valued(name: str, value: float, ends: Interval) -> dict[str, str]:
    if ends is None:
        return {name: quantity(value)}
    shown = quantity_cell(value, ends, "\n").partition("\n")
    return {name: shown[0], f"{name} ": shown[2]}


def _side_by_side(blocks: Sequence[Mapping[str, str]], column: int) -> list[str]:
    names = list(dict.fromkeys(name for block in blocks for name in block))
    lines = []
    for k, name in enumerate(names):
        head = "" if name.endswith(" ") else name  # an interval stands below its value
        cells = "".join(block.get(name, "-").ljust(column) for block in blocks)
        lines.append(f"{head:<{LEFT}}{cells}".rstrip())
        if k == 0:
            lines.append("-" * (LEFT + column * len(blocks) - 2))
    return lines


def quantity_cell(value: float, ends: Interval, gap: str) -> str:
    """A count with as many digits as its interval supports, and its interval after `gap`."""
    if ends is None:
        return quantity(value)
    digits = digits_for(*ends)
    return f"{quantity(value, digits)}{gap}[{quantity(ends[0], digits)}, {quantity(ends[1], digits)}]"


def loss_cell(value: float, ends: Interval) -> str:
    if ends is None:
        return f"{value:.4g}"
    places = min(max(1 - math.floor(math.log10(max(ends[1] - ends[0], 1e-4))), 2), 4)
    return f"{value:.{places}f} [{ends[0]:.{places}f}, {ends[1]:.{places}f}]"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "nearly all"

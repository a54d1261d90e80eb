"""A comparison as a table: how many times the compute, at each loss, with intervals; warnings last."""

import math

from analysis.multiplier import Multiplier
from analysis.words.decision_text import wrapped
from analysis.words.summary import columns, warning_lines


def multiplier_text(found: Multiplier, *, width: int = 100) -> str:
    """A row a loss, the mean over the range, and in words what it means."""
    cells = [
        (
            f"{row.loss_nats:.4g}",
            f"{row.first_flops:.2e}",
            f"{row.second_flops:.2e}",
            times(row.multiplier, row.interval),
            "within" if row.measured else "beyond",
        )
        for row in found.rows
    ]
    head = ("loss (nats)", f"{found.first[:18]} FLOPs", f"{found.second[:18]} FLOPs", "multiplier", "the data")
    lines = columns(head, cells)
    lines.append("")
    if found.overall is not None:
        said = f"Over this range {found.second} needs {times(found.overall, found.overall_interval)} times the compute"
        lines += wrapped(f"{said} of {found.first} (6ND, each at its best size).", width)
    if found.bootstrap:
        told = f"Brackets: 95 % intervals, {found.bootstrap} resamples of both studies in random pairs."
    else:
        told = "No resamples: these numbers have no intervals; --bootstrap 1000 gives them."
    lines += wrapped(told, width)
    said = list(found.warnings)
    if any(not row.measured for row in found.rows):
        said.insert(0, "losses beyond the data of one of the two are extrapolations of its law")
    lines += [part for line in warning_lines([*verdict(found), *said]) for part in wrapped(line, width)]
    return "\n".join(lines)


def verdict(found: Multiplier) -> list[str]:
    """What the rows do not agree on, or cannot tell."""
    ends = found.overall_interval if found.overall is not None else found.rows[-1].interval
    lines = []
    if ends is not None and ends[0] <= 1 <= ends[1]:
        lines.append("the interval holds 1: these runs do not tell which of the two needs less compute")
    told = [row for row in found.rows if row.interval is not None]
    if len(told) > 1:
        first, last = told[0].interval, told[-1].interval
        if first and last and (first[1] < last[0] or last[1] < first[0]):
            lines.append("the multiplier changes with scale: no one number stands for the range")
    return lines


def times(value: float, ends: tuple[float, float] | None) -> str:
    """1.32 [1.18, 1.47], with as many places as the interval supports."""
    if ends is None:
        return f"{value:.3g}"
    spread = math.log(ends[1] / ends[0]) if ends[0] > 0 and math.isfinite(ends[1]) else math.inf
    digits = 2 if spread > 0.5 else 3
    low, high = (_end(end, digits) for end in ends)
    return f"{_end(value, digits)} [{low}, {high}]"


def _end(value: float, digits: int) -> str:
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "no end"
    if value >= 1e4 or value < 1e-3:
        return f"{value:.0e}"
    places = max(digits - 1 - math.floor(math.log10(value)), 0)
    return f"{float(f'{value:.{digits - 1}e}'):.{places}f}"

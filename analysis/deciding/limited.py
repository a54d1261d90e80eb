"""Optima where text runs out: what a budget buys with so many unique tokens, and what it would buy without limit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fit import Fit
from analysis.laws import Optimum
from analysis.optimal import OptimalRow, budgets_asked, optimal
from analysis.uncertainty import interval
from analysis.words.summary import columns, number, quantity


@dataclass(frozen=True, kw_only=True)
class LimitedRow:
    """One budget with `unique_tokens` of text, and the same budget with text that never runs out.

    epochs: D* over unique tokens (1 where it is less: a part of the text is read once). cost_nats: loss lost to the
    limit. Intervals are 95 %, None without resamples.
    """

    flops: float
    unique_tokens: float
    limited: OptimalRow
    unlimited: OptimalRow
    epochs: float
    epochs_interval: tuple[float, float] | None
    cost_nats: float
    cost_interval: tuple[float, float] | None


def limited(fit: Fit, flops: Sequence[float] | None, unique_tokens: float) -> tuple[LimitedRow, ...]:
    """One row a budget, as `optimal` gives them. Raises InputError as it does, for a law that knows no repeats too."""
    budgets = budgets_asked(flops, fit.flops_max)
    few, plenty = optimal(fit, flops, unique_tokens=unique_tokens), optimal(fit, flops)
    epochs, cost = _both(fit.law.optimum(budgets, unique_tokens), fit.law.optimum(budgets), unique_tokens)
    ends: list[list[tuple[float, float] | None]] = [[None] * len(few)] * 2
    if fit.samples is not None:
        drawn = _both(fit.samples.optimum(budgets, unique_tokens), fit.samples.optimum(budgets), unique_tokens)
        pairs = [interval(values) for values in drawn]
        ends = [[(float(low[i]), float(high[i])) for i in range(len(few))] for low, high in pairs]
    return tuple(
        LimitedRow(
            flops=row.flops,
            unique_tokens=unique_tokens,
            limited=row,
            unlimited=plenty[i],
            epochs=float(epochs[i]),
            epochs_interval=ends[0][i],
            cost_nats=float(cost[i]),
            cost_interval=ends[1][i],
        )
        for i, row in enumerate(few)
    )


def _both(few: Optimum, plenty: Optimum, unique_tokens: float) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, and the loss lost to the limit (none is won by it: the search for a minimum ends a hair above it)."""
    epochs = np.maximum(few.tokens / unique_tokens, 1.0)
    return epochs, np.maximum(few.loss_nats - plenty.loss_nats, 0.0)


def limited_text(rows: Sequence[LimitedRow]) -> str:
    """Two lines a budget: with the text there is, and without limit."""
    cells = []
    for row in rows:
        ends = row.epochs_interval
        epochs = number(row.epochs, ends) + (f" [{number(ends[0], ends)}, {number(ends[1], ends)}]" if ends else "")
        span = row.cost_interval
        cost = f"{row.cost_nats:.4f}" + (f" [{span[0]:.4f}, {span[1]:.4f}]" if span else "")
        for text, each, times, lost in (
            (f"{quantity(row.unique_tokens)} unique", row.limited, epochs, cost),
            ("unlimited", row.unlimited, "1", ""),
        ):
            head = f"{row.flops:.2e}" if each is row.limited else ""
            cells.append(
                (head, text, quantity(each.params), quantity(each.tokens), times, f"{each.loss_nats:.4f}", lost)
            )
    head = ("FLOPs (6ND)", "text", "parameters N*", "tokens D*", "epochs", "loss (nats)", "cost of the limit")
    lines = columns(head, cells)
    enough = [row for row in rows if row.limited.tokens <= row.unique_tokens]
    if enough:
        named = ", ".join(f"{row.flops:.2e}" for row in enough)
        lines += ["", f"At {named} FLOPs the text is more than is worth reading once: nothing is repeated."]
    return "\n".join(lines)

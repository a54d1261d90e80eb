"""How surely planted facts are known, against how often the training text holds them and the size of the model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import betainc

from analysis.clustered import holm
from analysis.errors import InputError
from analysis.plots import COLOURS, blank_figure, draw_legend
from analysis.proportions import wilson
from analysis.rows import numbers
from analysis.scores import read_scores
from analysis.summary import columns, count, table_lines
from analysis.table import Table

TASK, FIELD = "facts", "repeats"
LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class RecallCell:
    """Facts of one count of repeats, asked of the models of one size and token count.

    recall, exact: shares; interval: 95 % of recall (Wilson); log_prob: mean over facts of that of the right attribute,
    in nats; facts: how many were asked, over all `runs`. p_adjusted: of so many right by guessing, over all cells.
    """

    params: float
    tokens: float
    repeats: float
    runs: int
    facts: int
    recall: float
    interval: tuple[float, float]
    exact: float
    log_prob: float
    p_adjusted: float

    @property
    def known(self) -> bool:
        """Whether recall is beyond chance."""
        return self.p_adjusted < LEVEL


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Every cell, by size, tokens and repeats; chance: the share that guessing gets right."""

    table: Table
    cells: tuple[RecallCell, ...]
    chance: float


def read_recall(path: str | Path, table: Table) -> Recall:
    """The recall of a table's runs, from the scores beside it. Raises InputError where none was asked for facts."""
    scores = read_scores(path)
    asked = scores.keep(task=TASK)
    if asked.frame.empty or FIELD not in asked.fields():
        raise InputError(f"recall: no run in {scores.source!r} was asked for planted facts; plant some (corpus.facts)")
    chance = asked.keep(metric="chance", slice="").frame
    if chance.empty:
        raise InputError(f"recall: {scores.source!r} does not say what guessing gets right; add rows of metric chance")
    cells, tails = [], []
    guess = float(numbers(chance, "value")[0])
    points = sorted({*zip(table.params.tolist(), table.tokens.tolist(), strict=True)})
    for params, tokens in points:
        here = (table.params == params) & (table.tokens == tokens)
        part = table.keep(here)
        for value in sorted(asked.fields()[FIELD], key=float):
            mine = asked.keep(slice=f"{FIELD}={value}")
            share, exact, log_prob, facts = (
                mine.keep(metric=metric).of(part) for metric in ("recall", "exact", "log_prob", "facts")
            )
            has = np.isfinite(share) & np.isfinite(facts)
            if not has.any():
                continue
            asked_of, hits = int(facts[has].sum()), int(np.rint((share * facts)[has].sum()))
            tails.append(float(betainc(hits, asked_of - hits + 1, guess)) if hits else 1.0)  # P(at least so many)
            cells.append(
                RecallCell(
                    params=params,
                    tokens=tokens,
                    repeats=float(value),
                    runs=int(has.sum()),
                    facts=asked_of,
                    recall=hits / asked_of,
                    interval=wilson(hits, asked_of),
                    exact=float((exact * facts)[has].sum()) / asked_of,
                    log_prob=float((log_prob * facts)[has].sum()) / asked_of,
                    p_adjusted=1.0,
                )
            )
    if not cells:
        raise InputError(f"recall: none of the runs of the table was asked for facts in {scores.source!r}; sweep again")
    adjusted = holm(tails)
    cells = [RecallCell(**{**vars(c), "p_adjusted": p}) for c, p in zip(cells, adjusted, strict=True)]
    return Recall(table=table, cells=tuple(cells), chance=guess)


def recall_text(result: Recall) -> str:
    """A row a cell, then from how many repeats on each size knows more than it could guess."""
    rows = [
        (count(cell.params), count(cell.tokens), f"{cell.repeats:g}", str(cell.facts), f"{cell.recall:.3f}",
         f"{cell.interval[0]:.3f} to {cell.interval[1]:.3f}", f"{cell.exact:.3f}", f"{cell.log_prob:.3f}",
         f"{cell.p_adjusted:.2g}")
        for cell in result.cells
    ]  # fmt: skip
    head = ("parameters", "tokens", "repeats", "asked", "recall", "95 % interval", "exact", "log-prob.", "p (Holm)")
    lines = [*table_lines(result.table), "", *columns(head, rows), ""]
    lines.append(f"Guessing is right in {result.chance:.3f} (log-probability {np.log(result.chance):.3f}).")
    for params, tokens in sorted({(cell.params, cell.tokens) for cell in result.cells}):
        known = [cell.repeats for cell in _of(result, params, tokens) if cell.known]
        words = f"beyond chance at {', '.join(f'{r:g}' for r in known)} repeats" if known else "nothing leaves chance"
        lines.append(f"{count(params)} parameters, {count(tokens)} tokens: {words} (at {LEVEL:.0%} over all cells)")
    return "\n".join(lines)


def recall_figure(result: Recall) -> Figure:
    """Recall against repeats, a line for each size (and token count), with Wilson intervals, and chance."""
    figure, (axes,) = blank_figure(1)
    points = sorted({(cell.params, cell.tokens) for cell in result.cells})
    several = len({tokens for _, tokens in points}) > 1
    for i, (params, tokens) in enumerate(points):
        cells = _of(result, params, tokens)
        colour = COLOURS(0.9 * i / max(1, len(points) - 1))
        shift = 1.05 ** (i - (len(points) - 1) / 2)  # lest bars hide each other
        x = np.array([cell.repeats for cell in cells]) * shift
        y = np.array([cell.recall for cell in cells])
        ends = np.array([cell.interval for cell in cells]).T
        named = f"{count(params)} parameters" + (f", {count(tokens)} tokens" if several else "")
        axes.errorbar(x, y, yerr=np.abs(ends - y), fmt="o-", color=colour, markersize=4.5, linewidth=1.3, capsize=2,
                      label=named)  # fmt: skip
    axes.axhline(result.chance, color="0.35", linestyle=":", linewidth=1.2, label="guessing")
    axes.set(xscale="log", ylim=(-0.03, 1.03), xlabel="times that the training text holds the fact")
    axes.set_ylabel("share of facts recalled")
    axes.set_title("Recall of planted facts, 95 % intervals", loc="left")
    draw_legend(figure)
    return figure


def _of(result: Recall, params: float, tokens: float) -> list[RecallCell]:
    return [cell for cell in result.cells if (cell.params, cell.tokens) == (params, tokens)]

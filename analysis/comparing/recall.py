"""How surely planted facts are known, against how often the training text holds them and the size of the model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import betainc

from analysis.errors import InputError
from analysis.reading.rows import numbers
from analysis.reading.scores import read_scores
from analysis.solving.clustered import holm
from analysis.solving.proportions import wilson
from analysis.table import Table
from analysis.words.summary import columns, count, table_lines

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
        known = [cell.repeats for cell in cells_of(result, params, tokens) if cell.known]
        words = f"beyond chance at {', '.join(f'{r:g}' for r in known)} repeats" if known else "nothing leaves chance"
        lines.append(f"{count(params)} parameters, {count(tokens)} tokens: {words} (at {LEVEL:.0%} over all cells)")
    return "\n".join(lines)


def cells_of(result: Recall, params: float, tokens: float) -> list[RecallCell]:
    return [cell for cell in result.cells if (cell.params, cell.tokens) == (params, tokens)]

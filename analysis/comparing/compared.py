"""Groups of runs side by side (families, tokenizers): loss against parameters and tokens, and by length of context.

Losses of different objectives are means over other tokens given other context, so each group is drawn in its unit, and
only groups of one unit share a panel: bits per byte of the text for causal models, the same by pseudo-likelihood for
masked ones, where the table tells it; otherwise the loss as it is, objective by objective.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.laws import Array
from analysis.reading.rows import numbers, texts
from analysis.reading.scores import Scores, one_task, read_scores
from analysis.table import Table
from analysis.words.summary import columns, count, table_lines

CAUSAL, MASKED = "causal", "masked"
BITS = "bits per byte"
PSEUDO, PSEUDO_TASK = "bits per byte, pseudo-likelihood", "pseudo_likelihood"
CONTEXT = "context"  # the field of scores.csv


@dataclass(frozen=True, kw_only=True)
class Point:
    """The runs of one group, size and token count, as their mean over `runs` (seeds): loss in the group's unit.

    size tells the lines of a group apart; parameters may differ along one (an n-gram's grow with its text). stderr is
    that of a run, over the documents of its evaluation set; NaN where the table does not tell it.
    """

    group: str
    size: str
    params: float
    tokens: float
    runs: int
    loss: float
    stderr: float


@dataclass(frozen=True, kw_only=True)
class Context:
    """Loss of one group's best size by how many tokens a target is predicted from, `low` to `high` of them, in bits a
    token.
    """

    best: Point
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    bits: Array
    stderr: Array  # NaN where it is not told


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """points: by group in the order of the table. units: of each group. contexts: of causal groups, where all groups
    are scored on the same tokens.
    """

    by: str
    table: Table
    points: tuple[Point, ...]
    units: dict[str, str]
    contexts: tuple[Context, ...]

    @property
    def groups(self) -> list[str]:
        return list(self.units)

    def best(self, group: str, tokens: float | None = None) -> Point:
        """The lowest loss of a group, at that many tokens or at the most it has."""
        mine = [point for point in self.points if point.group == group]
        wanted = max(point.tokens for point in mine) if tokens is None else tokens
        return min((point for point in mine if point.tokens == wanted), key=lambda point: point.loss)


def compare(path: str | Path, table: Table, by: str) -> Comparison:
    """The runs of a table, read with the same `by`, and their scores beside it, if there are any.

    Raises InputError for a column that has one value.
    """
    labels = texts(table.frame, by).to_numpy(object)
    groups = list(dict.fromkeys(labels))
    if len(groups) < 2:
        raise InputError(f"by: {by} has one value, {groups[0]!r}; choose a column of several")
    scores = _scores(path)
    points: list[Point] = []
    units = {}
    for group in groups:
        part = table.keep(labels == group)
        units[group], loss, stderr = _loss(part, scores)
        points += _points(str(group), part, loss, stderr)
    found = Comparison(by=by, table=table, points=tuple(points), units=units, contexts=())
    if scores is None or _differs(table, "tokenizer") or _differs(table, "eval_set"):  # other tokens in each group
        return found
    causal = [group for group in groups if units[group] == BITS]
    shared = [{p.tokens for p in points if p.group == group} for group in causal]
    common = max(set.intersection(*shared), default=None) if shared else None
    contexts = [_context(table.keep(labels == group), scores, found.best(group, common)) for group in causal]
    return Comparison(
        by=by, table=table, points=tuple(points), units=units, contexts=tuple(c for c in contexts if c is not None)
    )


def _differs(table: Table, column: str) -> bool:
    return column in table.frame and len(set(texts(table.frame, column))) > 1


def _scores(path: str | Path) -> Scores | None:
    try:
        return read_scores(path)
    except InputError as error:
        if str(error).startswith("scores: there is no"):
            return None
        raise


def _loss(part: Table, scores: Scores | None) -> tuple[str, Array, Array]:
    """The unit of a group's loss, the loss [n], and its standard error [n]."""
    nan = np.full(len(part), np.nan)
    nats = part.loss_nats
    stderr = part.frame["loss_stderr"].to_numpy(np.float64) if "loss_stderr" in part.frame else nan
    objective = texts(part.frame, "objective").iloc[0] if "objective" in part.frame else CAUSAL
    if objective == CAUSAL and "bits_per_byte" in part.frame:
        bits = numbers(part.frame, "bits_per_byte")
        if np.isfinite(bits).all():
            return BITS, bits, stderr * bits / nats
    if objective == MASKED and scores is not None:
        mine = scores.keep(task=PSEUDO_TASK, metric="pseudo_bits_per_byte", slice="")
        bits = mine.of(part)
        if np.isfinite(bits).all():
            return PSEUDO, bits, mine.of(part, "stderr")
    return f"nats per token scored, {objective}", nats, stderr


def _sizes(part: Table) -> NDArray[np.object_]:
    """What tells the sizes of a group apart: the order of an n-gram, else parameters."""
    params = np.array([count(each) for each in part.params], object)
    if "order" not in part.frame:
        return params
    orders = numbers(part.frame, "order")
    return np.array([p if np.isnan(o) else f"order {o:.0f}" for p, o in zip(params, orders, strict=True)], object)


def _points(group: str, part: Table, loss: Array, stderr: Array) -> list[Point]:
    sizes, tokens = _sizes(part), part.tokens
    found = []
    for size, seen in dict.fromkeys(zip(sizes, tokens, strict=True)):
        rows = (sizes == size) & (tokens == seen)
        found.append(
            Point(
                group=group,
                size=str(size),
                params=float(part.params[rows].mean()),
                tokens=float(seen),
                runs=int(rows.sum()),
                loss=float(loss[rows].mean()),
                stderr=float(stderr[rows].mean()),
            )
        )
    return sorted(found, key=lambda point: (point.params, point.tokens))


def _context(part: Table, scores: Scores, best: Point) -> Context | None:
    """Of the runs of the best size; None where they have no loss by context."""
    part = part.keep((_sizes(part) == best.size) & (part.tokens == best.tokens))
    mine = one_task(scores.keep(metric="loss_nats"), part, None)
    found = []
    for part_of_text in dict.fromkeys(texts(mine.frame, "slice")):
        field, _, value = part_of_text.partition("=")
        if field != CONTEXT:
            continue
        here = mine.keep(slice=part_of_text)
        low, _, high = value.partition("-")
        bits, stderr = (here.of(part, name).mean() / math.log(2) for name in ("value", "stderr"))
        if np.isfinite(bits):
            found.append((int(low), int(high or low), bits, stderr))
    if not found:
        return None
    low, high, bits, stderr = (np.array(each) for each in zip(*sorted(found), strict=True))
    return Context(best=best, low=low, high=high, bits=bits, stderr=stderr)


def compared_text(result: Comparison) -> str:
    """The best of each group, at the most tokens it has; and loss by context."""
    rows = []
    for group in result.groups:
        best = result.best(group)
        rows.append((group, best.size, count(best.params), count(best.tokens), _number(best.loss, best.stderr),
                     result.units[group]))  # fmt: skip
    lines = [*table_lines(result.table), "", "lowest loss at the most tokens:"]
    lines += columns((result.by, "size", "parameters", "tokens", "loss", "unit"), rows)
    if not result.contexts:
        return "\n".join(lines)
    tokens = {context.best.tokens for context in result.contexts}
    spans = sorted({pair for c in result.contexts for pair in zip(c.low.tolist(), c.high.tolist(), strict=True)})
    told = [(_span(*span), *(_at(context, span) for context in result.contexts)) for span in spans]
    head = ("context", *(f"{c.best.group} ({c.best.size})" for c in result.contexts))
    at = f" at {count(tokens.pop())} tokens" if len(tokens) == 1 else ""
    return "\n".join([*lines, "", f"bits a token by tokens of context, best size{at}:", *columns(head, told)])


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _at(context: Context, span: tuple[int, int]) -> str:
    at = np.flatnonzero((context.low == span[0]) & (context.high == span[1]))
    return _number(float(context.bits[at[0]]), float(context.stderr[at[0]])) if len(at) else "-"


def _number(value: float, stderr: float) -> str:
    return f"{value:.4f}" + ("" if np.isnan(stderr) else f" +- {stderr:.4f}")


def of_unit(result: Comparison) -> list[tuple[str, Sequence[str]]]:
    """Units, each with its groups."""
    units = dict.fromkeys(result.units.values())
    return [(unit, [group for group in result.groups if result.units[group] == unit]) for unit in units]

"""Effective data transferred: how many tokens a model saves that has read another text before.

A fine-tuned model of N parameters that saw D tokens of a text, and has the loss of one from scratch that saw D_E, was
saved D_T = D_E - D (Hernandez et al. 2021, arXiv:2102.01293, Sec. 2). Where data is short, D_T = k D^alpha N^beta
(their eq. 1.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.interpolate import PchipInterpolator

from analysis.errors import InputError
from analysis.laws import Array
from analysis.reading.rows import blank, listed, texts
from analysis.table import Table
from analysis.words.summary import columns, count, table_lines

SAME = ("objective", "corpus", "tokenizer", "eval_set")  # of losses that are compared
NAMES = ("k", "alpha", "beta")
MOST_HALF_WIDTH = 2.0  # of an exponent's interval: beyond it not even its sign is worth saying
LEAST_COUNTS = 2  # of tokens from scratch, between which a loss can be found


@dataclass(frozen=True, kw_only=True)
class Saved:
    """One fine-tuned run. effective: tokens from scratch to its loss, NaN where those of its size do not reach from
    below to above it, and `why` says so; transferred: those less its own.
    """

    run_id: str
    family: str
    params: float
    tokens: float
    loss_nats: float
    effective: float
    why: str = ""

    @property
    def transferred(self) -> float:
        return self.effective - self.tokens


@dataclass(frozen=True, kw_only=True)
class TransferLaw:
    """D_T = k D^alpha N^beta, by least squares of log D_T over `runs`. intervals: 95 %, of independent normal errors;
    scatter: the residuals' standard deviation, of log D_T. Without a law, `reason`.
    """

    family: str
    runs: int
    parameters: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    scatter: float
    reason: str = ""


TUNED = ("_finetuned", "_lora")  # how the families of runs that began from others end


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What every fine-tuned run was saved, and the law of each family of them."""

    table: Table
    saved: tuple[Saved, ...]
    laws: tuple[TransferLaw, ...]


def transfer(table: Table) -> Transfer:
    """Compares the runs that began from others (column `start`) with those of the same size that did not.

    The table is to be read with by="family". Between two counts of tokens from scratch the loss is interpolated,
    monotone, in logarithms. Raises InputError where there are no runs of one of both kinds, and where their losses
    are of different texts.
    """
    frame = table.frame
    if "start" not in frame or "family" not in frame:
        raise InputError("start: no such column, which names the run that another began from; sweep a study with one")
    for column in (name for name in SAME if name in frame):
        values = sorted(set(texts(frame, column)))
        if len(values) > 1:
            raise InputError(
                f"{column}: {len(values)} values ({listed(map(repr, values), 4)}) have no losses to compare; choose "
                f"one with --where {column}={values[-1]}"
            )
    alone = blank(frame, "start")
    tuned = texts(frame, "family").str.endswith(TUNED).to_numpy(bool)
    if (odd := np.flatnonzero(alone == tuned)).size:
        name, family = texts(frame, "run_id").iloc[odd[0]], texts(frame, "family").iloc[odd[0]]
        has = "no start" if alone[odd[0]] else "a start"
        raise InputError(f"start: run {name!r} is of family {family!r} and has {has}; mend its row, or leave it out")
    if alone.all() or not alone.any():
        missing = "begins from another: sweep with --start.run" if alone.all() else "is from scratch: --start none"
        raise InputError(f"start: no run of the table {missing}, into the same study")
    params, tokens, losses = table.params, table.tokens, table.loss_nats
    scratch = {n: _by_tokens(tokens[of], losses[of]) for n in np.unique(params) if (of := alone & (params == n)).any()}
    names, families = texts(frame, "run_id").to_numpy(object), texts(frame, "family").to_numpy(object)
    begun = sorted(np.flatnonzero(~alone), key=lambda i: (families[i], params[i], tokens[i]))
    saved = tuple(
        _saved(str(names[i]), str(families[i]), float(params[i]), float(tokens[i]), float(losses[i]), scratch)
        for i in begun
    )
    laws = tuple(
        _law(family, [s for s in saved if s.family == family]) for family in dict.fromkeys(s.family for s in saved)
    )
    return Transfer(table=table, saved=saved, laws=laws)


def _by_tokens(tokens: Array, losses: Array) -> tuple[Array, Array]:
    """Token counts, ascending, and the loss after each: the mean over seeds, and never above one of fewer tokens."""
    counts = np.unique(tokens)
    return counts, np.minimum.accumulate([losses[tokens == count].mean() for count in counts])


def _saved(
    run_id: str, family: str, params: float, tokens: float, loss: float, scratch: Mapping[float, tuple[Array, Array]]
) -> Saved:
    effective, why = np.nan, ""
    counts, losses = scratch.get(params, (np.empty(0), np.empty(0)))
    losses, first = np.unique(losses, return_index=True)  # ascending; of equal ones, that of the fewest tokens
    counts = counts[first]
    if len(losses) < LEAST_COUNTS:
        why = f"fewer than {LEAST_COUNTS} runs of this size are from scratch"
    elif loss < losses[0]:
        why = f"no run from scratch got so low: more than {count(counts[0])} tokens"
    elif loss > losses[-1]:
        why = f"no run from scratch is so high: fewer than {count(counts[-1])} tokens"
    else:
        effective = float(np.exp(PchipInterpolator(np.log(losses), np.log(counts))(np.log(loss))))
    return Saved(
        run_id=run_id, family=family, params=params, tokens=tokens, loss_nats=loss, effective=effective, why=why
    )


def _law(family: str, saved: Sequence[Saved]) -> TransferLaw:
    points = np.array([(s.tokens, s.params, s.transferred) for s in saved if s.transferred > 0])
    bare = TransferLaw(family=family, runs=len(points), parameters={}, intervals={}, scatter=np.nan)
    if len(points) <= len(NAMES):
        reason = f"{len(points)} runs were saved a known number of tokens; a law of three numbers needs four"
        return TransferLaw(**{**vars(bare), "reason": reason})
    logs = np.log(points)
    design = np.column_stack([np.ones(len(logs)), logs[:, :2] - logs[:, :2].mean(axis=0)])
    scale = np.linalg.norm(design, axis=0)
    if (scale < 1e-9).any() or np.linalg.cond(design / scale) > 1e3:
        return TransferLaw(**{**vars(bare), "reason": "tokens and parameters do not vary apart from one another"})
    design = np.column_stack([np.ones(len(logs)), logs[:, :2]])
    found, *_ = np.linalg.lstsq(design, logs[:, 2], rcond=None)
    degrees = len(logs) - len(NAMES)
    scatter = float(np.sqrt(np.sum((logs[:, 2] - design @ found) ** 2) / degrees))
    half = stats.t.ppf(0.975, degrees) * scatter * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    if (widest := float(half[1:].max())) > MOST_HALF_WIDTH:
        reason = f"its exponents would be known within +-{widest:.2g} only; add sizes and counts of tokens"
        return TransferLaw(**{**vars(bare), "reason": reason})
    ends = [(float(v - h), float(v + h)) for v, h in zip(found, half, strict=True)]
    values, spans = [float(v) for v in found], list(ends)
    values[0], spans[0] = float(np.exp(found[0])), (float(np.exp(ends[0][0])), float(np.exp(ends[0][1])))
    return TransferLaw(
        family=family,
        runs=len(points),
        parameters=dict(zip(NAMES, values, strict=True)),
        intervals=dict(zip(NAMES, spans, strict=True)),
        scatter=scatter,
    )


def transfer_text(result: Transfer) -> str:
    """Every fine-tuned run, then the law of each family."""
    rows = [
        (
            s.family,
            count(s.params),
            count(s.tokens),
            f"{s.loss_nats:.4f}",
            *((count(s.effective), count(s.transferred)) if not s.why else ("-", s.why)),
        )
        for s in result.saved
    ]
    head = ("family", "params", "tokens", "loss (nats)", "from scratch", "transferred (tokens)")
    lines = [*table_lines(result.table), "", *columns(head, rows)]
    for law in result.laws:
        if law.reason:
            lines += ["", f"{law.family}: no law of what was transferred; {law.reason}"]
            continue
        lines += [
            "",
            f"{law.family}: transferred = k D^alpha N^beta, {law.runs} runs, scatter {law.scatter:.2g}",
        ]
        spans = [(name, f"{value:.3g}", *law.intervals[name]) for name, value in law.parameters.items()]
        told = [(name, value, f"{low:.3g} to {high:.3g}") for name, value, low, high in spans]
        lines += columns(("parameter", "value", "95 % interval"), told)
    fewer = sum(s.transferred <= 0 for s in result.saved)
    if fewer:
        lines += ["", f"warning: {fewer} runs were saved nothing and are in no law, which is of those that were"]
    return "\n".join([*lines, "", "Intervals take runs as independent, though those of one trajectory are not."])

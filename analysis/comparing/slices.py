"""Loss by groups of documents against scale: a law for each group, and whether groups diverge as models grow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.comparing.gaps import LEAST_RUNS, Gap, find_gaps
from analysis.errors import InputError
from analysis.fit import Fit, fit
from analysis.laws import Array, Chinchilla, Law
from analysis.reading.rows import listed, texts
from analysis.reading.scores import Scores, one_task
from analysis.rivals import BrokenCompute
from analysis.solving.clustered import Line, line
from analysis.table import Table
from analysis.uncertainty import interval

LEAST_DOCUMENTS = 5  # of a group: the loss of fewer is theirs, not the group's
POWER = "power law in compute"


@dataclass(frozen=True, kw_only=True)
class SliceGroup:
    """One group of documents: its loss in each run, and how it falls.

    form: the name of the fitted law, or POWER where the runs do not tell one (`why`). exponent: of the law, c in
    L - L0 ~ C^-c along its compute-optimal frontier; of POWER, c in L ~ C^-c over all runs. smallest and largest: mean
    loss of the runs of the least and of the most compute. stderr: of a run's loss, over documents (NaN if not told).
    """

    name: str
    documents: int | None
    tokens: int | None
    table: Table
    form: str
    why: str
    fit: Fit | None
    line: Line
    exponent: float
    interval: tuple[float, float] | None
    smallest: float
    largest: float
    stderr: Array


@dataclass(frozen=True, kw_only=True)
class SlicedFit:
    """The groups of one field, in the order of their loss at the largest compute, and the gaps of all pairs."""

    field: str
    table: Table
    groups: tuple[SliceGroup, ...]
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]


def fit_slices(
    table: Table,
    scores: Scores,
    field: str,
    *,
    values: Sequence[str] | None = None,
    task: str | None = None,
    law: str = Chinchilla.name,
    bootstrap: int = 1000,
    seed: int = 0,
    **options: Any,
) -> SlicedFit:
    """Fit each group of documents by itself, and test every pair for a gap that widens.

    values: the groups wanted, all by default; then those with fewer than LEAST_DOCUMENTS documents or LEAST_RUNS runs
    are left out and said. options: those of analysis.fit.
    Raises InputError for a field that was not kept, a group asked for that has too little, and where none has enough.
    """
    if law == BrokenCompute.name:
        raise InputError(f"law: {law!r} has no one exponent to compare groups by; choose another, such as chinchilla")
    kept = scores.fields()
    if field not in kept:
        found = f"those kept are {listed(sorted(kept))}; name one of them" if kept else "no field was"
        raise InputError(
            f"slice: {field!r} was not kept of the documents scored in {scores.source!r}; {found}, or keep it "
            f"(--corpus.slices {field}) and sweep again"
        )
    part = one_task(_with_field(scores, field), table, task)
    names = part.fields().get(field, [])
    missing = sorted(set(values or ()) - set(names))
    if missing:
        raise InputError(f"slice: {field}={missing[0]} is no group; found {listed(names)}; name one of them")
    groups, left_out = [], []
    for name in values or names:
        found, why = _group(table, part, f"{field}={name}", law, bootstrap, seed, options)
        if found is None:
            left_out.append(f"{field}={name} {why}")
        else:
            groups.append(found)
    if left_out and (values or not groups):
        raise InputError(f"slice: {left_out[0]}; score more text (eval_tokens), or name other groups")
    groups.sort(key=lambda group: -group.largest)
    gaps = find_gaps([(group.name, group.table) for group in groups])
    warnings = [f"left out: {words}" for words in left_out]
    warnings += [
        f"{gap.first} falls behind {gap.second} as models grow: the gap goes from {gap.smallest_nats:.3f} to "
        f"{gap.largest_nats:.3f} nats, the ratio of losses from {gap.smallest_ratio:.3f} to {gap.largest_ratio:.3f} "
        f"(p = {gap.p_adjusted:.2g} over {len(gaps)} pairs)"
        for gap in gaps
        if gap.widens
    ]
    forms = {group.form for group in groups}
    if len(forms) > 1:
        warnings.append(
            "groups are fitted by different forms, whose exponents do not compare: that of a law is of L - L0 along "
            "the frontier, that of a power law of L itself"
        )
    return SlicedFit(field=field, table=table, groups=tuple(groups), gaps=gaps, warnings=tuple(warnings))


def _with_field(scores: Scores, field: str) -> Scores:
    rows = np.array([part.partition("=")[0] == field for part in texts(scores.frame, "slice")], bool)
    return Scores(frame=scores.frame.loc[rows], source=scores.source)


def _group(
    table: Table, scores: Scores, name: str, law: str, bootstrap: int, seed: int, options: dict[str, Any]
) -> tuple[SliceGroup | None, str]:
    """One group, or why there is too little of it."""
    mine = scores.keep(slice=name)
    losses = mine.keep(metric="loss_nats")
    values, stderr = losses.of(table), losses.of(table, "stderr")
    documents, tokens = (_count(mine.keep(metric=metric), table) for metric in ("documents", "tokens"))
    has = np.isfinite(values) & (values > 0)
    if documents is not None and documents < LEAST_DOCUMENTS:
        return None, f"has {documents} documents in the evaluation set, fewer than {LEAST_DOCUMENTS}"
    if has.sum() < LEAST_RUNS:
        return None, f"has a loss in {has.sum()} runs, fewer than {LEAST_RUNS}"
    part = replace(table, frame=table.frame.assign(loss_nats=values, loss_stderr=stderr)).keep(has)
    part = replace(part, excluded=(), notes=())
    log_flops = np.log(part.flops_6nd)
    fall = line(log_flops, np.log(part.loss_nats), part.trajectory)
    if fall is None:
        return None, "has runs of one compute, or of fewer than three trajectories"
    fitted, why = _law(part, law, bootstrap, seed, options)
    if fitted is None:
        exponent, ends = -fall.slope, (-fall.interval[1], -fall.interval[0])
    else:
        exponent, ends = float(frontier_exponent(fitted.law)), None
        if fitted.samples is not None:
            low, high = interval(np.asarray(frontier_exponent(fitted.samples)).reshape(-1))
            ends = (float(low), float(high))
    near = 1e-6
    group = SliceGroup(
        name=name,
        documents=documents,
        tokens=tokens,
        table=part,
        form=POWER if fitted is None else fitted.law.name,
        why=why,
        fit=fitted,
        line=fall,
        exponent=exponent,
        interval=ends,
        smallest=float(part.loss_nats[log_flops <= log_flops.min() + near].mean()),
        largest=float(part.loss_nats[log_flops >= log_flops.max() - near].mean()),
        stderr=stderr[has],
    )
    return group, ""


def frontier_exponent(law: Law) -> Any:
    """c of L - L0 ~ C^-c along the compute-optimal frontier: A / N^alpha with N ~ C^a."""
    return law.parameters["alpha"] * law.exponents["a"]


def _law(part: Table, law: str, bootstrap: int, seed: int, options: dict[str, Any]) -> tuple[Fit | None, str]:
    """The fitted law, or why the design does not tell one."""
    try:
        fitted = fit(part, law, bootstrap=bootstrap, seed=seed, **options)
    except InputError as error:
        if str(error).partition(":")[0] in ("runs", "params", "tokens"):  # the design, not what was asked
            return None, str(error)
        raise
    return (fitted, "") if fitted.identifiable else (None, fitted.reason)


def _count(scores: Scores, table: Table) -> int | None:
    values = scores.of(table)
    return int(np.nanmin(values)) if np.isfinite(values).any() else None

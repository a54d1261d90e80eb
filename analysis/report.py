"""Everything that a report of a study shows: the fit, the answer, the tests of it, and why a part is missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from analysis.approaches import Approaches, compare
from analysis.backtest import Backtest, backtest
from analysis.comparing.recall import Recall, read_recall
from analysis.curves import Curves
from analysis.decision import Decision, decide
from analysis.emergence import Emergence, emergence
from analysis.errors import InputError
from analysis.fit import Fit, Options
from analysis.multiverse import Multiverse, multiverse
from analysis.page.checklist import Item, checklist
from analysis.reading.scores import SCORES
from analysis.skills.abilities import read_abilities, scored

HELD_OUT = 0.1  # share of the runs, those of largest compute, that the backtest predicts
ABILITY_RESAMPLES = 400  # at the most, likewise
BACKTEST_RESAMPLES = 200  # at the most: the interval of a prediction, not the answer, hangs on them


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page is made of. Every part that could not be had is None and has its reason in `missing`, by its name.

    source: the table, as its reader names it. made: the day. recall: of planted facts, None where none were asked for;
    abilities: on tasks, likewise.
    """

    title: str
    source: str
    made: date
    fit: Fit
    decision: Decision | None
    approaches: Approaches
    backtest: Backtest | None
    multiverse: Multiverse | None
    recall: Recall | None
    abilities: Emergence | None
    missing: Mapping[str, str]
    warnings: tuple[str, ...]
    checklist: tuple[Item, ...]

    @property
    def budgets(self) -> tuple[float, ...]:
        return tuple(row.flops for row in self.decision.rows) if self.decision else ()


def report(
    fit: Fit,
    *,
    title: str,
    source: str,
    made: date,
    curves: Curves | None = None,
    flops: Sequence[float] | None = None,
    every_choice: bool = False,
    scores: Path | None = None,
    recipe: Mapping[str, str] | None = None,
) -> Report:
    """All parts of a report from a fit; those that the runs do not allow are missing with the reason.

    every_choice: also the multiverse, which is minutes of fits. scores: a folder whose scores.csv may tell of recall.
    recipe: of the training, as its records have it, for the checklist.
    Raises InputError for a budget that is not finite and positive.
    """
    missing: dict[str, str] = {}
    decision, tested, every, recalled = None, None, None, None
    try:
        decision = decide(fit, flops, curves=curves, today=made)
        approaches = decision.approaches
    except InputError as error:
        if str(error).startswith("flops"):
            raise
        missing["decision"] = _reason(error)
        approaches = compare(fit, curves, flops, bootstrap=fit.bootstrap, seed=fit.seed)
    try:
        tested = backtest(
            fit.table,
            fit.law.name,
            holdout=max(1, round(HELD_OUT * len(fit.table))),
            bootstrap=min(fit.bootstrap, BACKTEST_RESAMPLES),
            seed=fit.seed,
            **_options(fit),
        )
        if not np.isfinite(tested.max_relative_error):
            raise InputError("holdout: the law fitted to the smaller runs predicts no finite loss")
    except InputError as error:
        tested, missing["backtest"] = None, _reason(error)
    if every_choice:
        try:
            every = multiverse(fit.table, flops[-1] if flops else None, bootstrap=0, seed=fit.seed)
        except InputError as error:
            missing["multiverse"] = _reason(error)
    else:
        missing["multiverse"] = "not asked for; --multiverse fits every choice and takes minutes"
    if scores is not None and (scores / SCORES).is_file():
        try:
            recalled = read_recall(scores, fit.table)
        except InputError as error:
            missing["recall"] = _reason(error)
    able = None
    try:
        able = _abilities(fit, scores)
        missing |= {f"a law of {a.ability.task}": a.no_law for a in able.tasks if a.no_law} if able else {}
    except InputError as error:
        missing["abilities"] = _reason(error)
    warnings = decision.warnings if decision else fit.warnings
    return Report(
        title=title,
        source=source,
        made=made,
        fit=fit,
        decision=decision,
        approaches=approaches,
        backtest=tested,
        multiverse=every,
        recall=recalled,
        abilities=able,
        missing=missing,
        warnings=tuple(dict.fromkeys(warnings)),
        checklist=checklist(fit, tested, recipe or {}),
    )


def _abilities(fit: Fit, folder: Path | None) -> Emergence | None:
    """What scale does to the tasks that the runs were scored on; None where they were on none."""
    found = read_abilities(folder, fit.table) if folder is not None and scored(folder, fit.table) else ()
    if not found:
        return None
    resamples = min(fit.bootstrap, ABILITY_RESAMPLES)
    return emergence(fit.table, found, law=fit.law.name, bootstrap=resamples, seed=fit.seed)


def _options(fit: Fit) -> Options:
    """The options of the fit that a hold-out test repeats; weights are of the rows, so that they cannot be."""
    return {"loss": fit.loss.kind, "delta": fit.loss.delta, "residual": fit.loss.residual, "fixed": fit.fixed}


def _reason(error: InputError) -> str:
    return str(error).removeprefix("runs: ")

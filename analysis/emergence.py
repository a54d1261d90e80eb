"""What scale does to abilities: every task's law in two stages, how it scales, and whether its jumps are real."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.errors import InputError
from analysis.fit import Fit
from analysis.laws import Chinchilla
from analysis.skills.abilities import MAIN, SHARES, Ability
from analysis.skills.kinds import Scaling, scaling_kinds
from analysis.skills.links import Exponential, Sigmoid
from analysis.skills.sharpness import Sharpness, every_sharpness
from analysis.skills.two_stage import HeldOutScore, TwoStage, fit_loss, held_out_scores, require_told, two_stage
from analysis.solving.forms import form_of
from analysis.table import Table
from analysis.uncertainty import require_resamples

HELD_OUT = 0.15  # share of the runs, those of largest compute, that both stages predict from the others


@dataclass(frozen=True, kw_only=True)
class Staged:
    """One form of the second stage: fitted to all runs, and judged by those held out (or why there are none)."""

    stages: TwoStage
    held_out: tuple[HeldOutScore, ...]
    why: str

    @property
    def mean_error(self) -> float | None:
        """Mean absolute difference of predicted and measured score over the runs held out."""
        rows = self.held_out
        return sum(abs(row.error) for row in rows) / len(rows) if rows else None

    @property
    def coverage(self) -> float | None:
        inside = [row.covered for row in self.held_out if row.covered is not None]
        return sum(inside) / len(inside) if inside else None


@dataclass(frozen=True, kw_only=True)
class TaskAnswer:
    """One task. laws: that of least scatter first, of as many parameters each; empty with the reason in `no_law`.

    sharpness: None with the reason in `untested`.
    """

    ability: Ability
    laws: tuple[Staged, ...]
    no_law: str
    scaling: Scaling
    sharpness: Sharpness | None
    untested: str


@dataclass(frozen=True, kw_only=True)
class Emergence:
    """All tasks of a table. table: its runs, of which some may lack some tasks; against: the scale of the tests."""

    table: Table
    against: str
    tasks: tuple[TaskAnswer, ...]
    bootstrap: int
    seed: int


def emergence(
    table: Table,
    abilities: Sequence[Ability],
    *,
    against: str = "flops",
    law: str = Chinchilla.name,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Emergence:
    """Every part of the answer for every task. Raises InputError for an unknown scale or law and bad resamples."""
    require_resamples(bootstrap, seed)
    form_of(law)
    kinds = scaling_kinds(abilities, against)
    sharp, refused = every_sharpness(abilities, against, draws=bootstrap, seed=seed)
    by_task = {each.task: each for each in sharp}
    losses = _Losses(law=law, bootstrap=bootstrap, seed=seed, fits={})
    answers = []
    for ability, scaling in zip(abilities, kinds, strict=True):
        laws, no_law = _laws(ability, losses)
        answers.append(
            TaskAnswer(ability=ability, laws=laws, no_law=no_law, scaling=scaling,
                       sharpness=by_task.get(ability.task), untested=refused.get(ability.task, ""))
        )  # fmt: skip
    return Emergence(table=table, against=against, tasks=tuple(answers), bootstrap=bootstrap, seed=seed)


@dataclass(frozen=True, kw_only=True)
class _Losses:
    """First stages by the rows they were fitted to: tasks of the same runs share them."""

    law: str
    bootstrap: int
    seed: int
    fits: dict[tuple[int, ...], Fit | InputError]

    def of(self, table: Table) -> Fit:
        rows = tuple(table.frame["csv_row"])
        if rows not in self.fits:
            try:
                self.fits[rows] = fit_loss(table, self.law, bootstrap=self.bootstrap, seed=self.seed)
            except InputError as error:
                if str(error).partition(":")[0] not in ("runs", "params", "tokens"):  # what was asked, not the design
                    raise
                self.fits[rows] = error
        found = self.fits[rows]
        if isinstance(found, InputError):
            raise found
        return found


def _laws(ability: Ability, losses: _Losses) -> tuple[tuple[Staged, ...], str]:
    """Both forms, or why there is none."""
    metric = ability.main
    if metric.name not in SHARES:
        return (), f"{metric.name} is no share of what is right; choose {' or '.join(MAIN)} with --metric"
    table, scores = ability.table, metric.value
    try:
        require_told(table, scores, metric.chance)
        fitted = losses.of(table)
    except InputError as error:
        return (), str(error)
    found, why = [], ""
    for form in (Exponential.name, Sigmoid.name):
        try:
            stages = two_stage(fitted, table, scores, form=form, chance=metric.chance)
        except InputError as error:
            why = str(error)
            continue
        try:
            holdout = max(1, round(HELD_OUT * len(stages.table)))
            held, reason = held_out_scores(stages, losses.of, holdout), ""
        except InputError as error:
            held, reason = (), str(error)
        found.append(Staged(stages=stages, held_out=held, why=reason))
    found.sort(key=lambda each: each.stages.link.scatter)
    return tuple(found), "" if found else why

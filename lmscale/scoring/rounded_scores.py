"""The finished runs of a study scored with their weights rounded: what they lack, a file for each set and rounding.

    <out>/<study>/runs/<run_id>/scores/<set>-<digest>-int4.json     written once

Rows of scores.csv keep the task, eval_set and slice of the text they are about, so that whoever asks for scores on a
set finds these beside its loss; what is new is what was measured there, the metrics `loss_nats_int4` and
`loss_added_int4` (a task of its own would be another text to `lmscale fit --slice` and to every reader of the table).

Nothing of a sweep is touched: final parameters are read, which are written before a run has its record and never
changed after; no lease is taken, no record written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lmscale.checkpoint import Checkpoints, CorruptCheckpoint
from lmscale.config import Study
from lmscale.evaluate import NamedSet, Score, score_rows
from lmscale.mesh import make_mesh
from lmscale.plan import Run, Trajectory
from lmscale.planning.assemble import Assembly
from lmscale.records import SCORES, Workspace
from lmscale.scoring.quantise import Rounding, Scorer
from lmscale.step import Step
from lmscale.store.files import as_json, create, sealed
from lmscale.watch.pacing import duration
from lmscale.watch.progress import Pace, run_words


@dataclass(kw_only=True)
class Outcome:
    """What came of it: runs by id, but for numbers of runs."""

    scored: int = 0
    before: int = 0  # had all scores already
    missing: list[str] = field(default_factory=list)  # final parameters are not there
    damaged: list[str] = field(default_factory=list)  # or not what was written
    unplanned: list[str] = field(default_factory=list)  # finished, but of another plan than this


@dataclass(frozen=True, kw_only=True)
class Task:
    """A finished run, and what it lacks: roundings by set."""

    trajectory: Trajectory
    run: Run
    compute_dtype: str  # that it was trained in
    lacks: dict[str, list[Rounding]]

    @property
    def flops(self) -> float:
        """Forward FLOPs a token, times evaluations: how the time is shared out among runs that score one text."""
        shape, h = self.trajectory.shape, self.trajectory.hyperparameters
        return shape.forward_flops_per_token(h.sequence) * sum(1 + len(some) for some in self.lacks.values() if some)


def score_rounded(
    assembly: Assembly, workspace: Workspace, roundings: Sequence[Rounding], say: Callable[[str], None]
) -> Outcome:
    """Scores every finished run of the plan that has its final parameters, on the headline set and on those beside it.

    Says a line a run, with the time left. Raises InputError for a mesh that cannot be, and for a family whose weights
    cannot be rounded. Whatever interrupts it, scores that were said are kept, and the next call goes on after them.
    """
    sets = {s.name: s for s in (assembly.headline, *assembly.extra_sets) if type(s) is NamedSet}
    outcome, tasks = _find(assembly, workspace, sets, roundings)
    pace, done = Pace(sum(task.flops for task in tasks)), 0.0
    scorers: dict[tuple, Scorer] = {}
    for number, task in enumerate(tasks, 1):
        head, run_id = f"{number}/{len(tasks)}  {run_words(task.trajectory, task.run)}", task.run.id
        done += task.flops
        checkpoints = Checkpoints(workspace.run(run_id) / "final", say)
        if task.run.steps not in checkpoints.steps():
            outcome.missing.append(run_id)
            say(f"{head}  skipped: {run_id} has no final parameters on disk")
            continue
        scorer = _scorer(scorers, task, assembly.study)
        try:
            like = {"params": scorer.step.abstract_state.params}
            params = checkpoints.restore(task.run.steps, like)["params"]
        except CorruptCheckpoint as error:
            outcome.damaged.append(run_id)
            say(f"{head}  skipped: the final parameters of {run_id} are damaged ({error})")
            continue
        words = []
        for name, lacking in task.lacks.items():
            found = scorer(params, sets[name].windows, lacking) if lacking else []
            for rounding, scores in zip(lacking, found, strict=True):
                keep(workspace, run_id, sets[name], rounding, scores)
                said = f"{rounding.name} {scores[1].value:+.5f} +- {scores[1].stderr:.5f}"
                words.append(said if name == assembly.headline.name else f"{name} {said}")
        outcome.scored += 1
        left = pace.left(0, done, time.monotonic())
        if left is not None and number < len(tasks):
            words.append(f"about {duration(left)} left")
        say("  ".join([head, *words]))
    return outcome


def keep(workspace: Workspace, run_id: str, of: NamedSet, rounding: Rounding, scores: Sequence[Score]) -> None:
    """Keeps the scores of one run on one set, unless another process has."""
    folder = workspace.run(run_id) / SCORES
    folder.mkdir(exist_ok=True)
    rows = score_rows(run_id, of.name, of.label, scores)
    create(folder / file_name(of, rounding), as_json(sealed({"scores": rows})))


def file_name(of: NamedSet, rounding: Rounding) -> str:
    return f"{of.name}-{of.windows.digest[:8]}-{rounding.name}.json"


def _find(
    assembly: Assembly, workspace: Workspace, sets: dict[str, NamedSet], roundings: Sequence[Rounding]
) -> tuple[Outcome, list[Task]]:
    """The finished runs that lack something, smallest model first, and what there is to say of the others."""
    records = {record["row"]["run_id"]: record for record in workspace.records() if record["row"]["status"] == "done"}
    outcome, tasks = Outcome(), []
    for trajectory in assembly.plan:
        for run in trajectory.runs:
            record = records.pop(run.id, None)
            if record is None or trajectory.family == "ngram":  # which has no weights
                continue
            rows = workspace.scores(run.id)  # a damaged file is set aside here, and made anew
            has = {(row["task"], row["eval_set"], row["metric"]) for row in rows}
            lacks = {
                each.name: [r for r in roundings if not {(each.name, each.label, m) for m in r.metrics} <= has]
                for each in sets.values()
            }
            if any(lacks.values()):
                dtype = record["compute_dtype"]
                tasks.append(Task(trajectory=trajectory, run=run, compute_dtype=dtype, lacks=lacks))
            else:
                outcome.before += 1
    outcome.unplanned = sorted(records)
    return outcome, tasks


def _scorer(scorers: dict[tuple, Scorer], task: Task, study: Study) -> Scorer:
    """Compiled once for all runs of a program. The arithmetic is that of training, wherever this is."""
    trajectory = task.trajectory
    h = replace(trajectory.hyperparameters, compute_dtype=task.compute_dtype)
    same = replace(trajectory, hyperparameters=h)
    if same.program not in scorers:
        step = Step(same, make_mesh(study.mesh), microbatches=1, steps_per_dispatch=study.steps_per_dispatch)
        scorers[same.program] = Scorer(step)
    return scorers[same.program]

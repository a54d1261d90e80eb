"""The runs that could come next: sizes of the ladder on token counts, and what each would cost. No framework.

A study's candidates are what its own plan makes of further cells, with its recipe and text, so that a count added to
a size that is planned continues its trunk. Those of a table, which tells no recipe, are trained each by itself for 6ND.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.deciding.planned import Planned
from analysis.errors import InputError
from analysis.laws import flops_6nd
from analysis.suggest import Candidates
from lmscale.config import Chosen, Recipe, Size, Study
from lmscale.plan import Text, Trajectory, make_plan
from lmscale.planning.grid import cells, comes_to
from lmscale.shapes import Shape, shape_for, shape_of

if TYPE_CHECKING:
    from analysis.table import Table

SIZES, COUNTS = 20, 12  # of each range, in equal ratios
SMALLER, LARGER = 2.0, 4.0  # how far below and above the planned sizes and counts, where no range is given
RATIO = 4.0  # and to either side of the planned tokens per parameter
DIGITS = 3  # of a token count

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """candidates; cells [m], what each is in a study; planned, with which they share the numbers of trajectories."""

    planned: Planned
    candidates: Candidates
    cells: tuple[Chosen, ...]


def planned_of(plan: Sequence[Trajectory]) -> Planned:
    """The runs of a plan, with FLOPs of trunks counted exactly."""
    return _runs(plan, {t.id: number for number, t in enumerate(plan)})[0]


def of_study(
    study: Study, text: Text, plan: Sequence[Trajectory], params: Range | None, tokens: Range | None
) -> Options:
    """Candidates beside the plan of a study: `params` and `tokens` are the ranges that may be trained.

    Raises InputError for a study of several recipes or seeds, and where nothing in the ranges can be trained.
    """
    if len(study.recipes) > 1 or len(study.seeds) > 1:
        raise InputError(
            "suggest: takes one recipe and one seed; give --seeds, --rate-multipliers, --schedules one each"
        )
    numbers = {t.id: number for number, t in enumerate(plan)}
    planned = planned_of(plan)
    shapes = {(t.shape.width, t.shape.depth, t.shape.heads): t.shape for t in plan}
    own = {(s.width, s.depth, s.heads) for s in shapes.values()}
    sizes = [*study.sizes, *(s for s in _ladder(_range(planned.params, params), plan[0].shape) if _key(s) not in own)]
    low, high = _range(planned.tokens, tokens)
    thin, thick = _range(planned.tokens / planned.params, study.tokens_per_param_range or None, RATIO)
    # a study that counts in tokens per parameter or in FLOPs is offered as many of these
    counts = _counts(*_range(np.array(study.counts, np.float64), tokens if study.counted_by == "tokens" else None))
    found: list[tuple[Trajectory, Chosen]] = []
    for size in sizes:
        for count in sorted({*counts, *study.counts}):
            alone = replace(study, sizes=(size,), only=(), flops_max=None, **{study.counted_by: (count,)})
            try:
                (trajectory,) = make_plan(alone, text)
            except InputError:  # too short for its schedule, too long for its text, or left out by the study
                continue
            n, d = trajectory.shape.params, trajectory.runs[0].tokens
            within = params is None or params[0] <= n <= params[1]
            if within and low <= d <= high and thin <= d / n <= thick:
                found.append((trajectory, Chosen(size=size, count=count)))
    if not found:
        raise InputError("suggest: nothing within these ranges can be trained; widen params-range or tokens-range")
    for trajectory, _ in found:
        numbers.setdefault(trajectory.id, len(numbers))
    runs, own_flops = _runs([t for t, _ in found], numbers)
    return Options(
        planned=planned, candidates=Candidates(runs=runs, own_flops=own_flops), cells=tuple(c for _, c in found)
    )


def of_table(table: Table, vocab: int, params: Range | None, tokens: Range | None) -> Options:
    """Candidates beside the runs of a table, decoders of the ladder with this vocabulary."""
    planned = Planned.of(table)
    like = shape_of(Size(width=16), vocab=vocab)
    low, high = _range(planned.tokens, tokens)
    thin, thick = _range(planned.tokens / planned.params, None, RATIO)
    found = [
        (shape_of(size, vocab=vocab).params, count, Chosen(size=size, count=count))
        for size in _ladder(_range(planned.params, params), like)
        for count in _counts(low, high)
    ]
    found = [(n, d, cell) for n, d, cell in found if thin <= d / n <= thick]
    if not found:
        raise InputError("suggest: no size of the ladder lies within these ranges; widen params-range or tokens-range")
    n, d = (np.array([row[k] for row in found], np.float64) for k in (0, 1))
    first = int(planned.trajectory.max()) + 1
    runs = Planned(params=n, tokens=d, trajectory=np.arange(first, first + len(n)), trunk_flops=np.zeros(len(n)))
    candidates = Candidates(runs=runs, own_flops=flops_6nd(n, d))
    return Options(planned=planned, candidates=candidates, cells=tuple(cell for *_, cell in found))


def extended(study: Study, plan: Sequence[Trajectory], chosen: Sequence[Chosen]) -> Study:
    """The study with these cells beside those of its plan."""
    shapes = {(t.shape.width, t.shape.depth, t.shape.heads): t.shape for t in plan}
    cells_now = [
        Chosen(size=size, count=cell.asked)
        for size in study.sizes
        for shape in shapes.values()
        if comes_to(size, shape)
        for cell in cells(study, shape)
    ]
    only = tuple(dict.fromkeys([*cells_now, *chosen]))
    sizes = tuple(dict.fromkeys(cell.size for cell in only))
    counts = tuple(sorted({cell.count for cell in only}))
    return replace(study, sizes=sizes, only=only, flops_max=None, **{study.counted_by: counts})


def alone(name: str, chosen: Sequence[Chosen]) -> Study:
    """A study of these cells, for runs that were trained elsewhere: each by itself, on a schedule of its length."""
    return Study(
        name=name,
        sizes=tuple(dict.fromkeys(cell.size for cell in chosen)),
        tokens=tuple(sorted({int(cell.count) for cell in chosen})),
        only=tuple(chosen),
        recipe=Recipe(schedule="cosine"),
        allow_collinear=True,
    )


def _runs(trajectories: Sequence[Trajectory], numbers: dict[str, int]) -> tuple[Planned, np.ndarray]:
    rows = []
    for t in trajectories:
        h = t.hyperparameters
        for run in t.runs:
            trunk, rest = (
                t.shape.train_flops(steps * h.batch_tokens, h.sequence)
                for steps in (run.branch_step, run.cooldown_steps)
            )
            rows.append((t.shape.params, run.tokens, numbers[t.id], trunk, rest))
    columns = np.array(rows, np.float64).T
    runs = Planned(params=columns[0], tokens=columns[1], trajectory=columns[2].astype(np.int64), trunk_flops=columns[3])
    return runs, columns[4]


def _range(values: np.ndarray, given: Sequence[float] | None, smaller: float = SMALLER) -> Range:
    if given:
        return float(given[0]), float(given[1])
    return float(values.min()) / smaller, float(values.max()) * LARGER


def _ladder(ends: Range, like: Shape) -> list[Size]:
    """Sizes of the ladder from end to end, each with its depth and heads said."""
    found: dict[tuple, Size] = {}
    for params in np.geomspace(*ends, SIZES):
        try:
            shape = shape_for(float(params), like)
        except InputError:  # below the smallest
            continue
        if ends[0] * 0.99 <= shape.params <= ends[1] * 1.01:
            size = Size(width=shape.width, depth=shape.depth, heads=shape.heads)
            found[_key(size)] = size
    return list(found.values())


def _counts(low: float, high: float) -> list[float]:
    return sorted({float(f"{count:.{DIGITS - 1}e}") for count in np.geomspace(low, high, COUNTS)})


def _key(size: Size) -> tuple[int, int | None, int | None]:
    return size.width, size.depth, size.heads

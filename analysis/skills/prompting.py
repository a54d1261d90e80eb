"""When to fine-tune: few-shot against fine-tuned scores as labelled examples grow, and where one overtakes the other.

Few-shot scores are those of runs that were not fine-tuned on the task, one for each number of examples in the prompt
(slice shots=K, and none); fine-tuned ones those of runs that have the score `labelled`. Both are of the same items,
which are drawn for each by itself here: the interval of a crossing is if anything too wide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import isotonic_regression

from analysis.errors import InputError
from analysis.laws import Array
from analysis.reading.rows import blank, listed, texts
from analysis.reading.scores import Scores, read_scores
from analysis.skills.abilities import MAIN
from analysis.solving.proportions import wilson
from analysis.table import Table
from analysis.uncertainty import interval, require_resamples

FIELD = "shots"
LEAST_COUNTS = 2  # of labelled examples, between which a crossing can be found
USUAL_ITEMS = 100  # behind a score that does not say how many, for its errors


@dataclass(frozen=True, kw_only=True)
class Point:
    """A score at a number of examples: the mean over `runs`, its 95 % interval (Wilson, over the items of one run: all
    are asked the same).
    """

    examples: int
    score: float
    interval: tuple[float, float]
    items: int
    runs: int


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """One size. shots, labelled: ascending. best: the few-shot point of the highest score.

    crossing: labelled examples from which fine-tuning is ahead; 0 where it is from the fewest on, infinite where it
    never is. low, high: its 95 % interval, of which ends may be either; ahead: the share of resamples in which it ever
    is.
    """

    params: float
    shots: tuple[Point, ...]
    labelled: tuple[Point, ...]
    best: Point
    crossing: float
    low: float
    high: float
    ahead: float


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """One task over all sizes. refused: sizes of which nothing can be said, with the reason."""

    task: str
    metric: str
    chance: float | None
    sizes: tuple[Crossing, ...]
    refused: Mapping[float, str]
    bootstrap: int

    @property
    def advice(self) -> str:
        """One line."""
        found = [size for size in self.sizes if 0 < size.crossing < np.inf]
        never = [size for size in self.sizes if np.isinf(size.crossing)]
        most = max(size.labelled[-1].examples for size in self.sizes)
        least = min(size.labelled[0].examples for size in self.sizes)
        if len(never) == len(self.sizes):
            return f"prompt: up to {most} labelled examples fine-tuning overtakes the best prompt at no size"
        if not found and not never:
            surely = max(size.high for size in self.sizes)
            until = "" if surely == 0 else f" (95 % intervals reach to {end_text(surely, most)})"
            return f"fine-tune: from {least} labelled examples on it beats the best prompt at every size{until}"
        said = []
        if found:
            ends = min(s.crossing for s in found), max(s.crossing for s in found)
            about = f"about {ends[0]:.3g}" + (f" to {ends[1]:.3g}" if ends[1] > 1.005 * ends[0] else "")
            widest = min(s.low for s in found), max(s.high for s in found)
            span = f"{end_text(widest[0], least)} to {end_text(widest[1], most)}"
            said.append(
                f"prompt below {about} labelled examples, fine-tune above (95 % intervals reach from {span}; "
                f"{len(found)} of {len(self.sizes)} sizes)"
            )
        if never:
            said.append(f"at {len(never)} of {len(self.sizes)} sizes prompting is ahead throughout")
        if any(size.crossing == 0 for size in self.sizes):
            said.append(f"at {sum(s.crossing == 0 for s in self.sizes)} fine-tuning is, from {least} examples on")
        return "; ".join(said)


def end_text(value: float, limit: int) -> str:
    return f"fewer than {limit}" if value == 0 else f"more than {limit}" if np.isinf(value) else f"{value:.3g}"


def tune_or_prompt(
    path: str | Path,
    table: Table,
    *,
    task: str | None = None,
    metric: str | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Prompting:
    """Compare the runs of a table, of any families, by the scores beside it: of each size those trained longest.

    Where fine-tuned runs name what they began from (column `start`) and it is in the table, prompts are to it alone.
    Raises InputError where no run was fine-tuned on the task or none was prompted, and for a share outside 0 to 1.
    """
    require_resamples(bootstrap, seed)
    scores = read_scores(path)
    tuned = scores.keep(metric="labelled")
    names = sorted({*texts(tuned.frame, "task")})
    if not names:
        raise InputError(f"labelled: no run of {scores.source!r} was fine-tuned on a task; fine-tune some, and score")
    if task is None and len(names) > 1:
        raise InputError(f"task: runs were fine-tuned on {listed(names)}; choose one with --task NAME")
    one = names[0] if task is None else task
    if one not in names:
        raise InputError(f"task: no run was fine-tuned on {one!r}; found {listed(names)}")
    mine = scores.keep(task=one)
    found = {*texts(mine.frame, "metric")}
    if metric is not None and metric not in found:
        raise InputError(f"metric: {one!r} has no {metric!r}; found {listed(sorted(found))}")
    chosen = metric or next((name for name in MAIN if name in found), None)
    if chosen is None:
        raise InputError(f"metric: {one!r} has neither {' nor '.join(MAIN)}; name one with --metric")
    return _compared(mine, table, one, chosen, bootstrap, seed)


def _compared(scores: Scores, table: Table, task: str, metric: str, bootstrap: int, seed: int) -> Prompting:
    labelled = scores.keep(metric="labelled", slice="").of(table)
    by_shots = {0: scores.keep(metric=metric, slice="").of(table)}
    for value in scores.fields().get(FIELD, []):
        if value.isdigit():
            by_shots[int(value)] = scores.keep(metric=metric, slice=f"{FIELD}={value}").of(table)
    every = np.concatenate(list(by_shots.values()))
    bad = np.isfinite(every) & ((every < 0) | (every > 1))
    if bad.any():
        raise InputError(f"{metric}: {every[bad][0]:g} is no share from 0 to 1; mend it, or choose another --metric")
    items = scores.keep(metric="items", slice="").of(table)
    items = np.where(np.isfinite(items), items, USUAL_ITEMS).astype(int)
    is_tuned = np.isfinite(labelled) & np.isfinite(by_shots[0])
    if "family" in table.frame and len(kinds := sorted({*texts(table.frame, "family")[is_tuned]})) > 1:
        raise InputError(
            f"family: fine-tuned runs of {listed(kinds)} are not compared as one; --where 'family!={kinds[0]}'"
        )
    begun = {*texts(table.frame, "start")} if "start" in table.frame else set()
    base = ~np.isfinite(labelled)
    if "start" in table.frame:
        base &= blank(table.frame, "start")
    named = base & np.isin(texts(table.frame, "run_id").to_numpy(str), sorted(begun))
    rng = np.random.default_rng([seed, 7])
    sizes, refused = [], {}
    for params in np.unique(table.params[is_tuned]):
        here = table.params == params
        own = here & named if (here & named).any() else here & base
        own &= table.tokens == table.tokens[own].max(initial=0.0)
        shots = [_point(k, values[own], items[own]) for k, values in sorted(by_shots.items())]
        shots = [point for point in shots if point is not None]
        counts = np.unique(labelled[here & is_tuned])
        groups = [here & is_tuned & (labelled == count) for count in counts]
        tuned = [_point(int(n), by_shots[0][g], items[g]) for n, g in zip(counts, groups, strict=True)]
        tuned = [point for point in tuned if point is not None]
        if not shots:
            refused[float(params)] = "no run of this size was prompted"
        elif len(tuned) < LEAST_COUNTS:
            refused[float(params)] = f"fine-tuned on {len(tuned)} number of examples, fewer than {LEAST_COUNTS}"
        else:
            spread = [by_shots[0][g] for g in groups]
            sizes.append(_crossing(float(params), shots, tuned, spread, bootstrap, rng))
    if not sizes:
        why = next(iter(refused.values()), "no fine-tuned run is in the table")
        raise InputError(f"labelled: no size can be compared on {task!r}: {why}; prompt and fine-tune the same sizes")
    chance = scores.keep(metric="chance", slice="").of(table)
    chance = chance[np.isfinite(chance)]
    return Prompting(task=task, metric=metric, chance=float(chance[0]) if chance.size else None, sizes=tuple(sizes),
                     refused=refused, bootstrap=bootstrap)  # fmt: skip


def _point(examples: int, scores: Array, items: Array) -> Point | None:
    has = np.isfinite(scores)
    if not has.any():
        return None
    asked = int(items[has].min())  # of each run the same, so that more runs are no more items
    score = float(np.average(scores[has], weights=items[has]))
    interval = wilson(round(score * asked), asked)
    return Point(examples=examples, score=score, interval=interval, items=asked, runs=int(has.sum()))


def _crossing(
    params: float, shots: Sequence[Point], tuned: Sequence[Point], runs: Sequence[Array], bootstrap: int,
    rng: np.random.Generator,
) -> Crossing:  # fmt: skip
    """runs: the scores of each count's runs, whose scatter beyond their items is drawn as well."""
    best = max(shots, key=lambda point: point.score)
    counts = np.array([point.examples for point in tuned], np.float64)
    crossing = overtakes(counts, np.array([point.score for point in tuned]), best.score)
    low = high = crossing
    ahead = float(np.isfinite(crossing))
    if bootstrap:
        prompted = np.stack([_drawn(point, 0.0, bootstrap, rng) for point in shots], axis=1).max(axis=1)
        seeds = _between([scores for scores in runs if len(scores) > 1])
        learned = np.stack([_drawn(point, seeds, bootstrap, rng) for point in tuned], axis=1)
        found = np.array([overtakes(counts, each, one) for each, one in zip(learned, prompted, strict=True)])
        ends = np.where(np.isinf(found), 1e300, found)
        low, high = (float(end) for end in interval(ends))
        low, high = (np.inf if end > 1e200 else 0.0 if end < counts[0] else end for end in (low, high))
        ahead = float(np.mean(np.isfinite(found)))
    return Crossing(params=params, shots=tuple(shots), labelled=tuple(tuned), best=best, crossing=crossing, low=low,
                    high=high, ahead=ahead)  # fmt: skip


def _between(groups: Sequence[Array]) -> float:
    """Variance between runs of one count, 0 where no count has several. All are asked the same items, which therefore
    take no part in it.
    """
    if not groups:
        return 0.0
    return sum(float(np.var(g, ddof=1)) * (len(g) - 1) for g in groups) / sum(len(g) - 1 for g in groups)


def _drawn(point: Point, between: float, count: int, rng: np.random.Generator) -> Array:
    """Scores [count] as other items, and other runs, would have them."""
    share = rng.beta(point.score * point.items + 0.5, (1 - point.score) * point.items + 0.5, size=count)
    return np.clip(share + np.sqrt(between / point.runs) * rng.normal(size=count), 0.0, 1.0)


def overtakes(counts: Array, scores: Array, bar: float) -> float:
    """Labelled examples from which scores [k], taken as rising (their isotonic fit), exceed a bar.

    In logarithms between two counts; 0 where they do at the fewest, infinite where they never do.
    """
    rising = isotonic_regression(scores).x
    above = np.flatnonzero(rising > bar)
    if not above.size:
        return float("inf")
    first = int(above[0])
    if first == 0:
        return 0.0
    part = (bar - rising[first - 1]) / (rising[first] - rising[first - 1])
    logs = np.log(np.maximum(counts[first - 1 : first + 1], 0.5))
    return float(np.exp(logs[0] + part * (logs[1] - logs[0])))

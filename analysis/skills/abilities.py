"""Scores on tasks beside a table of runs: ours from scores.csv, anyone's from columns of the table itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.errors import InputError
from analysis.laws import Array
from analysis.reading.rows import listed, numbers, texts
from analysis.reading.scores import SCORES, Scores, read_scores
from analysis.solving.clustered import varies
from analysis.table import Table

SHARES = ("accuracy", "exact_match", "correct_prob")  # from 0 to 1, 1 is best
HIGHER = (*SHARES, "log_prob", "log_prob_per_byte")
LOWER = ("token_edit_distance", "brier", "perplexity")
CONTINUOUS = ("log_prob", "log_prob_per_byte", "correct_prob", "brier", "token_edit_distance", "perplexity")
MAIN = ("accuracy", "exact_match")  # what a task is judged by, the first that it has
OF_OPTIONS = ("accuracy", "correct_prob")  # of which `chance` is what a guess gets, where there are options
ENDINGS = {"acc": "accuracy", "accuracy": "accuracy", "exact_match": "exact_match", "em": "exact_match", "err": "error",
           "error": "error", "brier": "brier", "ppl": "perplexity", "perplexity": "perplexity"}  # fmt: skip
STDERR = ("_stderr", "_se")
# 1 / options of tasks whose scores foreign tables hold; none for those that are answered in words.
KNOWN_CHANCE: Mapping[str, float] = {
    "lambada": 0.0, "lambada_openai": 0.0, "triviaqa": 0.0, "arc_easy": 0.25, "arc_challenge": 0.25, "sciq": 0.25,
    "logiqa": 0.25, "hellaswag": 0.25, "mmlu": 0.25, "openbookqa": 0.25, "race": 0.25, "piqa": 0.5, "winogrande": 0.5,
    "wsc": 0.5, "copa": 0.5, "boolq": 0.5, "commonsense_qa": 0.2, "social_iqa": 1 / 3,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One score of the runs [n]: value, standard error over items and the ends of its 95 % interval (NaN if not told).

    chance: what a guess gets; None where that is not known or has no meaning.
    """

    name: str
    value: Array
    stderr: Array
    low: Array
    high: Array
    chance: float | None

    @property
    def lower_is_better(self) -> bool:
        return self.name in LOWER


@dataclass(frozen=True, kw_only=True)
class Ability:
    """One task over the runs that were scored on it. table [n]; metrics by name, the main one first; items: of a run's
    score, 0 where it is not told.
    """

    task: str
    table: Table
    metrics: Mapping[str, Metric]
    items: int

    @property
    def main(self) -> Metric:
        return next(iter(self.metrics.values()))

    @property
    def continuous(self) -> Metric | None:
        """The metric beside the main one that changes with every change of a probability; None where there is none."""
        return next(
            (self.metrics[name] for name in CONTINUOUS if name in self.metrics and name != self.main.name), None
        )


def read_abilities(
    path: str | Path,
    table: Table,
    *,
    task: str | None = None,
    metric: str | None = None,
    part: str = "",
    chance: Mapping[str, float] | None = None,
) -> tuple[Ability, ...]:
    """All tasks of a table's runs, or one; those of scores.csv beside it, else of its own columns.

    task: one of them. metric: the main one; of a foreign table also a column. part: a slice of scores.csv, such as
    shots=4; else what was asked without examples. chance: by task, or of every task under the name ''.
    Raises InputError where there are no such scores, and for a share outside 0 to 1.
    """
    path = Path(path)
    known = chance or {}
    bad = {name: value for name, value in known.items() if not 0 <= value < 1}
    if bad:
        name, value = next(iter(bad.items()))
        raise InputError(
            f"chance: {value:g}{f' of {name!r}' if name else ''} is no share below 1; give one such as .25"
        )
    file = (path if path.is_dir() else path.parent) / SCORES
    ours = read_scores(path) if file.is_file() else None
    if ours is not None and {*ours.frame["run_id"]} & {*texts(table.frame, "run_id")}:
        found = _of_scores(ours, table, part, known)
        source = repr(ours.source)
    else:
        if part:
            raise InputError(f"slice: {part!r} is of {SCORES}, and there is none beside {str(path)!r}; leave it out")
        found = _of_columns(table, metric, known)
        source = "the table"
        metric = None if metric in table.frame else metric
    if not found:
        raise InputError(f"task: {source} scores no task of these runs{f' on {part}' if part else ''}; score some")
    if task is not None:
        wanted = [ability for ability in found if ability.task == task]
        if not wanted:
            raise InputError(f"task: {task!r} is not scored in {source}; found {listed(a.task for a in found)}")
        found = wanted
    if metric is not None:
        found = [_led_by(ability, metric) for ability in found if metric in ability.metrics or task is not None]
        found = [ability for ability in found if np.isfinite(ability.main.value).any()]
        if not found:
            raise InputError(f"metric: no task of {source} has {metric!r}; choose another, such as accuracy")
    return tuple(map(_whole, found))


def scored(path: Path, table: Table) -> bool:
    """Whether `read_abilities` would find a task."""
    file = (path if path.is_dir() else path.parent) / SCORES
    if file.is_file():
        frame = read_scores(path).frame
        whole = frame[(frame["slice"] == "") & frame["metric"].isin(MAIN)]
        if {*whole["run_id"]} & {*texts(table.frame, "run_id")}:
            return True
    return any(_task_of(str(name)) for name in table.frame.columns)


def _whole(ability: Ability) -> Ability:
    """The runs that have the main metric, and the other metrics that all of these have."""
    has = np.isfinite(ability.main.value)
    kept = {}
    for name, each in ability.metrics.items():
        if np.isfinite(each.value[has]).all():
            cut = {key: getattr(each, key)[has] for key in ("value", "stderr", "low", "high")}
            kept[name] = replace(each, **cut)
    return replace(ability, table=replace(ability.table.keep(has), excluded=(), notes=()), metrics=kept)


def _led_by(ability: Ability, metric: str) -> Ability:
    if metric not in ability.metrics:
        raise InputError(f"metric: {ability.task!r} has no {metric!r}; found {listed(ability.metrics)}")
    rest = {name: each for name, each in ability.metrics.items() if name != metric}
    return replace(ability, metrics={metric: ability.metrics[metric], **rest})


def _of_scores(scores: Scores, table: Table, part: str, chance: Mapping[str, float]) -> list[Ability]:
    """The tasks that have a main metric, or are led by another; other scores are of no ability."""
    found = []
    here = scores.keep(slice=part)
    if part and here.frame.empty:
        others = listed(sorted(_parts(scores))) or "none"
        raise InputError(f"slice: {part!r} is not in {scores.source!r}; found {others}")
    for task in dict.fromkeys(texts(here.frame, "task")):
        mine = here.keep(task=task)
        names = {*texts(mine.frame, "metric")}
        if not names & {*MAIN}:
            continue
        order = [name for name in (*MAIN, *HIGHER, *LOWER) if name in names]
        values = {name: mine.keep(metric=name).of(table) for name in order}
        has = np.isfinite(values[order[0]])
        if not has.any():
            continue
        own = mine.keep(metric="chance").of(table)[has]
        guess = chance.get(task, chance.get("", float(own[0]) if np.isfinite(own).all() else None))
        options = "accuracy" in names
        metrics = {}
        for name in dict.fromkeys(order):
            stderr, low, high = (
                mine.keep(metric=metric).of(table, column)[has]
                for metric, column in ((name, "stderr"), (f"{name}_low", "value"), (f"{name}_high", "value"))
            )
            mean = guess if name in OF_OPTIONS or (name == "exact_match" and not options) else None
            if name == "brier" and options and guess is not None:
                mean = 1.0 - guess  # of k options alike: (1 - 1/k)^2 + (k - 1) / k^2
            metrics[name] = _metric(name, values[name][has], stderr, low, high, mean)
        items = mine.keep(metric="items").of(table)[has]
        part_of = replace(table.keep(has), excluded=(), notes=())
        count = int(np.nanmin(items)) if np.isfinite(items).any() else 0
        found.append(Ability(task=task, table=part_of, metrics=metrics, items=count))
    return found


def _parts(scores: Scores) -> set[str]:
    return {part for part in texts(scores.frame, "slice") if part}


def _of_columns(table: Table, column: str | None, chance: Mapping[str, float]) -> list[Ability]:
    """Tasks named by the table's columns: arc_easy_acc, acc_arc_easy, err_avg; or by the one asked for."""
    named: dict[str, dict[str, str]] = {}
    for name in map(str, table.frame.columns):
        told = _task_of(name)
        if told is None and name == column:
            told = name, "accuracy"
        if told is not None and (column not in table.frame or name == column):
            named.setdefault(told[0], {})[told[1]] = name
    found = []
    for task, columns in named.items():
        values = {metric: numbers(table.frame, name) for metric, name in columns.items()}
        led = next((values[metric] for metric in (*MAIN, "error") if metric in values), None)
        if led is None or not (has := np.isfinite(led)).any():
            continue
        guess = chance.get(task, chance.get("", KNOWN_CHANCE.get(task)))
        metrics = {}
        for metric, value in values.items():
            value = value[has]
            stderr = next(
                (numbers(table.frame, name)[has] for end in STDERR if (name := columns[metric] + end) in table.frame),
                np.full(value.shape, np.nan),
            )
            name = metric
            if metric == "error":  # an error is read as what is right
                name, value = "accuracy", 1.0 - value
            nothing = np.full(value.shape, np.nan)
            metrics[name] = _metric(name, value, stderr, nothing, nothing, guess if name in MAIN else None)
        ordered = {name: metrics[name] for name in (*HIGHER, *LOWER) if name in metrics}
        part = replace(table.keep(has), excluded=(), notes=())
        found.append(Ability(task=task, table=part, metrics=ordered, items=0))
    return found


def _task_of(column: str) -> tuple[str, str] | None:
    """Task and metric of a column's name, None where it is no score."""
    name = re.sub(r",none$", "", column)  # as the common evaluation harness writes its filter
    for ending, metric in ENDINGS.items():
        for pattern in (rf"(?P<task>.+)[_/.]{ending}", rf"{ending}[_/.](?P<task>.+)"):
            told = re.fullmatch(pattern, name, re.IGNORECASE)
            if told and not told["task"].endswith(STDERR) and "stderr" not in told["task"]:
                return told["task"], metric
    return None


def _metric(name: str, value: Array, stderr: Array, low: Array, high: Array, chance: float | None) -> Metric:
    """Raises InputError for a share outside 0 to 1. An interval that is not told is two standard errors wide."""
    if name in SHARES:
        require_shares(name, value[np.isfinite(value)])
    if name == "perplexity" and (value <= 0).any():
        raise InputError(f"perplexity: {value[value <= 0][0]:g} is not positive; mend it")
    half = 1.959964 * stderr
    low, high = np.where(np.isfinite(low), low, value - half), np.where(np.isfinite(high), high, value + half)
    if name in SHARES:
        low, high = np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)
    return Metric(name=name, value=value, stderr=stderr, low=low, high=high, chance=chance)


def require_shares(name: str, scores: Array) -> None:
    """Raise InputError for a score that is no share."""
    bad = ~(np.isfinite(scores) & (scores >= 0) & (scores <= 1))
    if bad.any():
        value = float(scores[bad][0])
        percent = "; per cent are to be given as shares" if 1 < value <= 100 else ""
        raise InputError(f"{name}: {value:g} is no share from 0 to 1{percent}; mend it, or choose another --metric")


def clusters(table: Table) -> list[str]:
    """The trajectory of each run, or a name of its own where the table does not tell."""
    return table.trajectory if table.clustered else [str(i) for i in range(len(table))]


def scale_of(table: Table, against: str) -> Array:
    """What scores are shown against [n]: params, tokens, flops (as 6ND) or loss (in nats; more is less ability)."""
    match against:
        case "params":
            return table.params
        case "tokens":
            return table.tokens
        case "flops":
            return table.flops_6nd
        case "loss":
            return table.loss_nats
    raise InputError(f"against: {against!r} is no scale; choose params, tokens, flops or loss")


def growing(table: Table, against: str) -> Array:
    """The scale as tests take it [n]: the logarithm of a count, the loss negated, so that more is a better model."""
    scale = scale_of(table, against)
    return -scale if against == "loss" else np.log(scale)


def beside(table: Table, against: str) -> Array:
    """What else moves a score where runs of one scale differ in shape [n, 1]: log D/N, or the other count; [n, 0] where
    that does not vary apart from the scale, and beside a loss, which has it in it.
    """
    log_n, log_d = np.log(table.params), np.log(table.tokens)
    other = {"params": log_d, "tokens": log_n, "flops": log_d - log_n}.get(against)
    if other is None or not varies(np.column_stack([growing(table, against), other])):
        return np.empty((len(table), 0))
    return (other - other.mean())[:, None]


def better(metric: Metric) -> Array:
    """Values [n] of which more is better; of a perplexity its logarithm."""
    value = np.log(metric.value) if metric.name == "perplexity" else metric.value
    return -value if metric.lower_is_better else value

"""Fit each group of a table by itself and compare the laws: `lmscale fit --by corpus`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from analysis.errors import InputError
from analysis.fit import Fit, fit
from analysis.laws import Array
from analysis.reading.rows import listed, texts
from analysis.table import Table
from analysis.uncertainty import interval
from analysis.words.summary import columns, count, number, table_lines, warning_lines

MOST_GROUPS = 20
COMPARED = ("a", "alpha", "beta")


@dataclass(frozen=True, kw_only=True)
class Group:
    """One value of the column and the law of its rows, or why they have none."""

    name: str
    runs: int
    fit: Fit | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much `parameter` of group `first` exceeds that of group `second`, with its 95 % interval.

    interval and excludes_zero are None where the groups were not resampled.
    """

    parameter: str
    first: str
    second: str
    difference: float
    interval: tuple[float, float] | None
    excludes_zero: bool | None


@dataclass(frozen=True, kw_only=True)
class GroupedFit:
    """A table fitted by groups. differences: of every pair of groups that both have a law, in the groups' order."""

    by: str
    table: Table
    groups: tuple[Group, ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]


def fit_groups(table: Table, by: str, *, seed: int = 0, **options: Any) -> GroupedFit:
    """Fit the rows of each value of column `by` as analysis.fit does, options being its own, and compare exponents.

    Read the table with the same `by`, which lets what must not be pooled differ between its groups. Each group's fit is
    the very one that its rows alone would give. Differences are taken between resamples of the two groups in random
    pairs, so as of independent groups; an exponent that its data cannot tell is not compared.
    Raises InputError for a column that is not there, one or too many groups, and where no group can be fitted.
    """
    if by not in table.frame:
        raise InputError(f"by: {by!r} names no column; found {listed(table.frame.columns)}; choose one of these")
    labels = texts(table.frame, by).to_numpy(object)
    names = _ordered(labels)
    if not 2 <= len(names) <= MOST_GROUPS:
        raise InputError(f"by: {by} has {len(names)} values; choose a column of 2 to {MOST_GROUPS}")
    groups = tuple(_group(table, labels == name, name, seed=seed, **options) for name in names)
    fitted = [group for group in groups if group.fit is not None]
    if not fitted:
        raise InputError(
            f"by: none of {len(groups)} groups of {by} can be fitted; {groups[0].name}: {groups[0].reason}"
        )
    pairing = np.random.default_rng([seed, 2])
    differences = [
        _difference(name, first, second, pairing)
        for first, second in combinations([group for group in fitted if group.fit and group.fit.identifiable], 2)
        for name in COMPARED
        if name in _values(first) and name in _values(second)
    ]
    pairs = set(zip(table.frame["trajectory"], labels, strict=True)) if table.clustered else set()
    shared = len(pairs) - len({trajectory for trajectory, _ in pairs})
    warnings = []
    if shared:
        warnings.append("trajectories have rows in several groups: differences take the groups as independent")
    return GroupedFit(by=by, table=table, groups=groups, differences=tuple(differences), warnings=tuple(warnings))


def groups_text(result: GroupedFit) -> str:
    """Every group's parameters and exponents, and how they differ."""
    lines = [*table_lines(result.table), ""]
    rows = []
    for group in result.groups:
        if group.fit is None:
            rows.append((group.name, count(group.runs), "not fitted", "", group.reason))
            continue
        shown = _values(group) if group.fit.identifiable else dict(group.fit.law.parameters)
        for i, (name, value) in enumerate(shown.items()):
            ends = group.fit.intervals.get(name)
            span = f"{number(ends[0], ends)} to {number(ends[1], ends)}" if ends else "-"
            head = (group.name, count(group.runs)) if i == 0 else ("", "")
            rows.append((*head, name, number(float(value), ends), span))
    lines += columns((result.by, "runs", "parameter", "value", "95 % interval"), rows)
    compared = [
        (f"{d.first} - {d.second}", d.parameter, f"{d.difference:+.3g}", _span(d), _verdict(d))
        for d in result.differences
    ]
    if compared:
        lines += ["", *columns(("groups", "parameter", "difference", "95 % interval", "excludes zero"), compared)]
    else:
        lines += ["", "no two groups have exponents to compare"]
    said = [f"{g.name}: {warning}" for g in result.groups if g.fit is not None for warning in g.fit.warnings]
    return "\n".join([*lines, *warning_lines([*result.warnings, *said])])


def _ordered(labels: Any) -> list[str]:
    """By value where all are numbers, otherwise by name."""
    names = sorted(set(labels))
    try:
        return sorted(names, key=float)
    except ValueError:
        return names


def _group(table: Table, rows: Any, name: str, **options: Any) -> Group:
    part = replace(table.keep(rows), excluded=(), notes=())
    try:
        return Group(name=name, runs=len(part), fit=fit(part, **options), reason="")
    except InputError as error:
        return Group(name=name, runs=len(part), fit=None, reason=str(error))


def _values(group: Group) -> dict[str, Any]:
    assert group.fit is not None
    return {**group.fit.law.parameters, **group.fit.law.exponents}


def _samples(group: Group, name: str) -> Array | None:
    if group.fit is None or group.fit.samples is None:
        return None
    law = group.fit.samples
    return np.asarray({**law.parameters, **law.exponents}[name], np.float64).reshape(-1)


def _difference(name: str, first: Group, second: Group, pairing: np.random.Generator) -> Difference:
    ends = None
    drawn = _samples(first, name), _samples(second, name)
    if drawn[0] is not None and drawn[1] is not None:
        # Groups of one design are resampled with the same weights: shuffled, their errors are independent again.
        low, high = interval(pairing.permutation(drawn[0]) - pairing.permutation(drawn[1]))
        ends = (float(low), float(high))
    return Difference(
        parameter=name,
        first=first.name,
        second=second.name,
        difference=float(_values(first)[name]) - float(_values(second)[name]),
        interval=ends,
        excludes_zero=None if ends is None else not ends[0] <= 0 <= ends[1],
    )


def _span(difference: Difference) -> str:
    ends: Sequence[float] | None = difference.interval
    return "-" if ends is None else f"{ends[0]:+.3g} to {ends[1]:+.3g}"


def _verdict(difference: Difference) -> str:
    return "-" if difference.excludes_zero is None else "yes" if difference.excludes_zero else "no"

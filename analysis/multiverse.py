"""The answer under every reasonable choice of the analyst: law, loss, exclusions, what N and C count.

Every combination is fitted, and N* at one budget stands beside the others (Steegen et al. 2016, "multiverse analysis";
Simonsohn et al. 2020, "specification curve"). The spread is no interval: it says what choices, not noise, move.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from analysis.deciding.counting import (
    COUNTINGS,
    Counting,
    Flops,
    Params,
    counted_optimum,
    flops_per_token,
    with_embeddings,
    without_embeddings,
)
from analysis.errors import InputError
from analysis.fit import Fit, fit
from analysis.isoflop import isoflop
from analysis.laws import Array, Optimum
from analysis.optimal import budgets_asked, require_interior
from analysis.reading.rows import listed
from analysis.solving.forms import FORMS
from analysis.solving.solve import HUBER_DELTA
from analysis.table import Table

LOSSES: Mapping[str, Mapping[str, Any]] = {
    f"huber {HUBER_DELTA:g}": {"loss": "huber", "delta": HUBER_DELTA},
    "huber 0.01": {"loss": "huber", "delta": 0.01},
    "squares": {"loss": "mse"},
    "absolute": {"loss": "lad"},
}
EXCLUSIONS = ("no run", "smallest size", "lowest compute (1/5)", "highest losses (1/20)")
LAWS = ("chinchilla", "equal", "coupled", "kaplan", "interaction")
FACTORS = ("law", "loss", "left out", "params", "flops")
PROFILES = "isoflop"  # approach 2 stands among the laws; it has no loss to choose


@dataclass(frozen=True, kw_only=True)
class Universe:
    """One combination of choices and its answer. params_all: N* in all parameters, however counted; None with a reason.

    default: the choices of `lmscale optimal` where it is asked nothing.
    """

    law: str
    loss: str
    left_out: str
    params: Params
    flops: Flops
    runs: int
    params_all: float | None
    tokens: float | None
    loss_nats: float | None
    reason: str
    default: bool

    def choice(self, factor: str) -> str:
        """What this universe chose of one of FACTORS."""
        return str(getattr(self, factor.replace(" ", "_")))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One choice of one factor over all else: how many answers, and the median and range of N*.

    share: of the variance of log N* that this factor alone explains, the same for all of its choices.
    """

    factor: str
    choice: str
    answers: int
    params: tuple[float, float, float]
    share: float


@dataclass(frozen=True, kw_only=True)
class Multiverse:
    """All universes at one budget, by N*. fit: the default one, with its resamples.

    params, tokens, loss_nats: least, median and greatest answer. params_interval: 95 % of the default fit, or None.
    """

    flops: float
    fit: Fit
    universes: tuple[Universe, ...]
    refused: tuple[Universe, ...]
    choices: tuple[Choice, ...]
    params: tuple[float, float, float]
    tokens: tuple[float, float, float]
    loss_nats: tuple[float, float, float]
    params_interval: tuple[float, float] | None


def multiverse(
    table: Table, flops: float | None = None, *, laws: Sequence[str] = LAWS, bootstrap: int = 1000, seed: int = 0
) -> Multiverse:
    """The answer at a budget (default: 10 times the largest compute) under every combination of choices.

    Raises InputError for an unknown law, a budget that is not finite and positive, and where no universe has an answer.
    """
    for law in laws:
        if law not in FORMS:
            raise InputError(f"laws: {law!r} is unknown; choose among {listed(tuple(FORMS))}")
        if FORMS[law].fits.models_repeats:
            raise InputError(f"laws: {law!r} depends on the text there is, which is no choice; leave it out")
    base = fit(table, bootstrap=bootstrap, seed=seed)
    budget = 10 * base.flops_max if flops is None else float(budgets_asked([flops], base.flops_max)[0])
    at = np.array([budget])
    best = base.law.optimum(at)
    found: list[Universe] = []
    for params in ("all", "matrices"):
        try:
            counted = table if params == "all" else without_embeddings(table)
        except InputError:
            continue  # there is no such choice
        for left_out in EXCLUSIONS:
            part = kept(counted, left_out)
            for law, loss in [*product(laws, LOSSES), (PROFILES, "-")]:
                found += _universes(part, table, law, loss, left_out, params, at, seed)
    answered = sorted((u for u in found if u.params_all is not None), key=lambda u: u.params_all or 0.0)
    if not answered:
        raise InputError(f"runs: none of {len(found)} choices has an answer; the default says: {found[0].reason}")
    ends = None
    if base.samples is not None and base.identifiable:
        require_interior(base, best)
        low, high = np.percentile(base.samples.optimum(at).params[:, 0], [2.5, 97.5], method="weibull")
        ends = (float(low), float(high))
    return Multiverse(
        flops=budget,
        fit=base,
        universes=tuple(answered),
        refused=tuple(u for u in found if u.params_all is None),
        choices=tuple(_choices(answered)),
        params=_spread([u.params_all for u in answered]),
        tokens=_spread([u.tokens for u in answered]),
        loss_nats=_spread([u.loss_nats for u in answered]),
        params_interval=ends,
    )


def kept(table: Table, left_out: str) -> Table:
    """The table without the runs that one of EXCLUSIONS names."""
    match left_out:
        case "smallest size":
            return table.keep(table.params > table.params.min() * 1.01)
        case "lowest compute (1/5)":
            compute = table.flops_6nd
            return table.keep(compute > np.quantile(compute, 0.2))
        case "highest losses (1/20)":
            count = max(1, round(len(table) / 20))
            return table.keep(table.loss_nats < np.sort(table.loss_nats)[-count])
    return table


def _universes(
    table: Table, whole: Table, law: str, loss: str, left_out: str, params: Params, at: Array, seed: int
) -> list[Universe]:
    """One a way of counting FLOPs, of one fit."""
    fitted, reason = None, ""
    try:
        if law != PROFILES:
            fitted = fit(table, law, bootstrap=0, seed=seed, **LOSSES[loss])
            reason = fitted.reason
    except InputError as error:
        reason = str(error)
    made = []
    for counting in COUNTINGS:
        if counting.params != params:
            continue
        answer, why = None, reason
        try:
            per_token = flops_per_token(whole, counting)
        except InputError:
            continue  # there is no such choice
        try:
            if law == PROFILES:
                answer = _profiled(table, counting, at)
            elif fitted is not None and not why:
                answer = fitted.law.optimum(at) if per_token is None else counted_optimum(fitted.law, at, per_token)
                require_interior(fitted, answer)
        except InputError as error:
            answer, why = None, str(error)
        total = None
        if answer is not None:
            total = float(answer.params[0]) if params == "all" else float(with_embeddings(whole)(answer.params[0]))
        chosen = (law, loss, left_out, params, counting.flops)
        made.append(
            Universe(
                law=law,
                loss=loss,
                left_out=left_out,
                params=params,
                flops=counting.flops,
                runs=len(table),
                params_all=total,
                tokens=None if answer is None else float(answer.tokens[0]),
                loss_nats=None if answer is None else float(answer.loss_nats[0]),
                reason="" if answer is not None else why,
                default=chosen == ("chinchilla", next(iter(LOSSES)), "no run", "all", "6nd"),
            )
        )
    return made


def _profiled(table: Table, counting: Counting, at: Array) -> Optimum:
    """The optimum by approach 2. Raises InputError where its budgets tell none."""
    if counting.flops == "exact" and "flops_budget" in table.frame:
        table = replace(table, frame=table.frame.drop(columns="flops_budget"))
    found = isoflop(table, compute="6nd" if counting.flops == "6nd" else "given", bootstrap=0)
    exponent = float(found.frontier.params.exponent)
    if not 0 < exponent < 1:
        raise InputError(f"N* ~ C^{exponent:.2f} is no growth of a best size")
    return found.frontier.optimum(at)


def _choices(universes: Sequence[Universe]) -> list[Choice]:
    logs = np.log([u.params_all or 1.0 for u in universes])
    total = float(np.sum((logs - logs.mean()) ** 2))
    rows = []
    for factor in FACTORS:
        names = [u.choice(factor) for u in universes]
        groups = {name: logs[[n == name for n in names]] for name in dict.fromkeys(names)}
        if len(groups) < 2:
            continue
        between = sum(len(group) * (group.mean() - logs.mean()) ** 2 for group in groups.values())
        share = float(between / total) if total > 0 else 0.0
        order = [*LAWS, PROFILES, *LOSSES, *EXCLUSIONS]
        for name in sorted(groups, key=lambda n: order.index(n) if n in order else len(order)):
            spread = _spread([float(v) for v in np.exp(groups[name])])
            rows.append(Choice(factor=factor, choice=name, answers=len(groups[name]), params=spread, share=share))
    return rows


def _spread(values: Sequence[float | None]) -> tuple[float, float, float]:
    numbers = np.array([v for v in values if v is not None], np.float64)
    return float(numbers.min()), float(np.median(numbers)), float(numbers.max())

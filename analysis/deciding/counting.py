"""The same runs counted otherwise: embeddings among the parameters or not, FLOPs as 6ND or as the table gives them.

What N, D and C count changes the exponents of small models and with them the answer (Kaplan et al. 2020 against
Hoffmann et al. 2022; Pearce & Song 2024, Porian et al. 2024). A budget of C FLOPs means C by the count in question;
every answer is also told in all parameters, so that answers can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from analysis.approaches import Approaches
from analysis.curves import Curves
from analysis.envelope import Envelope, envelope
from analysis.errors import InputError
from analysis.fit import Fit
from analysis.fit import fit as fit_law
from analysis.isoflop import IsoFlop, isoflop
from analysis.laws import FLOPS_PER_PARAM_TOKEN, Array, Law, Optimum, budgets
from analysis.optimal import OptimalRow, optimal_rows, require_interior
from analysis.profiles.powerlaw import LEAST_FOR_FLOOR
from analysis.reading.rows import numbers
from analysis.solving.golden import minimum
from analysis.table import Table
from analysis.uncertainty import interval
from analysis.words.summary import quantity

Params = Literal["all", "matrices"]
Flops = Literal["6nd", "exact"]

SAME_FLOPS = 1e-3  # relative: a table whose FLOPs are this near 6ND counts no others
STEP = 0.1  # of log C, over which the growth of N* is measured
APART = 1.25  # two answers whose N* differ by more are worth a warning


@dataclass(frozen=True, kw_only=True)
class Counting:
    """params: all of them, or the matrices alone (without embeddings). flops: 6 N D, or as the table counts."""

    params: Params = "all"
    flops: Flops = "6nd"

    def __str__(self) -> str:
        return f"{'all params' if self.params == 'all' else 'no embed.'}, {'6ND' if self.flops == '6nd' else 'exact'}"


COUNTINGS = tuple(Counting(params=p, flops=f) for p, f in product(("all", "matrices"), ("6nd", "exact")))


@dataclass(frozen=True, kw_only=True)
class PowerSum:
    """y(N) = base N + exp(log_coefficient) N^exponent, base being 0 where the second term says all."""

    base: float
    log_coefficient: float
    exponent: float

    def __call__(self, params: ArrayLike) -> Array:
        params = np.asarray(params, np.float64)
        return self.base * params + np.exp(self.log_coefficient + self.exponent * np.log(params))


@dataclass(frozen=True, kw_only=True)
class CountedAnswer:
    """One approach under one way of counting. row: as counted. params_all: N* with embeddings, whatever the count.

    a: of N* ~ C^a as counted, at the largest compute fitted, with its 95 % interval (None without).
    """

    counting: Counting
    method: str
    row: OptimalRow
    params_all: float
    params_all_interval: tuple[float, float] | None
    a: float
    a_interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Answers by counting, method and budget, in this order; refused: (counting and method, why there is none)."""

    answers: tuple[CountedAnswer, ...]
    refused: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


def counted(
    fit: Fit, curves: Curves | None, flops: Sequence[float], *, known: Approaches | None = None, seed: int = 0
) -> Counted:
    """Every approach under every way of counting that the table knows, at the budgets `flops`.

    known: the approaches of this fit and these curves with the same seed, which count all parameters and 6ND; they are
    not found again. Approach 2 under exact FLOPs groups runs whose FLOPs agree, and is refused where the budgets of the
    table are in 6ND.
    Raises InputError for a budget that is not finite and positive.
    """
    at = budgets(flops)
    answers: list[CountedAnswer] = []
    refused: list[tuple[str, str]] = []
    fits: dict[str, Fit] = {"all": fit}
    for counting in COUNTINGS:
        try:
            per_token = flops_per_token(fit.table, counting)
            embeddings = with_embeddings(fit.table) if counting.params == "matrices" else None
            if counting.params not in fits:
                fits[counting.params] = refitted(fit, without_embeddings(fit.table))
        except InputError as error:
            refused.append((str(counting), str(error)))
            continue
        found = _parametric(fits[counting.params], counting, at, per_token, refused)
        told = known if counting == Counting() else None
        found += _profiles(fits[counting.params], counting, curves, at, seed, told, refused)
        for each in found:
            answers += _told(counting, *each, embeddings)
    return Counted(answers=tuple(answers), refused=tuple(refused), warnings=_apart(answers))


def without_embeddings(table: Table) -> Table:
    """The table with N the parameters outside embeddings. Raises InputError where it does not know them."""
    if "params_embedding" not in table.frame:
        raise InputError(
            "params_embedding: the table has no such column; name it with --columns params_embedding=COLUMN"
        )
    matrices = table.params - numbers(table.frame, "params_embedding")
    if not np.all(np.isfinite(matrices) & (matrices >= 1)):
        raise InputError(
            "params_embedding: a run has no parameters beside its embeddings, or no number of them; mend it"
        )
    return replace(table, frame=table.frame.assign(params=matrices))


def with_embeddings(table: Table) -> PowerSum:
    """All parameters as a function of those outside embeddings, which are a power law of width, so of N too."""
    matrices = without_embeddings(table).params
    return _power_sum(matrices, table.params, 1.0)


def flops_per_token(table: Table, counting: Counting) -> PowerSum | None:
    """Training FLOPs per token as a function of N as counted, None for 6N.

    Attention and the output layer add a power law of N to 6 N; where they do not add to it at every size, the whole is
    taken for one. Raises InputError where the table's FLOPs are none but 6ND.
    """
    if counting.flops == "6nd":
        return None
    given = numbers(table.frame, "flops") / table.tokens
    if np.all(np.abs(given / (FLOPS_PER_PARAM_TOKEN * table.params) - 1) < SAME_FLOPS):
        raise InputError("flops: the table counts FLOPs as 6ND, and knows no exact ones; add a column flops")
    params = table.params if counting.params == "all" else without_embeddings(table).params
    return _power_sum(params, given, FLOPS_PER_PARAM_TOKEN)


def refitted(fit: Fit, table: Table) -> Fit:
    """The same fit, with all its options, to the same runs counted otherwise."""
    return fit_law(
        table,
        fit.law.name,
        loss=fit.loss.kind,
        delta=fit.loss.delta,
        residual=fit.loss.residual,
        weights=fit.weight,
        fixed=fit.fixed,
        bootstrap=fit.bootstrap,
        seed=fit.seed,
    )


def counted_optimum(law: Law, flops: Array, per_token: PowerSum) -> Optimum:
    """N*, D*, loss of budgets C = F(N) D [n], F being the FLOPs per token; [R, n] for a law of resamples."""
    log_flops = np.log(flops)
    shape = np.broadcast_shapes(np.shape(next(iter(law.parameters.values()))), flops.shape)

    def loss(log_n: Array) -> Array:
        return law.predict(np.exp(log_n), np.exp(log_flops - np.log(per_token(np.exp(log_n)))))

    highest = np.maximum(log_flops - np.log(FLOPS_PER_PARAM_TOKEN), 1.0)
    params = np.exp(minimum(loss, np.zeros(shape), highest))
    tokens = np.exp(log_flops - np.log(per_token(params)))
    return Optimum(flops=flops, params=params, tokens=tokens, loss_nats=law.predict(params, tokens))


def _power_sum(params: Array, values: Array, base: float) -> PowerSum:
    rest = values - base * params
    if not np.all(rest > 1e-9 * values):
        base, rest = 0.0, values
    x = np.log(params)
    slope, level = np.polyfit(x - x.mean(), np.log(rest), 1) if np.ptp(x) > 0 else (0.0, float(np.log(rest).mean()))
    return PowerSum(base=base, log_coefficient=float(level - slope * x.mean()), exponent=float(slope))


_Found = list[tuple[str, tuple[OptimalRow, ...], float, tuple[float, float] | None]]


def _parametric(
    fit: Fit, counting: Counting, at: Array, per_token: PowerSum | None, refused: list[tuple[str, str]]
) -> _Found:
    if not fit.identifiable:
        refused.append((f"{counting}, parametric", fit.reason))
        return []
    best = fit.law.optimum(at) if per_token is None else counted_optimum(fit.law, at, per_token)
    try:
        require_interior(fit, best)
    except InputError as error:
        refused.append((f"{counting}, parametric", str(error)))
        return []
    drawn = None
    if fit.samples is not None:
        drawn = fit.samples.optimum(at) if per_token is None else counted_optimum(fit.samples, at, per_token)
    compute = fit.table.flops_6nd if per_token is None else per_token(fit.table.params) * fit.table.tokens
    rows = optimal_rows("parametric", best, drawn, float(compute.max()), float(compute.min()))
    if per_token is None:
        return [("parametric", rows, float(fit.law.exponents["a"]), fit.intervals.get("a"))]
    ends = np.array([1.0, np.exp(STEP)]) * float(compute.max())
    a = float(_growth(fit.law, ends, per_token)[0])
    told = None if fit.samples is None else interval(_growth(fit.samples, ends, per_token)[:, 0])
    return [("parametric", rows, a, None if told is None else (float(told[0]), float(told[1])))]


def _growth(law: Law, ends: Array, per_token: PowerSum) -> Array:
    """a of N* ~ C^a between two budgets: [1], or [R, 1]; under exact FLOPs it is no constant."""
    return np.diff(np.log(counted_optimum(law, ends, per_token).params), axis=-1) / STEP


def _profiles(
    fit: Fit,
    counting: Counting,
    curves: Curves | None,
    at: Array,
    seed: int,
    known: Approaches | None,
    refused: list[tuple[str, str]],
) -> _Found:
    """Approaches 1 and 2 on the table as counted."""
    found: _Found = []
    for method in ("envelope", "isoflop"):
        try:
            profile = _known(known, method) if known is not None else _profile(fit, counting, curves, method, seed)
        except InputError as error:
            refused.append((f"{counting}, {method}", str(error)))
            continue
        drawn = None if profile.samples is None else profile.samples.optimum(at)
        rows = optimal_rows(
            method, profile.frontier.optimum(at), drawn, profile.flops_max, float(profile.points[0].min())
        )
        if method == "isoflop" and profile.points.shape[1] < LEAST_FOR_FLOOR:
            rows = tuple(replace(row, loss_interval=None) for row in rows)
        a = float(profile.frontier.params.exponent)
        if not 0 < a < 1:
            why = f"N* ~ C^{a:.2f} is no growth of a best size: these runs do not tell it"
            refused.append((f"{counting}, {method}", why))
            continue
        found.append((method, rows, a, profile.intervals.get("a")))
    return found


def _known(known: Approaches, method: str) -> IsoFlop | Envelope:
    """Raises InputError with the reason where the approach was refused."""
    profile = known.isoflop if method == "isoflop" else known.envelope
    if profile is None:
        raise InputError(dict(known.refused)[method])
    return profile


def _profile(fit: Fit, counting: Counting, curves: Curves | None, method: str, seed: int) -> IsoFlop | Envelope:
    """Raises InputError where these runs or curves do not allow the approach."""
    compute = "6nd" if counting.flops == "6nd" else "given"
    if method == "isoflop":
        table = fit.table
        if compute == "given" and "flops_budget" in table.frame:
            table = replace(table, frame=table.frame.drop(columns="flops_budget"))
        return isoflop(table, compute=compute, bootstrap=fit.bootstrap, seed=seed)
    if curves is None:
        raise InputError("no curves were given")
    recounted = curves if counting.params == "all" else _recounted(curves, fit)
    return envelope(recounted, compute=compute, bootstrap=fit.bootstrap, seed=seed)


def _recounted(curves: Curves, fit: Fit) -> Curves:
    """Curves of the sizes of a table without embeddings, which still knows how many each size had."""
    embedding = numbers(fit.table.frame, "params_embedding")
    known = dict(zip(fit.table.params + embedding, fit.table.params, strict=True))
    kept = [replace(curve, params=float(known[curve.params])) for curve in curves.curves if curve.params in known]
    if not kept:
        raise InputError("no curve is of a size that the table has")
    return replace(curves, curves=tuple(kept))


def _told(
    counting: Counting,
    method: str,
    rows: tuple[OptimalRow, ...],
    a: float,
    a_interval: tuple[float, float] | None,
    embeddings: PowerSum | None,
) -> list[CountedAnswer]:
    """The rows of one approach, also in all parameters."""
    answers = []
    for row in rows:
        total, ends = row.params, row.params_interval
        if embeddings is not None:
            total = float(embeddings(total))
            ends = None if ends is None else (float(embeddings(ends[0])), float(embeddings(ends[1])))
        answers.append(
            CountedAnswer(
                counting=counting,
                method=method,
                row=row,
                params_all=total,
                params_all_interval=ends,
                a=a,
                a_interval=a_interval,
            )
        )
    return answers


def _apart(answers: Sequence[CountedAnswer]) -> tuple[str, ...]:
    """One line for each budget at which the parametric answers differ by how things are counted."""
    warnings = []
    for budget in dict.fromkeys(answer.row.flops for answer in answers):
        here = [a for a in answers if a.row.flops == budget and a.method == "parametric"]
        if len(here) < 2:
            continue
        low, high = min(here, key=lambda a: a.params_all), max(here, key=lambda a: a.params_all)
        if high.params_all > APART * low.params_all:
            warnings.append(
                f"at {budget:.2e} FLOPs N* depends on what is counted: {quantity(low.params_all)} by {low.counting} "
                f"and {quantity(high.params_all)} by {high.counting}, in all parameters"
            )
    return tuple(warnings)

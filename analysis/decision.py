"""From a fit to a decision: for each budget the best size, how flat and how sure it is, and what else it depends on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from analysis.approaches import Approaches, compare
from analysis.curves import Curves
from analysis.deciding.counting import Counted, counted
from analysis.deciding.limited import LimitedRow, limited
from analysis.deciding.near_best import WITHIN_NATS, NearBest, near_best
from analysis.deciding.served import ServedRow, served
from analysis.deciding.stock import stock_warnings
from analysis.errors import InputError
from analysis.fit import Fit
from analysis.optimal import OptimalRow, budgets_asked, optimal, row_warnings


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer of the parametric fit at each budget, and what stands beside it.

    rows, near: one a budget. served: the same for a model that will be served, empty unless asked. limited: with so
    many unique tokens, empty unless asked. approaches: all three of Hoffmann et al. 2022. counted: under other ways of
    counting. warnings: to be shown with the answer, those of the fit among them.
    """

    fit: Fit
    rows: tuple[OptimalRow, ...]
    near: tuple[NearBest, ...]
    served: tuple[ServedRow, ...]
    limited: tuple[LimitedRow, ...]
    approaches: Approaches
    counted: Counted
    warnings: tuple[str, ...]


def decide(
    fit: Fit,
    flops: Sequence[float] | None = None,
    *,
    curves: Curves | None = None,
    unique_tokens: float | None = None,
    served_tokens: float | None = None,
    within_nats: float = WITHIN_NATS,
    today: date | None = None,
) -> Decision:
    """Everything that `lmscale optimal` tells. flops: by default 1, 10 and 100 times the largest compute fitted.

    today: the day for which the stock of text is reckoned; None reckons none.
    Raises InputError where the fit tells no best size (it is not identifiable, or its law has none at a budget), and
    for a budget, an epsilon or a number of tokens that is not finite and positive.
    """
    if not fit.identifiable:
        raise InputError(f"runs: the law tells no best size: {fit.reason}; lmscale isoflop and envelope may")
    budgets = [float(budget) for budget in budgets_asked(flops, fit.flops_max)]
    rows = optimal(fit, budgets, unique_tokens=unique_tokens)
    near = near_best(fit, budgets, within_nats=within_nats, unique_tokens=unique_tokens)
    approaches = compare(fit, curves, budgets, bootstrap=fit.bootstrap, seed=fit.seed)
    otherwise = counted(fit, curves, budgets, known=approaches, seed=fit.seed)
    to_serve = () if served_tokens is None else served(fit, budgets, served_tokens)
    warnings = [
        *row_warnings(rows, fit.samples is not None),
        *(() if today is None else stock_warnings(fit.table, (*rows, *to_serve), today)),
        *otherwise.warnings,
        *fit.warnings,
        *(f"{a.method}: {line}" for a in approaches.answers if a.method != "parametric" for line in a.warnings),
    ]
    return Decision(
        fit=fit,
        rows=rows,
        near=near,
        served=to_serve,
        limited=() if unique_tokens is None else limited(fit, budgets, unique_tokens),
        approaches=approaches,
        counted=otherwise,
        warnings=tuple(warnings),
    )

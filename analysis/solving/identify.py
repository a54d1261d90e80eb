"""Refuse designs from which no law can be told, with the cause, before anything is fitted."""

from collections.abc import Collection

import numpy as np

from analysis.errors import InputError
from analysis.laws import Array

SAME = 0.01  # sizes, or token counts, within 1 % of each other are one
COLLINEAR = 0.1  # tokens within 10 % of a power of params: the two exponents then trade for each other


def distinct(values: Array) -> int:
    """How many values differ by more than SAME, counted upwards: each stands for those up to 1 % above it."""
    ordered = np.sort(np.log(values))
    count, at = 0, 0
    while at < len(ordered):
        count, at = count + 1, int(np.searchsorted(ordered, ordered[at] + SAME, side="right"))
    return count


def require_identifiable(
    params: Array, tokens: Array, *, free: int, counts: Collection[str] = ("params", "tokens")
) -> None:
    """Raise InputError, naming the cause, unless `free` parameters of a law can be told from these runs.

    params, tokens [n]; counts: those on whose terms something is free. Refused: one of them constant, fewer than three
    of it, and no more runs than parameters; of both, also one budget, and D in a fixed relation to N.
    """
    runs = len(params)
    if runs <= free:
        raise InputError(f"runs: {runs} usable rows cannot fit {free} parameters; give at least {free + 1}, better 15")
    for name, values in (("params", params), ("tokens", tokens)):
        count = distinct(values) if name in counts else 3
        if count == 1:
            raise InputError(
                f"{name}: all {runs} runs have {values[0]:.4g}; vary it, at least 5 values over a factor 10"
            )
        if count == 2:
            raise InputError(f"{name}: only 2 values among {runs} runs, its exponent needs at least 3; add a third")
    if len(counts) < 2:
        return
    x, y = np.log(params) - np.log(params).mean(), np.log(tokens) - np.log(tokens).mean()
    slope = float(x @ y / (x @ x))
    spread = float(np.sqrt(np.mean((y - slope * x) ** 2)))
    if spread > COLLINEAR:
        return
    if abs(slope + 1) < 0.1:
        budget = 6.0 * float(np.exp(np.mean(np.log(params) + np.log(tokens))))
        relation, mend = f"every run spends one budget of about {budget:.3g} FLOPs (6ND)", "add runs at other budgets"
    elif abs(slope - 1) < 0.1:
        ratio = float(np.exp(np.mean(np.log(tokens) - np.log(params))))
        relation, mend = f"every run has D = {ratio:.3g} N", "add runs with other token counts per size"
    else:
        relation, mend = f"every run has D ~ N^{slope:.2f}", "add runs with other token counts per size"
    raise InputError(f"tokens: {relation}, so alpha and beta cannot be told apart; {mend}")

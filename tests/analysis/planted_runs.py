"""Planted studies for approaches 1 and 2: runs at given budgets, and curves of given sizes."""

import numpy as np
import pandas as pd

from analysis.laws import Chinchilla
from analysis.table import Table, from_frame

LAW = Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)  # Besiroglu et al. 2024, abstract


def profiles(budgets, *, sizes=9, span=6.0, noise=0.0, shift=0.0, seed=0, declared=False) -> Table:
    """`sizes` runs a budget, a factor `span` about N* (moved by up to `shift` in log N), errors of sd `noise`."""
    rng = np.random.default_rng(seed)
    rows = []
    for flops in budgets:
        middle = float(LAW.optimum(flops).params) * np.exp(shift * rng.uniform(-1, 1))
        for n in middle * np.geomspace(1 / span, span, sizes):
            d = flops / (6 * n)
            rows.append((n, d, flops, float(LAW.predict(n, d)) * np.exp(noise * rng.normal())))
    frame = pd.DataFrame(rows, columns=["params", "tokens", "flops_budget", "loss"])
    return from_frame(frame if declared else frame.drop(columns="flops_budget"))


def bare(table: Table) -> pd.DataFrame:
    """Parameters, tokens and losses of a table alone."""
    return pd.DataFrame({name: table.frame[name] for name in ("params", "tokens", "loss_nats")})


def curve_frame(sizes, tokens, *, noise=0.0, seed=0) -> pd.DataFrame:
    """One trajectory a size, decayed at each of `tokens`."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"t{i}", n, d, float(LAW.predict(n, d)) * np.exp(noise * rng.normal()))
        for i, n in enumerate(sizes)
        for d in tokens
    ]
    return pd.DataFrame(rows, columns=["trajectory", "params", "tokens", "loss"])

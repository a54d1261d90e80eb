"""Simulated studies with planted constants, and the reference tables where they are."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from analysis.laws import Chinchilla
from analysis.table import Table, from_frame

PLANTED = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6)  # losses of 1.8 to 3.2 on the grid below
SIZES = (2e4, 5e4, 1.1e5, 2.3e5, 4.7e5)
TOKENS = (5e5, 1e6, 2e6, 4e6)


@pytest.fixture
def planted() -> Chinchilla:
    return PLANTED


@pytest.fixture
def branched_frame() -> Callable[..., pd.DataFrame]:
    """A study like the quickstart's: one trajectory a size, token counts branched off it, errors shared in part."""

    def make(*, row: float = 0.004, trajectory: float = 0.003, seed: int = 0, sizes=SIZES, tokens=TOKENS, seeds=1):
        rng = np.random.default_rng(seed)
        rows = []
        for i, n in enumerate(sizes):
            for s in range(seeds):
                shared = trajectory * rng.normal()
                for d in tokens:
                    if i >= len(sizes) - 2 and d == max(tokens):
                        continue
                    loss = float(PLANTED.predict(n, d)) * np.exp(shared + row * rng.normal())
                    rows.append((f"t{i}s{s}-{d:.0f}", f"t{i}s{s}", n, 256 * 32.0, d, loss, s, "done"))
        names = "run_id trajectory params params_embedding tokens loss_nats seed status"
        return pd.DataFrame(rows, columns=names.split())

    return make


@pytest.fixture
def branched(branched_frame) -> Callable[..., Table]:
    return lambda **options: from_frame(branched_frame(**options))

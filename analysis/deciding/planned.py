"""Runs that are planned: sizes, token counts, and which of them err together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.laws import Array, flops_6nd
from analysis.table import Table


@dataclass(frozen=True, kw_only=True)
class Planned:
    """params, tokens [n]; trajectory [n], numbered from 0: runs of one number share a trunk, and part of their error.

    trunk_flops [n]: what their trajectory costs up to where a run leaves it; 0 where there is no trunk.
    """

    params: Array
    tokens: Array
    trajectory: NDArray[np.int64]
    trunk_flops: Array

    @classmethod
    def independent(cls, params: Array, tokens: Array) -> "Planned":
        """Every run a trajectory of its own."""
        return cls(params=params, tokens=tokens, trajectory=np.arange(len(params)), trunk_flops=np.zeros(len(params)))

    @classmethod
    def of(cls, table: Table) -> "Planned":
        """The runs of a table, which tells no trunks."""
        names = np.unique(np.asarray(table.trajectory, str), return_inverse=True)[1].astype(np.int64)
        runs = len(table)
        return cls(
            params=table.params,
            tokens=table.tokens,
            trajectory=names if table.clustered else np.arange(runs),
            trunk_flops=np.zeros(runs),
        )

    def __len__(self) -> int:
        return len(self.params)

    @property
    def trajectories(self) -> int:
        return len(np.unique(self.trajectory))

    @property
    def flops(self) -> Array:
        """Of each run alone, as 6ND."""
        return flops_6nd(self.params, self.tokens)

    def joined(self, other: "Planned") -> "Planned":
        """Both; a number of a trajectory means the same in both."""
        pairs = [
            np.concatenate([getattr(self, n), getattr(other, n)])
            for n in ("params", "tokens", "trajectory", "trunk_flops")
        ]
        return Planned(params=pairs[0], tokens=pairs[1], trajectory=pairs[2], trunk_flops=pairs[3])

    def take(self, rows: NDArray[np.int64]) -> "Planned":
        return Planned(
            params=self.params[rows],
            tokens=self.tokens[rows],
            trajectory=self.trajectory[rows],
            trunk_flops=self.trunk_flops[rows],
        )

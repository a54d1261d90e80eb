"""What a masked model makes of text when it is asked for one token at a time, all others in sight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmscale.data.permutation import permute
from lmscale.evaluate import NamedSet, Score, by_window, summarise
from lmscale.network.noise import asking_for
from lmscale.study.corpora import PSEUDO_SET

if TYPE_CHECKING:
    from lmscale.step import Step

POSITIONS = 4096  # each costs a forward pass over a window
SAMPLE_KEY = 0xA5C  # fixed: every model is asked for the same tokens


@dataclass(frozen=True, kw_only=True)
class PseudoLikelihood(NamedSet):
    """Tokens of an evaluation set, each masked alone: Wang & Cho 2019 (arXiv:1902.04094), Salazar et al. 2020
    (arXiv:1910.14659), eq. 1. The sum over a text is no likelihood: no order of prediction has these conditionals.
    """

    rows: NDArray[np.int64]  # the window of each token
    places: NDArray[np.int64]  # and its place among the targets there

    @property
    def scored(self) -> int:
        return len(self.rows)

    @property
    def read_tokens(self) -> int:
        return len(self.rows) * self.windows.weights.shape[1]

    def measure(self, step: Step, params: Any) -> list[Score]:
        """The mean over the tokens, with its standard error over documents, and the same in bits per byte of text."""
        windows = self.windows
        asked = asking_for(windows.tokens[self.rows], self.places)
        # all of the window is there, though one token counts: `weights` say where it ends
        nats, told = by_window(step.token_losses, params, asked, windows.weights[self.rows], step.row_devices)
        found = summarise(nats.sum(axis=1), told.sum(axis=1), windows.documents[self.rows], 0)
        scores = [
            Score(metric="pseudo_nats", value=found.loss_nats, stderr=found.loss_stderr),
            Score(metric="positions", value=len(self.rows), stderr=None),
        ]
        if windows.bytes_scored:
            per_byte = windows.tokens_scored / windows.bytes_scored / math.log(2)
            bits, stderr = found.loss_nats * per_byte, found.loss_stderr * per_byte
            scores.append(Score(metric="pseudo_bits_per_byte", value=bits, stderr=stderr))
        return scores


def pseudo_likelihood_set(of: NamedSet, eos_id: int | None, positions: int = POSITIONS) -> PseudoLikelihood:
    """At most that many tokens of an evaluation set, in a fixed order, of which a smaller number takes the first;
    end-of-sequence, which the borders of documents tell, is not asked for.
    """
    asked = of.windows.weights > 0
    if eos_id is not None:
        asked &= of.windows.tokens[:, 1:] != eos_id
    rows, places = np.nonzero(asked)
    order = permute(np.arange(min(positions, len(rows))), len(rows), seed=SAMPLE_KEY, epoch=0)
    label = f"{of.label}-{len(order)}"
    return PseudoLikelihood(
        name=PSEUDO_SET, label=label, windows=of.windows, objective="masked", rows=rows[order], places=places[order]
    )

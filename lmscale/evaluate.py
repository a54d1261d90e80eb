"""Token-weighted held-out loss with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lmscale.data.loader import EvaluationSet


ROWS = 64  # windows scored a call, or a little more
TOKENS = 16_384  # and no more tokens than these, or one window for each device: logits take most of the memory


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out loss per token in nats, its standard error, and bits per UTF-8 byte."""

    loss_nats: float
    loss_stderr: float
    bits_per_byte: float


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """One evaluation set of a study."""

    name: str
    label: str  # name, tokens and digest of its content: tells one state of its text from another
    windows: EvaluationSet

    @property
    def file_name(self) -> str:
        """Of a run's scores on this set."""
        return f"{self.name}-{self.windows.digest[:8]}.json"


def score_rows(run_id: str, name: str, label: str, result: Evaluation) -> list[dict]:
    """The rows of scores.csv for one run on one set. Bits per byte are the loss in another unit, so is their error."""
    bits = result.bits_per_byte / result.loss_nats
    values = {
        "loss_nats": (result.loss_nats, result.loss_stderr),
        "bits_per_byte": (result.bits_per_byte, result.loss_stderr * bits),
    }
    return [
        {"run_id": run_id, "task": name, "metric": metric, "value": value, "stderr": stderr, "eval_set": label}
        for metric, (value, stderr) in values.items()
    ]


def summarise(nats: np.ndarray, weights: np.ndarray, documents: np.ndarray, bytes_scored: int) -> Evaluation:
    """Evaluation from per-window sums.

    Args: nats, weights: summed loss and tokens of each window [M]; documents: the document each window is from [M].
    The standard error is that of a ratio estimate over documents (Cochran 1977, Sampling Techniques, Ch. 6), since
    windows of one document are not independent.
    """
    _, index = np.unique(documents, return_inverse=True)
    nats_by_document = np.bincount(index, nats)
    weight_by_document = np.bincount(index, weights)
    total, n = float(weights.sum()), len(nats_by_document)
    loss = float(nats.sum()) / total
    residual = nats_by_document - loss * weight_by_document
    stderr = math.sqrt(n / max(1, n - 1) * float(residual @ residual)) / total
    return Evaluation(
        loss_nats=loss, loss_stderr=stderr, bits_per_byte=float(nats.sum()) / math.log(2) / max(1, bytes_scored)
    )


def evaluate(window_losses: Any, params: Any, held_out: EvaluationSet, devices: int) -> Evaluation:
    """Scores the whole evaluation set, some windows a call (the last call is padded with weight 0).

    `devices` are those over which the windows of a call are split, so they divide their number.
    `window_losses(params, tokens [rows, S+1], weights [rows, S]) -> nats [rows]` is the compiled function.
    """
    count, sequence = held_out.weights.shape
    rows = -(-min(ROWS, max(1, TOKENS // sequence)) // devices) * devices
    pending = []
    for start in range(0, count, rows):
        missing = max(0, start + rows - count)
        tokens = np.pad(held_out.tokens[start : start + rows], ((0, missing), (0, 0)))
        weights = np.pad(held_out.weights[start : start + rows], ((0, missing), (0, 0)))
        pending.append(window_losses(params, tokens, weights))  # dispatched at once, read below
    nats = np.concatenate([np.asarray(x, np.float64) for x in pending])[:count]
    return summarise(nats, held_out.weights.sum(axis=1, dtype=np.float64), held_out.documents, held_out.bytes_scored)

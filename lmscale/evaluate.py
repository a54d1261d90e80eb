"""Token-weighted held-out loss with its standard error, of an evaluation set and of its groups of documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.errors import InputError
from lmscale.data.slices import digest as slices_digest
from lmscale.network.noise import EVALUATION_SEED, numbered

if TYPE_CHECKING:
    from lmscale.data.loader import EvaluationSet
    from lmscale.step import Step


ROWS = 64  # windows scored a call, or a little more
TOKENS = 16_384  # and no more tokens than these, or one window for each device: logits take most of the memory


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out loss per token in nats, its standard error, and bits per UTF-8 byte (None: tokens of no text)."""

    loss_nats: float
    loss_stderr: float
    bits_per_byte: float | None
    slices: tuple[SliceLoss, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SliceLoss:
    """The same of one group of documents, named as `source=web`. A single document has no standard error."""

    name: str
    documents: int
    tokens: int
    loss_nats: float
    loss_stderr: float | None
    bits_per_byte: float | None


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of scores.csv: of a whole set, or of the part of it that `slice` names."""

    metric: str
    value: float
    stderr: float | None
    slice: str = ""


@dataclass(frozen=True, kw_only=True)
class NamedSet:
    """One evaluation set of a study."""

    name: str
    label: str  # name, tokens and digest of its content: tells one state of its text from another
    windows: EvaluationSet
    objective: str | None = None  # of the models that are scored on it; None: all are

    def is_for(self, objective: str) -> bool:
        """Whether models of an objective are scored on it."""
        return self.objective in (None, objective)

    @property
    def scored(self) -> int:
        """Tokens (of other kinds of sets, what they ask for) that are scored."""
        return self.windows.tokens_scored

    @property
    def unit(self) -> str:
        """What `scored` counts."""
        return "tokens"

    @property
    def read_tokens(self) -> int:
        """Tokens that go through the model for it, padding among them."""
        return self.windows.weights.size

    @property
    def file_name(self) -> str:
        """Of a run's scores on this set. Other groups of the same text are scored anew."""
        groups = f"-{slices_digest(self.windows.slices)[:8]}" if self.windows.slices else ""
        return f"{self.name}-{self.windows.digest[:8]}{groups}.json"

    @property
    def slice_names(self) -> set[str]:
        return {name for field, slicing in self.windows.slices.items() for name, _ in slicing.groups(field)}

    def recorded(self, rows: Iterable[dict]) -> bool:
        """Whether rows of scores.csv hold the scores of this set and of all its groups."""
        mine = {row.get("slice", "") for row in rows if (row["task"], row["eval_set"]) == (self.name, self.label)}
        return mine >= {"", *self.slice_names}

    def measure(self, step: Step, params: Any) -> list[Score]:
        """What parameters are worth on this set."""
        return loss_scores(evaluate(step, params, self.windows))


def loss_scores(result: Evaluation) -> list[Score]:
    """Loss and bits per byte of a set, then of each group with its size. Bits per byte are the loss in another unit."""
    scores = _both(result.loss_nats, result.loss_stderr, result.bits_per_byte, "")
    for part in result.slices:
        if part.tokens:  # noise may have chosen none of a small group
            scores += _both(part.loss_nats, part.loss_stderr, part.bits_per_byte, part.name)
        for metric, value in (("tokens", part.tokens), ("documents", part.documents)):
            scores.append(Score(metric=metric, value=value, stderr=None, slice=part.name))
    return scores


def _both(loss_nats: float, stderr: float | None, bits_per_byte: float | None, part: str) -> list[Score]:
    loss = Score(metric="loss_nats", value=loss_nats, stderr=stderr, slice=part)
    if bits_per_byte is None:
        return [loss]
    bits_stderr = None if stderr is None else stderr * bits_per_byte / loss_nats
    return [loss, Score(metric="bits_per_byte", value=bits_per_byte, stderr=bits_stderr, slice=part)]


def score_rows(run_id: str, name: str, label: str, scores: Sequence[Score]) -> list[dict]:
    """The rows of scores.csv for one run on one set."""
    return [
        {
            "run_id": run_id,
            "task": name,
            "metric": score.metric,
            "value": score.value,
            "stderr": score.stderr,
            "eval_set": label,
            "slice": score.slice,
        }
        for score in scores
    ]


def summarise(nats: np.ndarray, weights: np.ndarray, documents: np.ndarray, bytes_scored: float) -> Evaluation:
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
    bits = float(nats.sum()) / math.log(2) / bytes_scored if bytes_scored > 0 else None
    return Evaluation(loss_nats=loss, loss_stderr=stderr, bits_per_byte=bits)


def summarise_slices(
    nats: np.ndarray, weights: np.ndarray, windows: EvaluationSet, *, with_bytes: bool
) -> tuple[SliceLoss, ...]:
    """The loss of each group of an evaluation set, from the summed loss and weight of each window [M]."""
    found = []
    for field, slicing in windows.slices.items():
        for name, rows in slicing.groups(field):
            size = float(windows.window_bytes[rows].sum()) if with_bytes else 0.0
            found.append(_slice_loss(name, nats[rows], weights[rows], windows.documents[rows], size))
    return tuple(found)


def _slice_loss(
    name: str, nats: np.ndarray, weights: np.ndarray, documents: np.ndarray, bytes_scored: float
) -> SliceLoss:
    count = len(np.unique(documents))
    if not weights.any():
        return SliceLoss(name=name, documents=count, tokens=0, loss_nats=math.nan, loss_stderr=None, bits_per_byte=None)
    whole = summarise(nats, weights, documents, bytes_scored)
    return SliceLoss(
        name=name,
        documents=count,
        tokens=int(weights.sum()),
        loss_nats=whole.loss_nats,
        loss_stderr=whole.loss_stderr if count > 1 else None,
        bits_per_byte=whole.bits_per_byte,
    )


def evaluate(step: Step, params: Any, held_out: EvaluationSet) -> Evaluation:
    """Scores the whole evaluation set, its groups, and (where a target is predicted from what stands before it) the
    targets by how much that is. Raises InputError where noise has chosen none of its tokens.
    """
    causal = step.objective.name == "causal"
    nats, weights = token_losses(step, params, held_out)
    if not weights.any():
        raise InputError(
            f"eval_tokens: of the {held_out.tokens_scored} tokens of the evaluation set {step.objective.name!r} scores "
            "none; raise it, or hold out more text"
        )
    summed, weight = nats.sum(axis=1), weights.sum(axis=1)
    whole = summarise(summed, weight, held_out.documents, held_out.bytes_scored if causal else 0)
    groups = summarise_slices(summed, weight, held_out, with_bytes=causal)
    return Evaluation(
        loss_nats=whole.loss_nats,
        loss_stderr=whole.loss_stderr,
        bits_per_byte=whole.bits_per_byte,
        slices=(*groups, *(by_context(nats, weights, held_out.documents) if causal else ())),
    )


def token_losses(step: Step, params: Any, held_out: EvaluationSet) -> tuple[np.ndarray, np.ndarray]:
    """Loss in nats and weight of each target of each window [M, T]. Noise is that of each window's place in the set,
    the same for every model.
    """
    windows = held_out.tokens
    if step.objective.noisy:
        windows = numbered(windows, EVALUATION_SEED, np.arange(len(windows)))
    nats, weights = by_window(step.token_losses, params, windows, held_out.weights, step.row_devices)
    return nats, weights


def window_losses(step: Step, params: Any, held_out: EvaluationSet) -> tuple[np.ndarray, np.ndarray]:
    """The same summed over each window [M]."""
    nats, weights = token_losses(step, params, held_out)
    return nats.sum(axis=1), weights.sum(axis=1)


def by_context(nats: np.ndarray, weights: np.ndarray, documents: np.ndarray) -> list[SliceLoss]:
    """Loss by the tokens that a target is predicted from, what stands for the beginning of its document among them: 1,
    2, 3-4, 5-8, ... Windows never cross a document's border, so a target's place in its window is its context.
    """
    length, first, found = nats.shape[1], 0, []
    while first < length:
        last = min(max(1, 2 * first), length)
        some, weight = nats[:, first:last].sum(axis=1), weights[:, first:last].sum(axis=1)
        there = weight > 0
        if there.any():
            name = str(last) if last == first + 1 else f"{first + 1}-{last}"
            found.append(_slice_loss(f"context={name}", some[there], weight[there], documents[there], 0.0))
        first = last
    return found


def by_window(
    compiled: Callable[..., tuple[Any, ...]], params: Any, tokens: np.ndarray, weights: np.ndarray, devices: int
) -> tuple[np.ndarray, ...]:
    """Numbers for each window [M, ...], by a compiled function of some windows a call (the last padded with weight 0).

    `devices` are those over which the windows of a call are split, so they divide their number.
    """
    count, sequence = weights.shape
    rows = -(-min(ROWS, max(1, TOKENS // sequence)) // devices) * devices
    pending = []
    for start in range(0, count, rows):
        missing = max(0, start + rows - count)
        some = [np.pad(x[start : start + rows], ((0, missing), (0, 0))) for x in (tokens, weights)]
        pending.append(compiled(params, *some))  # dispatched at once, read below
    return tuple(
        np.concatenate([np.asarray(x, np.float64) for x in each])[:count] for each in zip(*pending, strict=True)
    )

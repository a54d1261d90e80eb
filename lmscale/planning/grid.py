"""The cells of a grid: the token counts of every size of a study; and whether a law can be told from them.

Imports no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from analysis.errors import InputError
from analysis.laws import FLOPS_PER_PARAM_TOKEN, Chinchilla
from analysis.solving.identify import require_identifiable
from lmscale.config import Size, Study
from lmscale.shapes import Shape

if TYPE_CHECKING:
    from lmscale.plan import Trajectory


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A size on one of the study's token counts."""

    asked: float  # as the study says it: tokens, tokens per parameter, or FLOPs
    tokens: float  # that makes of this size, before they are rounded to whole batches
    flops_budget: float | None = None  # C, where the study gives budgets


def cells(study: Study, shape: Shape) -> list[Cell]:
    """The cells of one size that its study does not leave out, shortest first. N counts embeddings, C is 6 N D."""
    found = []
    chosen = {cell.count for cell in study.only if comes_to(cell.size, shape)}
    for asked in sorted(study.counts):
        if study.only and asked not in chosen:
            continue
        match study.counted_by:
            case "tokens":
                cell = Cell(asked=asked, tokens=asked)
            case "tokens_per_param":
                cell = Cell(asked=asked, tokens=asked * shape.params)
            case _:
                cell = Cell(asked=asked, tokens=asked / (FLOPS_PER_PARAM_TOKEN * shape.params), flops_budget=asked)
        if study.tokens_per_param_range:
            low, high = study.tokens_per_param_range
            if not low <= cell.tokens / shape.params <= high:
                continue
        if study.flops_max is None or shape.flops_6nd(cell.tokens) <= study.flops_max:
            found.append(cell)
    return found


def comes_to(size: Size, shape: Shape) -> bool:
    """Whether a size, as a study says it, comes to this shape; among the sizes of one study one does."""
    usual = round(shape.usual_depth(size.width)), shape.usual_heads(size.width)
    return (size.width, size.depth or usual[0], size.heads or usual[1]) == (shape.width, shape.depth, shape.heads)


def require_law(study: Study, plan: Sequence[Trajectory]) -> None:
    """Raises InputError where no law could be told from some recipe's runs of a plan, unless the study allows that. Of
    n-grams the parameters are not known yet.
    """
    if study.allow_collinear:
        return
    groups: dict[tuple, list[tuple[int, int]]] = {}
    for trajectory in plan:
        if (params := trajectory.shape.planned_params) is not None:
            groups.setdefault(trajectory.fitted_with, []).extend((params, run.tokens) for run in trajectory.runs)
    for (family, *_), pairs in groups.items():
        params, tokens = np.array(pairs, np.float64).T
        try:
            require_identifiable(params, tokens, free=len(fields(Chinchilla)))
        except InputError as error:
            found, _, words = str(error).partition(": ")
            field = {"tokens": study.counted_by}.get(found, "sizes")
            whose = f"{family}: " * bool(study.further)
            raise InputError(f"{field}: {whose}{words} (or train it all the same: --allow-collinear true)") from None

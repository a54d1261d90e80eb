"""Where a study's models begin when not at random, and what of them is trained, as a study says it. Part of
lmscale.config, by which studies import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmscale.study.typed import check, normalise

Matrix = Literal["query", "key", "value", "out", "up", "down"]  # of attention, and of the feed-forward layers


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters: a matrix W of the model becomes W + alpha / rank A B, and A and B are trained, W is not.

    Hu et al. 2021 (arXiv:2106.09685), Sec. 4.1. A model of several attentions (an encoder-decoder) has them in all.
    """

    rank: int = 4
    alpha: float = 8.0  # divided by the rank, it scales what the adapters add
    matrices: tuple[Matrix, ...] = ("query", "value")  # which do best for their number: Hu et al. 2021, Table 5

    def __post_init__(self) -> None:
        normalise(self, "start.lora.")
        check(self.rank >= 1, "start.lora.rank", self.rank, "must be at least 1")
        check(self.alpha > 0, "start.lora.alpha", self.alpha, "must be positive")
        some = self.matrices
        check(len(some) > 0, "start.lora.matrices", some, "must name at least one matrix, such as query")
        check(len(set(some)) == len(some), "start.lora.matrices", some, "must not name a matrix twice")


@dataclass(frozen=True, kw_only=True)
class Start:
    """The run, or the study, whose final parameters the models of this study begin from.

    Of a study each size begins from the run of its own shape (and of several, of its own seed). What is trained, and
    how fast, is this study's: its corpus, objective, recipe and token counts.
    """

    run: str = ""  # a run's folder or id, or a study's folder or name; in --out where it is no path
    tokens: int | None = None  # of the run of each shape in a study; none: its largest
    # parts of the model that stay as they are, such as embedding or layers/attention. None: nothing, and with lora
    # everything but the adapters
    freeze: tuple[str, ...] | None = None
    lora: Lora | None = None

    def __post_init__(self) -> None:
        normalise(self, "start.")
        check(self.tokens is None or self.tokens >= 1, "start.tokens", self.tokens, "must be at least 1")
        freeze = self.freeze or ()
        check(len(set(freeze)) == len(freeze), "start.freeze", freeze, "must not name a part twice")

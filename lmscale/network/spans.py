"""Which objectives a family can be trained on, and what each adds to a text: ids and lengths. No framework."""

from __future__ import annotations

from dataclasses import dataclass

from lmscale.config import Family, Objective
from lmscale.study.typed import check

MASKED_SHARE = 0.15  # Devlin et al. 2019 (arXiv:1810.04805), Sec. 3.1
SPAN_SHARE = 0.15  # Raffel et al. 2020 (JMLR 21:140), Sec. 3.3.4
SPAN_TOKENS = 3.0  # mean length of a span: the same

PROMPTED: tuple[Objective, ...] = ("causal", "prefix")  # of models that go on from a prompt
NOISY: tuple[Objective, ...] = ("masked", "prefix", "spans")  # windows carry numbers, from which noise is drawn

OBJECTIVES_OF: dict[Family, tuple[Objective, ...]] = {
    "decoder": ("causal", "prefix", "pairs"),
    "encoder": ("masked",),
    "encoder_decoder": ("spans", "prefix", "pairs"),
    "lstm": ("causal",),
    "ngram": ("causal",),
}


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Numbers of T5's noise for windows of one length: Raffel et al. 2020, Sec. 3.1.4, and `random_spans_helper` of its
    code.
    """

    noise: int  # tokens of a window that are taken out
    count: int  # spans that they form

    @property
    def targets(self) -> int:
        """Length of what is written for a window: a sentinel before each span."""
        return self.noise + self.count


def spans_of(sequence: int) -> Spans:
    """Of windows of `sequence` tokens."""
    noise = min(max(round(sequence * SPAN_SHARE), 1), sequence - 1)
    return Spans(noise=noise, count=min(max(round(noise / SPAN_TOKENS), 1), noise, sequence - noise))


def extra_ids(objective: Objective, sequence: int) -> int:
    """Tokens that an objective adds after those of the text: the mask, or a sentinel for each span."""
    match objective:
        case "masked":
            return 1
        case "spans":
            return spans_of(sequence).count
        case "causal" | "prefix" | "pairs":
            return 0


def written_tokens(family: Family, objective: Objective, sequence: int) -> int:
    """Positions of a decoder that reads a source through an encoder, for each window; 0 where there is none."""
    if family != "encoder_decoder":
        return 0
    return spans_of(sequence).targets if objective == "spans" else sequence


def check_objective(family: Family, objective: Objective) -> None:
    """Raises InputError for a family that cannot be trained on it."""
    known = OBJECTIVES_OF[family]
    why = {
        "causal": "needs a model that sees the past alone",
        "masked": "needs a model that sees both sides",
        "prefix": "needs attention that can be opened for a part",
        "spans": "needs an encoder for the text and a decoder for what is missing",
        "pairs": "needs a source that is read and a target that is written",
    }[objective]
    check(
        objective in known, "objective", objective, f"{why}, and family {family!r} is trained on {' or '.join(known)}"
    )

"""What a model reads of a prompt, and what it is asked for: the layout that training has for each objective.

    causal   start, prompt | written                        the decoder, an LSTM, an n-gram
    prefix   the same, where the prompt's tokens see each other; with an encoder it reads them, and the decoder begins
             with the last of them
    pairs    start, source, tab | target                    likewise
    spans    the encoder reads the text with a sentinel for each blank, the decoder writes a sentinel and what stands
             there, for one blank after the other
    masked   a text with masks in it; what stands there is told at its place, and nothing is written

`start` is end-of-sequence, as before a document of the training text. Imports no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.errors import InputError
from lmscale.config import Family, Objective
from lmscale.data.pair_files import SEPARATOR

TAB = SEPARATOR.decode()

Tokens = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A row of a model: what it reads, and the tokens whose probability is asked for, or that it is to go on after."""

    inputs: Tokens
    targets: Tokens = ()  # beside the inputs: what follows each; of a masked model what stands there
    first_scored: int = 0  # of the targets: those from here on count
    last_scored: int | None = None
    source: Tokens = ()  # what an encoder reads
    prefix: int = 0  # so many of the inputs are seen by all
    first_position: int = 0  # place of the first input in its document
    stop: int = -1  # the sentinel that ends what is written, beside end-of-sequence; those below it may be written

    @property
    def scored(self) -> slice:
        return slice(self.first_scored, self.last_scored)

    @property
    def length(self) -> int:
        """Places of the longer of its rows."""
        return max(self.first_position + len(self.inputs), len(self.source))


@dataclass(frozen=True, kw_only=True)
class Layout:
    family: Family
    objective: Objective
    vocab: int  # tokens of text; the mask and the sentinels follow
    start_id: int
    separator_id: int | None = None
    sentinels: int = 0

    @property
    def takes_blanks(self) -> bool:
        """Whether a prompt can have blanks anywhere, and not only at its end."""
        return self.objective in ("spans", "masked")

    def begun(self, parts: Sequence[Sequence[int]]) -> Asked:
        """A prompt to go on after: its parts around the blanks, of which one that takes none has one part.

        Raises InputError for more blanks than training had spans, and for a model that writes nothing.
        """
        if self.objective == "masked":
            raise InputError(
                "run: an encoder is trained to tell masked tokens and writes no text; fill a blank with lmscale score "
                "RUN 'text ___' --options A B, or choose a decoder"
            )
        prompt = [token for part in parts for token in part]
        match self.objective:
            case "spans":
                return self._spans(parts)
            case "pairs":
                return self._pair(prompt)
            case "prefix":
                return self._halved([self.start_id, *prompt], [])
            case _:
                return Asked(inputs=(self.start_id, *prompt))

    def _spans(self, parts: Sequence[Sequence[int]]) -> Asked:
        parts = parts if len(parts) > 1 else [*parts, ()]  # one blank, at the end
        blanks = len(parts) - 1
        if blanks > self.sentinels:
            raise InputError(
                f"prompt: has {blanks} blanks, and the run was trained on {self.sentinels} spans a window; leave some "
                "out"
            )
        source = list(parts[0])
        for number, part in enumerate(parts[1:]):
            source += [self.vocab + number, *part]
        # the sentinel after the last blank's says that all are filled
        return Asked(inputs=(self.start_id, self.vocab), source=tuple(source), stop=self.vocab + blanks)

    def _pair(self, prompt: list[int]) -> Asked:
        assert self.separator_id is not None
        if self.separator_id not in prompt:
            return self._halved([self.start_id, *prompt, self.separator_id], [])
        end = prompt.index(self.separator_id) + 1
        return self._halved([self.start_id, *prompt[:end]], prompt[end:])

    def _halved(self, read: list[int], written: list[int]) -> Asked:
        if self.family != "encoder_decoder":
            return Asked(inputs=(*read, *written), prefix=len(read))
        return Asked(inputs=(read[-1], *written), source=tuple(read), first_position=len(read) - 1)

    def continued(self, begun: Asked, continuation: Sequence[int]) -> Asked:
        """What a model is asked for a continuation's probability; its tokens are those that count."""
        first = len(begun.inputs) - 1
        targets = (*begun.inputs[1:], *continuation)
        return replace(begun, inputs=(*begun.inputs, *continuation[:-1]), targets=targets, first_scored=first)

    def masked(self, tokens: Sequence[int], places: Sequence[int]) -> list[Asked]:
        """One row for each of these places, masked alone (lmscale.scoring.pseudo_likelihood)."""
        whole = tuple(tokens)
        return [
            Asked(
                inputs=(*whole[:place], self.vocab, *whole[place + 1 :]),
                targets=whole,
                first_scored=place,
                last_scored=place + 1,
            )
            for place in places
        ]


def pair_of(before: str, filling: str, after: str) -> tuple[str, str]:
    """What is given of a pair, and what is filled in after it: a source is given, up to its tab, and never scored.

    Where there is no tab, all that stands before is the source, as of a prompt. Raises InputError where nothing does,
    and for a filling that is neither all of a pair nor in its target.
    """
    if TAB in before or (before and TAB not in filling + after):
        return before, filling
    text = before + filling + after
    if TAB not in text:
        raise InputError(f"text: {text!r} has no tab; write a source, a tab and a target, which is scored")
    if before or TAB not in filling:
        raise InputError(f"text: {text!r} has {filling!r} in its source, which is given; fill a blank after its tab")
    source, target = filling.split(TAB, 1)
    if not target:
        raise InputError(f"text: {text!r} has nothing after its tab; write the target that is scored")
    return source + TAB, target

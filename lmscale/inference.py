"""A finished run as a model that can be asked: `load_run`, then `log_probs`, `fill` and `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.asking.decoding import Told, Written
from lmscale.asking.found_run import FoundRun, find_run
from lmscale.asking.prompts import Asked, Layout, pair_of
from lmscale.asking.reader import Reader, reader_of
from lmscale.asking.sampling import Sampling
from lmscale.config import MeshConfig

BLANK = "___"
TOKENS_WRITTEN = 128  # by default


class Engine(Protocol):
    """What a family's models can be asked for in tokens: decoding.Network, counted_model.Counted of lmscale.asking."""

    module: Any
    params: Any

    def scores(self, asked: Sequence[Asked]) -> list[Told]: ...

    def write(self, asked: Sequence[Asked], sampling: Sampling, most: int, known: int) -> list[Written]: ...


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What a model makes of a text that stands at a place of another."""

    log_probs: NDArray[np.float64]  # nats of each token that counts
    tokens: int
    bytes: int  # of the text that counts
    greedy: bool  # each token is the likeliest

    @property
    def nats(self) -> float:
        """Minus the log-probability of all of it."""
        return -float(self.log_probs.sum())


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What a model wrote after a prompt. Of several blanks `text` is the prompt with all of them filled."""

    prompt: str
    text: str
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]  # nats, of the model itself, before temperature, top-k and top-p
    ended: Literal["itself", "tokens"]  # it wrote the end, or as many tokens as it might


@dataclass(frozen=True, kw_only=True)
class Model:
    """A finished run. `sequence` is the tokens of its training windows."""

    run: FoundRun
    engine: Engine
    reader: Reader
    layout: Layout

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def family(self) -> str:
        return self.run.family

    @property
    def objective(self) -> str:
        return self.run.objective

    @property
    def module(self) -> Any:
        """The Flax module; None of an n-gram."""
        return self.engine.module

    @property
    def params(self) -> Any:
        """Its parameters, on the mesh; of an n-gram the counts (lmscale.ngram.KneserNey)."""
        return self.engine.params

    @property
    def vocabulary(self) -> Any:
        return self.reader.vocabulary

    @property
    def sequence(self) -> int:
        return self.run.sequence

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, with no end-of-sequence. Raises InputError for text that the vocabulary does not know."""
        return self.reader.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self.reader.decode(ids)

    def log_probs(self, context: str, continuation: str) -> NDArray[np.float64]:
        """ln p of each token of a continuation, given a context, which may be empty; in nats, and so at most 0.

        What a context means to each objective: lmscale.asking.prompts. Of a masked model each token is asked for with
        all others in sight (a pseudo-likelihood). Raises InputError for text outside the vocabulary, and beyond learned
        positions.
        """
        return self.fill([(context, continuation, "")])[0].log_probs

    def fill(self, texts: Sequence[tuple[str, str, str]]) -> list[Filled]:
        """What the model makes of (before, filling, after), all in a few calls, each by itself.

        A model that reads from left to right is asked for the filling and all that follows it, given the tokens with
        which `before` and the whole text both begin. Where a token reaches from `before` into the filling it is asked
        for whole, and counts with its bytes: so two fillings may be given different tokens (`fill_blank` gives all the
        same). Of a pair the source is given: a filling that is a whole one counts from its tab. A model that sees both
        sides (masked, spans) is asked for the filling alone.
        """
        return self._told([self._asked(*text) for text in texts])

    def fill_blank(self, before: str, fillings: Sequence[str], after: str) -> list[Filled]:
        """As `fill`, of several fillings of one blank, all given the same tokens: those with which `before` and each
        of the whole texts begin. Tokens and bytes count from there, and so log-probabilities differ as those of the
        whole texts do.
        """
        given = None
        if self.objective in ("causal", "prefix"):  # pairs are in bytes, which reach over no edge
            context = self.encode(before)
            wholes = [self.encode(before + filling + after) for filling in fillings]
            given = min((shared(context, whole) for whole in wholes), default=0)
        return self._told([self._asked(before, filling, after, given) for filling in fillings])

    def _told(self, asked: Sequence[tuple[list[Asked], int]]) -> list[Filled]:
        rows = [row for mine, _ in asked for row in mine]
        for row in rows:
            self.check_length(row.length)
        told, found = iter(self.engine.scores(rows)), []
        for mine, size in asked:
            parts = [next(told) for _ in mine]
            log_probs = np.concatenate([part.log_probs for part in parts])
            greedy = all(bool(part.likeliest.all()) for part in parts)
            found.append(Filled(log_probs=log_probs, tokens=len(log_probs), bytes=size, greedy=greedy))
        return found

    def _asked(self, before: str, filling: str, after: str, given: int | None = None) -> tuple[list[Asked], int]:
        """The rows that are asked, and the bytes of text that count. `given` is how many tokens are, if not all that
        the text has in common with `before`.
        """
        if not filling:
            raise InputError("text: '' has no token whose probability could be asked; write some text")
        if self.objective == "pairs":
            before, filling = pair_of(before, filling, after)
        text = before + filling + after
        if self.objective == "masked":
            places = [i for i, at in enumerate(self.reader.starts(text)) if 0 <= at - len(before) < len(filling)]
            if not places:
                raise InputError(f"text: {filling!r} is part of a longer token of {text!r} here; choose another")
            return self.layout.masked(self.encode(text), places), len(filling.encode())
        if self.objective == "spans":
            parts = [self.encode(before), self.encode(after)]
            return [self.layout.continued(self.layout.begun(parts), self.encode(filling))], len(filling.encode())
        context, whole = self.encode(before), self.encode(text)
        common = shared(context, whole)
        if common == len(whole):
            raise InputError(f"text: {filling!r} adds no token to {before!r} in this vocabulary; write some text")
        common = common if given is None else given
        asked = self.layout.continued(self.layout.begun([whole[:common]]), whole[common:])
        return [asked], len(text[self.reader.starts(text)[common] :].encode())

    def generate(
        self, prompts: Sequence[str], sampling: Sampling | None = None, *, max_tokens: int | None = None
    ) -> list[Generated]:
        """What the model writes after each prompt (by default from its own distribution, 128 tokens at most), all
        prompts in one compiled loop. Nothing is drawn twice alike: a prompt's draws follow from the seed and its place.

        Raises InputError for an empty prompt, one outside the vocabulary, a model that writes nothing, and for more
        tokens than there are learned positions.
        """
        if not prompts:
            return []
        asked = []
        for prompt in prompts:
            if not prompt:
                raise InputError("prompt: '' is empty; write what the model is to go on from")
            asked.append(self.layout.begun([self.encode(part) for part in self._parts(prompt)]))
        most = self._most(asked, max_tokens)
        known = self.layout.vocab
        found = self.engine.write(asked, sampling or Sampling(), most, known)
        return [self._generated(prompt, each) for prompt, each in zip(prompts, found, strict=True)]

    def _parts(self, prompt: str) -> list[str]:
        return prompt.split(BLANK) if self.layout.takes_blanks else [prompt]

    def _generated(self, prompt: str, written: Written) -> Generated:
        text, parts = self.decode(written.tokens), self._parts(prompt)
        if len(parts) > 1:
            text = parts[0] + "".join(
                filling + part
                for filling, part in zip(self.fillings(written.tokens, len(parts) - 1), parts[1:], strict=True)
            )
        ended: Literal["itself", "tokens"] = "itself" if written.ended else "tokens"
        return Generated(prompt=prompt, text=text, tokens=written.tokens, log_probs=written.log_probs, ended=ended)

    def fillings(self, tokens: Sequence[int], blanks: int) -> list[str]:
        """What stands after each sentinel; the first was given."""
        found: list[list[int]] = [[] for _ in range(blanks)]
        at = 0
        for token in tokens:
            if token >= self.layout.vocab:
                at = min(token - self.layout.vocab, blanks - 1)
            else:
                found[at].append(token)
        return [self.decode(each) for each in found]

    def _most(self, asked: Sequence[Asked], max_tokens: int | None) -> int:
        if max_tokens is not None and max_tokens < 1:
            raise InputError(f"max_tokens: {max_tokens} leaves nothing to write; give 1 or more")
        most, longest = max_tokens or TOKENS_WRITTEN, max(each.length for each in asked)
        self.check_length(longest)
        if self.run.positions and longest - 1 + most > self.run.positions:
            left = self.run.positions - longest + 1
            if max_tokens is not None:
                raise InputError(
                    f"max_tokens: {most} after a prompt of {longest} tokens (its start among them) goes beyond the "
                    f"{self.run.positions} positions that the run has learned; ask for at most {left}"
                )
            most = left
        return most

    def check_length(self, length: int) -> None:
        """Raises InputError for a row of more places than there are learned positions."""
        if self.run.positions and length > self.run.positions:
            raise InputError(
                f"text: has {length} tokens (its start among them), and the run has learned {self.run.positions} "
                "positions; shorten it"
            )

    def beyond_training(self, tokens: int) -> str | None:
        """A line to say where rows are longer than those of training, or None."""
        if tokens <= self.sequence or self.family == "ngram":
            return None
        return (
            f"{tokens} tokens are more than the {self.sequence} of a training window: the model has never seen any so "
            "far apart, and what it says there may be poor"
        )

    def longest(self, texts: Sequence[str]) -> int:
        """Tokens of the longest of some texts, and their start."""
        return 1 + max(len(self.encode(text.replace(BLANK, ""))) for text in texts)


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def load_run(
    run: str | Path, out: str | Path = "results", *, mesh: MeshConfig | None = None, vocabulary: Path | None = None
) -> Model:
    """A finished run of any family with its final parameters: by its folder, its id, or the folder or name of a study,
    whose largest it then is. `vocabulary`: the SentencePiece model of its text, where that is not beside the run.

    An n-gram keeps no counts: its text is counted again, and held to the number of counts in its record.

    Raises InputError where there is no such run, it has no final parameters, they are damaged, or its vocabulary or (of
    an n-gram) its text is not found.
    """
    found = find_run(str(run), Path(out) if isinstance(out, str) else out)
    reader = reader_of(found.tokenizer, found.vocab, found.shards, vocabulary)
    if found.family == "ngram":
        from lmscale.asking.counted_model import recount

        engine: Engine = recount(found, reader.vocabulary)
    else:
        from lmscale.asking.trained_model import restore

        engine = restore(found, reader.vocabulary, mesh or MeshConfig())
    return Model(run=found, engine=engine, reader=reader, layout=found.layout(reader.vocabulary))

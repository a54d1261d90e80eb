"""A finished run as a model of the Language Model Evaluation Harness (Gao et al. 2021; package lm_eval, the extra
`harness`): its tasks are then scored by lmscale's own probabilities.

    import lm_eval
    from lmscale.asking.harness import HarnessModel
    lm_eval.simple_evaluate(model=HarnessModel("results/quickstart"), tasks=[...])

The harness strips nothing and adds nothing here: what a context means to each family is in lmscale.asking.prompts. A
masked model's log-likelihoods are pseudo-log-likelihoods, and it generates nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance  # pyright: ignore[reportMissingImports]
from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
from lm_eval.utils import get_rolling_token_windows  # pyright: ignore[reportMissingImports]

from analysis.errors import InputError
from lmscale.asking.prompts import Asked
from lmscale.asking.sampling import Sampling
from lmscale.inference import TOKENS_WRITTEN, Model, load_run

KNOWN = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}


@register_model("lmscale")
class HarnessModel(LM):
    """`run` is what `load_run` takes, or a Model; `--model lmscale --model_args run=RUN,out=results` of the harness's
    own command line, where this module was imported.
    """

    def __init__(
        self, run: str | Model, out: str = "results", seed: int = 0, batch_size: int | str = 16, **settings: Any
    ):
        super().__init__()
        settings.pop("device", None)  # jax's own; the harness's command line always names one
        settings.pop("max_batch_size", None)
        if settings:
            raise InputError(f"model_args: {', '.join(settings)} are not known; give run, out and seed")
        self.model = run if isinstance(run, Model) else load_run(run, Path(out))
        self.seed = seed
        self.rows = int(batch_size) if str(batch_size).isdecimal() else 16  # generated side by side

    @property
    def tokenizer_name(self) -> str:
        return self.model.vocabulary.name

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """ln p of each continuation after its context, in nats, and whether each of its tokens is the likeliest."""
        filled = self.model.fill([(context, continuation, "") for context, continuation in _arguments(requests)])
        return [(-each.nats, each.greedy) for each in filled]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """ln p of whole texts; those longer than a training window in windows of that length, each target with as much
        context as its window holds (of which the first token is the one before, as in training).
        """
        return [self._rolling(text) for (text,) in _arguments(requests)]

    def _rolling(self, text: str) -> float:
        model, tokens = self.model, self.model.encode(text)
        if not tokens:
            return 0.0
        if model.objective != "causal" or len(tokens) <= model.sequence:
            return -model.fill([("", text, "")])[0].nats
        rows = []
        windows = get_rolling_token_windows(tokens, model.layout.start_id, model.sequence, context_len=1)
        for read, asked in windows:
            first = len(read) - len(asked)
            rows.append(Asked(inputs=tuple(read), targets=(*read[1:], asked[-1]), first_scored=first))
        return float(sum(told.log_probs.sum() for told in model.engine.scores(rows)))

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What the model writes after each context, greedily unless a request samples, up to the first of its stops."""
        found: list[str] = [""] * len(requests)
        groups: dict[tuple, list[int]] = {}
        arguments = _arguments(requests)
        for number, (_, wanted) in enumerate(arguments):
            if unknown := set(wanted) - KNOWN:
                raise InputError(f"generation_kwargs: {', '.join(sorted(unknown))} are not known to lmscale; drop them")
            samples = wanted.get("do_sample", False)
            temperature = float(wanted.get("temperature", 1.0)) if samples else 0.0
            most = int(wanted.get("max_gen_toks", TOKENS_WRITTEN))
            key = most, temperature, wanted.get("top_k") if samples else None, wanted.get("top_p") if samples else None
            groups.setdefault(key, []).append(number)
        for (most, temperature, top_k, top_p), numbers in groups.items():
            sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=self.seed)
            for start in range(0, len(numbers), self.rows):
                some = numbers[start : start + self.rows]
                made = self.model.generate([arguments[i][0] for i in some], sampling, max_tokens=most)
                for i, each in zip(some, made, strict=True):
                    found[i] = until(each.text, arguments[i][1].get("until", ()))
        return found


def until(text: str, stops: str | Sequence[str]) -> str:
    """A text up to the first of some stops."""
    each = [stops] if isinstance(stops, str) else stops
    return text[: min((text.find(stop) for stop in each if stop and stop in text), default=len(text))]


def _arguments(requests: Sequence[Instance]) -> list[Any]:
    return [request.args for request in requests]

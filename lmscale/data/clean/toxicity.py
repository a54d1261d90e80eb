"""Passages with listed words, or that a classifier of the user's scores too high."""

from __future__ import annotations

import importlib
import math
import numbers
import re
from collections.abc import Callable
from pathlib import Path

from analysis.errors import InputError
from lmscale.data.clean.settings import Toxicity
from lmscale.data.clean.verdict import Verdict, dropped, kept

# Short on purpose: words that hardly occur outside abuse and pornography. Bring a list for more.
WORDS = (
    "asshole",
    "blowjob",
    "cocksucker",
    "cumshot",
    "cunt",
    "faggot",
    "fuck",
    "fucking",
    "gangbang",
    "motherfucker",
    "nigger",
    "porn",
    "slut",
    "whore",
)
PASSAGE_END = re.compile(r"\n\s*\n")
WORD = re.compile(r"\w+")


class ToxicText:
    """Raises InputError for a list that cannot be read, and a hook that cannot be imported or gives no number."""

    def __init__(self, settings: Toxicity) -> None:
        self.settings = settings
        words = WORDS if settings.words_file is None else read_words(settings.words_file)
        entries = sorted({" ".join(word.casefold().split()) for word in words}, key=lambda word: (-len(word), word))
        # A text without the first word of any entry need not be searched
        self._first = frozenset(first.group() for entry in entries if (first := WORD.search(entry)))
        every = "|".join(re.escape(entry).replace(r"\ ", r"\s+") for entry in entries)
        self._pattern = re.compile(rf"(?<!\w)(?:{every})(?!\w)")
        self._score = None if settings.hook is None else load_hook(settings.hook)

    def __call__(self, name: str, text: str) -> Verdict:
        if self.settings.removed == "documents":
            rule, value = self._fault(name, text)
            return dropped(rule, value) if rule else kept(text)
        passages, edits, start = [], {"words_max": 0, "score_max": 0}, 0
        for end in [*(match.end() for match in PASSAGE_END.finditer(text)), len(text)]:
            rule, _ = self._fault(name, text[start:end])
            if rule:
                edits[rule] += 1
            else:
                passages.append(text[start:end])
            start = end
        return kept("".join(passages), edits)

    def _fault(self, name: str, text: str) -> tuple[str, float | str]:
        """The rule that a text breaks, and its value; an empty rule if it breaks none."""
        lower = text.casefold()
        if not self._first.isdisjoint(WORD.findall(lower)):
            found = self._pattern.findall(lower)
            if len(found) > self.settings.words_max:
                return "words_max", f"{len(found)}, the first {found[0]!r}"
        if self._score is not None and text.strip():
            score = self._ask(name, text)
            if score > self.settings.score_max:
                return "score_max", score
        return "", 0.0

    def _ask(self, name: str, text: str) -> float:
        assert self._score is not None
        hook = self.settings.hook
        try:
            score = self._score(text)
        except Exception as error:  # the user's code, which may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InputError(
                f"corpus.cleaning.toxicity.hook: {hook!r} raises {reason} for document {name!r}; mend it"
            ) from error
        if not isinstance(score, numbers.Real) or isinstance(score, bool) or not math.isfinite(score):
            raise InputError(
                f"corpus.cleaning.toxicity.hook: {hook!r} gives {score!r} for document {name!r}; it must give a finite "
                "number"
            )
        return float(score)


def read_words(path: str) -> list[str]:
    """The entries of a list: a line each, blank lines left out. Raises InputError."""
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"corpus.cleaning.toxicity.words_file: {path!r} is not UTF-8 (at offset {error.start}); convert it"
        ) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"corpus.cleaning.toxicity.words_file: {path!r} cannot be read ({why}); correct it") from None
    words = [line.strip() for line in lines if WORD.search(line)]
    if not words:
        raise InputError(f"corpus.cleaning.toxicity.words_file: {path!r} holds no words; write one a line")
    return words


def load_hook(path: str) -> Callable[[str], object]:
    """The function that MODULE:FUNCTION names. Raises InputError."""
    module, _, function = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except Exception as error:  # a module of the user's, which may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"corpus.cleaning.toxicity.hook: {path!r} cannot be imported ({reason}); mend it") from None
    if not callable(found):
        raise InputError(f"corpus.cleaning.toxicity.hook: {path!r} names no function of {module!r}; correct it")
    return found

"""Gopher's quality rules: Rae et al. 2021, App. A.1.1.

Words are what stands between white space, and lines those that are not blank; the paper says no more. datatrove's
filter counts the tokens of a word tokenizer, and differs by the punctuation that it takes for words.
"""

from __future__ import annotations

import string

from lmscale.data.clean.settings import Quality
from lmscale.data.clean.verdict import Verdict, dropped, kept

ELLIPSES = ("...", "\u2026")
BULLETS = ("\u2022", "\u2023", "\u25e6", "\u25aa", "-", "*")
EDGES = string.punctuation + "\u201c\u201d\u2018\u2019"  # taken off a word before it is compared with stop words


class GopherQuality:
    def __init__(self, settings: Quality) -> None:
        self.settings = settings
        self._stop_words = frozenset(word.lower() for word in settings.stop_words)

    def __call__(self, name: str, text: str) -> Verdict:
        s = self.settings
        words = text.split(None, s.words_max)  # what is behind the last that may be stays one piece
        count = len(words)
        if count < s.words_min:
            return dropped("words_min", count)
        if count > s.words_max:
            return dropped("words_max", f"more than {s.words_max}")
        if count == 0:
            return kept(text)
        mean = sum(map(len, words)) / count
        if mean < s.word_characters_min:
            return dropped("word_characters_min", mean)
        if mean > s.word_characters_max:
            return dropped("word_characters_max", mean)
        if (hashes := text.count("#") / count) > s.hashes_max:
            return dropped("hashes_max", hashes)
        if (ellipses := sum(map(text.count, ELLIPSES)) / count) > s.ellipses_max:
            return dropped("ellipses_max", ellipses)
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        if (bullets := sum(line.startswith(BULLETS) for line in lines) / len(lines)) > s.bullet_lines_max:
            return dropped("bullet_lines_max", bullets)
        if (trailing := sum(line.endswith(ELLIPSES) for line in lines) / len(lines)) > s.ellipsis_lines_max:
            return dropped("ellipsis_lines_max", trailing)
        if (alphabetic := sum(map(_has_letter, words)) / count) < s.alphabetic_words_min:
            return dropped("alphabetic_words_min", alphabetic)
        if (stops := self._count_stop_words(words)) < s.stop_words_min:
            return dropped("stop_words_min", stops)
        return kept(text)

    def _count_stop_words(self, words: list[str]) -> int:
        """Different stop words among the words, up to the number asked."""
        found: set[str] = set()
        for word in words:
            if len(found) >= self.settings.stop_words_min:
                break
            bare = word.strip(EDGES).lower()
            if bare in self._stop_words:
                found.add(bare)
        return len(found)


def _has_letter(word: str) -> bool:
    return word.isalpha() or any(map(str.isalpha, word))

"""The rules of C4 about lines and pages (Raffel et al. 2020, Sec. 2.2), but for listed words, spans and language.

Pages are dropped for what the paper names (`lorem ipsum`, a curly bracket anywhere); lines are removed in the order of
the authors' code (tensorflow_datasets/text/c4_utils.py), which adds three rules to the paper's: words of over 1,000
characters, citation marks of Wikipedia, lines about policies.
"""

from __future__ import annotations

import re

from lmscale.data.clean.settings import LineRule, Lines
from lmscale.data.clean.verdict import Verdict, dropped, kept
from lmscale.data.clean.words import sentences

END_MARKS = (
    ".",
    "?",
    "!",
    '"',
    "\u201d",
)  # Raffel et al. 2020: period, question and exclamation mark, end quotation mark
ELLIPSIS = "..."
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


class C4Lines:
    def __init__(self, settings: Lines) -> None:
        self.settings = settings

    def __call__(self, name: str, text: str) -> Verdict:
        rules = self.settings.rules
        if "lorem_ipsum" in rules and "lorem ipsum" in text.lower():
            return dropped("lorem_ipsum", text.lower().count("lorem ipsum"))
        if "curly_bracket" in rules and (curly := text.count("{") + text.count("}")):
            return dropped("curly_bracket", curly)
        edits: dict[str, int] = {}
        lines: list[str] = []
        count = 0
        for line in text.splitlines():
            line = line.strip()
            if not line:
                continue
            if "citations" in rules and "[" in line:
                line, marks = CITATION.subn("", line)
                edits["citations"] = edits.get("citations", 0) + marks
            if reason := self._fault(line, rules):
                edits[reason] = edits.get(reason, 0) + 1
            else:
                lines.append(line)
                count += len(sentences(line))
        if count < self.settings.sentences_min:
            return dropped("sentences_min", count)
        return kept("\n".join(lines), edits)

    def _fault(self, line: str, rules: tuple[LineRule, ...]) -> str:
        """The rule for which a line is removed; empty if there is none."""
        words = line.split()
        if len(line) > self.settings.word_characters_max and max(map(len, words)) > self.settings.word_characters_max:
            return "word_characters_max"
        if "punctuation" in rules and (not line.endswith(END_MARKS) or line.endswith(ELLIPSIS)):
            return "punctuation"
        if len(words) < self.settings.words_min:
            return "words_min"
        lower = line.lower()
        if "javascript" in rules and "javascript" in lower:
            return "javascript"
        if "policy" in rules and any(phrase in lower for phrase in POLICY):
            return "policy"
        return ""

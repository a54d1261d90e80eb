"""What cleaning does: frozen, validated dataclasses that import no library. Defaults from papers cite them.

Sources: Raffel et al. 2020 (C4, JMLR 21:140); Rae et al. 2021 (Gopher, arXiv:2112.11446); Lee et al. 2022 (ACL,
arXiv:2107.06499); Brown et al. 2020 (GPT-3, arXiv:2005.14165); Soldaini et al. 2024 (Dolma, arXiv:2402.00159).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lmscale.study.typed import check, normalise

# In the order in which they are taken, whatever the order in which they are named
Step = Literal[
    "encoding", "language", "lines", "quality", "repetition", "toxicity", "personal", "exact", "near", "spans"
]
STEPS: tuple[Step, ...] = get_args(Step)
LineRule = Literal["punctuation", "javascript", "lorem_ipsum", "curly_bracket", "policy", "citations"]
Kind = Literal["email", "phone", "ip", "key"]  # of personal data: lmscale.data.clean.personal has the patterns
TEXT_MAX = 1 << 40  # characters or words: more than any document has


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Broken text is mended, or dropped where too much of it is broken."""

    undecodable: Literal["drop", "replace"] = (
        "drop"  # of text that is not UTF-8: the document, or its wrong bytes by U+FFFD
    )
    mojibake: Literal["mend", "keep"] = "mend"  # UTF-8 that was read as another encoding: mended by ftfy, line by line
    broken_max: float = 0.01  # share of characters that are control characters or U+FFFD (ours)
    form: Literal["none", "NFC", "NFKC"] = "none"  # Unicode normalisation

    def __post_init__(self) -> None:
        normalise(self, "corpus.cleaning.encoding.")
        _check_share("encoding.broken_max", self.broken_max)


@dataclass(frozen=True, kw_only=True)
class Language:
    """Documents in other languages are dropped, by py3langid on the beginning of each."""

    kept: tuple[str, ...] = ("en",)  # ISO 639 codes as py3langid has them
    probability_min: float = 0.99  # Raffel et al. 2020, Sec. 2.2 (with langdetect)
    characters: int = 1024  # read of each document (ours): enough for 99 % of English ones to reach that

    def __post_init__(self) -> None:
        normalise(self, "corpus.cleaning.language.")
        check(bool(self.kept), "corpus.cleaning.language.kept", self.kept, "must name at least one, such as en")
        _check_share("language.probability_min", self.probability_min)
        _check_count("language.characters", self.characters, least=32)


@dataclass(frozen=True, kw_only=True)
class Lines:
    """Lines and pages that C4 leaves out: Raffel et al. 2020, Sec. 2.2, with the numbers of its authors' code."""

    rules: tuple[LineRule, ...] = get_args(LineRule)
    words_min: int = 5  # of a line: Raffel et al. 2020, Sec. 2.2; tensorflow_datasets/text/c4_utils.py
    word_characters_max: int = 1000  # of a word of a line: c4_utils.py
    sentences_min: int = 3  # of what is left of a page: Raffel et al. 2020, Sec. 2.2; c4_utils.py

    def __post_init__(self) -> None:
        normalise(self, "corpus.cleaning.lines.")
        _check_count("lines.words_min", self.words_min)
        _check_count("lines.word_characters_max", self.word_characters_max, least=1)
        _check_count("lines.sentences_min", self.sentences_min)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Gopher's quality rules: Rae et al. 2021, App. A.1.1. Words are what stands between white space."""

    words_min: int = 50  # Rae et al. 2021, App. A.1.1
    words_max: int = 100_000  # Rae et al. 2021, App. A.1.1
    word_characters_min: float = 3.0  # mean of a document: Rae et al. 2021, App. A.1.1
    word_characters_max: float = 10.0  # Rae et al. 2021, App. A.1.1
    hashes_max: float = 0.1  # '#' a word: Rae et al. 2021, App. A.1.1
    ellipses_max: float = 0.1  # '...' and the single character, a word: Rae et al. 2021, App. A.1.1
    bullet_lines_max: float = 0.9  # share of lines: Rae et al. 2021, App. A.1.1
    ellipsis_lines_max: float = 0.3  # share of lines that end in one: Rae et al. 2021, App. A.1.1
    alphabetic_words_min: float = 0.8  # share of words with a letter: Rae et al. 2021, App. A.1.1
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")  # the same
    stop_words_min: int = 2  # different ones: Rae et al. 2021, App. A.1.1

    def __post_init__(self) -> None:
        normalise(self, "corpus.cleaning.quality.")
        _check_count("quality.words_min", self.words_min)
        _check_range("quality", self, "words_min", "words_max")
        _check_range("quality", self, "word_characters_min", "word_characters_max")
        for name in ("hashes_max", "ellipses_max", "word_characters_min"):
            check(
                getattr(self, name) >= 0, f"corpus.cleaning.quality.{name}", getattr(self, name), "must not be negative"
            )
        for name in ("bullet_lines_max", "ellipsis_lines_max", "alphabetic_words_min"):
            _check_share(f"quality.{name}", getattr(self, name))
        check(
            0 <= self.stop_words_min <= len(set(self.stop_words)),
            "corpus.cleaning.quality.stop_words_min",
            self.stop_words_min,
            f"must lie between 0 and the {len(set(self.stop_words))} different stop words",
        )


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Gopher's repetition rules: Rae et al. 2021, App. A.1.1 and Table A1. Shares above these drop a document."""

    lines_max: float = 0.30  # duplicate lines among lines: Rae et al. 2021, Table A1
    paragraphs_max: float = 0.30  # Rae et al. 2021, Table A1
    line_characters_max: float = 0.20  # characters in duplicate lines: Rae et al. 2021, Table A1
    paragraph_characters_max: float = 0.20  # Rae et al. 2021, Table A1
    top_grams_max: tuple[float, ...] = (0.20, 0.18, 0.16)  # of 2, 3 and 4 words: Rae et al. 2021, Table A1
    # of 5 to 10 words, duplicates: Rae et al. 2021, Table A1
    duplicate_grams_max: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)

    def __post_init__(self) -> None:
        normalise(self, "corpus.cleaning.repetition.")
        for name in ("lines_max", "paragraphs_max", "line_characters_max", "paragraph_characters_max"):
            _check_share(f"repetition.{name}", getattr(self, name))
        for name, count in (("top_grams_max", 3), ("duplicate_grams_max", 6)):
            shares = getattr(self, name)
            check(
                len(shares) == count and all(0 <= share <= 1 for share in shares),
                f"corpus.cleaning.repetition.{name}",
                shares,
                f"must be {count} shares between 0 and 1",
            )


@dataclass(frozen=True, kw_only=True)
class Toxicity:
    """Text that holds listed words, or that a classifier of the user's scores too high."""

    words_file: str | None = None  # a UTF-8 file, an entry a line; none: the short list of lmscale.data.clean.toxicity
    words_max: int = 0  # occurrences that are let pass: Raffel et al. 2020, Sec. 2.2 (pages with any are removed)
    hook: str | None = None  # MODULE:FUNCTION that takes text and gives a number
    score_max: float = 0.5  # above which the hook's score removes (ours; a classifier's even odds)
    removed: Literal["documents", "passages"] = "documents"  # Raffel et al. 2020, Sec. 2.2; passages: paragraphs alone

    def __post_init__(self) -> None:
        normalise(self, "corpus.cleaning.toxicity.")
        _check_count("toxicity.words_max", self.words_max)
        module, colon, function = (self.hook or "a:b").partition(":")
        check(
            bool(module and colon and function),
            "corpus.cleaning.toxicity.hook",
            self.hook,
            "must be MODULE:FUNCTION, such as my_filters:score",
        )


@dataclass(frozen=True, kw_only=True)
class Personal:
    """Personal data and secrets: masked, as <email>, or a reason to drop the document."""

    kinds: tuple[Kind, ...] = get_args(Kind)
    # Found in a document that is kept, masked; more drop it (0: any does; none: all are masked). Soldaini et al. 2024
    # on web pages: 5 or fewer are masked
    masked_max: int | None = 5

    def __post_init__(self) -> None:
        normalise(self, "corpus.cleaning.personal.")
        check(bool(self.kinds), "corpus.cleaning.personal.kinds", self.kinds, "must name at least one, such as email")
        if self.masked_max is not None:
            _check_count("personal.masked_max", self.masked_max)


@dataclass(frozen=True, kw_only=True)
class Near:
    """Near duplicates: candidates by MinHash-LSH, each verified by the Jaccard similarity of its set of shingles."""

    jaccard_min: float = 0.8  # Rae et al. 2021, App. A.1.1; Lee et al. 2022, Sec. 4.2
    words: int = 5  # of a shingle: Lee et al. 2022, Sec. 4.2
    # A pair of similarity s is a candidate with probability 1 - (1 - s^rows)^bands (Leskovec et al. 2014, Sec. 3.4.2):
    # 99.8 % at 0.8 and 6 % at 0.38
    bands: int = 20
    rows: int = 6

    def __post_init__(self) -> None:
        normalise(self, "corpus.cleaning.near.")
        check(0 < self.jaccard_min <= 1, "corpus.cleaning.near.jaccard_min", self.jaccard_min, "must lie in (0, 1]")
        for name, most in (("words", 100), ("bands", 1000), ("rows", 100)):
            value = getattr(self, name)
            check(1 <= value <= most, f"corpus.cleaning.near.{name}", value, f"must lie between 1 and {most}")


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """The steps that are taken, and the settings of each. Every threshold is also the name of a rule in the ledger."""

    steps: tuple[Step, ...] = ("encoding", "quality", "repetition", "exact", "near")
    encoding: Encoding = field(default_factory=Encoding)
    language: Language = field(default_factory=Language)
    lines: Lines = field(default_factory=Lines)
    quality: Quality = field(default_factory=Quality)
    repetition: Repetition = field(default_factory=Repetition)
    toxicity: Toxicity = field(default_factory=Toxicity)
    personal: Personal = field(default_factory=Personal)
    near: Near = field(default_factory=Near)

    def __post_init__(self) -> None:
        normalise(self, "corpus.cleaning.")
        check(bool(self.steps), "corpus.cleaning.steps", self.steps, f"must name at least one of {', '.join(STEPS)}")
        check(len(set(self.steps)) == len(self.steps), "corpus.cleaning.steps", self.steps, "must not name one twice")

    @property
    def ordered(self) -> tuple[Step, ...]:
        """The steps in the order in which they are taken."""
        return tuple(step for step in STEPS if step in self.steps)


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """What counts as text that training and evaluation documents share."""

    # Words: lower case, no punctuation (Brown et al. 2020, App. C). Bytes: as they are, for any language and for code
    unit: Literal["words", "bytes"] = "words"
    # none: 13 words (Brown et al. 2020, App. C), or 50 bytes (Lee et al. 2022, Sec. 4.1: 50 tokens)
    size: int | None = None
    # Grams found in more training documents than this are common phrases, and ignored: Brown et al. 2020, App. C
    common_documents: int = 10

    def __post_init__(self) -> None:
        normalise(self, "contamination.")
        check(
            self.size is None or 2 <= self.size <= 4096, "contamination.size", self.size, "must lie between 2 and 4096"
        )
        common = self.common_documents
        check(1 <= common <= TEXT_MAX, "contamination.common_documents", common, "must be at least 1")

    @property
    def gram(self) -> int:
        """Units of a gram."""
        return self.size if self.size is not None else {"words": 13, "bytes": 50}[self.unit]


def _check_share(name: str, value: float) -> None:
    check(0 <= value <= 1, f"corpus.cleaning.{name}", value, "must lie between 0 and 1")


def _check_count(name: str, value: int, *, least: int = 0) -> None:
    check(least <= value <= TEXT_MAX, f"corpus.cleaning.{name}", value, f"must be at least {least}")


def _check_range(step: str, settings: Any, low: str, high: str) -> None:
    least, most = getattr(settings, low), getattr(settings, high)
    check(most >= least, f"corpus.cleaning.{step}.{high}", most, f"is below {low}, {least}; raise it")

"""What is trained on, as a study says it: corpora, sources that are made, evaluation sets. Part of lmscale.config, by
which studies import it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from lmscale.data.clean.settings import Cleaning
from lmscale.data.facts import FACTS_SET, Facts
from lmscale.data.vocabulary_kind import VocabularyKind
from lmscale.study.abilities import Labelled, TaskText
from lmscale.study.typed import check, normalise

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
NAME_RULE = "must be lower-case letters, digits, '.', '_' or '-' (at most 64), starting with a letter or digit"
TokenType = Literal["uint8", "uint16", "uint32"]
OnBad = Literal["refuse", "skip"]
Combinations = Literal["seen", "unseen"]  # of words, in sentences of a bilingual corpus
SYLLABLES, STEM_SYLLABLES = 40, 2  # of each language there, and of a word without its markers
SLICE = re.compile(r"[A-Za-z0-9_]{1,64}")  # it is part of a file's name
PACKAGES = ("flax", "jax", "matplotlib", "numpy", "optax", "orbax-checkpoint", "pandas", "scipy", "seqio")
OWN_SET = "heldout"  # the name of the study's own held-out text among its evaluation sets
PSEUDO_SET = "pseudo_likelihood"  # of single masked tokens (lmscale.scoring.pseudo_likelihood)
TRANSLATED = "-translated"  # ends the name of a set's pairs as a model translates them (lmscale.scoring.translation)


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """A synthetic text whose entropy rate is known: words drawn from a Zipf-Mandelbrot law (lmscale.data.lexicon)."""

    words: int = 1_000_000
    exponent: float = 1.7  # p_r ~ (r + shift)^-exponent
    shift: float = 30.0
    letters: int = 24  # of the alphabet
    letters_per_word: int = 7
    document_words: float = 64.0  # on average
    tokens: int = 16_777_216  # of the whole text
    seed: int = 0

    def __post_init__(self) -> None:
        normalise(self, "corpus.lexicon.")
        where = "corpus.lexicon"
        check(2 <= self.letters <= 64, f"{where}.letters", self.letters, "must lie between 2 and 64")
        length = self.letters_per_word
        check(1 <= length <= 64, f"{where}.letters_per_word", length, "must lie between 1 and 64")
        most = self.letters**length
        check(2 <= self.words <= 10**8, f"{where}.words", self.words, "must lie between 2 and 1e8")
        check(
            self.words <= most,
            f"{where}.words",
            self.words,
            f"exceeds the {most:,} spellings; give them more letters_per_word",
        )
        check(0 < self.exponent <= 10, f"{where}.exponent", self.exponent, "must lie between 0 and 10")
        check(self.shift > 0, f"{where}.shift", self.shift, "must be positive")
        check(self.document_words >= 1, f"{where}.document_words", self.document_words, "must be at least 1")
        check(self.tokens >= 1000, f"{where}.tokens", self.tokens, "must be at least 1,000")
        check(0 <= self.seed < 2**31, f"{where}.seed", self.seed, "must lie between 0 and 2^31 - 1")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A synthetic text whose entropy rate is known: a Markov chain of a power-law spectrum (lmscale.data.chain)."""

    states: int = 1022  # with padding and the end of a document, 1,024 ids
    spectrum: float = 1.0  # s_k ~ max(k + 1, knee)^-spectrum, the singular values of the logits
    knee: int = 8
    variance: float = 5.0  # of the logits, nats squared
    zipf: float = 0.7  # next states are alike ~ (j + 1 + shift)^-zipf, but for the spectrum
    shift: float = 4.0
    document_tokens: float = 257.0  # on average, its end included
    tokens: int = 4_194_304  # of the whole text
    seed: int = 0

    def __post_init__(self) -> None:
        normalise(self, "corpus.chain.")
        where = "corpus.chain"
        check(2 <= self.states <= 4096, f"{where}.states", self.states, "must lie between 2 and 4,096")
        check(0.5 < self.spectrum <= 4, f"{where}.spectrum", self.spectrum, "must lie above 0.5, up to 4")
        check(self.knee >= 1, f"{where}.knee", self.knee, "must be at least 1")
        check(0 <= self.variance <= 100, f"{where}.variance", self.variance, "must lie between 0 and 100")
        check(0 <= self.zipf <= 4, f"{where}.zipf", self.zipf, "must lie between 0 and 4")
        check(self.shift >= 0, f"{where}.shift", self.shift, "must not be negative")
        length = self.document_tokens
        check(2 <= length <= 1e6, f"{where}.document_tokens", length, "must lie between 2 and 1e6")
        check(self.tokens >= 1000, f"{where}.tokens", self.tokens, "must be at least 1,000")
        check(0 <= self.seed < 2**31, f"{where}.seed", self.seed, "must lie between 0 and 2^31 - 1")


@dataclass(frozen=True, kw_only=True)
class Bilingual:
    """Pairs of an invented sentence and its translation into another invented language (lmscale.data.bilingual)."""

    nouns: int = 24
    adjectives: int = 12
    verbs: int = 12
    sentences: int = 60_000
    # an adjective with its noun, a subject with its verb; unseen: sentences with one that is in none of the seen ones
    combinations: Combinations = "seen"
    unseen: float = 0.1  # share of the combinations that are set apart
    seed: int = 0

    def __post_init__(self) -> None:
        normalise(self, "corpus.bilingual.")
        where = "corpus.bilingual"
        for name in ("nouns", "adjectives", "verbs"):
            check(getattr(self, name) >= 3, f"{where}.{name}", getattr(self, name), "must be at least 3")
        words, most = self.nouns + self.adjectives + self.verbs, SYLLABLES**STEM_SYLLABLES
        check(
            words <= most,
            f"{where}.nouns",
            self.nouns,
            f"makes {words:,} words in all, more than the {most:,} that there are of {STEM_SYLLABLES} syllables; give "
            "fewer",
        )
        check(1 <= self.sentences <= 10**7, f"{where}.sentences", self.sentences, "must lie between 1 and 1e7")
        check(0 < self.unseen <= 0.5, f"{where}.unseen", self.unseen, "must lie between 0 and 0.5")
        check(0 <= self.seed < 2**31, f"{where}.seed", self.seed, "must lie between 0 and 2^31 - 1")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What is trained on: a seqio Task or Mixture, a corpus that comes with lmscale, or files named by the user.

    `task` is `python_source`, `package_source`, `lexicon`, `chain`, `bilingual`, `labelled`,
    `tfds:NAME[/CONFIG][:VERSION]`, `hf:PATH[:CONFIG][@REVISION]` (a folder, or a name on the hub) or what `module`
    registers. `files` are read by their ending: JSON lines (.jsonl, .ndjson, .json), Parquet (.parquet), integers
    (.npy, .bin), anything else as UTF-8 text; text and JSON lines also as .gz.
    """

    task: str = "python_source"
    files: tuple[str, ...] = ()  # glob patterns; when given, they are the corpus
    module: str | None = None  # Python module to import first, where a user registers Tasks
    packages: tuple[str, ...] = PACKAGES  # installed distributions whose Python sources are `package_source`
    data_dir: str | None = None  # of tfds:NAME; none: TFDS_DATA_DIR, or ~/tensorflow_datasets
    text_field: str = "text"  # where JSON lines, Parquet, TFDS and Hugging Face datasets hold a document's text
    # A SentencePiece .model file, or one that is trained on the training documents: char, char:K, word:K, unigram:K,
    # bpe:K (K pieces). None: bytes. A Task of `module` brings its own
    vocabulary: str | None = None
    token_type: TokenType = "uint8"  # of .bin files
    vocab_size: int | None = None  # ids of .npy and .bin files; none: 256, of bytes
    slices: tuple[str, ...] = ()  # fields kept for each document, by which its loss can be told apart: source, language
    on_bad: OnBad = "refuse"  # a document that cannot be read: refuse the corpus, or skip the document and count it
    heldout: float = 0.05  # share of documents kept for evaluation, chosen by hash of their content
    allow_repeats: bool = False  # train on the same text more than once when more tokens are asked than there are
    # train on that many tokens alone, of documents in a fixed order, of which a smaller number takes the first; part of
    # a run's identity, but not of the prepared text
    unique_tokens: int | None = None
    lexicon: Lexicon = field(default_factory=Lexicon)  # what the task `lexicon` is made of
    chain: Chain = field(default_factory=Chain)  # what the task `chain` is made of
    bilingual: Bilingual = field(default_factory=Bilingual)  # what the task `bilingual` is made of
    labelled: Labelled = field(default_factory=Labelled)  # what the task `labelled` is made of
    cleaning: Cleaning | None = None  # of lmscale's own sources of text; none: as they are
    facts: Facts | None = None  # planted into the training text of a built-in corpus or of files
    task_text: TaskText | None = None  # documents of tasks among those to train on, of a built-in corpus or of files

    def __post_init__(self) -> None:
        normalise(self, "corpus.")
        if (kind := self.trained) is not None:
            object.__setattr__(self, "vocabulary", str(kind))  # bpe:4e3 is bpe:4000
            check(
                self.module is None or bool(self.files),
                "corpus.vocabulary",
                self.vocabulary,
                f"is trained on lmscale's own sources, but the Tasks of module {self.module!r} bring their own "
                "vocabulary; leave it out",
            )
        check(
            self.facts is None or bool(self.files) or self.task in ("python_source", "package_source"),
            "corpus.facts",
            str(self.facts),
            f"cannot be planted into {self.task!r}; plant them into text files (--corpus.files)",
        )
        check(
            self.facts is None or self.cleaning is None,
            "corpus.facts",
            str(self.facts),
            "and corpus.cleaning, which might drop them; leave one of the two (clean first, into files)",
        )
        check(
            self.facts is None or self.vocabulary is None,
            "corpus.facts",
            str(self.facts),
            f"is asked in bytes, and the text is read as {self.vocabulary!r}; leave out corpus.vocabulary",
        )
        if self.task_text is not None:
            name, share = "corpus.task_text.share", self.task_text.share
            check(
                bool(self.files) or self.task in ("python_source", "package_source"),
                name,
                share,
                f"cannot be mixed into {self.task!r}; mix it into text files (--corpus.files)",
            )
            mend = "and corpus.cleaning, which might drop such text; leave one of the two (clean first, into files)"
            check(self.cleaning is None, name, share, mend)
        check(0 < self.heldout < 0.5, "corpus.heldout", self.heldout, "must lie between 0 and 0.5")
        check(bool(self.task), "corpus.task", self.task, "must name a seqio Task")
        check(len(self.packages) > 0, "corpus.packages", self.packages, "must name at least one installed package")
        size = self.vocab_size
        check(size is None or 1 <= size <= 2**31 - 1, "corpus.vocab_size", size, "must lie between 1 and 2^31 - 1")
        check(
            all(SLICE.fullmatch(name) for name in self.slices),
            "corpus.slices",
            self.slices,
            "must be names of letters, digits and '_'",
        )
        check(len(set(self.slices)) == len(self.slices), "corpus.slices", self.slices, "must not name a field twice")
        limit = self.unique_tokens
        check(limit is None or limit >= 1, "corpus.unique_tokens", limit, "must be at least 1 token")

    @property
    def name(self) -> str:
        """The corpus in tables and folder names."""
        added = "_facts" * (self.facts is not None) + "_tasks" * (self.task_text is not None)
        return ("files" if self.files else self.task) + added

    @property
    def trained(self) -> VocabularyKind | None:
        """The vocabulary that is to be trained on the text; None for bytes and for a file."""
        return None if self.vocabulary is None else VocabularyKind.from_text(self.vocabulary)


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """A further text that every run is scored on: the held-out documents of another corpus.

    The hash that chooses them depends on a document's content alone. With at most the training corpus's share `heldout`
    a document that both corpora hold is therefore never one that was trained on.
    """

    WORDS: ClassVar[str] = "a set such as books=books/*.txt (a name and its files)"

    name: str
    corpus: Corpus
    tokens: int = 131_072  # held-out tokens scored; a smaller text is used whole

    @classmethod
    def from_text(cls, text: str) -> Self:
        """NAME=FILES. Raises ValueError if the text is not that."""
        name, equals, files = text.partition("=")
        if not (equals and files):
            raise ValueError
        return cls(name=name, corpus=Corpus(files=(files,)))

    def __post_init__(self) -> None:
        normalise(self, "eval_sets.")
        check(NAME.fullmatch(self.name) is not None, "eval_sets.name", self.name, NAME_RULE)
        check(
            self.name != OWN_SET,
            "eval_sets.name",
            self.name,
            "is that of the study's own held-out text; choose another",
        )
        check(self.name != FACTS_SET, "eval_sets.name", self.name, "is that of planted facts; choose another")
        check(self.name != PSEUDO_SET, "eval_sets.name", self.name, "is that of single masked tokens; choose another")
        check(
            not self.name.endswith(TRANSLATED),
            "eval_sets.name",
            self.name,
            f"ends in {TRANSLATED}, as do the names of translations; choose another",
        )

"""What a study is: frozen, validated dataclasses that import no framework.

A `Study` is what a person writes. `lmscale.plan` turns it into trajectories and runs, whose numbers are
`Shape` (lmscale.shapes) and `Hyperparameters` (lmscale.study.recipe).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from lmscale.data.clean.settings import Cleaning as Cleaning
from lmscale.data.facts import Facts as Facts
from lmscale.study.abilities import Abilities as Abilities
from lmscale.study.abilities import Labelled as Labelled
from lmscale.study.abilities import TaskText as TaskText
from lmscale.study.corpora import NAME, NAME_RULE, OWN_SET, Corpus, EvalSet
from lmscale.study.corpora import Bilingual as Bilingual  # what a study says of its text
from lmscale.study.corpora import Chain as Chain
from lmscale.study.corpora import Lexicon as Lexicon
from lmscale.study.hardware import ExecutorConfig as ExecutorConfig
from lmscale.study.hardware import MeshConfig as MeshConfig
from lmscale.study.recipe import PowerRule as PowerRule
from lmscale.study.recipe import Recipe as Recipe
from lmscale.study.recipe import Schedule
from lmscale.study.starts import Lora as Lora
from lmscale.study.starts import Start as Start
from lmscale.study.typed import check, normalise

Family = Literal["decoder", "encoder", "encoder_decoder", "lstm", "ngram"]
# lmscale.network.spans says which family can be trained on which, lmscale.objectives what they are
Objective = Literal["causal", "masked", "prefix", "spans", "pairs"]
# What is computed again in the backward pass instead of being kept: all of a layer, or all but its matrix products
Remat = Literal["none", "products", "layer"]
Positions = Literal["rotary", "learned"]
RematChoice = Literal["auto", "none", "products", "layer"]
Log = Literal["tensorboard", "wandb"]
DISPATCH_MAX = 4096  # steps in a call: their windows are held on the devices
COUNTS = ("tokens", "tokens_per_param", "flops_budgets")  # the ways to give the token counts of a grid
ORDER_MOST = 6  # of an n-gram
NO_RATE = "is of training, and an n-gram is counted, with no learning rate; leave it out"


@dataclass(frozen=True, kw_only=True)
class Size:
    """One rung of the grid. Depth and heads left out come from the ladder (lmscale.shapes). An n-gram has an order."""

    WORDS: ClassVar[str] = "a size such as 64x2 (width, depth), 64x2x4 (and heads) or 3-gram (an order)"

    width: int = 0  # 0: of an n-gram
    depth: int | None = None
    heads: int | None = None
    order: int | None = None

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Width x depth x heads, the last two optional; or ORDER-gram. Raises ValueError if the text is not that."""
        if text.endswith("-gram"):
            return cls(order=int(text.removesuffix("-gram")))
        width, *rest = (int(part) for part in text.split("x"))
        return cls(width=width, **dict(zip(("depth", "heads"), rest, strict=len(rest) > 1)))

    def __post_init__(self) -> None:
        normalise(self, "size.")
        if self.order is not None:
            check(1 <= self.order <= ORDER_MOST, "size.order", self.order, f"must lie between 1 and {ORDER_MOST}")
            others = [name for name in ("width", "depth", "heads") if getattr(self, name)]
            check(not others, f"size.{others[0] if others else ''}", str(self), "is not an n-gram's; give order alone")
            return
        mend = "must be a positive multiple of 8 (the order of an n-gram is written 3-gram)"
        check(self.width >= 8 and self.width % 8 == 0, "size.width", self.width, mend)
        check(self.depth is None or self.depth >= 1, "size.depth", self.depth, "must be at least 1")
        if self.heads is not None:
            check(self.heads >= 1, "size.heads", self.heads, "must be at least 1")
            check(
                self.width % self.heads == 0 and (self.width // self.heads) % 2 == 0,
                "size.heads",
                self.heads,
                f"must split width {self.width} into heads of an even size (RoPE turns pairs)",
            )

    def __str__(self) -> str:
        """As it is written on the command line."""
        if self.order is not None:
            return f"{self.order}-gram"
        return "x".join(str(part) for part in (self.width, self.depth, self.heads) if part is not None)


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A size of a study on one of its counts (tokens, tokens per parameter, or FLOPs: as the study gives them)."""

    WORDS: ClassVar[str] = "a size and a count such as 64x2:1e6"

    size: Size
    count: float

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Raises ValueError if the text is not a size, a colon and a number."""
        size, _, count = text.partition(":")
        return cls(size=Size.from_text(size), count=float(count))

    def __post_init__(self) -> None:
        normalise(self, "chosen.")


@dataclass(frozen=True, kw_only=True)
class FamilyGrid:
    """Sizes of one more family of a study. All else is the study's; runs of different families are fitted apart."""

    WORDS: ClassVar[str] = "a grid such as lstm/causal=64x2+96x2 (family, objective, sizes)"

    family: Family
    objective: Objective
    sizes: tuple[Size, ...]
    rate_multiplier: float = 1.0  # of the recipe's learning rate: the best one is another's in another family

    @classmethod
    def from_text(cls, text: str) -> Self:
        """FAMILY/OBJECTIVE=SIZE+SIZE. Raises ValueError if the text is not that."""
        kind, equals, sizes = text.partition("=")
        family, slash, objective = kind.partition("/")
        if not (equals and slash):
            raise ValueError
        return cls(family=family, objective=objective, sizes=tuple(map(Size.from_text, sizes.split("+"))))  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        normalise(self, "further.")
        check(len(self.sizes) > 0, "further.sizes", self.sizes, "must name at least one size, such as 64x2")
        check(self.rate_multiplier > 0, "further.rate_multiplier", self.rate_multiplier, "must be positive")


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question and the grid that answers it, with one corpus and recipe: sizes x token counts (x seeds x rates).

    The token counts are given in one of three ways: `tokens` for all sizes, `tokens_per_param` of each, or
    `flops_budgets`, which give a size of N parameters C / 6 N (IsoFLOP profiles: Hoffmann et al. 2022, Sec. 3.2).
    """

    name: str
    sizes: tuple[Size, ...]
    tokens: tuple[int, ...] = ()  # training tokens of the runs of each size
    tokens_per_param: tuple[float, ...] = ()  # or D / N, N counting embeddings
    flops_budgets: tuple[float, ...] = ()  # or budgets C = 6 N D
    tokens_per_param_range: tuple[float, ...] = ()  # lowest and highest D / N: leave out cells of the grid beyond them
    flops_max: float | None = None  # leave out cells of the grid with 6 N D above this
    only: tuple[Chosen, ...] = ()  # cells of the grid that are trained, such as 64x2:1e6; none: all of them
    allow_collinear: bool = False  # sweep a grid from which no law can be told
    target_flops: float | None = (
        None  # C of the N* that the runs are ordered to tell soonest; none: 10 x the largest run
    )
    seeds: tuple[int, ...] = (0,)
    rate_multipliers: tuple[float, ...] = (1.0,)  # of the recipe's learning rate: each is trained, and fitted, apart
    schedules: tuple[Schedule, ...] = ()  # each is trained, and fitted, apart; none: the recipe's alone
    family: Family = "decoder"
    objective: Objective = "causal"
    further: tuple[FamilyGrid, ...] = ()  # grids of other families, trained by the same sweep
    tied_embeddings: bool = True
    positions: Positions = "rotary"  # learned: a table of `recipe.sequence` rows, added to the tokens' (GPT-2)
    corpus: Corpus = field(default_factory=Corpus)
    recipe: Recipe = field(default_factory=Recipe)
    start: Start | None = None  # the run or study whose final parameters are trained on; none: from the seed alone
    eval_tokens: int = 131_072  # held-out tokens scored after each run, the same for every run
    eval_sets: tuple[EvalSet, ...] = ()  # further texts to score, also of runs that are done
    abilities: Abilities | None = None  # tasks on which each run is scored, also those that are done
    headline: str = OWN_SET  # the set whose loss is `loss_nats` of runs.csv; it alone is part of a run's identity
    mesh: MeshConfig = field(default_factory=MeshConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    microbatches: int | None = None  # parts of the batch whose gradients are accumulated; none: as memory asks
    remat: RematChoice = "auto"  # layers computed again in the backward pass: auto where memory asks for it
    device_memory_bytes: float | None = None  # of each device; none: what it has
    steps_per_dispatch: int = 32  # optimiser steps inside one compiled call
    # Models of one shape (seeds, rates) trained together in one step. None: as many as fill an accelerator, and on a
    # CPU one at a time (lmscale.planning.replicas)
    replicas: int | None = None
    counts_max: int | None = None  # that an n-gram may store; none: as many as there is memory for
    # between checkpoints: what a kill costs at most, and a call of the program. None: so that saving takes a hundredth
    # of the time, and at most 60 s
    checkpoint_seconds: float | None = None
    telemetry: tuple[Log, ...] = ("tensorboard",)  # where the numbers of each call go beside the curves

    def __post_init__(self) -> None:
        normalise(self)
        check(NAME.fullmatch(self.name) is not None, "name", self.name, NAME_RULE)
        check(len(self.sizes) > 0, "sizes", self.sizes, "must name at least one size, such as 64x2")
        self._check_counts()
        check(len(set(self.sizes)) == len(self.sizes), "sizes", self.sizes, "must not name a size twice")
        check(len(self.seeds) > 0, "seeds", self.seeds, "must name at least one seed")
        check(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "must not name a seed twice")
        check(all(0 <= s < 2**31 for s in self.seeds), "seeds", self.seeds, "must lie between 0 and 2^31 - 1")
        rates = self.rate_multipliers
        check(len(rates) > 0, "rate_multipliers", rates, "must name at least one, such as 1")
        check(all(m > 0 for m in rates), "rate_multipliers", rates, "must all be positive")
        check(len(set(self.schedules)) == len(self.schedules), "schedules", self.schedules, "must not name one twice")
        check(self.flops_max is None or self.flops_max > 0, "flops_max", self.flops_max, "must be positive")
        target = self.target_flops
        check(target is None or 1e6 <= target <= 1e40, "target_flops", target, "must lie between 1e6 and 1e40")
        names = [s.name for s in self.eval_sets]
        check(len(set(names)) == len(names), "eval_sets", names, "must not name a set twice")
        rule = f"must hold at least 16 sequences of {self.recipe.sequence} tokens"
        scored = {"eval_tokens": self.eval_tokens, **{f"eval_sets.{s.name}.tokens": s.tokens for s in self.eval_sets}}
        for field_name, tokens in scored.items():
            check(tokens >= 16 * self.recipe.sequence, field_name, tokens, rule)
        check(
            self.headline in (OWN_SET, *names),
            "headline",
            self.headline,
            f"is no evaluation set of the study; name one of {', '.join((OWN_SET, *names))}",
        )
        check(
            self.objective != "pairs" or self.recipe.documents == "apart",
            "recipe.documents",
            self.recipe.documents,
            "makes one text of several pairs, of which only the first would have a source; use apart with pairs",
        )
        self._check_families()
        check(self.counts_max is None or self.counts_max >= 1, "counts_max", self.counts_max, "must be at least 1")
        check(len(set(self.telemetry)) == len(self.telemetry), "telemetry", self.telemetry, "must not name one twice")
        check(
            self.microbatches is None or self.microbatches >= 1, "microbatches", self.microbatches, "must be at least 1"
        )
        check(
            self.device_memory_bytes is None or self.device_memory_bytes > 0,
            "device_memory_bytes",
            self.device_memory_bytes,
            "must be positive",
        )
        check(
            1 <= self.steps_per_dispatch <= DISPATCH_MAX,
            "steps_per_dispatch",
            self.steps_per_dispatch,
            f"must lie between 1 and {DISPATCH_MAX}",
        )
        check(self.replicas is None or self.replicas >= 1, "replicas", self.replicas, "must be at least 1")
        seconds = self.checkpoint_seconds
        check(seconds is None or seconds > 0, "checkpoint_seconds", seconds, "must be positive")

    def _check_families(self) -> None:
        """That every family has sizes of its kind, and that nothing is asked of an n-gram which it has not."""
        kinds = [(self.family, self.objective), *((grid.family, grid.objective) for grid in self.further)]
        check(len(set(kinds)) == len(kinds), "further", kinds, "must not name a family and objective twice")
        pairs = {objective == "pairs" for _, objective in kinds}
        check(len(pairs) == 1, "further", kinds, "cannot mix pairs, which are windows of their own, with other text")
        for family, sizes in ((self.family, self.sizes), *((grid.family, grid.sizes) for grid in self.further)):
            for size in sizes:
                good = (size.order is not None) == (family == "ngram")
                mend = "has an order, such as 3-gram" if family == "ngram" else "has a width, such as 64x2"
                check(good, "sizes", str(size), f"is no size of family {family!r}, which {mend}")
        mend = "names cells of one family's grid; leave it out, or further"
        check(not (self.only and self.further), "only", [str(cell.size) for cell in self.only], mend)
        if self.corpus.facts is not None:
            for family, objective in kinds:
                check(
                    objective == "causal" and family != "ngram",
                    "corpus.facts",
                    str(self.corpus.facts),
                    f"are asked of causal networks, and this one is {family!r}, {objective!r}; leave one of the two",
                )
        self._check_abilities(kinds)
        if "ngram" not in {family for family, _ in kinds}:
            return
        after = "needs parameters, and those of an n-gram, its stored counts, are known after counting"
        check(self.counted_by == "tokens", self.counted_by, self.counts, f"{after}; give tokens")
        for name in ("tokens_per_param_range", "flops_max"):
            check(not getattr(self, name), name, getattr(self, name), f"{after}; leave it out")
        check(
            self.mesh.devices == 1, "mesh", str(self.mesh), "has no use for an n-gram, which one host counts; drop it"
        )
        if self.family == "ngram":
            check(self.rate_multipliers == (1.0,), "rate_multipliers", self.rate_multipliers, NO_RATE)
            check(not self.schedules, "schedules", self.schedules, NO_RATE)

    def _check_abilities(self, kinds: list[tuple[str, str]]) -> None:
        """That there is a model that can be asked, and that tasks and texts can be told apart."""
        if self.corpus.task_text is not None:
            pairs = any(objective == "pairs" for _, objective in kinds)
            share = self.corpus.task_text.share
            mend = "is no text of pairs, which objective 'pairs' needs; leave one of the two"
            check(not pairs, "corpus.task_text.share", share, mend)
        if self.abilities is None:
            return
        shown = list(self.abilities.tasks)
        for family, objective in kinds:
            mend = f"are asked of networks, and this one is {family!r}, {objective!r}; leave one of the two"
            check(family != "ngram", "abilities.tasks", shown, mend)
        taken = {OWN_SET, *(each.name for each in self.eval_sets)}
        both = [each.name for each in self.abilities.chosen if each.name in taken]
        check(not both, "abilities.tasks", both, "has the name of an evaluation set; rename that one")

    @property
    def members(self) -> tuple[Study, ...]:
        """A study of each family, this one's first."""
        alone = replace(self, further=())
        return (alone, *(self._member(alone, grid) for grid in self.further))

    @staticmethod
    def _member(alone: Study, grid: FamilyGrid) -> Study:
        fields = {"family": grid.family, "objective": grid.objective, "sizes": grid.sizes}
        if grid.family == "ngram":
            return replace(alone, **fields, rate_multipliers=(1.0,), schedules=())
        return replace(alone, **fields, recipe=alone.recipe.scaled(grid.rate_multiplier))

    def _check_counts(self) -> None:
        given = [name for name in COUNTS if getattr(self, name)]
        check(
            len(given) > 0,
            "tokens",
            self.tokens,
            "must name at least one token count, such as 1e6 (or give tokens_per_param or flops_budgets)",
        )
        check(
            len(given) == 1,
            given[-1],
            getattr(self, given[-1]),
            f"says again what {given[0]} says; give one of the "
            f"two, and none for the other (--{given[0].replace('_', '-')} none)",
        )
        values = self.counts
        check(all(value > 0 for value in values), self.counted_by, values, "must all be positive")
        check(len(set(values)) == len(values), self.counted_by, values, "must not name a count twice")
        for cell in self.only:
            check(cell.size in self.sizes, "only", str(cell.size), "is none of the study's sizes; name it in sizes")
            check(
                cell.count in values,
                "only",
                cell.count,
                f"is none of {self.counted_by}; name it there, or leave it out",
            )
        check(len(set(self.only)) == len(self.only), "only", self.only, "must not name a cell twice")
        ends = self.tokens_per_param_range
        check(
            not ends or (len(ends) == 2 and 0 < ends[0] <= ends[1]),
            "tokens_per_param_range",
            ends,
            "must be two positive numbers, the lower first, such as 2,200",
        )

    @property
    def counted_by(self) -> str:
        """The field that gives the token counts: one of COUNTS."""
        return next(name for name in COUNTS if getattr(self, name))

    @property
    def counts(self) -> tuple[float, ...]:
        """What that field holds."""
        return getattr(self, self.counted_by)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipe with every schedule at every rate. Each has a law of its own."""
        kinds = self.schedules or (self.recipe.schedule,)
        return tuple(replace(self.recipe, schedule=kind).scaled(m) for kind in kinds for m in self.rate_multipliers)

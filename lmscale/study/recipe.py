"""How models are trained: rules that follow the size, and the numbers they come to. Imports no framework."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from lmscale.study.typed import check, normalise

Documents = Literal["apart", "joined"]  # those of one window: whether they see each other
Schedule = Literal["wsd", "cosine", "linear"]  # lmscale.optim says what they are
Dtype = Literal["auto", "float32", "bfloat16"]
Stored = Literal["float32", "bfloat16"]
BATCH_TOKENS_MAX = 1e12


@dataclass(frozen=True, kw_only=True)
class PowerRule:
    """value(N) = value * (N / params) ** exponent: a setting that follows the model's size N (parameters)."""

    value: float
    params: float = 1.0
    exponent: float = 0.0

    def __post_init__(self) -> None:
        normalise(self, "rule.")
        check(self.value > 0, "rule.value", self.value, "must be a positive number")
        check(self.params > 0, "rule.params", self.params, "must be a positive number")
        check(abs(self.exponent) <= 2, "rule.exponent", self.exponent, "must lie between -2 and 2")

    def __call__(self, params: float) -> float:
        """Raises InputError where the rule leaves the range of numbers."""
        try:
            value = self.value * (params / self.params) ** self.exponent
        except OverflowError:
            value = math.inf
        given = f"{self.value:g} * (N / {self.params:g})^{self.exponent:g}"
        check(
            0 < value < math.inf,
            "rule",
            given,
            f"gives {value:g} for a model of {params:,} parameters; choose another exponent",
        )
        return value


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model of any size is trained; rules follow the size, so that a whole grid shares one recipe."""

    sequence: int = 128
    documents: Documents = "apart"  # several in a window do not see each other, and each begins at position 0
    # The rules' N leaves out embeddings. Porian et al. 2024 (arXiv:2406.19146), rounded as in OLMo-core's model ladder
    learning_rate: PowerRule = PowerRule(value=0.0047, params=108e6, exponent=-1 / 3)
    batch_tokens: PowerRule = PowerRule(value=160 * 2048, params=108e6, exponent=2 / 3)  # same source
    batch_tokens_max: int | None = None  # a cap; the rate is then scaled by sqrt(batch / rule), Malladi et al. 2022
    warmup_tokens: int = 30_720  # never more than the model has parameters: Porian et al. 2024 on warmup
    schedule: Schedule = "wsd"
    cooldown_fraction: float = 0.2  # Haegele et al. 2024 (arXiv:2405.18392): 10-20 % matches cosine
    # 1 / (1 - beta2), the steps over which Adam averages (Kingma & Ba 2015, Alg. 1): a decay that is shorter ends on
    # moments of the high rate
    cooldown_steps_min: int = 20
    weight_decay: float = 0.1  # on matrices only
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    clip_norm: float = 1.0
    compute_dtype: Dtype = "auto"  # float32 on CPU, bfloat16 on accelerators; parameters are always float32
    moments_dtype: Stored = "float32"  # in which Adam's two averages are kept; bfloat16 takes half their memory

    def __post_init__(self) -> None:
        normalise(self, "recipe.")
        check(self.sequence >= 8, "recipe.sequence", self.sequence, "must be at least 8 tokens")
        check(self.warmup_tokens >= 0, "recipe.warmup_tokens", self.warmup_tokens, "must not be negative")
        check(0 < self.cooldown_fraction < 1, "recipe.cooldown_fraction", self.cooldown_fraction, "must lie in (0, 1)")
        check(self.cooldown_steps_min >= 1, "recipe.cooldown_steps_min", self.cooldown_steps_min, "must be at least 1")
        check(
            self.batch_tokens_max is None or self.batch_tokens_max >= self.sequence,
            "recipe.batch_tokens_max",
            self.batch_tokens_max,
            f"must hold at least one sequence of {self.sequence} tokens",
        )
        check(self.weight_decay >= 0, "recipe.weight_decay", self.weight_decay, "must not be negative")
        check(0 <= self.beta1 < 1, "recipe.beta1", self.beta1, "must lie in [0, 1)")
        check(0 <= self.beta2 < 1, "recipe.beta2", self.beta2, "must lie in [0, 1)")
        check(self.epsilon > 0, "recipe.epsilon", self.epsilon, "must be positive")
        check(self.clip_norm > 0, "recipe.clip_norm", self.clip_norm, "must be positive")

    def scaled(self, multiplier: float) -> Recipe:
        """The recipe at `multiplier` times its learning rate, just as a study that writes that rate would have it."""
        if multiplier == 1:
            return self
        value = float(f"{self.learning_rate.value * multiplier:.12g}")
        return replace(self, learning_rate=replace(self.learning_rate, value=value))

    @property
    def counted(self) -> Hyperparameters:
        """What of the recipe reaches a model that is counted: windows, one a step. Nothing is optimised."""
        return Hyperparameters(
            sequence=self.sequence,
            documents=self.documents,
            batch_sequences=1,
            learning_rate=0.0,
            warmup_steps=0,
            schedule="wsd",
            cooldown_fraction=0.0,
            cooldown_steps_min=0,
            weight_decay=0.0,
            beta1=0.0,
            beta2=0.0,
            epsilon=0.0,
            clip_norm=0.0,
            compute_dtype="float32",
            moments_dtype="float32",
        )

    def resolve(self, params_matrices: int) -> Hyperparameters:
        """The recipe's numbers for a model with `params_matrices` parameters outside its embeddings.

        The batch is rounded to a power of two of sequences (so that common meshes divide it).
        """
        rule, rate = self.batch_tokens(params_matrices), self.learning_rate(params_matrices)
        wanted = min(rule, self.batch_tokens_max or math.inf)
        check(
            wanted <= BATCH_TOKENS_MAX,
            "recipe.batch_tokens",
            f"{wanted:g}",
            f"exceeds {BATCH_TOKENS_MAX:g} tokens; lower it",
        )
        sequences = max(1, 2 ** round(math.log2(wanted / self.sequence)))
        if self.batch_tokens_max is not None and sequences * self.sequence > self.batch_tokens_max:
            sequences //= 2
        batch = sequences * self.sequence
        # A capped batch lowers Adam's rate by the square root: Malladi et al. 2022 (arXiv:2205.10287)
        rate *= math.sqrt(wanted / rule)
        return Hyperparameters(
            sequence=self.sequence,
            documents=self.documents,
            batch_sequences=sequences,
            learning_rate=float(f"{rate:.4g}"),
            warmup_steps=min(self.warmup_tokens, params_matrices) // batch,
            schedule=self.schedule,
            cooldown_fraction=self.cooldown_fraction,
            cooldown_steps_min=self.cooldown_steps_min,
            weight_decay=self.weight_decay,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            clip_norm=self.clip_norm,
            compute_dtype=self.compute_dtype,
            moments_dtype=self.moments_dtype,
        )


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """A recipe resolved for one size: everything about the optimisation that changes a trajectory's numbers."""

    sequence: int
    documents: Documents
    batch_sequences: int
    learning_rate: float
    warmup_steps: int
    schedule: Schedule
    cooldown_fraction: float
    cooldown_steps_min: int
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    clip_norm: float
    compute_dtype: Dtype
    moments_dtype: Stored

    @property
    def batch_tokens(self) -> int:
        return self.batch_sequences * self.sequence

"""How the next token is drawn from what a model says of it: temperature, top-k and top-p."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lmscale.study.typed import check, normalise


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of generation. `temperature` 0 takes the likeliest token; `top_k` leaves the k likeliest (Fan et al.
    2018, arXiv:1805.04833); `top_p` of these the fewest that have that share together (Holtzman et al. 2020,
    arXiv:1904.09751).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        normalise(self)
        check(self.temperature >= 0, "temperature", self.temperature, "is negative; give 0 (the likeliest) or more")
        check(self.top_k is None or self.top_k >= 1, "top_k", self.top_k, "leaves no token; give 1 or more")
        mend = "is no share of what can be drawn; give more than 0 and at most 1"
        check(self.top_p is None or 0 < self.top_p <= 1, "top_p", self.top_p, mend)
        check(0 <= self.seed < 2**31, "seed", self.seed, "must lie between 0 and 2^31 - 1")

    @property
    def filters(self) -> bool:
        """Whether tokens are left out."""
        return self.top_k is not None or self.top_p is not None

    def numbers(self, vocab: int) -> Numbers:
        return Numbers(
            jnp.float32(self.temperature),
            jnp.int32(min(self.top_k or vocab, vocab)),
            jnp.float32(1.0 if self.top_p is None else self.top_p),
        )


class Numbers(NamedTuple):
    """The settings as inputs of a compiled loop: others compile nothing."""

    temperature: Float[Array, ""]
    top_k: Int[Array, ""]
    top_p: Float[Array, ""]


def draw(logits: Float[Array, "B V"], keys: Array, numbers: Numbers, *, filters: bool) -> Int[Array, " B"]:
    """A token of each row; `keys` are one a row. `filters`: whether top-k and top-p are looked at."""
    scaled = logits / jnp.where(numbers.temperature > 0, numbers.temperature, 1.0)
    if filters:
        scaled = left(scaled, numbers)
    drawn = jax.vmap(jax.random.categorical)(keys, scaled)
    return jnp.where(numbers.temperature > 0, drawn, jnp.argmax(logits, axis=-1)).astype(jnp.int32)


def left(scaled: Float[Array, "B V"], numbers: Numbers) -> Float[Array, "B V"]:
    """Logits of the tokens that can be drawn, and -inf of the others; tokens as likely as the last one stay with it."""
    ordered = -jnp.sort(-scaled, axis=-1)
    ordered = jnp.where(jnp.arange(ordered.shape[-1]) < numbers.top_k, ordered, -jnp.inf)
    shares = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(shares, axis=-1) - shares
    kept = jnp.where((before < numbers.top_p) & jnp.isfinite(ordered), ordered, jnp.inf)
    return jnp.where(scaled >= jnp.min(kept, axis=-1, keepdims=True), scaled, -jnp.inf)

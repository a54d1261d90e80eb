"""The size ladder: parameters <-> width, depth, heads; exact parameter and FLOP counts. No framework.

Alphabet (as in layers.py): D width, L layers, H heads, K head size, F feed-forward, V vocabulary, S sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from lmscale.config import Size
from lmscale.typed import check

FEEDFORWARD_RATIO = 4  # F = 4 D: Vaswani et al. 2017, Sec. 3.3
BACKWARD = 2  # the backward pass costs two forward passes: Kaplan et al. 2020, Sec. 2.1


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder's dimensions, and what follows from them."""

    width: int
    depth: int
    heads: int
    head_size: int
    feedforward: int
    vocab: int
    tied: bool = True
    positions: int = 0  # learned ones, a row each; 0: rotary

    def __post_init__(self) -> None:
        check(self.depth >= 1, "shape.depth", self.depth, "must be at least 1")
        check(self.heads >= 1, "shape.heads", self.heads, "must be at least 1")
        check(self.head_size % 2 == 0, "shape.head_size", self.head_size, "must be even (RoPE turns pairs)")
        check(self.vocab >= 2, "shape.vocab", self.vocab, "must be at least 2")

    @property
    def params_embedding(self) -> int:
        """Token embedding and, where it is not tied, output layer: V D (x 2); and learned positions, S D."""
        return (self.vocab * (1 if self.tied else 2) + self.positions) * self.width

    @property
    def params_matrices(self) -> int:
        """Everything but embeddings: L (4 D H K + 2 D F + 2 D) + D; the last terms are the norms' scales."""
        attention = 4 * self.width * self.heads * self.head_size
        return self.depth * (attention + 2 * self.width * self.feedforward + 2 * self.width) + self.width

    @property
    def params(self) -> int:
        """All parameters; equals the number of elements of the real parameter tree (tested)."""
        return self.params_matrices + self.params_embedding

    def forward_flops_per_token(self, sequence: int) -> float:
        """Multiply-adds counted as 2, matrix products only: projections, feed-forward, attention scores and
        values over the whole S x S square (Chowdhery et al. 2022, App. B), and the output layer.
        """
        inner = self.heads * self.head_size
        layer = 8 * self.width * inner + 4 * self.width * self.feedforward + 4 * sequence * inner
        return float(self.depth * layer + 2 * self.width * self.vocab)

    def train_flops(self, tokens: float, sequence: int) -> float:
        """Training FLOPs, forward x 3, of `tokens` tokens in sequences of length `sequence`."""
        return (1 + BACKWARD) * self.forward_flops_per_token(sequence) * float(tokens)

    def flops_6nd(self, tokens: float) -> float:
        """C = 6 N D with all parameters (Kaplan et al. 2020, Sec. 2.1)."""
        return 6.0 * self.params * float(tokens)

    def __str__(self) -> str:
        return f"{self.width}x{self.depth}x{self.heads}"


def ladder_depth(width: int) -> int:
    """Depth for a width: width^(2/3) / 8, rounded.

    A curve through published models: 4096 -> 32 (LLaMA 7B), 5120 -> 37 (13B has 40), 768 -> 10 (GPT-2 has 12);
    narrow models come out shallow, as Levine et al. 2020 (arXiv:2006.12467) advise.
    """
    return max(1, round(width ** (2 / 3) / 8))


@cache
def ladder_heads(width: int) -> int:
    """Heads for a width: an even count where possible (so that a tensor axis of 2 divides it), head size near 32
    below width 256, near 64 below 2048 (GPT-2), near 128 from there (LLaMA).
    """
    target = 32 if width < 256 else 64 if width < 2048 else 128
    counts = [h for h in range(1, width // 8 + 1) if width % h == 0 and (width // h) % 2 == 0]
    even = [h for h in counts if h % 2 == 0] or counts
    return min(even, key=lambda h: abs(math.log(width / h / target)))


def padded_vocab(vocab: int) -> int:
    """Vocabulary rounded up so that meshes divide it: to 8 below 1,024 tokens, else to 128 (a TPU lane)."""
    multiple = 8 if vocab <= 1024 else 128
    return -(-vocab // multiple) * multiple


def shape_of(size: Size, *, vocab: int, tied: bool = True, positions: int = 0) -> Shape:
    """The shape a study's size stands for; `vocab` is the tokenizer's size, which is padded here."""
    heads = size.heads or ladder_heads(size.width)
    return Shape(
        width=size.width,
        depth=size.depth or ladder_depth(size.width),
        heads=heads,
        head_size=size.width // heads,
        feedforward=FEEDFORWARD_RATIO * size.width,
        vocab=padded_vocab(vocab),
        tied=tied,
        positions=positions,
    )


def shape_for(params: float, vocab: int, *, tied: bool = True, positions: int = 0) -> Shape:
    """The ladder's shape nearest to a parameter count (in ratio, embeddings included).

    Raises InputError if `params` is not a positive number or is smaller than any shape of this vocabulary.
    """
    check(math.isfinite(params) and params > 0, "params", params, "must be a positive number")
    smallest = shape_of(Size(width=16), vocab=vocab, tied=tied, positions=positions)
    check(
        params >= smallest.params / 2,
        "params",
        params,
        f"is below the ladder's smallest model ({smallest.params} parameters with a vocabulary of {vocab})",
    )
    widths = [*range(16, 256, 16), *range(256, 2048, 128), *range(2048, 2**16, 256)]  # even counts of good heads
    candidates = [(math.inf, smallest)]
    for width in widths:
        depth = ladder_depth(width)
        if abs(math.log(12 * width * width * depth + smallest.params_embedding / 16 * width) - math.log(params)) > 1:
            continue
        reach = max(1, depth // 6)
        for d in range(max(1, depth - reach), depth + reach + 1):
            shape = shape_of(Size(width=width, depth=d), vocab=vocab, tied=tied, positions=positions)
            # leaving the ladder's depth by 10 % costs as much as missing the count by 2 %
            candidates.append((abs(math.log(shape.params / params)) + 0.2 * abs(math.log(d / depth)), shape))
    return min(candidates, key=lambda c: c[0])[1]

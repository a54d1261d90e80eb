"""The size ladder: parameters <-> width, depth, heads; exact parameter and FLOP counts. No framework.

Alphabet (as in layers.py): D width, L layers, H heads, K head size, F feed-forward, V vocabulary, S sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

from lmscale.config import Family, Size
from lmscale.study.typed import check

FEEDFORWARD_RATIO = 4  # F = 4 D: Vaswani et al. 2017, Sec. 3.3
LSTM_DEPTH = 2  # Jozefowicz et al. 2016 (arXiv:1602.02410): two layers in their largest models
BACKWARD = 2  # the backward pass costs two forward passes: Kaplan et al. 2020, Sec. 2.1


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The dimensions of a transformer of one stack, decoder or encoder, and what follows from them."""

    width: int
    depth: int
    heads: int
    head_size: int
    feedforward: int
    vocab: int
    tied: bool = True
    positions: int = 0  # learned ones, a row each; 0: rotary
    written: int = 0  # positions a window of a decoder that reads a source; 0 where there is no encoder beside it

    def __post_init__(self) -> None:
        check(self.depth >= 1, "shape.depth", self.depth, "must be at least 1")
        check(self.heads >= 1, "shape.heads", self.heads, "must be at least 1")
        check(self.head_size % 2 == 0, "shape.head_size", self.head_size, "must be even (RoPE turns pairs)")
        check(self.vocab >= 2, "shape.vocab", self.vocab, "must be at least 2")

    @staticmethod
    def usual_depth(width: int) -> float:
        """The ladder's depth for a width, before it is rounded."""
        return max(1.0, width ** (2 / 3) / 8)

    @staticmethod
    def usual_heads(width: int) -> int:
        """The ladder's heads for a width."""
        return ladder_heads(width)

    @property
    def params_embedding(self) -> int:
        """Token embedding and, where it is not tied, output layer: V D (x 2); and learned positions, S D."""
        return (self.vocab * (1 if self.tied else 2) + self.positions) * self.width

    @property
    def params_matrices(self) -> int:
        """Everything but embeddings: L (4 D H K + 2 D F + 2 D) + D; the last terms are the norms' scales."""
        return self.depth * self._layer(attentions=1) + self.width

    def _layer(self, attentions: int) -> int:
        attention = 4 * self.width * self.heads * self.head_size
        return attentions * (attention + self.width) + 2 * self.width * self.feedforward + self.width

    @property
    def planned_params(self) -> int | None:
        """All parameters, None where they are not known before training."""
        return self.params

    @property
    def label(self) -> str:
        """In the names of trajectories."""
        return f"{self.width}x{self.depth}"

    @property
    def params(self) -> int:
        """All parameters; equals the number of elements of the real parameter tree (tested)."""
        return self.params_matrices + self.params_embedding

    @property
    def over_tensor(self) -> dict[str, int]:
        """The dimensions that the mesh axis `tensor` splits (lmscale.mesh.RULES)."""
        return {"heads": self.heads, "feedforward": self.feedforward, "vocab": self.vocab}

    def forward_flops_per_token(self, sequence: int) -> float:
        """Multiply-adds counted as 2, matrix products only: projections, feed-forward, attention scores and
        values over the whole S x S square (Chowdhery et al. 2022, App. B), and the output layer.
        """
        return float(self.depth * self._layer_flops(sequence) + 2 * self.width * self.vocab)

    def _layer_flops(self, sequence: int) -> int:
        """Of a position of a layer with self-attention."""
        inner = self.heads * self.head_size
        return 8 * self.width * inner + 4 * self.width * self.feedforward + 4 * sequence * inner

    def train_flops(self, tokens: float, sequence: int) -> float:
        """Training FLOPs, forward x 3, of `tokens` tokens in sequences of length `sequence`."""
        return (1 + BACKWARD) * self.forward_flops_per_token(sequence) * float(tokens)

    def flops_6nd(self, tokens: float) -> float:
        """C = 6 N D with all parameters (Kaplan et al. 2020, Sec. 2.1)."""
        return 6.0 * self.params * float(tokens)

    def __str__(self) -> str:
        return f"{self.width}x{self.depth}x{self.heads}"


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderShape(Shape):
    """Two stacks of L layers each; those of the decoder also look at what the encoder read."""

    @property
    def params_matrices(self) -> int:
        """L (4 D H K + 2 D F + 2 D) + D of the encoder, and L (8 D H K + 2 D F + 3 D) + D of the decoder."""
        return self.depth * (self._layer(attentions=1) + self._layer(attentions=2)) + 2 * self.width

    def forward_flops_per_token(self, sequence: int) -> float:
        """Of a token of the window: the encoder works at S positions, the decoder and the output layer at `written`."""
        inner, share = self.heads * self.head_size, self.written / sequence
        read = self.depth * self._layer_flops(sequence)
        # queries and output of cross-attention, scores and values; keys and values are the source's, once a layer
        crossed = 4 * self.width * inner + 4 * sequence * inner
        write = self.depth * (self._layer_flops(self.written) + crossed) + 2 * self.width * self.vocab
        return float(read + self.depth * 4 * self.width * inner + share * write)


@dataclass(frozen=True, kw_only=True)
class RecurrentShape(Shape):
    """L layers of an LSTM cell of D units, which has no heads."""

    @staticmethod
    def usual_depth(width: int) -> float:
        return LSTM_DEPTH

    @staticmethod
    def usual_heads(width: int) -> int:
        return 1

    @property
    def params_matrices(self) -> int:
        """L (8 D D + 4 D + D) + D: four gates from input and memory with one bias, and the norms' scales."""
        return self.depth * (8 * self.width**2 + 5 * self.width) + self.width

    @property
    def over_tensor(self) -> dict[str, int]:
        """The units of its gates, and the vocabulary."""
        return {"width": self.width, "vocab": self.vocab}

    def forward_flops_per_token(self, sequence: int) -> float:
        """16 D D a layer, whatever the length, and the output layer."""
        return float(self.depth * 16 * self.width**2 + 2 * self.width * self.vocab)

    def __str__(self) -> str:
        return f"{self.width}x{self.depth}"


@dataclass(frozen=True, kw_only=True)
class NgramShape(Shape):
    """The order of an n-gram model, which has no dimensions, and what it stores, once that was counted."""

    order: int
    counts: int | None = None  # distinct n-grams of the orders 1 .. order; no part of what is planned
    width: int = 0
    depth: int = 0
    heads: int = 0
    head_size: int = 0
    feedforward: int = 0

    def __post_init__(self) -> None:
        check(self.order >= 1, "shape.order", self.order, "must be at least 1")
        check(self.vocab >= 2, "shape.vocab", self.vocab, "must be at least 2")

    @property
    def planned_params(self) -> None:
        return None

    @property
    def label(self) -> str:
        return str(self.order)

    @property
    def params(self) -> int:
        """The stored counts. Raises ValueError before they were counted."""
        if self.counts is None:
            raise ValueError("the parameters of an n-gram are known after counting")
        return self.counts

    @property
    def params_embedding(self) -> int:
        return 0

    def counts_most(self, tokens: int) -> int:
        """More than this cannot be stored of so many tokens: V^m distinct n-grams of order m, and one a token."""
        return sum(min(self.vocab**m, tokens) for m in range(1, self.order + 1))

    def forward_flops_per_token(self, sequence: int) -> float:
        """A look-up an order."""
        return float(self.order)

    def train_flops(self, tokens: float, sequence: int) -> float:
        """Counts that are raised by one: an order each, of every token. No floating-point operations."""
        return self.order * float(tokens)

    def __str__(self) -> str:
        return f"{self.order}-gram"


SHAPES: dict[Family, type[Shape]] = {
    "decoder": Shape,
    "encoder": Shape,
    "encoder_decoder": EncoderDecoderShape,
    "lstm": RecurrentShape,
    "ngram": NgramShape,
}


def ladder_depth(width: int) -> int:
    """Depth for a width: width^(2/3) / 8, rounded.

    A curve through published models: 4096 -> 32 (LLaMA 7B), 5120 -> 37 (13B has 40), 768 -> 10 (GPT-2 has 12);
    narrow models come out shallow, as Levine et al. 2020 (arXiv:2006.12467) advise.
    """
    return round(Shape.usual_depth(width))


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


def shape_of(
    size: Size,
    *,
    vocab: int,
    tied: bool = True,
    positions: int = 0,
    family: Family = "decoder",
    written: int = 0,
) -> Shape:
    """The shape a study's size stands for; `vocab` is the tokenizer's size and what the objective adds, padded here.

    Raises InputError for heads where a family has none.
    """
    if family == "ngram":
        assert size.order is not None
        return NgramShape(order=size.order, vocab=vocab)  # nothing divides it among devices: not padded
    kind = SHAPES[family]
    headless = kind is RecurrentShape and size.heads is not None
    check(not headless, "size.heads", size.heads, "are not known to an LSTM; leave them out")
    heads = size.heads or kind.usual_heads(size.width)
    return kind(
        width=size.width,
        depth=size.depth or round(kind.usual_depth(size.width)),
        heads=heads,
        head_size=size.width // heads,
        feedforward=FEEDFORWARD_RATIO * size.width,  # of an LSTM: its four gates
        vocab=padded_vocab(vocab),
        tied=tied,
        positions=positions,
        written=written,
    )


def shape_for(params: float, like: Shape) -> Shape:
    """The ladder's shape nearest to a parameter count (in ratio, embeddings included), of the kind of another.

    Raises InputError if `params` is not a positive number or is smaller than any shape of this vocabulary.
    """
    check(math.isfinite(params) and params > 0, "params", params, "must be a positive number")

    def shape(width: int, depth: int | None = None) -> Shape:
        heads = like.usual_heads(width)
        return replace(
            like,
            width=width,
            depth=depth or round(like.usual_depth(width)),
            heads=heads,
            head_size=width // heads,
            feedforward=FEEDFORWARD_RATIO * width,
        )

    smallest = shape(16)
    check(
        params >= smallest.params / 2,
        "params",
        params,
        f"is below the ladder's smallest model ({smallest.params} parameters with a vocabulary of {like.vocab})",
    )
    widths = [
        *range(16, 128, 8),
        *range(128, 256, 16),
        *range(256, 1024, 64),
        *range(1024, 2048, 128),
        *range(2048, 2**16, 256),
    ]  # even counts of good heads
    candidates = [(math.inf, smallest)]
    for width in widths:
        exact = like.usual_depth(width)
        if abs(math.log(shape(width).params) - math.log(params)) > 1:
            continue
        depth = round(exact)
        reach = max(1, depth // 6)
        for d in range(max(1, depth - reach), depth + reach + 1):
            found = shape(width, d)
            # leaving the ladder's depth by 10 % costs as much as missing the count by 2 %
            candidates.append((abs(math.log(found.params / params)) + 0.2 * abs(math.log(d / exact)), found))
    return min(candidates, key=lambda c: c[0])[1]

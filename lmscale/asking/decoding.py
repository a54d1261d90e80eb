"""The compiled programs of inference: probabilities of given tokens, and the loop that writes new ones with a cache.

Rows are padded to powers of two, in length and in number, so a program serves all prompts up to its size; how many
tokens are written, the seed, the temperature and the thresholds are inputs of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from lmscale.asking.prompts import Asked, Tokens
from lmscale.asking.sampling import Sampling, draw
from lmscale.config import Family
from lmscale.layers import WATCHED
from lmscale.network.borders import NOWHERE, Rows
from lmscale.network.cache import CACHE, empty_cache
from lmscale.network.output_layer import Output, logits
from lmscale.objectives import Example
from lmscale.shapes import Shape

LEAST = 16  # places of the shortest rows
TOKENS = 16_384  # scored a call: their logits take most of the memory
ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Told:
    """Of each target of a row that is asked for, in order."""

    log_probs: NDArray[np.float64]  # nats
    likeliest: NDArray[np.bool_]  # no token was likelier


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a model wrote: its tokens, without the one that ended it, and what each cost it."""

    tokens: Tokens
    log_probs: tuple[float, ...]  # nats, of the model itself, before temperature, top-k and top-p
    ended: bool  # by itself, not by the number of tokens


def bucket(size: int, least: int = LEAST) -> int:
    """The smallest power of two that is not below."""
    return max(least, 1 << max(0, size - 1).bit_length())


class Network:
    """A trained network: its module, parameters on a mesh, and the programs that read them."""

    def __init__(
        self, module: nn.Module, params: Any, *, family: Family, shape: Shape, dtype: Any, mesh: Mesh, end: int | None
    ):
        self.module, self.params, self.family, self.shape = module, params, family, shape
        self.dtype, self.mesh, self.end = dtype, mesh, -1 if end is None else end
        self.devices = mesh.shape["data"] * mesh.shape["fsdp"]  # over which rows are split
        self.score_rows = jax.jit(self._score)
        self.watch_rows = jax.jit(self._watch)
        self.write_rows = jax.jit(self._write, static_argnames=("slots", "written", "filters"))

    def scores(self, asked: Sequence[Asked]) -> list[Told]:
        """What the model tells of the targets that count, of each row."""
        found: list[Told | None] = [None] * len(asked)
        order = sorted(range(len(asked)), key=lambda i: (asked[i].length, len(asked[i].inputs)))
        while order:
            longest = bucket(max(len(asked[order[-1]].inputs), len(asked[order[-1]].source)))
            some = [order.pop() for _ in range(min(len(order), ROWS, max(1, TOKENS // longest)))]
            rows = [asked[i] for i in some]
            example = self.example_of(rows, "right")
            told, best = (np.asarray(x) for x in self.score_rows(self.params, example))
            for row, i in enumerate(some):
                there = slice(0, len(asked[i].targets))
                found[i] = Told(
                    log_probs=told[row, there][asked[i].scored].astype(np.float64),
                    likeliest=best[row, there][asked[i].scored],
                )
        return [each for each in found if each is not None]

    def write(self, asked: Sequence[Asked], sampling: Sampling, most: int, known: int) -> list[Written]:
        """Goes on after each row with at most `most` tokens of those below `known`, all rows in one loop."""
        count = self._count(len(asked))
        live, starts = np.arange(count) < len(asked), np.zeros((2, count), np.int32)
        starts[0, : len(asked)] = [a.first_position + len(a.inputs) for a in asked]
        starts[1, : len(asked)] = [a.stop for a in asked]
        example = self.example_of(asked, "left")
        written = bucket(most)
        tokens, nats, counts, ended = (
            np.asarray(x)
            for x in self.write_rows(
                self.params,
                example,
                live,
                starts,
                np.int32(most),
                np.int32(known),
                jax.random.key(sampling.seed),
                sampling.numbers(self.shape.vocab),
                slots=example.inputs.tokens.shape[1] + written,
                written=written,
                filters=sampling.filters,
            )
        )
        return [
            Written(
                tokens=tuple(tokens[row, : counts[row]].tolist()),
                log_probs=tuple(nats[row, : counts[row]].tolist()),
                ended=bool(ended[row]),
            )
            for row in range(len(asked))
        ]

    def _count(self, rows: int) -> int:
        return -(-bucket(rows, 1) // self.devices) * self.devices

    def example_of(self, asked: Sequence[Asked], side: Literal["left", "right"]) -> Example:
        """Rows side by side as a module takes them, padded on one side."""
        count = self._count(len(asked))
        inputs = padded([a.inputs for a in asked], count, side, [a.first_position for a in asked])
        targets = padded([a.targets for a in asked], count, side, length=inputs.tokens.shape[1]).tokens
        places = inputs.positions - np.array([[a.first_position] for a in asked] + [[0]] * (count - len(asked)))
        prefixes = np.array([a.prefix for a in asked] + [0] * (count - len(asked)))[:, None]
        seen = (places < prefixes) & (inputs.documents != NOWHERE) if prefixes.any() else None
        sources = padded([a.source for a in asked], count, "right") if any(a.source for a in asked) else None
        return Example(inputs, targets, np.ones(targets.shape, np.float32), prefix=seen, source=sources)  # type: ignore[arg-type]

    def _score(self, params: Any, example: Example) -> tuple[jax.Array, jax.Array]:
        scores = logits(self.module.apply({"params": params}, example), self.mesh)  # type: ignore[arg-type]
        told = jnp.take_along_axis(jax.nn.log_softmax(scores), example.targets[..., None], axis=-1)[..., 0]
        return told, jnp.argmax(scores, axis=-1) == example.targets

    def _watch(self, params: Any, example: Example) -> Any:
        """What the layers show of themselves: of each attention its weights [L, B, H, S, T]."""
        return self.module.apply({"params": params}, example, mutable=[WATCHED])[1][WATCHED]

    def begin(self, params: Any, example: Example, slots: int) -> tuple[Any, jax.Array]:
        """An empty cache that has read an example, and what the model says after it [B, V]."""
        read = 0 if example.source is None else example.source.tokens.shape[1]
        rows = len(example.inputs.tokens)
        return self.go_on(
            params, empty_cache(self.family, self.shape, self.dtype, rows=rows, slots=slots, read=read), example
        )

    def go_on(self, params: Any, cache: Any, example: Example) -> tuple[Any, jax.Array]:
        """A cache that has read an example more, and what the model says after it [B, V]."""
        output, changed = self.module.apply({"params": params, CACHE: cache}, example, mutable=[CACHE])
        return changed[CACHE], logits(Output(output.states[:, -1:], output.head), self.mesh)[:, 0]

    def _write(
        self,
        params: Any,
        example: Example,
        live: jax.Array,
        starts: jax.Array,
        most: jax.Array,
        known: jax.Array,
        key: jax.Array,
        numbers: Any,
        *,
        slots: int,
        written: int,
        filters: bool,
    ) -> tuple[jax.Array, ...]:
        (places, stop), rows = starts, len(live)
        row_keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(rows))
        allowed = jnp.arange(self.shape.vocab) < jnp.maximum(known, stop + 1)[:, None]

        def one(carry: Any) -> Any:
            cache, said, tokens, nats, counts, number, writing, ended = carry
            keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, number)
            token = draw(jnp.where(allowed, said, -jnp.inf), keys, numbers, filters=filters)
            cost = jnp.take_along_axis(jax.nn.log_softmax(said), token[:, None], axis=-1)[:, 0]
            stops = writing & ((token == self.end) | ((token >= stop) & (stop >= 0)))
            writing, ended = writing & ~stops, ended | stops
            tokens, nats = tokens.at[:, number].set(token), nats.at[:, number].set(cost)
            cache, said = self.go_on(params, cache, one_token(token, places + number))
            return cache, said, tokens, nats, counts + writing, number + 1, writing, ended

        def left(carry: Any) -> jax.Array:
            return (carry[5] < most) & jnp.any(carry[6])

        empty = jnp.zeros((rows, written))
        begun = self.begin(params, example, slots)
        nobody, none = jnp.zeros(rows, bool), jnp.zeros(rows, jnp.int32)
        start = (*begun, empty.astype(jnp.int32), empty, none, jnp.int32(0), live, nobody)
        _, _, tokens, nats, counts, _, _, ended = jax.lax.while_loop(left, one, start)
        return tokens, nats, counts, ended


def one_token(token: jax.Array, places: jax.Array) -> Example:
    """A token a row, to go on with."""
    tokens = token[:, None]
    rows = Rows(tokens, jnp.zeros_like(tokens), places[:, None])
    return Example(rows, tokens, jnp.ones(tokens.shape))


def padded(
    rows: Sequence[Tokens],
    count: int,
    side: Literal["left", "right"],
    firsts: Sequence[int] = (),
    length: int | None = None,
) -> Rows:
    """Rows of tokens as one array of `count` rows, each in a document of its own, padded by tokens of none."""
    length = length or bucket(max(map(len, rows)))
    tokens, positions = np.zeros((2, count, length), np.int32)
    documents = np.full((count, length), NOWHERE, np.int32)
    for number, row in enumerate(rows):
        where = (number, slice(length - len(row), length) if side == "left" else slice(0, len(row)))
        tokens[where], documents[where] = row, 0
        positions[where] = np.arange(len(row)) + (firsts[number] if firsts else 0)
    return Rows(tokens, documents, positions)  # type: ignore[arg-type]

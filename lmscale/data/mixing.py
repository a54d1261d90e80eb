"""From which part of a mixture each sample comes: closed forms of the sample's number, the same for every seed.

The parts are the leaves of a Huffman tree over their rates (Huffman 1952). Of the first n samples of a node, its left
branch has round(n s), s its share of the node, and its right branch the others. All of these counts grow by whole
samples, and never shrink, as n does; so sample n is that of the one part whose count it raises, and the count before is
its number within the part. No state, no drawing: the rates hold in every stretch of the run.

After any n, a part has its rate times n to within 1/2 sample of two parts, 1 of three, and always 2: a node's count is
off by 1/2 and its share of what the node above is off by, and a branch that is no leaf has at most 2/3 of its node,
because the other was merged later, and so is no smaller than either half of it.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError

WHOLE = 1 << 40  # rates are whole numbers of parts of this: exact sums, and products with 2^20 samples fit an int64


class Node(NamedTuple):
    """A part, or two branches of the tree."""

    weight: int
    part: int  # of a leaf; of others the lowest below it, so that ties are broken the same way everywhere
    branches: tuple[Node, Node] | None


def weights(rates: Sequence[float], names: Sequence[str] = ()) -> tuple[int, ...]:
    """The rates as whole numbers that add up to about WHOLE, none of them 0.

    Raises:
        InputError: a rate is not a positive number; it is told with its part's name, or its place.
    """
    if not rates:
        raise InputError("corpus.task: names no text to train on; mend the Mixture")
    for number, rate in enumerate(rates):
        if not 0 < rate < math.inf:
            raise InputError(
                f"corpus.task: {rate} is no rate for part {part_name(number, names)} of the mixture; make it a "
                "positive number, or leave the part out"
            )
    largest = max(rates)  # first, lest the sum overflows
    total = math.fsum(rate / largest for rate in rates)
    return tuple(max(1, round(rate / largest / total * WHOLE)) for rate in rates)


def part_name(number: int, names: Sequence[str]) -> str:
    """How a message calls a part."""
    return repr(names[number]) if names else f"{number + 1}"


@functools.lru_cache(maxsize=64)
def _tree(parts: tuple[int, ...]) -> Node:
    heap = [Node(weight, number, None) for number, weight in enumerate(parts)]
    heapq.heapify(heap)
    while len(heap) > 1:
        right, left = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, Node(left.weight + right.weight, min(left.part, right.part), (left, right)))
    return heap[0]


def counts(parts: tuple[int, ...], samples: int) -> tuple[int, ...]:
    """Of the first `samples` samples, how many are each part's. `parts` are its weights."""
    found = [0] * len(parts)
    waiting = [(_tree(parts), samples)]
    while waiting:
        node, here = waiting.pop()
        if node.branches is None:
            found[node.part] = here
        else:
            left, right = node.branches
            to_left = (2 * here * left.weight + node.weight) // (2 * node.weight)
            waiting += [(left, to_left), (right, here - to_left)]
    return tuple(found)


def deal(parts: tuple[int, ...], start: int, stop: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Of the samples [start, stop), at most 2^20: the part of each, and its number within that part."""
    part_of = np.zeros(stop - start, np.int32)
    number = np.zeros(stop - start, np.int64)
    # of each node its count before `start`, and how many more after 0, 1, 2, ... samples
    waiting = [(_tree(parts), start, np.arange(stop - start + 1, dtype=np.int64))]
    while waiting:
        node, before, more = waiting.pop()
        if node.branches is None:
            mine = np.flatnonzero(np.diff(more))
            part_of[mine], number[mine] = node.part, before + more[mine]
        else:
            left, right = node.branches
            base, rest = divmod(2 * before * left.weight + node.weight, 2 * node.weight)
            to_left = (rest + 2 * more * left.weight) // (2 * node.weight)
            waiting += [(left, base, to_left), (right, before - base, more - to_left)]
    return part_of, number

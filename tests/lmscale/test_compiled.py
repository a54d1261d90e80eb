"""What the compiled step is: the text of Step.advance, the very function that train.py calls, on eight CPU devices."""

import math
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from small import unprepared

from lmscale.config import MeshConfig, PowerRule, Recipe, Remat, Size, Study
from lmscale.mesh import make_mesh
from lmscale.plan import make_plan
from lmscale.planning.memory import step_bytes
from lmscale.step import Step
from lmscale.tpu.collectives import collectives, host_transfers


class Dimensions(NamedTuple):
    width: int
    depth: int
    heads: int
    batch: int
    sequence: int
    vocab: int


SHAPE = Dimensions(64, 3, 8, 16, 32, 256)
LONG, WIDE = Dimensions(64, 2, 4, 4, 256, 64), Dimensions(256, 2, 4, 4, 64, 2048)
DEEP = Dimensions(64, 8, 4, 8, 64, 64)
WIDTH, DEPTH, HEADS, BATCH, SEQUENCE, VOCAB = SHAPE
FEEDFORWARD, HEAD = 4 * WIDTH, WIDTH // HEADS
# Of the code generation, which takes most of the time: the passes over the program are the same
QUICKLY: Any = {"xla_backend_optimization_level": 0}
TEXT = unprepared(VOCAB)


class Program:
    """A step compiled for a mesh written `data,fsdp,tensor`."""

    def __init__(self, mesh: str, microbatches: int, remat: Remat, s: Dimensions):
        self.mesh = MeshConfig.from_text(mesh)
        study = Study(
            name="compiled",
            sizes=(Size(width=s.width, depth=s.depth, heads=s.heads),),
            tokens=(s.batch * s.sequence * 100,),
            recipe=Recipe(sequence=s.sequence, batch_tokens=PowerRule(value=s.batch * s.sequence), warmup_tokens=0),
            eval_tokens=16 * s.sequence,
        )
        self.trajectory = make_plan(study, replace(TEXT, vocab=s.vocab))[0]
        self.microbatches = microbatches
        self.remat: Remat = remat
        step = Step(self.trajectory, make_mesh(self.mesh), microbatches=microbatches, steps_per_dispatch=2, remat=remat)
        windows = jax.ShapeDtypeStruct((2, s.batch, s.sequence + 1), np.int32)
        lowered = step.advance.lower(
            step.abstract_state, windows, jax.ShapeDtypeStruct((2,), np.float32), jax.ShapeDtypeStruct((), np.int32)
        )
        self.compiled: Any = lowered.compile(QUICKLY)
        self.state = step.abstract_state
        self.text: str = self.compiled.as_text()
        self.collectives = collectives(self.text)

    def of(self, axis: str, kind: str) -> Counter:
        """How often a step has a collective of a kind along an axis, by the shape of its arrays; scalars left out."""
        sizes = {"data": self.mesh.data, "fsdp": self.mesh.fsdp, "tensor": self.mesh.tensor}
        found: Counter = Counter()
        for c in self.collectives:
            if c.kind == kind and c.axes(sizes) == (axis,):
                for array in c.arrays:
                    dims = tuple(d for d in array.dims if d > 1)
                    found[dims] += c.count if dims else 0
        return +found


@cache
def compiled(mesh: str, microbatches: int, remat: Remat, shape: Dimensions) -> Program:
    return Program(mesh, microbatches, remat, shape)


def program(mesh: str, microbatches: int = 1, remat: Remat = "none", shape: Dimensions = SHAPE) -> Program:
    """Compiled once. Layers are scanned where fsdp gathers them or remat is "layer", else unrolled."""
    return compiled(mesh, microbatches, remat, shape)


PROGRAMS = [
    ("1,8,1", 1, "none"),
    ("1,8,1", 1, "layer"),
    ("2,2,2", 2, "none"),
    ("8,1,1", 2, "none"),
    ("1,1,8", 1, "none"),
]
every_program = pytest.mark.parametrize("made", PROGRAMS, ids=lambda made: "-".join(map(str, made)))
LAYER_MATRICES = {  # numbers in each of the four of a layer, heads and feed-forward split by a tensor axis
    tensor: Counter(
        [
            WIDTH * HEADS * 3 * HEAD // tensor,
            HEADS * HEAD * WIDTH // tensor,
            WIDTH * FEEDFORWARD // tensor,
            FEEDFORWARD * WIDTH // tensor,
        ]
    )
    for tensor in (1, 2)
}


def sizes(collectives: Counter) -> Counter:
    """How often how many numbers are moved, whatever their dimensions."""
    found: Counter = Counter()
    for dims, count in collectives.items():
        found[math.prod(dims)] += count
    return found


def times(count: int, matrices: Counter) -> Counter:
    return Counter({size: count * n for size, n in matrices.items()})


@every_program
def test_nothing_goes_to_the_host_inside_a_step(made):
    assert host_transfers(program(*made).text) == []


@every_program
def test_every_moment_is_split_over_fsdp_and_tensor_and_given_back_in_place(made):
    this = program(*made)
    split = this.mesh.fsdp * this.mesh.tensor
    entry = this.text[this.text.index("\nENTRY") :]
    held = {
        name: math.prod(int(d) for d in dims.split(",") if d)
        for dims, name in re.findall(r'f32\[([\d,]*)\]\S* parameter\(\d+\), .*?op_name="(state\.[^"]*)"', entry)
    }
    for path, leaf in jax.tree.leaves_with_path(this.state):
        name = f"state{jax.tree_util.keystr(path)}".replace("'", "\\'")
        if leaf.size > DEPTH * WIDTH:  # all but norms and the count of steps
            assert held[name] == leaf.size // split, name
    assert this.compiled.input_shardings[0][0] == this.compiled.output_shardings[0]
    on_device = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(this.state)
    )
    assert this.compiled.memory_analysis().alias_size_in_bytes == on_device


@pytest.mark.parametrize("remat", ["none", "layer"])
def test_fsdp_gathers_a_layer_at_a_time(remat):
    """Each matrix forward and again backward; its gradient reduced once. A table of embeddings, tied, once: it is kept.

    (XLA's CPU backend reduces whole and slices, as it has no pass that makes a reduce-scatter of the two.)
    """
    this = program("1,8,1", 1, remat)
    assert {c.kind for c in this.collectives} == {"all-gather", "all-reduce"}
    assert sizes(this.of("fsdp", "all-gather")) == times(2 * DEPTH, LAYER_MATRICES[1]) + Counter([VOCAB * WIDTH])
    reduced = sizes(this.of("fsdp", "all-reduce"))
    whole = times(DEPTH, LAYER_MATRICES[1])
    assert reduced[VOCAB * WIDTH] >= whole.get(VOCAB * WIDTH, 0) + 1
    assert max(reduced) == max(max(whole), VOCAB * WIDTH)  # never the matrices of several layers


def test_tensor_reduces_activations_twice_a_layer_each_way():
    """Shoeybi et al. 2019, Sec. 3; beside them the embedding, the gradient of the logits and the loss."""
    this = program("1,1,8")
    assert {c.kind for c in this.collectives} == {"all-reduce"}
    assert sizes(this.of("tensor", "all-reduce")) == Counter(
        {BATCH * SEQUENCE * WIDTH: 4 * DEPTH + 2, BATCH * SEQUENCE: 3}  # of the loss: maximum, sum and chosen logit
    )


def test_data_reduces_gradients_once_a_step():
    """After the last microbatch: each parameter once, and nothing else but scalars."""
    this = program("8,1,1", 2)
    assert {c.kind for c in this.collectives} == {"all-reduce"}
    reduced = this.of("data", "all-reduce")
    assert sum(math.prod(dims) * n for dims, n in reduced.items()) == this.trajectory.shape.params
    assert all(c.count == 1 for c in this.collectives)


def test_a_product_of_axes_does_what_each_does():
    this = program("2,2,2", 2)
    rows = BATCH // 4 // 2
    table = Counter([VOCAB // 2 * WIDTH])
    assert sizes(this.of("fsdp", "all-gather")) == times(2 * 2 * DEPTH, LAYER_MATRICES[2]) + times(2, table)
    assert sizes(this.of("tensor", "all-reduce")) == Counter(
        {rows * SEQUENCE * WIDTH: 2 * (4 * DEPTH + 2), rows * SEQUENCE: 2 * 3}
    )
    split = sum(math.prod(dims) * n for dims, n in this.of("data", "all-reduce").items())
    assert split <= this.trajectory.shape.params / 4 + 2 * DEPTH * WIDTH + WIDTH  # once, and norms whole
    assert {c.kind for c in this.collectives} == {"all-gather", "all-reduce"}


# on one device: long rows, a large vocabulary, and products kept alone
ALONE = [("1,1,1", 1, "none", LONG), ("1,1,1", 2, "none", WIDE), ("1,1,1", 1, "products", DEEP)]


@pytest.mark.parametrize("made", [*PROGRAMS, *ALONE], ids=str)
def test_bytes_are_those_that_the_compiler_allocates(made):
    this = program(*made)
    expected = step_bytes(this.trajectory, this.mesh, this.microbatches, this.remat, "cpu").total
    analysis = this.compiled.memory_analysis()
    ratio = (analysis.temp_size_in_bytes + analysis.argument_size_in_bytes) / expected
    assert 0.8 < ratio < 1.5, ratio

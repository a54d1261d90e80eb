"""Steps compiled by TPU's own compiler for four chips of a v5e: their collectives are those of theory, overlapped; the
model is never gathered whole, the optimiser never replicated, and memory falls with the chips.

Skipped, and said to be, where libtpu is not installed.
"""

import math
import os
import re
from collections import Counter
from importlib.util import find_spec

import pytest
from small import unprepared

from lmscale.config import MeshConfig, PowerRule, Recipe, Size, Study
from lmscale.plan import make_plan
from lmscale.planning.replicas import Stack

WIDTH, DEPTH, HEADS, BATCH, SEQUENCE, VOCAB = 128, 2, 2, 8, 256, 384
STUDY = Study(
    name="ahead",
    sizes=(Size(width=WIDTH, depth=DEPTH, heads=HEADS),),
    tokens=(BATCH * SEQUENCE * 100,),
    recipe=Recipe(sequence=SEQUENCE, batch_tokens=PowerRule(value=BATCH * SEQUENCE), warmup_tokens=0),
    eval_tokens=16 * SEQUENCE,
)
TEXT = unprepared(VOCAB)
STACK = Stack(members=(make_plan(STUDY, TEXT)[0],), width=1)
MESHES = ("1,4,1", "1,1,2", "1,2,2")  # fsdp; tensor, on half of the chips; both
MATRICES = {"inward": 3 * WIDTH**2, "out": WIDTH**2, "up": 4 * WIDTH**2, "down": 4 * WIDTH**2}  # numbers, of a layer


@pytest.fixture(scope="module")
def programs(without_engine):
    """Text, memory, and what a chip holds of the state, by mesh."""
    if find_spec("libtpu") is None:
        without_engine("libtpu", "the compiler for TPUs is not installed (pip install 'lmscale[tpu]')")
    from lmscale.tpu.topology import WITHOUT_CHIPS, mesh_on

    patch = pytest.MonkeyPatch()
    for name, value in WITHOUT_CHIPS.items():
        patch.setenv(name, os.environ.get(name, value))
    from lmscale.aot import lowered
    from lmscale.tpu.aot_choose import laid_out
    from lmscale.tpu.collectives import collectives
    from lmscale.tpu.slices import Slices

    made = {}
    for text in MESHES:
        study = Study(**{**vars(STUDY), "mesh": MeshConfig.from_text(text)})
        slices = Slices.from_text("v5e:2x2")
        placement = laid_out(STACK, study, slices).placement
        program = lowered(STACK, mesh_on(slices, study.mesh), placement, steps_per_dispatch=2).compile()
        made[text] = collectives(program.as_text()), program.memory_analysis(), program
    patch.undo()
    return made


def sizes_in_layers(found, kind: str) -> Counter:
    """How often a step has a collective of a kind in its layers, by the numbers that it leaves on a chip."""
    counted: Counter = Counter()
    for one in found:
        if one.kind == kind and "layers/" in one.source:
            for array in one.arrays:
                counted[math.prod(array.dims)] += one.count
    return +counted


def gathered(tensor: int) -> Counter:
    """Each matrix of each layer twice: for the forward and for the backward pass."""
    counted: Counter = Counter()
    for numbers in MATRICES.values():
        counted[numbers // tensor] += 2 * DEPTH
    return counted


def test_fsdp_gathers_each_matrix_twice_and_scatters_its_gradient_once(programs):
    found, _, _ = programs["1,4,1"]
    assert sizes_in_layers(found, "all-gather") == gathered(tensor=1)
    # the compiler scatters the large gradients, and reduces whole those that are not worth it
    scattered, whole = sizes_in_layers(found, "reduce-scatter"), sizes_in_layers(found, "all-reduce")
    reduced = Counter({4 * size: n for size, n in scattered.items()}) + whole
    assert reduced == Counter({size: n // 2 for size, n in gathered(tensor=1).items()})


def test_tensor_reduces_activations_twice_a_layer_each_way(programs):
    """Shoeybi et al. 2019, Sec. 3."""
    found, _, _ = programs["1,1,2"]
    assert sizes_in_layers(found, "all-reduce") == Counter({BATCH * SEQUENCE * WIDTH: 4 * DEPTH})
    assert sizes_in_layers(found, "all-gather") == Counter()


def test_both_do_what_each_does(programs):
    found, _, _ = programs["1,2,2"]
    assert sizes_in_layers(found, "all-gather") == gathered(tensor=2)
    rows = BATCH // 2 * SEQUENCE * WIDTH
    assert sizes_in_layers(found, "all-reduce")[rows] == 4 * DEPTH


@pytest.mark.parametrize("mesh", ["1,4,1", "1,2,2"])
def test_gathers_of_layers_are_begun_and_awaited_apart(mesh, programs):
    """Most of the eight: the first of a pass has nothing to be beside, and matrices here are small."""
    gathers = [one for one in programs[mesh][0] if one.kind == "all-gather" and one.count == DEPTH]
    assert len(gathers) == 8
    assert sum(one.overlapped for one in gathers) >= 5, gathers


@pytest.mark.parametrize("mesh", ["1,4,1", "1,2,2"])
def test_the_model_is_never_gathered_whole(mesh, programs):
    """The largest thing gathered is one matrix, or the table of tokens."""
    largest = max(math.prod(a.dims) for one in programs[mesh][0] if one.kind == "all-gather" for a in one.arrays)
    assert largest <= max(*MATRICES.values(), VOCAB * WIDTH)


def test_state_falls_with_the_chips_that_split_it(programs):
    """Parameters and both moments lie on each chip once in four parts, or in two, and little more: tiles of heads of 64
    are half empty. A moment that was replicated would double it.
    """
    whole = 4 * 3 * STACK.members[0].shape.params
    norms = 4 * 3 * WIDTH * (2 * DEPTH + 1)
    windows = 4 * 2 * BATCH * (SEQUENCE + 1)
    for mesh, parts in (("1,4,1", 4), ("1,2,2", 4), ("1,1,2", 2)):
        held = programs[mesh][1].alias_size_in_bytes  # the state, given back in place
        split = (whole - norms) / parts + norms
        assert split <= held <= 1.5 * split, (mesh, held, split)
        assert programs[mesh][1].argument_size_in_bytes <= held + windows + 2**16


def test_attention_is_the_fused_kernel(programs):
    """Forward and backward, and no softmax of scores beside it."""
    for mesh in MESHES:
        text = programs[mesh][2].as_text()
        assert all(f"splash_mha_{part}" in text for part in ("fwd", "dq", "dkv"))
        assert not re.search(r'layers/attention/[^"]*(softmax|reduce_max|exp)"', text)

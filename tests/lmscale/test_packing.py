"""A small state of one device is a few arrays on disk, and comes back on any mesh to the bit."""

import jax
import numpy as np
import pytest

from lmscale.checkpoint import PACKED, STATE, Checkpoints
from lmscale.config import MeshConfig, Size
from lmscale.mesh import make_mesh
from lmscale.step import Step
from lmscale.training import packing

ONE, EIGHT = MeshConfig(), MeshConfig(data=2, fsdp=2, tensor=2)


@pytest.fixture
def steps(make_assembly):
    """A step on each of two meshes."""
    assembly = make_assembly(sizes=(Size(width=16, depth=2, heads=8),))
    return {
        mesh: Step(assembly.plan[0], make_mesh(mesh), microbatches=1, steps_per_dispatch=1) for mesh in (ONE, EIGHT)
    }


@pytest.mark.parametrize(
    ("first", "second", "limit"),
    [
        (ONE, ONE, packing.PACKED_BYTES),
        (ONE, EIGHT, packing.PACKED_BYTES),
        (EIGHT, ONE, packing.PACKED_BYTES),
        (ONE, EIGHT, 0),
    ],
)
def test_a_state_comes_back_on_any_mesh(steps, first, second, limit, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "PACKED_BYTES", limit)
    state = steps[first].init(3)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, state, keep=True)
    form = PACKED if first is ONE and limit else STATE
    assert [p.name for p in (tmp_path / "000000005").iterdir() if p.is_dir()] == [form]
    like = steps[second].abstract_state
    restored = checkpoints.restore(5, like)
    assert jax.tree.structure(restored) == jax.tree.structure(like)
    for x, y, z in zip(*map(jax.tree.leaves, (state, restored, like)), strict=True):
        assert (y.shape, y.dtype, y.sharding) == (z.shape, z.dtype, z.sharding)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_packed_state_is_an_array_for_each_type(steps):
    state = steps[ONE].init(3)
    packed = packing.pack(state)
    assert {name: array.size for name, array in packed.items()} == {
        name: sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.dtype.name == name)
        for name in ("float32", "int32")
    }

"""Every mesh computes what one device does; a mesh that does not fit is refused with one that does."""

from typing import Any

import jax
import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.config import MeshConfig, Remat, Size
from lmscale.mesh import make_mesh, sharding
from lmscale.planning.layout import check_mesh, factorizations, largest_part, misfit, nearest_mesh
from lmscale.step import Step

QUICKLY: Any = {"xla_backend_optimization_level": 0}  # of the code generation, which takes most of the time
ONE = MeshConfig()
MESHES = list(factorizations(8))


def loss_and_gradients(trajectory, batch, params, mesh=ONE, microbatches=1, remat: Remat = "none"):
    step = Step(trajectory, make_mesh(mesh), microbatches=microbatches, steps_per_dispatch=1, remat=remat)
    params = jax.device_put(params, step.state_shardings.params)
    windows = jax.device_put(batch, sharding(step.mesh, "batch", None))
    loss, grads = jax.jit(step.gradients).lower(params, windows).compile(QUICKLY)(params, windows)
    return float(loss), jax.tree.map(np.asarray, grads)


@pytest.fixture(scope="module")
def problem():
    """A trajectory whose arrays every mesh of eight devices divides, a batch, parameters, and one device's answer."""
    made = {}

    def make(make_assembly):
        if not made:
            recipe = {"batch_tokens": make_assembly().study.recipe.batch_tokens}
            assembly = make_assembly(sizes=(Size(width=16, depth=2, heads=8),), recipe=recipe)
            trajectory = assembly.plan[0]
            batch = np.concatenate([assembly.loader(trajectory).windows(s) for s in range(2)])
            step = Step(trajectory, make_mesh(ONE), microbatches=1, steps_per_dispatch=1)
            params = jax.tree.map(np.asarray, step.init().params)
            made["problem"] = (trajectory, batch, params, loss_and_gradients(trajectory, batch, params))
        return made["problem"]

    return make


def assert_same(found, expected):
    """Losses within 1e-5, and every gradient within 1e-5 of the largest entry of its array."""
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    for (path, one), many in zip(jax.tree.leaves_with_path(expected[1]), jax.tree.leaves(found[1]), strict=True):
        assert np.abs(many - one).max() <= 1e-5 * np.abs(one).max(), jax.tree_util.keystr(path)


def test_eight_devices_factor_in_ten_ways():
    assert len(set(MESHES)) == 10
    assert {mesh.devices for mesh in MESHES} == {8}


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_every_mesh_gives_the_gradients_of_one_device(make_assembly, problem, mesh):
    trajectory, batch, params, alone = problem(make_assembly)
    assert_same(loss_and_gradients(trajectory, batch, params, mesh), alone)


@pytest.mark.parametrize("mesh", [MeshConfig(data=4, tensor=2), MeshConfig(data=2, fsdp=2, tensor=2)], ids=str)
def test_microbatches_on_a_mesh_give_the_gradients_of_one_device(make_assembly, problem, mesh):
    trajectory, batch, params, alone = problem(make_assembly)
    assert_same(loss_and_gradients(trajectory, batch, params, mesh, microbatches=2), alone)


@pytest.mark.parametrize("remat", ["products", "layer"])
def test_layers_computed_again_give_the_same_gradients(make_assembly, problem, remat):
    trajectory, batch, params, alone = problem(make_assembly)
    assert_same(loss_and_gradients(trajectory, batch, params, remat=remat), alone)


@pytest.mark.parametrize(
    ("family", "objective"),
    [("decoder", "prefix"), ("encoder", "masked"), ("encoder_decoder", "spans"), ("lstm", "causal")],
)
def test_every_family_has_the_gradients_of_one_device(make_assembly, family, objective):
    """On a mesh that splits rows, and every matrix two ways. The decoder on causal text has every mesh above."""
    size = Size(width=16, depth=1, heads=None if family == "lstm" else 2)
    assembly = make_assembly(family=family, objective=objective, sizes=(size,))
    mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    trajectory = assembly.plan[0]
    assert misfit(trajectory, mesh) is None
    batch = assembly.loader(trajectory).windows(0)
    step = Step(trajectory, make_mesh(ONE), microbatches=1, steps_per_dispatch=1)
    params = jax.tree.map(np.asarray, step.init().params)
    alone = loss_and_gradients(trajectory, batch, params)
    assert_same(loss_and_gradients(trajectory, batch, params, mesh), alone)


def test_a_mesh_may_leave_devices_idle():
    assert make_mesh(MeshConfig(data=3)).devices.size == 3
    with pytest.raises(InputError, match=r"mesh: '4,4,1' takes 16 devices, and there are 8 .* --mesh [24],[24],1 fits"):
        make_mesh(MeshConfig(data=4, fsdp=4))


@pytest.mark.parametrize(
    ("size", "mesh", "why"),
    [
        (
            Size(width=24, depth=1, heads=4),
            MeshConfig(fsdp=16),
            "its batch of 8 sequences is not divisible by data x fsdp",
        ),
        (Size(width=24, depth=1, heads=2), MeshConfig(tensor=4), "heads 2 is not divisible by tensor = 4"),
        (Size(width=24, depth=1, heads=4), MeshConfig(data=3), "its batch of 8 sequences"),
    ],
)
def test_what_does_not_divide_is_named_with_a_mesh_that_does(make_assembly, size, mesh, why):
    plan = make_assembly(sizes=(size,)).plan
    with pytest.raises(InputError, match=f"mesh: '{mesh}' does not fit size {plan[0].shape}: {why}") as refusal:
        check_mesh(plan, mesh)
    named = MeshConfig.from_text(str(refusal.value).split("--mesh ")[1].split()[0])
    assert misfit(plan[0], named) is None
    assert 1 < named.devices <= mesh.devices


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "mesh", [MeshConfig(fsdp=3), MeshConfig(tensor=3), MeshConfig(data=5), MeshConfig(fsdp=5)], ids=str
)
def test_nothing_uneven_is_let_through(make_assembly, mesh, tied):
    """What check_mesh lets through, jax can lay out: no array of the state is split unevenly."""
    trajectory = make_assembly(sizes=(Size(width=24, depth=1, heads=2),), tied_embeddings=tied).plan[0]
    step = Step(trajectory, make_mesh(mesh), microbatches=1, steps_per_dispatch=1)
    even = trajectory.hyperparameters.batch_sequences % (mesh.data * mesh.fsdp) == 0
    for leaf in jax.tree.leaves(step.abstract_state):
        try:
            leaf.sharding.shard_shape(leaf.shape)
        except ValueError:
            even = False
    assert (misfit(trajectory, mesh) is None) == even


def test_parts_of_a_mesh_fit_what_it_fits():
    assert largest_part(MeshConfig(data=4, fsdp=4), 8).devices == 8
    assert largest_part(MeshConfig(data=3, tensor=5), 8) == MeshConfig(tensor=5)
    assert largest_part(MeshConfig(data=7), 4) == MeshConfig()


def test_the_nearest_mesh_keeps_its_devices_where_it_can(make_assembly):
    plan = make_assembly(sizes=(Size(width=16, depth=1, heads=2),)).plan
    nearest = nearest_mesh(plan, MeshConfig(data=2, tensor=4))
    assert (nearest.devices, nearest.tensor) == (8, 2)

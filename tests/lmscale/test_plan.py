"""Identity is content: what changes a run's numbers changes its id, and nothing else does."""

import dataclasses

import pytest

from analysis.errors import InputError
from lmscale.config import MeshConfig, PowerRule, Size
from lmscale.plan import cost
from lmscale.planning.replicas import make_stacks
from lmscale.shapes import Shape


def ids(assembly) -> list[str]:
    return [run.id for t in assembly.plan for run in t.runs]


def test_every_part_of_the_identity_changes_the_id(make_assembly):
    base = make_assembly().plan[0]
    changed = {base.id}
    for name in [f.name for f in dataclasses.fields(base.hyperparameters)]:
        value = getattr(base.hyperparameters, name)
        words = {"schedule": "cosine", "compute_dtype": "bfloat16", "documents": "joined", "moments_dtype": "bfloat16"}
        other = words.get(name) or value * 2 + 0.125
        hyperparameters = dataclasses.replace(base.hyperparameters, **{name: other})
        changed.add(dataclasses.replace(base, hyperparameters=hyperparameters).id)
    for name in [f.name for f in dataclasses.fields(Shape)]:
        value = getattr(base.shape, name)
        other = not value if isinstance(value, bool) else value * 2 or 16
        changed.add(dataclasses.replace(base, shape=dataclasses.replace(base.shape, **{name: other})).id)
    changed.add(dataclasses.replace(base, seed=1).id)
    changed.add(dataclasses.replace(base, text=dataclasses.replace(base.text, digest="another")).id)
    changed.add(dataclasses.replace(base, horizon_steps=40).id)
    assert len(changed) == 1 + len(dataclasses.fields(base.hyperparameters)) + len(dataclasses.fields(Shape)) + 3


@pytest.mark.parametrize(
    "change",
    [
        {"mesh": MeshConfig(data=2, tensor=2)},
        {"microbatches": 2},
        {"remat": "layer"},
        {"device_memory_bytes": 1e9},
        {"steps_per_dispatch": 1},
        {"checkpoint_seconds": 1.0},
        {"name": "renamed"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_how_and_where_it_runs_is_not_identity(make_assembly, change):
    assert ids(make_assembly(**change)) == ids(make_assembly())


def test_more_token_counts_keep_the_runs_there_were(make_assembly):
    fewer, more = make_assembly(tokens=(2560,)), make_assembly(tokens=(2560, 5120))
    assert ids(more)[: len(ids(fewer))] == ids(fewer)


def test_a_run_leaves_the_trunk_for_a_fifth_of_its_steps(make_assembly):
    (trajectory,) = make_assembly(tokens=(2560, 5120)).plan
    assert [(run.steps, run.branch_step) for run in trajectory.runs] == [(20, 16), (40, 32)]
    assert trajectory.train_steps == 32 + 4 + 8
    per_step = trajectory.shape.train_flops(128, 16)
    assert [cost(trajectory, run) for run in trajectory.runs] == [20 * per_step, 24 * per_step]


def test_the_compute_cap_leaves_cells_out(make_assembly):
    sizes = (Size(width=16, depth=1), Size(width=64, depth=2))
    everything = make_assembly(sizes=sizes).plan
    cap = everything[1].shape.flops_6nd(3000)
    capped = make_assembly(sizes=sizes, flops_max=cap).plan
    assert [len(t.runs) for t in capped] == [2, 1]
    assert [s.members[0].shape.width for s in make_stacks(capped, None, accelerator=False)] == [64, 16]
    with pytest.raises(InputError, match="leaves out every cell"):
        make_assembly(flops_max=1.0)


def test_rate_and_batch_follow_the_size(make_assembly):
    sizes = (Size(width=16, depth=1), Size(width=64, depth=2))
    recipe = {
        "learning_rate": PowerRule(value=1e-2, params=1e4, exponent=-1 / 3),
        "batch_tokens": PowerRule(value=64, params=3e3, exponent=2 / 3),
    }
    small, large = (t.hyperparameters for t in make_assembly(sizes=sizes, recipe=recipe).plan)
    assert small.batch_tokens < large.batch_tokens
    assert small.learning_rate > large.learning_rate
    capped = make_assembly(sizes=sizes, recipe=recipe | {"batch_tokens_max": 128}).plan[1].hyperparameters
    rule = recipe["batch_tokens"](make_assembly(sizes=sizes).plan[1].shape.params_matrices)
    assert capped.batch_tokens == 128
    ratio = capped.learning_rate / recipe["learning_rate"](make_assembly(sizes=sizes).plan[1].shape.params_matrices)
    assert ratio == pytest.approx((128 / rule) ** 0.5, rel=1e-3)


def test_published_recipe_at_its_reference_size():
    from lmscale.config import Recipe

    h = Recipe().resolve(108_000_000)  # Porian et al. 2024: rate 0.0047 and 160 sequences of 2,048 at 108 M
    assert h.learning_rate == pytest.approx(0.0047, rel=1e-3)
    assert h.batch_tokens == 2**18  # 327,680 to the nearest power of two of sequences


def test_what_is_the_same_at_every_size_is_part_of_the_recipe(make_assembly):
    """Runs of two architectures must not be fitted together."""
    recipes = {
        make_assembly(**change).plan[0].recipe
        for change in ({}, {"positions": "learned"}, {"tied_embeddings": False}, {"recipe": {"clip_norm": 2.0}})
    }
    assert len(recipes) == 4
    assert make_assembly(mesh=MeshConfig(data=2)).plan[0].recipe in recipes

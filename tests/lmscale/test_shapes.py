"""Parameter and FLOP formulas against the real tree, the real program, and published models."""

from typing import cast

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.errors import InputError
from lmscale.config import MeshConfig, Size
from lmscale.mesh import make_mesh
from lmscale.models import build
from lmscale.network.borders import rows_of
from lmscale.network.output_layer import Output, logits
from lmscale.objectives import Example
from lmscale.shapes import Shape, ladder_depth, shape_for, shape_of

SHAPES = [
    ("decoder", shape_of(Size(width=16, depth=1), vocab=32)),
    ("decoder", shape_of(Size(width=48, depth=3), vocab=259)),
    ("decoder", shape_of(Size(width=64, depth=2, heads=4), vocab=1000, tied=False)),
    ("decoder", shape_of(Size(width=64, depth=2, heads=4), vocab=259, positions=32)),
    ("encoder", shape_of(Size(width=48, depth=2), vocab=260, family="encoder")),
    ("encoder_decoder", shape_of(Size(width=48, depth=2), vocab=265, family="encoder_decoder", written=8, tied=False)),
    (
        "encoder_decoder",
        shape_of(Size(width=16, depth=1), vocab=32, family="encoder_decoder", written=24, positions=24),
    ),
    ("lstm", shape_of(Size(width=24, depth=3), vocab=259, family="lstm")),
]
SEQUENCE = 24
each_shape = pytest.mark.parametrize(("family", "shape"), SHAPES, ids=lambda value: str(value))


def example(shape: Shape, batch: int, sequence: int = SEQUENCE) -> Example:
    """Rows of one document each, as long as the family reads and writes them."""
    source = rows_of(jnp.zeros((batch, sequence), jnp.int32))
    tokens = jnp.zeros((batch, shape.written or sequence), jnp.int32)
    return Example(rows_of(tokens), tokens, jnp.ones(tokens.shape), source=source if shape.written else None)


@each_shape
def test_params_equal_the_real_tree(family, shape):
    model = build(family, shape, make_mesh(MeshConfig()), jnp.float32)
    tree = jax.eval_shape(model.init, jax.random.key(0), example(shape, 1))["params"]
    sizes = jax.tree_util.tree_map_with_path(lambda path, x: (jax.tree_util.keystr(path), x.size), tree)
    leaves = jax.tree.leaves(sizes, is_leaf=lambda x: isinstance(x, tuple))
    assert sum(size for _, size in leaves) == shape.params
    assert sum(size for name, size in leaves if "embedding" in name or "head" in name) == shape.params_embedding


@each_shape
def test_flops_equal_the_dot_products_of_the_program(family, shape):
    batch = 3
    mesh = make_mesh(MeshConfig())
    model = build(family, shape, mesh, jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), example(shape, batch))
    jaxpr = jax.make_jaxpr(lambda *given: logits(cast(Output, model.apply(*given)), mesh))(
        params, example(shape, batch)
    )
    assert dot_flops(jaxpr.jaxpr) == shape.forward_flops_per_token(SEQUENCE) * batch * SEQUENCE


def dot_flops(jaxpr) -> float:
    """2 x multiply-adds of every dot_general in a jaxpr; a scan's body counts `length` times."""
    total = 0.0
    for equation in jaxpr.eqns:
        times = equation.params.get("length", 1)
        for inner in jaxprs_in(equation.params):
            total += times * dot_flops(inner)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            size = 1
            for dimension in contracted:
                size *= equation.invars[0].aval.shape[dimension]
            total += 2.0 * equation.outvars[0].aval.size * size
    return total


def jaxprs_in(params: dict) -> list:
    """The jaxprs among an equation's parameters, closed or open."""
    values = [v for value in params.values() for v in (value if isinstance(value, tuple | list) else [value])]
    return [getattr(v, "jaxpr", v) for v in values if hasattr(getattr(v, "jaxpr", v), "eqns")]


def test_flops_agree_with_xla_on_an_unscanned_model():
    shape, sequence, batch = shape_of(Size(width=128, depth=2), vocab=512), 64, 4
    mesh = make_mesh(MeshConfig())
    model = build("decoder", shape, mesh, jnp.float32)
    given = example(shape, batch, sequence)
    params = jax.eval_shape(model.init, jax.random.key(0), given)
    program = jax.jit(lambda *given: logits(cast(Output, model.apply(*given)), mesh))
    counted = program.lower(params, given).compile().cost_analysis()
    ours = shape.forward_flops_per_token(sequence) * batch * sequence
    assert counted is not None
    assert ours <= counted["flops"] <= 1.08 * ours  # XLA also counts the element-wise operations


def test_ladder_meets_published_models():
    llama = shape_of(Size(width=4096, depth=32), vocab=32000)
    assert (llama.heads, llama.head_size) == (32, 128)
    assert ladder_depth(4096) == 32
    assert shape_of(Size(width=768), vocab=50257).heads == 12  # GPT-2


@settings(deadline=None)
@given(st.floats(1e4, 1e12), st.sampled_from([259, 32000]))
def test_ladder_comes_near_any_count(params, vocab):
    if params < max(40 * vocab, 1e5):  # smaller shapes, whose width is a multiple of 8 as well, lie further apart
        return
    shape = shape_for(params, shape_of(Size(width=16), vocab=vocab))
    assert abs(shape.params / params - 1) < 0.15
    assert shape.head_size % 2 == 0
    assert shape.heads * shape.head_size == shape.width


def test_a_count_below_the_ladder_is_refused():
    with pytest.raises(InputError, match="below the ladder's smallest"):
        shape_for(100, shape_of(Size(width=16), vocab=259))

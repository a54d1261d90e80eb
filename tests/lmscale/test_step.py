"""The compiled step: equal on any mesh, causal, accumulated exactly, AdamW as optax has it."""

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmscale.config import MeshConfig
from lmscale.evaluate import summarise
from lmscale.mesh import make_mesh, spec
from lmscale.models import UNROLL_DEPTH
from lmscale.network.borders import rows_of
from lmscale.network.output_layer import cross_entropy
from lmscale.objectives import Example
from lmscale.step import State, Step

COMPILED: dict[tuple, Step] = {}  # these tests ask for the same programs again and again


def make_step(assembly, mesh=None, microbatches=1, fresh=False) -> Step:
    trajectory, mesh = assembly.plan[0], mesh or MeshConfig()
    key = (trajectory.id, mesh, microbatches)
    if fresh or key not in COMPILED:
        COMPILED[key] = Step(trajectory, make_mesh(mesh), microbatches=microbatches, steps_per_dispatch=4)
    return COMPILED[key]


def windows(assembly, steps=4) -> np.ndarray:
    loader = assembly.loader(assembly.plan[0])
    return np.stack([loader.windows(s) for s in range(steps)])


def run(step: Step, assembly) -> tuple[State, np.ndarray]:
    rates = np.full(4, 1e-2, np.float32)
    state, metrics = step.advance(step.init(), step.put(windows(assembly)), rates, np.int32(4))
    return state, np.asarray(metrics.loss_nats)


def read(tokens) -> Example:
    """Rows of one document each."""
    return Example(rows_of(tokens), tokens, jnp.ones(tokens.shape))


def largest_difference(a, b) -> float:
    return max(
        float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def test_loss_is_the_same_on_one_device_and_on_eight(make_assembly, eight):
    assembly = make_assembly()
    state1, losses1 = run(make_step(assembly), assembly)
    state8, losses8 = run(make_step(assembly, eight), assembly)
    assert len(state8.params["embedding"].sharding.device_set) == 8
    assert np.log(32) < losses1[0] < np.log(32) + 1  # logits of unit variance add half a nat
    np.testing.assert_allclose(losses8, losses1, rtol=1e-5)
    assert largest_difference(state1.params, state8.params) < 1e-4


def test_positions_are_those_of_the_table_where_they_are_learned(make_assembly):
    """Over one token repeated, attention mixes equal values wherever it looks: only a table tells positions apart."""
    tokens = jnp.full((2, 16), 5, jnp.int32)
    rotary, learned = (make_step(make_assembly(positions=positions)) for positions in ("rotary", "learned"))
    assert largest_difference(*np.split(rotary.apply(rotary.init().params, read(tokens))[0, [3, 9]], 2)) < 1e-5
    params = learned.init().params
    assert params["position_embedding"].shape == (16, 16)
    assert largest_difference(*np.split(learned.apply(params, read(tokens))[0, [3, 9]], 2)) > 0.1
    assert (
        largest_difference(learned.apply(params, read(tokens[:, :10])), learned.apply(params, read(tokens))[:, :10])
        < 1e-5
    )

    assembly, two = make_assembly(positions="learned"), MeshConfig(fsdp=2)
    (_, alone), (_, spread) = run(make_step(assembly), assembly), run(make_step(assembly, two), assembly)
    np.testing.assert_allclose(spread, alone, rtol=1e-5)


def test_everything_large_is_sharded(make_assembly, eight):
    step = make_step(make_assembly(), eight)
    state = step.init()
    for leaf in jax.tree.leaves(state):
        if leaf.ndim >= 2 and leaf.shape[-1] * leaf.shape[-2] >= 256:
            assert leaf.addressable_shards[0].data.size <= leaf.size // 2, leaf.shape


def test_accumulated_gradients_equal_the_whole_batch(make_assembly):
    assembly = make_assembly()
    batch = windows(assembly)[0]
    whole, parts = make_step(assembly), make_step(assembly, microbatches=4)
    params = whole.init().params
    loss1, grads1 = jax.jit(whole.gradients)(params, batch)
    loss4, grads4 = jax.jit(parts.gradients)(params, batch)
    assert float(abs(loss1 - loss4)) < 1e-6
    assert largest_difference(grads1, grads4) < 1e-6


def test_no_position_sees_the_future(make_assembly):
    step = make_step(make_assembly())
    params = step.init().params
    embedding = params["embedding"]

    def logits_at(position, inputs_embedded):
        # the derivative of one position's logits in every input: a table with a row for each position
        table = params | {"embedding": inputs_embedded}
        return step.apply(table, read(jnp.arange(16)[None]))[0, position].sum()

    for position in (0, 7, 15):
        gradient = jax.grad(logits_at, argnums=1)(position, embedding[:32])
        # tied output rows get a gradient from the logits themselves, the same for every row; take it away
        inputs = np.abs(np.asarray(gradient[:16] - gradient[20])).max(axis=1)
        assert (inputs[: position + 1] > 1e-6).all()
        assert (inputs[position + 1 :] < 1e-6).all()


def test_loss_is_a_softmax_cross_entropy():
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(2, 3, 5)), random.integers(0, 5, (2, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(probabilities, targets[..., None], -1)[..., 0])
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(targets)), expected, rtol=1e-5)


def test_a_step_is_optax_adamw(make_assembly):
    assembly = make_assembly()
    step, h = make_step(assembly), assembly.plan[0].hyperparameters
    before = step.init().params
    _, grads = jax.jit(step.gradients)(before, windows(assembly)[0])
    state, _ = step.advance(step.init(), step.put(windows(assembly)[:1]), np.full(4, 1e-2, np.float32), np.int32(1))
    reference = optax.chain(
        optax.clip_by_global_norm(h.clip_norm),
        optax.adamw(
            1e-2,
            b1=h.beta1,
            b2=h.beta2,
            eps=h.epsilon,
            weight_decay=h.weight_decay,
            mask=lambda p: jax.tree_util.tree_map_with_path(lambda path, _: "scale" not in str(path[-1]), p),
        ),
    )
    updates, _ = reference.update(grads, reference.init(before), before)
    assert largest_difference(optax.apply_updates(before, updates), state.params) < 1e-6


def test_a_count_below_the_dispatch_stops_there(make_assembly):
    assembly = make_assembly()
    step = make_step(assembly)
    _, metrics = step.advance(step.init(), step.put(windows(assembly, 2)), np.full(4, 1e-2, np.float32), np.int32(2))
    assert np.isfinite(metrics.loss_nats[:2]).all()
    assert np.isnan(metrics.loss_nats[2:]).all()


def test_bfloat16_arithmetic_keeps_float32_parameters(make_assembly):
    assembly = make_assembly(recipe={"compute_dtype": "bfloat16"})
    step = make_step(assembly)
    assert step.apply(step.init().params, read(jnp.zeros((1, 4), jnp.int32))).dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(step.init().params)} == {np.dtype("float32")}
    _, losses = run(step, assembly)
    _, exact = run(make_step(make_assembly()), make_assembly())
    np.testing.assert_allclose(losses, exact, rtol=0.02)


def test_scanned_layers_equal_unrolled_ones(make_assembly, monkeypatch):
    assembly = make_assembly()
    _, unrolled = run(make_step(assembly), assembly)
    monkeypatch.setitem(UNROLL_DEPTH, "cpu", 0)
    _, scanned = run(make_step(assembly, fresh=True), assembly)
    COMPILED.clear()
    np.testing.assert_allclose(scanned, unrolled, rtol=1e-5)


def test_unknown_and_colliding_axes_are_errors():
    with pytest.raises(KeyError):
        spec("batch", "haeds")
    with pytest.raises(ValueError, match="two dimensions"):
        spec("batch", "embed")


def test_standard_error_is_that_of_documents():
    # ten documents of two windows, identical within a document: the error is that of ten values, not of twenty
    random = np.random.default_rng(1)
    means = random.normal(2.0, 0.3, 10)
    nats, documents = np.repeat(means * 50, 2), np.repeat(np.arange(10), 2)
    result = summarise(nats, np.full(20, 50.0), documents, bytes_scored=1000)
    assert result.loss_nats == pytest.approx(means.mean())
    assert result.loss_stderr == pytest.approx(means.std(ddof=1) / np.sqrt(10))
    assert result.bits_per_byte == pytest.approx(means.mean() / np.log(2))
    assert summarise(nats, np.full(20, 50.0), documents, bytes_scored=0).bits_per_byte is None  # tokens of no text


def test_seeds_give_other_models(make_assembly):
    one, two = make_assembly(seeds=(0, 1)).plan
    assert dataclasses.replace(one, seed=1, runs=()).id == two.id
    assert one.id != two.id


def test_moments_in_half_the_bytes(make_assembly):
    """They are bfloat16, all else is float32, and the losses stay near those of float32 moments."""
    whole = make_assembly()
    half = make_assembly(recipe={"moments_dtype": "bfloat16"})
    assert half.plan[0].id != whole.plan[0].id
    state = make_step(half).init()
    kinds = Counter(leaf.dtype.name for leaf in jax.tree.leaves(state.optimizer))
    assert kinds == {"bfloat16": 2 * len(jax.tree.leaves(state.params)), "int32": 1}
    (_, expected), (_, found) = run(make_step(whole), whole), run(make_step(half), half)
    assert found[0] == expected[0]
    assert 0 < np.abs(found - expected).max() < 0.02

"""Weights rounded to a few bits: against a literal loop and TensorFlow, bounds, and the loss that it adds."""

import math
from pathlib import Path

import jax
import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.checkpoint import Checkpoints
from lmscale.config import MeshConfig, Size
from lmscale.evaluate import evaluate, window_losses
from lmscale.scoring.quantise import TABLES, Rounding, Scorer, make_rounder, round_columns, round_weights
from lmscale.train import train
from lmscale.training.lanes import Training

compiled = jax.jit(round_columns, static_argnames="group")


def rounded(matrices: np.ndarray, levels: int, group: int | None = None) -> np.ndarray:
    return np.asarray(compiled(matrices, np.float32(levels), group=group))


def by_hand(channel: np.ndarray, bits: int) -> np.ndarray:
    """One channel, number by number."""
    levels = 2 ** (bits - 1) - 1
    scale = np.float32(max(abs(w) for w in channel)) / np.float32(levels)
    return np.array([np.float32(round(w / scale)) * scale if scale else w for w in channel], np.float32)


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    """[2, 37, 5] with a column of zeros and an outlier."""
    drawn = np.random.default_rng(3).normal(size=(2, 37, 5)).astype(np.float32)
    drawn[1, :, 2] = 0
    drawn[0, 7, 1] = 40
    return drawn


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_each_column_is_rounded_by_a_scale_of_its_own(weights, bits):
    found = rounded(weights, Rounding(bits=bits).levels)
    for layer in range(2):
        for column in range(5):
            expected = by_hand(weights[layer, :, column], bits)
            np.testing.assert_allclose(found[layer, :, column], expected, rtol=1e-6, atol=0)
            assert len(np.unique(found[layer, :, column])) <= 2**bits - 1


@pytest.mark.parametrize("bits", [4, 8])
def test_groups_have_scales_of_their_own(weights, bits):
    """16, 16 and the 5 that are left; a group as long as the column is the column."""
    levels = Rounding(bits=bits).levels
    found = rounded(weights, levels, 16)
    for begin in (0, 16, 32):
        part = weights[0, begin : begin + 16, 1]
        np.testing.assert_allclose(found[0, begin : begin + 16, 1], by_hand(part, bits), rtol=1e-6, atol=0)
    np.testing.assert_array_equal(rounded(weights, levels, 128), rounded(weights, levels))


# What tf.quantization.fake_quant_with_min_max_vars_per_channel(COLUMNS, -most, most, num_bits, narrow_range=True) of
# TensorFlow 2.21 gives, most being the columns' absmax
COLUMNS = [[0.81, -0.07], [-0.33, 1.5], [0.052, 0.4], [-0.6, -1.31]]
BY_TENSORFLOW = {
    8: [
        [0.81, -0.07086613774],
        [-0.33165353537, 1.5],
        [0.05102362111, 0.40157479048],
        [-0.59952753782, -1.31102359295],
    ],
    4: [[0.81, 0.0], [-0.34714287519, 1.5], [0.0, 0.42857143283], [-0.57857143879, -1.28571426868]],
}


@pytest.mark.parametrize("bits", [8, 4])
def test_columns_are_rounded_as_tensorflow_does(bits):
    ours = rounded(np.array([COLUMNS], np.float32), Rounding(bits=bits).levels)[0]
    np.testing.assert_allclose(ours, BY_TENSORFLOW[bits], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8, 16])
def test_no_weight_moves_by_more_than_half_a_step(weights, bits):
    levels = Rounding(bits=bits).levels
    error = np.abs(rounded(weights, levels) - weights)
    step = np.abs(weights).max(axis=1, keepdims=True) / levels
    assert (error <= step / 2 * (1 + 1e-3) + 1e-7 * np.abs(weights)).all()
    if bits < 16:  # and about as much as a step's uniform error, s / sqrt(12), where there is no outlier
        assert error[0, :, 3].std() < step[0, 0, 3]
        assert math.sqrt((error[0, :, 3] ** 2).mean()) > step[0, 0, 3] / 8


@pytest.fixture(scope="module")
def names() -> dict[str, tuple[int, ...]]:
    """Which axes of each parameter share a scale, worked out by hand from layers.py; the leading one is the layers'."""
    return {
        "embedding": (1,),  # [V, D]
        "head": (1,),
        "position_embedding": (1,),  # [S, D]
        "inward": (1,),  # [L, D, H, 3, K]; [L, D, H, 2, K] of attention to a source
        "query": (1,),  # [L, D, H, K]
        "kernel": (1,),  # [L, D, D] of an LSTM's gates
        "out": (1, 2),  # [L, H, K, D]
        "up": (1,),  # [L, D, F]
        "down": (1,),  # [L, F, D]
    }


BLOCK = {"inward", "out", "up", "down", "embedding"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, BLOCK),
        ({"positions": "learned", "tied_embeddings": False}, {*BLOCK, *TABLES}),
        ({"family": "encoder_decoder", "objective": "prefix"}, {*BLOCK, "query"}),
        ({"family": "lstm"}, {"embedding", "kernel"}),
    ],
    ids=["rotary", "learned", "encoder-decoder", "lstm"],
)
def test_every_matrix_of_a_model_is_rounded_along_its_inputs(make_assembly, make_training, names, changes, expected):
    step, random = make_training(make_assembly(**changes)).step, np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), step.abstract_state.params)
    found = make_rounder(step)(params, Rounding(bits=4))
    seen = set()
    for (path, before), after in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(found), strict=True):
        keys = [key.key for key in path]
        name, after = keys[-2] if keys[-1] == "weight" else keys[-1], np.asarray(after)
        if name in ("scale", "bias"):  # of a norm or a gate; those of the layers are stacked and have two axes
            np.testing.assert_array_equal(after, before)
            continue
        scale = np.abs(before).max(axis=names[name], keepdims=True) / 7
        np.testing.assert_allclose(after, np.rint(before / scale) * scale, rtol=1e-5, atol=1e-7)
        seen.add(name)
    assert seen == expected


def test_eight_devices_round_as_one(make_assembly, make_training, eight):
    one, many = (make_training(make_assembly(mesh=mesh)).step for mesh in (MeshConfig(), eight))
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), one.abstract_state.params)
    spread = jax.device_put(params, many.state_shardings.params)
    for rounding in (Rounding(bits=4), Rounding(bits=4, group=8)):
        for ours, theirs in zip(
            jax.tree.leaves(make_rounder(many)(spread, rounding)),
            jax.tree.leaves(make_rounder(one)(params, rounding)),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_a_matrix_of_unknown_inputs_is_refused():
    with pytest.raises(InputError, match=r"params: 'layers/cell/gate' \(2, 4, 4\) is a matrix of unknown inputs"):
        round_weights({"layers": {"cell": {"gate": np.ones((2, 4, 4), np.float32)}}}, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(make_assembly, make_training, folder) -> Training:
    """Two runs on a Markov chain, of which the longer has learned most that can be. Trained once; the folder is shared
    and stays as training left it.
    """
    t = make_training(make_assembly(sizes=(Size(width=16, depth=1),), tokens=(128 * 30, 128 * 200)), out=folder)
    train(t)
    return t


@pytest.fixture
def model(trained):
    run = trained.trajectory.runs[-1]
    like = {"params": trained.step.abstract_state.params}
    return trained, Checkpoints(trained.workspace.run(run.id) / "final").restore(run.steps, like)["params"]


def test_fewer_bits_add_more_loss(model):
    t, params = model
    roundings = [Rounding(bits=bits) for bits in (16, 8, 4, 3)]
    scores = Scorer(t.step)(params, t.held_out, roundings)
    added = [pair[1] for pair in scores]
    assert [score.metric for score in added] == [f"loss_added_int{bits}" for bits in (16, 8, 4, 3)]
    assert abs(added[0].value) < 1e-4
    assert abs(added[1].value) < added[2].value < added[3].value
    assert added[1].stderr is not None
    assert added[3].stderr is not None
    assert added[3].value > 4 * added[3].stderr > 0
    exact = evaluate(t.step, params, t.held_out)
    for loss, difference in scores:
        assert loss.value - difference.value == pytest.approx(exact.loss_nats, rel=1e-9)
    assert added[1].stderr < exact.loss_stderr / 10  # paired: most of the spread between documents cancels


def test_the_standard_error_is_that_of_differences_by_document(model):
    """Against a jackknife over documents, which estimates the same."""
    t, params = model
    (pair,) = Scorer(t.step)(params, t.held_out, [Rounding(bits=3)])
    both = make_rounder(t.step)(params, Rounding(bits=3)), params
    rounded, exact = (window_losses(t.step, each, t.held_out)[0] for each in both)
    difference = rounded - exact
    weights, documents = t.held_out.weights.sum(axis=1), t.held_out.documents
    without = [difference[documents != d].sum() / weights[documents != d].sum() for d in np.unique(documents)]
    n = len(without)
    jackknife = math.sqrt((n - 1) / n * ((np.array(without) - np.mean(without)) ** 2).sum())
    assert pair[1].value == pytest.approx(difference.sum() / weights.sum(), rel=1e-6)
    assert pair[1].stderr == pytest.approx(jackknife, rel=0.15)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bits": 1}, "bits: 1 must lie from 2 to 16"),
        ({"bits": 17}, "bits: 17 must lie from 2 to 16"),
        ({"bits": 4, "group": 1}, "group: 1 must be at least 2 inputs"),
    ],
)
def test_roundings_that_are_none(settings, words):
    with pytest.raises(InputError) as caught:
        Rounding(**settings)
    assert str(caught.value).startswith(words)

"""A model that goes on with its cache says what it says of the whole text: at every place, in every family, for prompts
of different lengths side by side. What it writes is what a pass over everything for each token would write.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SEQUENCE, START, VOCAB, make_network

from lmscale.asking.decoding import Network, one_token
from lmscale.asking.prompts import Asked, Layout
from lmscale.asking.sampling import Sampling
from lmscale.config import MeshConfig
from lmscale.network.cache import CACHE, empty_cache
from lmscale.network.output_layer import logits
from lmscale.objectives import Example

TOLERANCE = 1e-4
STEPS = 7
PROMPTS = ([[5, 6, 7, 8, 11]], [[3]], [[30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20]])


def prompts(layout: Layout) -> list[Asked]:
    begun = [layout.begun(parts) for parts in PROMPTS]
    if layout.objective == "spans":
        begun[1] = layout.begun([[3, 4], [5], [6, 7]])
    return begun


def scores_of(network: Network, example: Example) -> Any:
    """Logits of all places, by one pass without a cache."""
    return logits(network.module.apply({"params": network.params}, example), network.mesh)  # type: ignore[arg-type]


def apart(network: Network, layout: Layout) -> tuple[float, int]:
    """The largest difference of the logits, cached and not, over every place that is read or written; and how many."""
    begun = prompts(layout)
    written = np.random.default_rng(1).integers(2, VOCAB, (4, STEPS)).astype(np.int32)
    whole = [layout.continued(each, row.tolist()) for each, row in zip(begun, written, strict=False)]
    example = network.example_of(whole, "right")
    full = np.asarray(jax.jit(partial(scores_of, network))(example))

    read = network.example_of(begun, "left")
    rows, length = read.inputs.tokens.shape
    source = 0 if read.source is None else read.source.tokens.shape[1]
    cache = empty_cache(network.family, network.shape, network.dtype, rows=rows, slots=length + 16, read=source)

    def first(params, cache, example):
        output, kept = network.module.apply({"params": params, CACHE: cache}, example, mutable=[CACHE])
        return kept[CACHE], logits(output, network.mesh)

    cache, scores = jax.jit(first)(network.params, cache, read)
    go_on = jax.jit(partial(Network.go_on, network))
    said = [np.asarray(scores)]
    places = np.array([each.first_position + len(each.inputs) for each in begun] + [0])
    for step in range(STEPS - 1):
        cache, scores = go_on(
            network.params, cache, one_token(jnp.asarray(written[:, step]), jnp.asarray(places + step))
        )
        said.append(np.asarray(scores)[:, None])
    cached = np.concatenate(said, axis=1)
    worst, compared = 0.0, 0
    for row, each in enumerate(begun):
        mine = cached[row, length - len(each.inputs) :]
        worst = max(worst, float(np.abs(mine - full[row, : len(mine)]).max()))
        compared += len(mine)
    return worst, compared


@pytest.mark.parametrize(
    ("kind", "positions"),
    [("causal", 0), ("prefix", SEQUENCE), ("encoder_pairs", SEQUENCE), ("spans", 0), ("lstm", 0)],
)
def test_logits_are_those_of_the_whole_text(kind, positions):
    depth = 2 if kind in ("causal", "spans", "lstm") else 1
    worst, compared = apart(*make_network(kind, positions=positions, depth=depth))
    print(f"{kind}: {compared} places, apart by {worst:.1e}")
    assert worst < TOLERANCE


def test_they_are_the_same_on_a_mesh():
    assert apart(*make_network("encoder_prefix", mesh=MeshConfig(data=2, fsdp=1, tensor=2)))[0] < TOLERANCE


def test_the_loop_writes_what_whole_passes_write():
    """Greedily, each row until it ends itself; a token costs what it costs in the whole text."""
    network, layout = make_network("spans")
    begun, say = prompts(layout), jax.jit(partial(scores_of, network))
    found = network.write(begun, Sampling(temperature=0), 9, VOCAB)
    for each, mine in zip(begun, found, strict=True):
        tokens: list[int] = []
        for _ in range(9):
            asked = layout.continued(each, [*tokens, 0])
            scores = np.asarray(say(network.example_of([asked], "right")))[0, len(asked.inputs) - 1]
            allowed = np.arange(len(scores)) < max(VOCAB, each.stop + 1)
            token = int(np.argmax(np.where(allowed, scores, -np.inf)))
            if token == START or 0 <= each.stop <= token:
                break
            tokens.append(token)
        assert list(mine.tokens) == tokens
        assert mine.ended == (len(tokens) < 9)
        if tokens:
            (told,) = network.scores([layout.continued(each, tokens)])
            np.testing.assert_allclose(mine.log_probs, told.log_probs, atol=TOLERANCE)


def test_no_length_compiles_anew():
    network, layout = make_network("causal")

    def programs() -> int:
        return network.write_rows._cache_size()  # pyright: ignore[reportAttributeAccessIssue]

    before = programs()
    for length, most in ((1, 3), (9, 16), (15, 11)):
        for temperature in (0.0, 0.7):
            sampling = Sampling(temperature=temperature, seed=length)
            network.write([layout.begun([list(range(2, 2 + length))])], sampling, most, VOCAB)
    assert programs() == before + 1


def test_a_row_is_the_same_beside_others():
    """Draws follow from the seed and the row's place; padding and its neighbours change nothing."""
    network, layout = make_network("causal")
    begun, sampling = prompts(layout), Sampling(temperature=1.0, seed=3)
    together = network.write(begun, sampling, 12, VOCAB)
    assert network.write(begun[:1], sampling, 12, VOCAB)[0].tokens == together[0].tokens
    assert network.write(begun, Sampling(seed=4), 12, VOCAB) != together
    assert network.write(begun[:2] + begun[:1], sampling, 12, VOCAB)[1].tokens == together[1].tokens

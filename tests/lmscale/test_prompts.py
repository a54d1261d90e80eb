"""What a model is asked in inference is what training asks it: for the tokens that an objective scores in a window, the
same numbers by the layout of prompts and by the objective itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SEPARATOR, SEQUENCE, START, VOCAB, make_network

from analysis.errors import InputError
from lmscale.asking.prompts import Asked, Layout
from lmscale.network.noise import asking_for
from lmscale.network.output_layer import token_nats
from lmscale.objectives import Objective

PLACE = 11  # that is masked


def window(objective: str) -> np.ndarray:
    """One window that is one document, [1, C]."""
    tokens = np.random.default_rng(5).integers(10, VOCAB, SEQUENCE + 1).astype(np.int32)
    tokens[0] = START
    if objective == "pairs":
        tokens[13] = SEPARATOR
    if objective == "masked":
        return asking_for(tokens[None], np.array([PLACE]))
    return np.append(tokens, 3)[None] if objective in ("prefix", "spans") else tokens[None]


def asked_of(layout: Layout, example, tokens: list[int]) -> Asked:
    """The same by the layout: `tokens` are the window's targets."""
    if layout.objective == "masked":
        return layout.masked(tokens, [PLACE])[0]
    if layout.objective == "spans":
        real = np.asarray(example.source.documents)[0] >= 0
        parts: list[list[int]] = [[]]
        for token in np.asarray(example.source.tokens)[0][real].tolist():
            if token >= VOCAB:
                parts.append([])
            else:
                parts[-1].append(token)
        written = np.asarray(example.targets)[0][np.asarray(example.inputs.documents)[0] >= 0].tolist()
        return layout.continued(layout.begun(parts), written[1:])  # its first sentinel is given
    first = int(np.argmax(np.asarray(example.weights)[0] > 0))  # the first target that counts
    prompt = tokens[:first]
    return layout.continued(layout.begun([prompt]), tokens[first:])


@pytest.mark.parametrize("kind", ["prefix", "pairs", "encoder_prefix", "spans", "masked"])
def test_what_is_asked_is_what_training_asks(kind):
    network, layout = make_network(kind)
    rule = Objective(
        name=layout.objective,
        encodes=layout.family == "encoder_decoder",
        vocab=VOCAB,
        eos_id=START,
        start_id=START,
        separator_id=SEPARATOR,
    )

    def losses(params, windows):
        example = rule(windows)
        return example, token_nats(network.module.apply({"params": params}, example), example.targets, network.mesh)  # type: ignore[arg-type]

    windows = window(layout.objective)
    example, nats = jax.jit(losses)(network.params, jnp.asarray(windows))
    counted = np.asarray(nats)[np.asarray(example.weights) > 0]
    (told,) = network.scores([asked_of(layout, example, windows[0, 1 : SEQUENCE + 1].tolist())])
    if layout.objective == "spans":
        counted = counted[1:]
    assert len(told.log_probs) == len(counted) > 0
    np.testing.assert_allclose(-told.log_probs, counted, atol=2e-5)


def test_what_has_no_answer_is_refused():
    encoder, spans = make_network("masked")[1], make_network("spans")[1]
    with pytest.raises(InputError, match="an encoder is trained to tell masked tokens"):
        encoder.begun([[5]])
    with pytest.raises(InputError, match=f"has {spans.sentinels + 1} blanks, and the run was trained on"):
        spans.begun([[5]] * (spans.sentinels + 2))

"""Draws: which tokens can be drawn, as others define it, and how often each is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.asking.sampling import Sampling, draw, left

LOGITS = np.log(np.array([[0.5, 0.25, 0.15, 0.06, 0.04], [0.04, 0.06, 0.15, 0.25, 0.5]], np.float32))
VOCAB = LOGITS.shape[1]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 1}, 1),
        ({"top_k": 3}, 3),
        ({"top_k": 99}, 5),
        ({"top_p": 0.5}, 1),
        ({"top_p": 0.51}, 2),  # the fewest that have that share: Holtzman et al. 2020, eq. 2
        ({"top_p": 0.76}, 3),
        ({"top_p": 1.0}, 5),
        ({"top_k": 2, "top_p": 0.7}, 2),  # of the two, renormalised, the first has 2/3
        ({"top_k": 2, "top_p": 0.6}, 1),
    ],
)
def test_the_likeliest_are_left(settings, kept):
    found = np.isfinite(np.asarray(left(jnp.asarray(LOGITS), Sampling(**settings).numbers(VOCAB))))
    assert found.tolist() == [[i < kept for i in range(VOCAB)], [i >= VOCAB - kept for i in range(VOCAB)]]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_are_the_probabilities(temperature):
    """Within five standard errors of p^(1/T), normalised."""
    draws = 20_000
    logits = jnp.broadcast_to(jnp.asarray(LOGITS[:1]), (draws, VOCAB))
    numbers = Sampling(temperature=temperature).numbers(VOCAB)
    found = draw(logits, jax.random.split(jax.random.key(0), draws), numbers, filters=False)
    share = np.bincount(np.asarray(found), minlength=VOCAB) / draws
    powers = np.exp(LOGITS[0].astype(np.float64)) ** (1 / temperature)
    expected = powers / powers.sum()
    assert (np.abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / draws)).all()


def test_zero_takes_the_likeliest():
    numbers = Sampling(temperature=0).numbers(VOCAB)
    assert draw(jnp.asarray(LOGITS), jax.random.split(jax.random.key(0), 2), numbers, filters=True).tolist() == [0, 4]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -0.5}, "temperature: -0.5 is negative"),
        ({"top_k": 0}, "top_k: 0 leaves no token"),
        ({"top_p": 1.1}, "top_p: 1.1 is no share"),
        ({"top_p": 0.0}, "top_p: 0.0 is no share"),
        ({"seed": -1}, "seed: -1 must lie"),
    ],
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        Sampling(**settings)

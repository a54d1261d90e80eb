"""Attention maps: weights as computed by hand from the parameters, rows that add up to 1, words of tokens."""

import json

import numpy as np
import pytest
from networks import SEQUENCE, START, make_network
from trained import make_model

from analysis.errors import InputError
from lmscale.asking.attention_page import draw, write_page
from lmscale.asking.maps import attention_map, by_word, head_moves, moves, token_weights, unmoved
from lmscale.asking.prompts import Asked
from lmscale.layers import NORM_EPSILON, ROPE_BASE

FIRST = "the animal didn't cross because it was tired"
SECOND = "the animal didn't cross because it was wide"
TOKENS = (START, 5, 9, 5, 30, 12, 8, 22)


def by_hand(params, tokens, depth: int, heads: int, *, causal: bool) -> np.ndarray:
    """[L, H, S, S] by numpy: Vaswani et al. 2017 with RMSNorm before, RoPE, and a GELU in its tanh form."""
    layers, width = params["layers"], params["embedding"].shape[1]

    def norm(x, scale):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + NORM_EPSILON) * scale

    def rotate(x):  # [S, H, K], as complex numbers
        half = x.shape[-1] // 2
        turn = np.arange(len(x))[:, None] * ROPE_BASE ** (-np.arange(half) / half)
        turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * turn)[:, None]
        return np.concatenate([turned.real, turned.imag], axis=-1)

    x = params["embedding"].astype(np.float64)[list(tokens)] * width**0.5
    found = []
    for i in range(depth):
        inward = layers["attention"]["inward"][i].astype(np.float64)  # [D, H, 3, K]
        query, key, value = np.moveaxis(
            np.einsum("sd,dhnk->shnk", norm(x, layers["attention_norm"]["scale"][i]), inward), 2, 0
        )
        scores = np.einsum("shk,thk->hst", rotate(query), rotate(key)) / (width // heads) ** 0.5
        if causal:
            scores[:, ~np.tri(len(x), dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        found.append(weights)
        mixed = np.einsum("hst,thk->shk", weights, value)
        x = x + np.einsum("shk,hkd->sd", mixed, layers["attention"]["out"]["weight"][i])
        up = norm(x, layers["feedforward_norm"]["scale"][i]) @ layers["feedforward"]["up"]["weight"][i]
        hidden = 0.5 * up * (1 + np.tanh((2 / np.pi) ** 0.5 * (up + 0.044715 * up**3)))
        x = x + hidden @ layers["feedforward"]["down"]["weight"][i]
    return np.stack(found)


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_weights_are_those_of_the_parameters(kind):
    network, _ = make_network(kind, depth=2)
    found = token_weights(network, Asked(inputs=TOKENS))
    expected = by_hand(network.params, TOKENS, 2, 2, causal=kind == "causal")
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(expected - expected.mean(axis=-1, keepdims=True)).max() > 0.1  # they tell words apart


@pytest.mark.parametrize("kind", ["prefix", "spans"])
def test_a_word_gives_all_it_has(kind):
    """Rows of words add up to 1; in a prompt that sees itself every word gives some to every other."""
    found = attention_map(make_model(kind), FIRST, "it")
    np.testing.assert_allclose(found.weights.sum(axis=-1), 1, atol=1e-6)
    assert (found.weights > 0).all()
    assert found.words[found.token] == "it"
    start = () if kind == "spans" else ("<start>",)
    assert found.words == (*start, "the", "animal", "didn't", "cross", "because", "it", "was", "tired")
    assert found.mean.sum() == pytest.approx(1)


def test_words_are_sums_to_and_means_from():
    weights = np.array([[[[0.2, 0.3, 0.5], [0.6, 0.4, 0.0], [0.1, 0.1, 0.8]]]])
    found = by_word(weights, [0, 0, 1], 2)
    np.testing.assert_allclose(found[0, 0], [[(0.5 + 1.0) / 2, 0.25], [0.2, 0.8]])


def test_a_model_that_reads_left_to_right_cannot_tell_what_comes():
    model = make_model("causal")
    first, second = (attention_map(model, text, "it") for text in (FIRST, SECOND))
    assert unmoved(first, second)
    assert first.of_token[:, :, first.token + 1 :].max() == 0
    model = make_model("masked")
    first, second = (attention_map(model, text, "it") for text in (FIRST, SECOND))
    assert not unmoved(first, second)
    rows = moves(first, second)
    assert [row.word for row in rows] == ["the", "animal", "didn't", "cross", "because", "it", "was", "tired", "wide"]
    assert sum(row.second or 0 for row in rows) - sum(row.first or 0 for row in rows) == pytest.approx(0, abs=1e-6)
    assert rows[-1].change is None
    moved = head_moves(first, second)  # total variation: what one word has more, others have less
    a = np.concatenate([first.of_token, np.zeros((*moved.shape, 1))], axis=-1)
    b = np.concatenate([second.of_token[..., :-1], np.zeros((*moved.shape, 1)), second.of_token[..., -1:]], axis=-1)
    np.testing.assert_allclose(moved, np.maximum(b - a, 0).sum(axis=-1), atol=1e-6)
    assert not head_moves(first, first).any()


def test_of_several_words_one_is_chosen():
    model = make_model("masked")
    first, second = (attention_map(model, "it is what it is", "it", n) for n in (1, 2))
    assert (first.token, second.token, first.occurrences) == (0, 3, 2)
    with pytest.raises(InputError, match="occurrence: 3 of 'it' is not there; 'it is what it is' has 2"):
        attention_map(model, "it is what it is", "it", 3)


@pytest.mark.parametrize(
    ("kind", "text", "token", "words"),
    [
        ("causal", "the animal", "animl", "token: 'animl' is no word of 'the animal'; did you mean 'animal'"),
        ("causal", " ", "it", "text: ' ' is empty"),
        ("lstm", "it", "it", "run: an LSTM has one memory, and no attention"),
    ],
)
def test_what_cannot_be_shown_is_refused(kind, text, token, words):
    with pytest.raises(InputError, match=words):
        attention_map(make_model(kind), text, token)


def test_learned_positions_end():
    with pytest.raises(InputError, match="the run has learned 32 positions; shorten it"):
        attention_map(make_model("causal", positions=SEQUENCE), "it " * 20, "it")


def test_page_and_figure_hold_what_was_found(tmp_path):
    maps = [attention_map(make_model("masked"), text, "it") for text in (FIRST, "it </script> <b>was $5$")]
    write_page(tmp_path / "page.html", "run & co", maps)
    page = (tmp_path / "page.html").read_text()
    told = page.split('<script id="data" type="application/json">')[1].split("</script>")[0]
    data = json.loads(told)["maps"]
    for each, found in zip(maps, data, strict=True):
        assert found["words"] == list(each.words)
        np.testing.assert_allclose(found["weights"], each.weights, atol=1e-4)
    assert "&lt;b&gt;" in page
    assert "<b>was" not in page
    assert "http" not in page  # nothing is fetched
    draw(tmp_path / "figure.png", "run & co", maps)
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"

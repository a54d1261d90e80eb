"""Logits of every family equal those of another implementation with the same weights: Llama, EuroBERT and T5 of Hugging
Face's transformers, and PyTorch's LSTM. These come with the extra `peers`; where they are not, these tests are skipped.
"""

from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
import pytest

from lmscale.config import MeshConfig, Size
from lmscale.mesh import make_mesh
from lmscale.step import Step

TOLERANCE = 1e-4
EOS, SEQUENCE = 1, 32
WIDTH, DEPTH, HEADS = 32, 2, 4
missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
if missing:
    pytest.skip(
        f"peers: {' and '.join(missing)} not here, so no model is compared with a known implementation of it; "
        "pip install '.[peers]' lets these tests run",
        allow_module_level=True,
    )

import torch  # noqa: E402  # pyright: ignore[reportMissingImports]
import transformers  # noqa: E402  # pyright: ignore[reportMissingImports]


class Ours:
    """A family with random weights, norms' scales among them, and what it says of rows with documents in them."""

    def __init__(self, make_assembly, family: str, objective: str, **settings: Any):
        size = Size(width=WIDTH, depth=DEPTH, heads=None if family == "lstm" else HEADS)
        assembly = make_assembly(
            family=family, objective=objective, sizes=(size,), recipe={"sequence": SEQUENCE}, **settings
        )
        trajectory = assembly.plan[0]
        step = Step(trajectory, make_mesh(MeshConfig()), microbatches=1, steps_per_dispatch=1)
        random = np.random.default_rng(0)
        self.shape = trajectory.shape
        self.params = jax.tree.map(
            lambda x: (x * random.normal(1, 0.3, x.shape) + random.normal(0, 0.05, x.shape)).astype(np.float32),
            jax.tree.map(np.asarray, step.init().params),
        )
        windows = random.integers(3, 32, (4, SEQUENCE + 1))
        windows[:, 0] = windows[0, 7] = windows[1, 4] = windows[1, 12] = EOS
        if step.objective.noisy:
            windows = np.column_stack([windows, np.arange(4)])
        # compiled as one: what is compared is what is trained
        made = jax.jit(lambda params, windows: (example := step.objective(windows), step.apply(params, example)))
        self.example: Any  # an Example whose rows all have documents
        self.example, self.logits = jax.tree.map(np.asarray, made(self.params, windows.astype(np.int32)))

    def vectors(self, rows) -> Any:
        """[B, S, D]: what enters the first layer."""
        vectors = self.params["embedding"][rows.tokens]
        if self.shape.positions:
            vectors = vectors + self.params["position_embedding"][rows.positions]
        return tensor(vectors * WIDTH**0.5)

    @property
    def head(self) -> np.ndarray:
        return self.params["embedding"] if self.shape.tied else self.params["head"]

    def assert_equal(self, theirs: Any, name: str) -> None:
        """At every place that is in a document."""
        real = self.example.inputs.documents >= 0
        apart = np.abs(self.logits - theirs.detach().numpy())[real].max()
        print(f"{name}: {real.sum()} places, logits to {np.abs(self.logits[real]).max():.1f}, apart by {apart:.1e}")
        assert apart < TOLERANCE


def tensor(array: np.ndarray) -> Any:
    return torch.tensor(np.ascontiguousarray(array, np.float32))


def matrix(weight: np.ndarray, inputs: int = 1) -> Any:
    """Of torch.nn.Linear, [outputs, inputs], from a weight whose first `inputs` dimensions are contracted."""
    return tensor(weight.reshape(np.prod(weight.shape[:inputs]), -1).T)


def mask(queries: np.ndarray, keys: np.ndarray, seen: np.ndarray | bool = True) -> Any:
    """[B, 1, S, T], what is added to scores: keys of a query's own document are seen, where `seen` says so too."""
    own = (queries[:, :, None] == keys[:, None, :]) & (keys[:, None, :] >= 0) & seen
    return tensor(np.where(own, 0.0, np.finfo(np.float32).min)[:, None])


PAST = np.tril(np.ones((SEQUENCE, SEQUENCE), bool))


def gated_state(ours: Ours, prefix: str) -> dict[str, Any]:
    """Of a Llama or EuroBERT, whose gate is our GELU where what it is multiplied with is 1: weight 0, bias 1."""
    layers, state = ours.params["layers"], {}
    for i in range(DEPTH):
        inward, up = layers["attention"]["inward"][i], layers["feedforward"]["up"]["weight"][i]
        of_layer = {
            "input_layernorm.weight": tensor(layers["attention_norm"]["scale"][i]),
            "self_attn.q_proj.weight": matrix(inward[:, :, 0]),
            "self_attn.k_proj.weight": matrix(inward[:, :, 1]),
            "self_attn.v_proj.weight": matrix(inward[:, :, 2]),
            "self_attn.o_proj.weight": matrix(layers["attention"]["out"]["weight"][i], 2),
            "post_attention_layernorm.weight": tensor(layers["feedforward_norm"]["scale"][i]),
            "mlp.gate_proj.weight": matrix(up),
            "mlp.gate_proj.bias": torch.zeros(up.shape[1]),
            "mlp.up_proj.weight": torch.zeros(*up.shape[::-1]),
            "mlp.up_proj.bias": torch.ones(up.shape[1]),
            "mlp.down_proj.weight": matrix(layers["feedforward"]["down"]["weight"][i]),
            "mlp.down_proj.bias": torch.zeros(WIDTH),
        }
        state |= {f"{prefix}.layers.{i}.{name}": value for name, value in of_layer.items()}
    state[f"{prefix}.norm.weight"] = tensor(ours.params["final_norm"]["scale"])
    state[f"{prefix}.embed_tokens.weight"] = tensor(ours.params["embedding"] * WIDTH**0.5)
    state["lm_head.weight"] = tensor(ours.head)
    return state


def gated_settings(ours: Ours) -> dict[str, Any]:
    return {
        "vocab_size": ours.shape.vocab,
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "mlp_bias": True,
        "pad_token_id": None,
        "bos_token_id": EOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
        "attn_implementation": "eager",
    }


@pytest.mark.parametrize(("objective", "tied"), [("causal", True), ("prefix", False)])
def test_a_decoder_is_a_llama(make_assembly, objective, tied):
    ours = Ours(make_assembly, "decoder", objective, tied_embeddings=tied)
    rows, seen = ours.example.inputs, PAST
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**gated_settings(ours))).eval()
    llama.load_state_dict(gated_state(ours, "model"))
    if objective == "prefix":
        seen = seen | ours.example.prefix[:, None, :]
    theirs = llama(input_ids=torch.tensor(rows.tokens), attention_mask=mask(rows.documents, rows.documents, seen))
    ours.assert_equal(theirs.logits, f"decoder, {objective}")


def test_an_encoder_is_a_eurobert(make_assembly):
    """BERT with the parts of a Llama (Boizard et al. 2025, arXiv:2503.05500)."""
    ours = Ours(make_assembly, "encoder", "masked", tied_embeddings=False)
    rows = ours.example.inputs
    bert = transformers.EuroBertForMaskedLM(
        transformers.EuroBertConfig(**gated_settings(ours), mask_token_id=32)
    ).eval()
    bert.load_state_dict(gated_state(ours, "model") | {"lm_head.bias": torch.zeros(ours.shape.vocab)})
    theirs = bert(input_ids=torch.tensor(rows.tokens), attention_mask=mask(rows.documents, rows.documents))
    ours.assert_equal(theirs.logits, "encoder, masked")


def test_an_encoder_decoder_is_a_t5(make_assembly):
    """T5 does not divide scores by the root of a head's size: the queries' weights do. Its biases by distance are 0,
    and our learned positions are in what enters.
    """
    ours = Ours(make_assembly, "encoder_decoder", "spans", tied_embeddings=False, positions="learned")
    head_size = ours.shape.head_size
    state: dict[str, Any] = {"lm_head.weight": tensor(ours.head)}

    def attention(params: Any, i: int, queries: np.ndarray) -> dict[str, Any]:
        *_, key, value = np.moveaxis(params["inward"][i], 2, 0)
        out = matrix(params["out"]["weight"][i], 2)
        named = {"q": matrix(queries / head_size**0.5), "k": matrix(key), "v": matrix(value), "o": out}
        return {f"{name}.weight": each for name, each in named.items()}

    for stack, params, norm in (
        ("encoder", ours.params["encoder_layers"], "encoder_norm"),
        ("decoder", ours.params["layers"], "final_norm"),
    ):
        state[f"{stack}.final_layer_norm.weight"] = tensor(ours.params[norm]["scale"])
        for i in range(DEPTH):
            own, parts = params["attention"], []
            parts.append(("SelfAttention", attention(own, i, own["inward"][i][:, :, 0]), "attention_norm"))
            if stack == "decoder":
                cross = params["cross_attention"]
                parts.append(
                    ("EncDecAttention", attention(cross, i, cross["query"]["weight"][i]), "cross_attention_norm")
                )
            forward = params["feedforward"]
            wi, wo = (matrix(forward[name]["weight"][i]) for name in ("up", "down"))
            parts.append(("DenseReluDense", {"wi.weight": wi, "wo.weight": wo}, "feedforward_norm"))
            for place, (name, weights, normed) in enumerate(parts):
                layer = f"{stack}.block.{i}.layer.{place}"
                state[f"{layer}.layer_norm.weight"] = tensor(params[normed]["scale"][i])
                state |= {f"{layer}.{name}.{weight}": value for weight, value in weights.items()}
    config = transformers.T5Config(
        vocab_size=ours.shape.vocab,
        d_model=WIDTH,
        d_kv=head_size,
        d_ff=4 * WIDTH,
        num_layers=DEPTH,
        num_heads=HEADS,
        feed_forward_proj="gelu_new",
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    t5 = transformers.T5ForConditionalGeneration(config).eval()
    for stack in (t5.encoder, t5.decoder):
        torch.nn.init.zeros_(stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight)
    found = t5.load_state_dict(state, strict=False)
    assert not found.unexpected_keys
    assert all("relative_attention_bias" in name or "embed" in name or "shared" in name for name in found.missing_keys)
    source, rows = ours.example.source, ours.example.inputs
    assert source is not None
    read = t5.encoder(inputs_embeds=ours.vectors(source), attention_mask=mask(source.documents, source.documents))
    written = rows.tokens.shape[1]
    theirs = t5.decoder(
        inputs_embeds=ours.vectors(rows),
        attention_mask=mask(rows.documents, rows.documents, PAST[:written, :written]),
        encoder_hidden_states=read.last_hidden_state,
        encoder_attention_mask=mask(rows.documents, source.documents),
    )
    ours.assert_equal(t5.lm_head(theirs.last_hidden_state), "encoder-decoder, spans")


def test_an_lstm_is_that_of_pytorch(make_assembly):
    """A document by itself, as its memory knows none before."""
    ours = Ours(make_assembly, "lstm", "causal")
    rows, layers = ours.example.inputs, ours.params["layers"]
    gates = "ifgo"  # in PyTorch's order
    x = ours.vectors(rows)
    for i in range(DEPTH):
        cell = layers["recurrence"]["cell"]
        lstm = torch.nn.LSTM(WIDTH, WIDTH, batch_first=True)
        weights = {
            "weight_ih_l0": torch.cat([matrix(cell[f"i{gate}"]["kernel"][i]) for gate in gates]),
            "weight_hh_l0": torch.cat([matrix(cell[f"h{gate}"]["kernel"][i]) for gate in gates]),
            "bias_ih_l0": torch.zeros(4 * WIDTH),
            "bias_hh_l0": torch.cat([tensor(cell[f"h{gate}"]["bias"][i]) for gate in gates]),
        }
        lstm.load_state_dict(weights)
        normed = torch.nn.functional.rms_norm(x, (WIDTH,), tensor(layers["recurrence_norm"]["scale"][i]), 1e-6)
        out = torch.zeros_like(x)
        for row, documents in enumerate(rows.documents):
            for number in np.unique(documents):
                of_document = torch.tensor(documents == number)
                out[row, of_document] = lstm(normed[row, of_document][None])[0][0]
        x = x + out
    x = torch.nn.functional.rms_norm(x, (WIDTH,), tensor(ours.params["final_norm"]["scale"]), 1e-6)
    ours.assert_equal(x @ tensor(ours.head).T, "lstm, causal")

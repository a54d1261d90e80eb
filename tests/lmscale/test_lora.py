"""Parameters by name, adapters against the path that Hu et al. 2021 draw beside a matrix, and their number."""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.errors import InputError
from lmscale import layers
from lmscale.config import Family, Lora, MeshConfig, Size, Start
from lmscale.layers import Linear, contract
from lmscale.mesh import make_mesh
from lmscale.models import build
from lmscale.network.lora import make_adapters, merged
from lmscale.network.output_layer import Output, logits
from lmscale.network.parts import Tuning, parameters, part_names, tuning_of
from lmscale.network.spans import OBJECTIVES_OF, written_tokens
from lmscale.objectives import make_objective
from lmscale.shapes import Shape, shape_of

EVERY = Lora(rank=3, alpha=6, matrices=("query", "key", "value", "out", "up", "down"))


def shape(family: Family) -> Shape:
    written = written_tokens(family, "prefix", 16)
    return shape_of(Size(width=16, depth=2), vocab=32, family=family, written=written)


def tuned(family: Family, **start) -> Tuning:
    found = tuning_of(Start(run="x", **start), family, shape(family))
    assert found is not None
    return found


@pytest.mark.parametrize("family", [family for family in OBJECTIVES_OF if family != "ngram"])
@pytest.mark.parametrize(("tied", "positions"), [(True, 0), (False, 16)])
def test_parameters_are_those_of_the_model(make_assembly, family, tied, positions):
    kind = "learned" if positions else "rotary"
    objective = next(o for o in OBJECTIVES_OF[family] if o != "spans")
    t = make_assembly(family=family, objective=objective, tied_embeddings=tied, positions=kind).plan[0]
    model = build(family, t.shape, make_mesh(MeshConfig()), jnp.dtype("float32"))
    window = jnp.zeros((1, 17 + (objective in ("masked", "prefix"))), jnp.int32)
    tree = nn.unbox(jax.eval_shape(lambda key: model.init(key, make_objective(t)(window)), jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(tree["params"])
    found = {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}
    assert parameters(t.family, t.shape) == found


def test_parts_are_named_at_every_level():
    names = part_names(parameters("encoder_decoder", shape("encoder_decoder")))
    assert {"embedding", "encoder_layers", "layers/cross_attention", "layers/cross_attention/query"} <= set(names)
    assert not any(name.endswith(("/weight", "/scale")) for name in names)


def test_the_number_of_adapters():
    """Hu et al. 2021, Sec. 4.2: 2 L_LoRA d_model r, of square matrices."""
    tuning = tuned("decoder", lora=Lora(rank=4))
    assert tuning.params_trained == 2 * (2 * 2) * 16 * 4
    both = tuned("encoder_decoder", lora=Lora(rank=4))
    assert both.params_trained == 3 * tuning.params_trained  # two attentions in a layer of the decoder
    assert tuned("decoder", lora=Lora(rank=4, matrices=("up", "down"))).params_trained == 2 * 2 * 4 * (16 + 64)
    assert tuned("decoder", freeze=("layers",), lora=Lora(rank=4)).trained == ("embedding", "final_norm/scale")
    assert tuning_of(Start(run="x"), "decoder", shape("decoder")) is None


def test_a_family_without_parameters_has_no_start():
    with pytest.raises(InputError, match=r"start.run: 'x' gives parameters, and family 'ngram' has none; leave start"):
        tuning_of(Start(run="x"), "ngram", shape("decoder"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("family", ["decoder", "encoder_decoder"])
def test_merged_weights_are_a_path_beside_each_matrix(make_assembly, monkeypatch, family):
    """Logits of the merged model, against h = W x + alpha / r B A x (eq. 3) computed beside every matrix."""
    t = make_assembly(family=family, objective="prefix").plan[0]
    model = build(family, t.shape, make_mesh(MeshConfig()), jnp.dtype("float32"))
    windows = jnp.asarray(np.random.default_rng(0).integers(2, 32, (2, 18)), jnp.int32)
    example = make_objective(t)(windows)
    params = nn.unbox(jax.jit(model.init)(jax.random.key(1), example))["params"]

    def forward(params):
        return logits(cast(Output, model.apply({"params": params}, example)), model.mesh)

    apply = jax.jit(forward)
    tuning = tuned(family, lora=EVERY)
    adapters = make_adapters(tuning, jax.random.key(2))
    plain = apply(params)
    np.testing.assert_array_equal(apply(merged(params, adapters, tuning)), plain)
    for name in adapters:  # b is zero at first
        adapters[name]["b"] = 0.3 * jax.random.normal(jax.random.key(len(name)), adapters[name]["b"].shape)
    wanted = apply(merged(params, adapters, tuning))

    def beside(x, stack: str, module: str, layer: int, outputs: tuple[int, ...], contracted: int):
        pair = adapters[f"{stack}/{module}"]
        rows = x.reshape(-1, pair["a"].shape[1])
        out = 2.0 * ((rows @ pair["a"][layer]) @ pair["b"][layer])
        return out.reshape(*x.shape[: x.ndim - contracted], *outputs)

    layers_of = {"decoder": ["layers"], "encoder_decoder": ["encoder_layers", "layers"]}[family]
    calls = [(stack, layer) for stack in layers_of for layer in range(2)]
    place: dict = {
        "at": -1
    }  # of the layer that is being computed: blocks are applied one after another, each from its norm

    def around(call, args, kwargs, context):
        module = context.module
        if module.name == "attention_norm":
            place["at"] += 1
        if module.name in ("attention", "cross_attention"):
            place["module"] = module.name
        out = call(*args, **kwargs)
        if isinstance(module, Linear):
            stack, layer = calls[place["at"]]
            parent = "feedforward" if module.name in ("up", "down") else place["module"]
            shape = module.shape[module.contracted :]
            out = out + beside(args[0], stack, f"{parent}/{module.name}", layer, shape, module.contracted)
        return out

    def products(x, weight, spread):
        stack, layer = calls[place["at"]]
        names = ("query", "key", "value")[-weight.shape[2] :]
        plain = [contract(x, weight[:, :, i], 1) for i in range(weight.shape[2])]
        h, k = weight.shape[1], weight.shape[3]
        return [
            found + beside(x, stack, f"{place['module']}/{name}", layer, (h, k), 1)
            for found, name in zip(plain, names, strict=True)
        ]

    monkeypatch.setattr(layers, "products", products)
    monkeypatch.setattr(nn, "scan", unrolled)
    with nn.intercept_methods(around):
        found = jax.jit(lambda params: forward(params))(params)  # traced anew, through `around`
    assert float(jnp.abs(wanted - plain).max()) > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


def unrolled(block, *, length: int, **_):
    """flax's scan over layers as a loop, so that each layer is a call of its own."""

    class Loop(nn.Module):
        shape: object
        mesh: object
        causal: bool = True
        crossed: bool = False

        @nn.compact
        def __call__(self, x, *given):
            params = self.variables["params"]
            for layer in range(length):
                own = jax.tree.map(lambda w, layer=layer: w[layer], params)
                made = block(self.shape, self.mesh, self.causal, self.crossed, parent=None)
                x, _ = made.apply({"params": own}, x, *given)
            return x, None

    return Loop

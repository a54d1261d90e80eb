"""Networks of every family that nobody trained, as inference has them: random weights, norms' scales among them. One
of a kind: its programs are compiled once.
"""

from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lmscale.asking.decoding import Network
from lmscale.asking.prompts import Layout
from lmscale.config import Family, MeshConfig, Objective, Size
from lmscale.mesh import make_mesh
from lmscale.models import build
from lmscale.network.spans import extra_ids, written_tokens
from lmscale.objectives import Objective as Rule
from lmscale.shapes import shape_of
from lmscale.training.compilation import use_cache

VOCAB, START, SEPARATOR, SEQUENCE = 37, 1, 9, 32
KINDS: dict[str, tuple[Family, Objective]] = {
    "causal": ("decoder", "causal"),
    "prefix": ("decoder", "prefix"),
    "pairs": ("decoder", "pairs"),
    "encoder_prefix": ("encoder_decoder", "prefix"),
    "encoder_pairs": ("encoder_decoder", "pairs"),
    "spans": ("encoder_decoder", "spans"),
    "masked": ("encoder", "masked"),
    "lstm": ("lstm", "causal"),
}


@cache
def make_network(
    kind: str,
    *,
    depth: int = 1,
    positions: int = 0,
    mesh: MeshConfig | None = None,
    vocab: int = VOCAB,
    separator: int = SEPARATOR,
) -> tuple[Network, Layout]:
    """Width 16; `positions` learned ones, 0 for rotary."""
    use_cache(print)  # equal programs of several tests are compiled once
    family, objective = KINDS[kind]
    size = Size(width=16, depth=depth, heads=None if family == "lstm" else 2)
    extra, written = extra_ids(objective, SEQUENCE), written_tokens(family, objective, SEQUENCE)
    shape = shape_of(size, vocab=vocab + extra, positions=positions, family=family, written=written)
    over = make_mesh(mesh or MeshConfig())
    module = build(family, shape, over, jnp.dtype("float32"))
    rule = Rule(
        name=objective,
        encodes=family == "encoder_decoder",
        vocab=vocab,
        eos_id=START,
        start_id=START,
        separator_id=separator,
    )
    windows = jnp.zeros((1, SEQUENCE + 1 + rule.noisy), jnp.int32)
    made: Any = nn.unbox(jax.eval_shape(lambda key: module.init(key, rule(windows))["params"], jax.random.key(0)))
    random = np.random.default_rng(0)

    def weight(path: Any, x: Any) -> np.ndarray:
        mean = 1.0 if "scale" in str(path[-1]) else 0.0
        return random.normal(mean, 0.3, x.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(weight, made)
    layout = Layout(
        family=family, objective=objective, vocab=vocab, start_id=START, separator_id=separator, sentinels=extra
    )
    return Network(module, params, family=family, shape=shape, dtype=jnp.dtype("float32"), mesh=over, end=START), layout

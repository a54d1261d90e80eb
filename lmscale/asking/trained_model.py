"""The network of a finished run: its module, and its final parameters, verified and laid out on a mesh."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from analysis.errors import InputError
from lmscale.asking.decoding import Network
from lmscale.asking.found_run import FIELD, FoundRun
from lmscale.checkpoint import Checkpoints, CorruptCheckpoint
from lmscale.config import MeshConfig
from lmscale.data.shards import Vocabulary
from lmscale.mesh import make_mesh, tree_shardings
from lmscale.models import build
from lmscale.objectives import Objective


def restore(run: FoundRun, vocabulary: Vocabulary, config: MeshConfig) -> Network:
    """Raises InputError for final parameters that are not what was written, and for a mesh that cannot be."""
    mesh, dtype = make_mesh(config), jnp.dtype(run.compute_dtype)
    module = build(run.family, run.shape, mesh, dtype)
    layout = run.layout(vocabulary)
    objective = Objective(
        name=run.objective,
        encodes=run.family == "encoder_decoder",
        vocab=run.vocab,
        eos_id=vocabulary.eos_id if run.documents_apart else None,
        start_id=vocabulary.start_id,
        separator_id=layout.separator_id,
    )
    windows = jnp.zeros((1, run.sequence + 1 + objective.noisy), jnp.int32)
    boxed = jax.eval_shape(lambda key: module.init(key, objective(windows))["params"], jax.random.key(0))
    shardings = tree_shardings(mesh, boxed)
    like = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), nn.unbox(boxed), shardings
    )
    try:
        params = Checkpoints(run.folder / "final").restore(run.step, {"params": like})["params"]
    except CorruptCheckpoint as error:
        raise InputError(
            f"{FIELD}: the final parameters of {run.run_id!r} are damaged ({error}); sweep it again, or name another"
        ) from None
    end = vocabulary.eos_id
    return Network(module, params, family=run.family, shape=run.shape, dtype=dtype, mesh=mesh, end=end)

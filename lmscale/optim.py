"""The optimiser and the schedules. Learning rates are inputs of the compiled step, never constants in it."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmscale.study.recipe import Hyperparameters


def is_matrix(path: tuple, _: Any) -> bool:
    """Whether weight decay acts on a parameter: on all but the norms' scales (layers are stacked, so not by rank)."""
    return not any(getattr(key, "key", None) == "scale" for key in path)


def make_optimizer(h: Hyperparameters) -> optax.GradientTransformation:
    """AdamW with global-norm clipping (Loshchilov & Hutter 2019), without its rate: updates are multiplied by -rate."""
    adam = optax.scale_by_adam(b1=h.beta1, b2=h.beta2, eps=h.epsilon)
    return optax.chain(
        optax.clip_by_global_norm(h.clip_norm),
        adam if h.moments_dtype == "float32" else kept_in(jnp.dtype(h.moments_dtype), adam),
        optax.add_decayed_weights(
            h.weight_decay, mask=lambda params: jax.tree_util.tree_map_with_path(is_matrix, params)
        ),
    )


def kept_in(dtype: jnp.dtype, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same transformation, with its arrays of numbers kept in `dtype` between steps and computed with in float32.

    (optax's own `mu_dtype` is of the first moment alone.)
    """

    def cast(state: Any, to: jnp.dtype) -> Any:
        return jax.tree.map(lambda x: x.astype(to) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(updates, cast(state, jnp.dtype(jnp.float32)), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(inner.init(params), dtype), update)


def learning_rates(h: Hyperparameters, start: int, stop: int, *, steps: int | None, branch_step: int) -> np.ndarray:
    """Rates of the steps start .. stop-1, float32.

    `steps` is the length of the run and `branch_step` where its cooldown begins; None for the trunk of a
    warmup-stable-decay trajectory, which never decays (Hu et al. 2024, arXiv:2404.06395; linear cooldown to zero:
    Haegele et al. 2024, Sec. 4). Of fixed length, and decaying from the end of the warmup: cosine to a tenth (Hoffmann
    et al. 2022, App. B), linear to zero (Defazio et al. 2023, arXiv:2310.07831; D2Z of Bergsma et al. 2025,
    arXiv:2502.15938), which is a cooldown that begins there.
    """
    step = np.arange(start, stop, dtype=np.float64)
    warm = np.minimum(1.0, (step + 1) / max(1, h.warmup_steps))
    if steps is None:
        factor = warm
    elif h.schedule == "cosine":
        progress = np.clip((step - h.warmup_steps) / max(1, steps - h.warmup_steps), 0, 1)
        factor = warm * (0.1 + 0.9 * 0.5 * (1 + np.cos(math.pi * progress)))
    else:
        began = h.warmup_steps if h.schedule == "linear" else branch_step
        factor = warm * np.minimum(1.0, (steps - step) / (steps - began + 1))
    return (h.learning_rate * factor).astype(np.float32)

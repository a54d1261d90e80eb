"""What of a model is trained, as trees of arrays: its own parameters, and low-rank adapters that are added to others.

    W' = W + alpha / r A B        Hu et al. 2021 (arXiv:2106.09685), Sec. 4.1; A is normal at first, B is zero

The sum is formed before the model is applied, so every family and every path of attention is adapted by one piece of
code, and what is evaluated and kept of a run is a plain model. Forming it costs as much as r tokens do.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from lmscale.network.parts import Adapter, Tuning


def model_of(params: Any, trained: Any, tuning: Tuning | None) -> Any:
    """The parameters of a plain model whose `params` were before `trained` was: they count where it holds none."""
    if tuning is None:
        return trained
    return merged(joined(params, trained["own"]), trained["adapters"], tuning)


def part_of(tree: Any, kept: Collection[str], prefix: str = "") -> Any:
    """The tree of those parameters of a model that are `kept`, by name."""
    found = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if name in kept:
            found[key] = value
        elif isinstance(value, dict) and (rest := part_of(value, kept, f"{name}/")):
            found[key] = rest
    return found


def joined(params: Any, own: Any) -> Any:
    """The parameters of a model with those of `own`, a part of its tree, in their places."""
    return {
        key: value
        if key not in own
        else joined(value, own[key])
        if isinstance(value, dict) and isinstance(own[key], dict)
        else own[key]
        for key, value in params.items()
    }


def make_adapters(tuning: Tuning, key: Array) -> dict[str, dict[str, Array]]:
    """a [L, inputs, r] of variance 1 / inputs, and b [L, r, outputs] of zeros, by the adapter's name."""
    made = {}
    for number, adapter in enumerate(tuning.adapters):
        shape = adapter.layers, adapter.inputs, tuning.rank
        a = jax.random.normal(jax.random.fold_in(key, number), shape, jnp.float32) * adapter.inputs**-0.5
        made[adapter.name] = {"a": a, "b": jnp.zeros((adapter.layers, tuning.rank, adapter.outputs), jnp.float32)}
    return made


def merged(params: Any, adapters: dict[str, dict[str, Array]], tuning: Tuning) -> Any:
    """The parameters of a plain model that computes what `params` with its adapters does."""
    by_weight: dict[str, list[Adapter]] = {}
    for adapter in tuning.adapters:
        by_weight.setdefault(adapter.weight, []).append(adapter)
    for weight, some in by_weight.items():
        params = _replaced(params, weight.split("/"), lambda w, some=some: w + _added(w, some, adapters, tuning.scale))
    return params


def _added(weight: Array, some: list[Adapter], adapters: dict[str, dict[str, Array]], scale: float) -> Array:
    """What the adapters of one parameter add to it, in its shape."""
    products = {
        adapter.place: scale * jnp.matmul(*(adapters[adapter.name][x] for x in "ab"), precision="highest")
        for adapter in some
    }
    if None in products:
        return products[None].reshape(weight.shape)
    layers, d, h, count, k = weight.shape
    zeros = jnp.zeros((layers, d, h, k), weight.dtype)
    parts = [products[i].reshape(layers, d, h, k) if i in products else zeros for i in range(count)]
    return jnp.stack(parts, axis=3)


def _replaced(tree: Any, path: list[str], change: Any) -> Any:
    head, *rest = path
    return {**tree, head: _replaced(tree[head], rest, change) if rest else change(tree[head])}

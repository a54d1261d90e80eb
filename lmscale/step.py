"""The compiled program of a trajectory: its state on the mesh, many optimiser steps a call, and the evaluation."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from lmscale.mesh import constrain, local_rows, place, sharding, tree_shardings
from lmscale.models import build
from lmscale.objectives import OBJECTIVES, cross_entropy, loss
from lmscale.optim import make_optimizer
from lmscale.plan import Trajectory


class State(NamedTuple):
    """Everything a checkpoint holds: parameters and optimiser state (float32), sharded by the rule table."""

    params: Any
    optimizer: Any


class Metrics(NamedTuple):
    """Per step of a call, [K]: training loss in nats per token, and the gradient's norm before clipping."""

    loss_nats: Array
    grad_norm: Array


def compute_dtype(wanted: str, platform: str) -> Any:
    """`auto` is float32 on a CPU and bfloat16 on accelerators."""
    if wanted == "auto":
        wanted = "float32" if platform == "cpu" else "bfloat16"
    return jnp.dtype(wanted)


class Step:
    """Compiled functions of one trajectory on one mesh.

    Schedules are inputs: every run of the trajectory, trunk or cooldown, uses the same two compiled programs.
    """

    def __init__(self, trajectory: Trajectory, mesh: Mesh, *, microbatches: int, steps_per_dispatch: int):
        h = trajectory.hyperparameters
        self.trajectory, self.mesh, self.steps_per_dispatch = trajectory, mesh, steps_per_dispatch
        self.dtype = compute_dtype(h.compute_dtype, mesh.devices.flat[0].platform)
        self.microbatches = microbatches
        self.model = build(trajectory.family, trajectory.shape, mesh, self.dtype)
        self.optimizer = make_optimizer(h)
        self.objective = OBJECTIVES[trajectory.objective]

        boxed = jax.eval_shape(self._init, jax.random.key(0))
        self.state_shardings = tree_shardings(mesh, boxed)
        self.abstract_state = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), self.state_shardings
        )
        self.row_devices = mesh.shape["data"] * mesh.shape["fsdp"]  # over which the rows of a batch are split
        self.tokens_sharding = sharding(mesh, None, "batch", None)
        replicated = sharding(mesh)
        self.make_state = jax.jit(lambda key: nn.unbox(self._init(key)), out_shardings=self.state_shardings)
        self.advance = jax.jit(
            self._advance,
            donate_argnums=0,
            in_shardings=(self.state_shardings, self.tokens_sharding, replicated, replicated),
            out_shardings=(self.state_shardings, replicated),
        )
        self.rows = local_rows(self.tokens_sharding, h.batch_sequences)
        self.rows_sharding = sharding(mesh, "batch", None)
        self.score = jax.jit(
            self._window_losses,
            in_shardings=(self.state_shardings.params, self.rows_sharding, self.rows_sharding),
            out_shardings=replicated,  # each process reads them all
        )

    def init(self) -> State:
        """The initial state, made on the mesh. Depends on the seed alone, not on the mesh."""
        return self.make_state(jax.random.key(self.trajectory.seed))

    def _init(self, key: Array) -> State:
        params = self.model.init(key, jnp.zeros((1, self.trajectory.hyperparameters.sequence), jnp.int32))["params"]
        return State(params, self.optimizer.init(params))

    def apply(self, params: Any, inputs: Int[Array, "B S"]) -> Float[Array, "B S V"]:
        return self.model.apply({"params": params}, inputs)  # type: ignore[return-value]

    def gradients(self, params: Any, windows: Int[Array, "B S+1"]) -> tuple[Array, Any]:
        """Mean loss in nats per token and its gradient, accumulated over microbatches."""

        def summed(params: Any, windows: Array) -> tuple[Array, Array]:
            value = loss(self.apply, params, self.objective(windows))
            return value.sum, value.weight

        differentiate = jax.value_and_grad(summed, has_aux=True)
        if self.microbatches == 1:
            (nats, weight), grads = differentiate(params, windows)
        else:
            # rows i, i + M, ... form microbatch i, so that each device keeps its own rows
            parts = windows.reshape(-1, self.microbatches, windows.shape[-1]).swapaxes(0, 1)
            parts = constrain(parts, self.mesh, None, "batch", None)

            def accumulate(carry: Any, part: Array) -> tuple[Any, None]:
                (nats, weight), grads = differentiate(params, part)
                return jax.tree.map(jnp.add, carry, (nats, weight, grads)), None

            zeros = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
            (nats, weight, grads), _ = jax.lax.scan(accumulate, zeros, parts)
        return nats / weight, jax.tree.map(lambda g: g / weight, grads)

    def _advance(self, state: State, windows: Array, rates: Array, count: Array) -> tuple[State, Metrics]:
        """`count` (at most K) steps: windows [K, B, S+1], rates [K]. A while loop, so one program serves any count."""
        empty = jnp.full((self.steps_per_dispatch,), jnp.nan, jnp.float32)

        def one(i: Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
            state, metrics = carry
            nats, grads = self.gradients(state.params, windows[i])
            norm = optax.global_norm(grads)
            updates, optimizer = self.optimizer.update(grads, state.optimizer, state.params)
            params = jax.tree.map(lambda p, u: p - rates[i] * u, state.params, updates)
            metrics = Metrics(metrics.loss_nats.at[i].set(nats), metrics.grad_norm.at[i].set(norm))
            return State(params, optimizer), metrics

        return jax.lax.fori_loop(0, count, one, (state, Metrics(empty, empty)))

    def _window_losses(self, params: Any, windows: Array, weights: Array) -> Float[Array, " B"]:
        example = self.objective(windows, weights)
        return jnp.sum(cross_entropy(self.apply(params, example.inputs), example.targets) * example.weights, axis=-1)

    def window_losses(self, params: Any, windows: np.ndarray, weights: np.ndarray) -> Float[Array, " B"]:
        """Summed loss in nats of each window [B, S+1]; weights [B, S]. Every process gives, and gets, all of them."""
        places = [place(x, self.rows_sharding, 0, len(x)) for x in (windows, weights)]
        return self.score(params, *places)

    def put(self, windows: np.ndarray) -> Array:
        """Windows [k <= K, B, S+1] on the mesh, padded to K; of a job's process, its own `rows` of them."""
        missing = self.steps_per_dispatch - len(windows)
        padded = np.pad(windows, ((0, missing), (0, 0), (0, 0)))
        return place(padded, self.tokens_sharding, 1, self.trajectory.hyperparameters.batch_sequences, self.rows.start)

"""The compiled programs of a shape: state on the mesh, many optimiser steps a call, one or more models, evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from lmscale.config import Remat
from lmscale.mesh import REPLICAS, constrain, local_rows, place, sharding, tree_shardings
from lmscale.models import build
from lmscale.network.lora import make_adapters, model_of
from lmscale.network.output_layer import Output, logits, token_nats
from lmscale.objectives import Example, loss, make_objective
from lmscale.optim import make_optimizer
from lmscale.plan import Trajectory
from lmscale.training.state import AnyState, State, TunedState, trained_of, with_trained


class Metrics(NamedTuple):
    """Per step of a call, [K] (of a stack [R, K]): training loss in nats per token, and the gradient's norm before
    clipping.
    """

    loss_nats: Array
    grad_norm: Array


def compute_dtype(wanted: str, platform: str) -> Any:
    """`auto` is float32 on a CPU and bfloat16 on accelerators."""
    if wanted == "auto":
        wanted = "float32" if platform == "cpu" else "bfloat16"
    return jnp.dtype(wanted)


class Step:
    """Compiled functions of one shape on one mesh, compiled when they are first called.

    Seeds, rates and schedules are inputs: every trajectory of the same `program` (lmscale.plan), and every run of it,
    trunk or cooldown, uses the same ones. A window has C columns, S + 1 tokens and, for some objectives, its number
    (lmscale.network.noise). `advance` trains one model, `advance_stack` trains `replicas` of them: R
    states, windows [R, K, B, C] and rates [R, K], and one count.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        mesh: Mesh,
        *,
        microbatches: int,
        steps_per_dispatch: int,
        remat: Remat = "none",
        replicas: int = 1,
    ):
        h = trajectory.hyperparameters
        self.mesh, self.steps_per_dispatch, self.replicas = mesh, steps_per_dispatch, replicas
        self.sequence = h.sequence
        self.dtype = compute_dtype(h.compute_dtype, mesh.devices.flat[0].platform)
        self.microbatches, self.remat = microbatches, remat
        self.model = build(trajectory.family, trajectory.shape, mesh, self.dtype, remat)
        self.optimizer, self.tuning = make_optimizer(h), trajectory.tuning
        self.objective = make_objective(trajectory)
        self.columns = h.sequence + 1 + self.objective.noisy  # of a window

        initial = jax.jit(self._init)  # traced once for both its shapes and its program
        boxed = jax.eval_shape(initial, jax.random.key(0))
        self.state_shardings = tree_shardings(mesh, boxed)
        self.abstract_state = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), self.state_shardings
        )
        self.row_devices = mesh.shape["data"] * mesh.shape["fsdp"]  # over which the rows of a batch are split
        self.tokens_sharding = sharding(mesh, None, "batch", None)
        replicated = sharding(mesh)
        self.make_state = jax.jit(lambda key: nn.unbox(initial(key)), out_shardings=self.state_shardings)
        self.begin_state = jax.jit(
            self._begin, in_shardings=(self.state_shardings.params, replicated), out_shardings=self.state_shardings
        )
        self.advance = jax.jit(
            self._advance,
            donate_argnums=0,
            in_shardings=(self.state_shardings, self.tokens_sharding, replicated, replicated),
            out_shardings=(self.state_shardings, replicated),
        )
        stacked = jax.tree.map(_stacked, self.state_shardings)
        self.stack_tokens_sharding = _stacked(self.tokens_sharding)
        self.advance_stack = jax.jit(
            jax.vmap(self._advance, in_axes=(0, 0, 0, None), axis_name=REPLICAS),
            donate_argnums=0,
            in_shardings=(stacked, self.stack_tokens_sharding, replicated, replicated),
            out_shardings=(stacked, replicated),
        )
        self.stack = jax.jit(lambda states: jax.tree.map(lambda *x: jnp.stack(x), *states), out_shardings=stacked)
        self.unstack = jax.jit(
            lambda states, r: jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, r, keepdims=False), states),
            out_shardings=self.state_shardings,
        )
        self.all_finite = jax.jit(
            lambda state: jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state)])),
            in_shardings=(self.state_shardings,),
            out_shardings=replicated,
        )
        self.merge = jax.jit(
            lambda state: model_of(state.params, trained_of(state, self.tuning), self.tuning),
            in_shardings=(self.state_shardings,),
            out_shardings=self.state_shardings.params,
        )
        self.batch_sequences = h.batch_sequences
        self.rows_sharding = sharding(mesh, "batch", None)
        self.score = jax.jit(
            self._token_losses,
            in_shardings=(self.state_shardings.params, self.rows_sharding, self.rows_sharding),
            out_shardings=replicated,  # each process reads them all
        )
        self.miss = jax.jit(
            self._window_misses,
            in_shardings=(self.state_shardings.params, self.rows_sharding, self.rows_sharding),
            out_shardings=replicated,
        )

        self.write_on = jax.jit(
            self._written,
            in_shardings=(self.state_shardings.params, self.rows_sharding, self.rows_sharding, replicated, replicated),
            out_shardings=replicated,
        )

    @cached_property
    def rows(self) -> slice:
        """The rows of a batch that this process feeds in."""
        return local_rows(self.tokens_sharding, self.batch_sequences)

    def init(self, seed: int = 0, params: Any = None) -> AnyState:
        """The initial state of one model, made on the mesh. Depends on the seed, not on the mesh; with the parameters
        of a trained one, laid out on it, on these (and the adapters alone on the seed).
        """
        key = jax.random.key(seed)
        return self.make_state(key) if params is None else self.begin_state(params, key)

    def model_params(self, state: AnyState) -> Any:
        """The parameters of the plain model that a state is: what is evaluated, and kept of a run."""
        return self.merge(state) if isinstance(state, TunedState) and state.adapters else state.params

    def is_finite(self, state: AnyState) -> bool:
        """Whether every number of a state is."""
        return bool(self.all_finite(state))

    def _init(self, key: Array) -> AnyState:
        params = self.model.init(key, self.objective(jnp.zeros((1, self.columns), jnp.int32)))["params"]
        return self._begin(params, key)

    def _begin(self, params: Any, key: Array) -> AnyState:
        if self.tuning is None:
            return State(params, self.optimizer.init(params))
        state = TunedState(params, None, make_adapters(self.tuning, key))
        return state._replace(optimizer=self.optimizer.init(trained_of(state, self.tuning)))

    def output(self, params: Any, example: Example) -> Output:
        return self.model.apply({"params": params}, example)  # type: ignore[return-value]

    def apply(self, params: Any, example: Example) -> Float[Array, "B S V"]:
        """Logits, all of them."""
        return logits(self.output(params, example), self.mesh)

    def gradients(self, params: Any, windows: Int[Array, "B C"], frozen: Any = None) -> tuple[Array, Any]:
        """Mean loss in nats per token and its gradient by what is trained, accumulated over microbatches. `frozen`: the
        parameters of the whole model where `params` are a part of them, and adapters.
        """

        def summed(params: Any, windows: Array) -> tuple[Array, Array]:
            example = self.objective(windows)
            value = loss(self.output(model_of(frozen, params, self.tuning), example), example, self.mesh)
            return value.sum, value.weight

        differentiate = jax.value_and_grad(summed, has_aux=True)
        if self.microbatches == 1:
            (nats, weight), grads = differentiate(params, windows)
        else:
            (nats, weight), grads = self._accumulated(differentiate, params, windows)
        weight = jnp.maximum(weight, 1.0)  # of a small batch noise may have chosen no token
        return nats / weight, jax.tree.map(lambda g: g / weight, grads)

    def _accumulated(self, differentiate: Any, params: Any, windows: Int[Array, "B C"]) -> Any:
        """The sums over microbatches of what `differentiate(params, rows)` gives.

        Rows i, i + M, ... of a group form its microbatch i, so that each device keeps its own rows. The groups of the
        data axis add up their gradients apart and reduce them once, after the last microbatch.
        """
        groups, row = self.mesh.shape["data"], windows.shape[-1]
        if groups == 1:
            parts = windows.reshape(-1, self.microbatches, row).swapaxes(0, 1)
            parts = constrain(parts, self.mesh, None, "row", None)
        else:
            parts = windows.reshape(groups, -1, self.microbatches, row).transpose(2, 0, 1, 3)
            parts = constrain(parts, self.mesh, None, "group", "row", None)
            differentiate = jax.vmap(differentiate, in_axes=(None, 0), axis_name="data", spmd_axis_name="data")

        def accumulate(sums: Any, part: Array) -> tuple[Any, None]:
            here = params
            if self.mesh.shape["fsdp"] > 1:  # tied to the microbatch, or XLA gathers every matrix before the loop
                here, part = jax.lax.optimization_barrier((params, part))
            return jax.tree.map(jnp.add, sums, differentiate(here, part)), None

        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(differentiate, params, parts[0]))
        sums, _ = jax.lax.scan(accumulate, zeros, parts)
        return sums if groups == 1 else jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)

    def _advance(self, state: AnyState, windows: Array, rates: Array, count: Array) -> tuple[AnyState, Metrics]:
        """`count` (at most K) steps: windows [K, B, C], rates [K]. A while loop, so one program serves any count."""
        empty = jnp.full((self.steps_per_dispatch,), jnp.nan, jnp.float32)

        def one(i: Array, carry: tuple[AnyState, Metrics]) -> tuple[AnyState, Metrics]:
            state, metrics = carry
            trained = trained_of(state, self.tuning)
            nats, grads = self.gradients(trained, windows[i], state.params)
            norm = optax.global_norm(grads)
            updates, optimizer = self.optimizer.update(grads, state.optimizer, trained)
            trained = jax.tree.map(lambda p, u: p - rates[i] * u, trained, updates)
            metrics = Metrics(metrics.loss_nats.at[i].set(nats), metrics.grad_norm.at[i].set(norm))
            return with_trained(state, trained, optimizer), metrics

        return jax.lax.fori_loop(0, count, one, (state, Metrics(empty, empty)))

    def _token_losses(self, params: Any, windows: Array, weights: Array) -> tuple[Array, Array]:
        example = self.objective(windows, weights)
        nats = token_nats(self.output(params, example), example.targets, self.mesh)
        return nats * example.weights, example.weights

    def token_losses(self, params: Any, windows: np.ndarray, weights: np.ndarray) -> tuple[Array, Array]:
        """Loss in nats and weight of each target of windows [B, C]; weights [B, S]. Every process gives, and gets, all
        of them.
        """
        places = [place(x, self.rows_sharding, 0, len(x)) for x in (windows, weights)]
        return self.score(params, *places)

    def _window_misses(self, params: Any, windows: Array, weights: Array) -> tuple[Float[Array, " B"]]:
        example = self.objective(windows, weights)
        best = jnp.argmax(self.apply(params, example), axis=-1)
        return (jnp.sum((best != example.targets) * example.weights, axis=-1),)

    def window_misses(self, params: Any, windows: np.ndarray, weights: np.ndarray) -> tuple[Float[Array, " B"]]:
        """How many tokens of each window [B, C] are not the model's most probable ones; weights [B, S]."""
        places = [place(x, self.rows_sharding, 0, len(x)) for x in (windows, weights)]
        return self.miss(params, *places)

    def _written(self, params: Any, windows: Array, given: Array, end: Array, most: Array) -> tuple[Int[Array, "B T"]]:
        row, last = jnp.arange(len(windows)), given.shape[1] - 1  # the last target
        first = jnp.sum(given, axis=1).astype(jnp.int32)
        start_id = self.objective.start_id  # stands before a document and ends it

        def one(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            windows, place, writing = carry
            logits = self.apply(params, self.objective(windows))[row, place]
            token = jnp.where(writing, jnp.argmax(logits, axis=-1), windows[row, place + 1])
            windows = windows.at[row, place + 1].set(token.astype(windows.dtype))
            writing = writing & (token != end) & (token != start_id) & (place < last) & (place + 1 - first < most)
            return windows, place + writing, writing

        start = windows, first, first > 0
        written = jax.lax.while_loop(lambda carry: jnp.any(carry[2]), one, start)[0]
        return (written[:, 1 : 1 + given.shape[1]],)

    def written(
        self, params: Any, windows: np.ndarray, given: np.ndarray, *, end: int | None = None, most: int | None = None
    ) -> tuple[Int[Array, "B T"]]:
        """Targets of windows [B, C] of which the first are given, as `given` [B, T] says, and each after them is the
        likeliest token, up to end-of-sequence, the token `end`, `most` tokens or the end of the window. Rows with none
        given are left. A whole pass a token: nothing is kept from one to the next.
        """
        places = [place(x, self.rows_sharding, 0, len(x)) for x in (windows, given)]
        stops = self.objective.start_id if end is None else end, given.shape[1] if most is None else most
        return self.write_on(params, *places, *map(np.int32, stops))

    def put(self, windows: np.ndarray) -> Array:
        """Windows [k <= K, B, C], or of a stack [R, k <= K, B, C], on the mesh, padded to K.

        A process of a job gives its own `rows` of them.
        """
        padding = [(0, 0)] * windows.ndim
        padding[-3] = (0, self.steps_per_dispatch - windows.shape[-3])
        where = self.tokens_sharding if windows.ndim == 3 else self.stack_tokens_sharding
        return place(np.pad(windows, padding), where, windows.ndim - 2, self.batch_sequences, self.rows.start)


def _stacked(one: NamedSharding) -> NamedSharding:
    """The sharding of a stack: its leading axis, the replicas, is not split."""
    return NamedSharding(one.mesh, PartitionSpec(None, *one.spec))


Call = Callable[..., tuple[AnyState, Metrics]]  # of a compiled program and its inputs


def _plainly(program: Callable, *inputs: Any) -> tuple[AnyState, Metrics]:
    return program(*inputs)


class Together:
    """One or several models of a shape, trained step by step together.

    One is trained by the plain program. Fewer than the program of several takes are filled up with copies of the last,
    which nobody reads.
    """

    def __init__(self, step: Step, states: Sequence[AnyState]):
        self.step, self.count = step, len(states)
        self.filling = step.replicas - self.count if self.count > 1 else 0
        self.state = states[0] if self.count == 1 else step.stack([*states, *[states[-1]] * self.filling])

    def advance(
        self, windows: Sequence[np.ndarray], rates: Sequence[np.ndarray], count: int, call: Call = _plainly
    ) -> Metrics:
        """`count` (at most K) steps of each: for each model windows [count, B, C] and rates [count].

        Returns the metrics, [K], or [R, K] with those of model r in row r. `call` calls the compiled program.
        """
        last = (0, self.step.steps_per_dispatch - count)
        if self.count == 1:
            batch, factors = self.step.put(windows[0]), np.pad(rates[0], last)
            self.state, metrics = call(self.step.advance, self.state, batch, factors, np.int32(count))
        else:
            every = [*range(self.count), *[self.count - 1] * self.filling]
            batches, factors = np.stack([windows[r] for r in every]), np.stack([np.pad(rates[r], last) for r in every])
            inputs = self.state, self.step.put(batches), factors, np.int32(count)
            self.state, metrics = call(self.step.advance_stack, *inputs)
        return metrics

    def model(self, r: int) -> AnyState:
        """The state of model r as it would be if it were trained alone."""
        return self.state if self.count == 1 else self.step.unstack(self.state, np.int32(r))

"""One trainer in a process of its own, told over standard input what to do: `python peers.py NAME SIZE [PATH]`.

`train K` trains K steps on the shared text from where it stands and answers with their mean loss in nats and the
seconds they took; `matmul N` multiplies two float32 N x N matrices for a second and answers with FLOP/s. All trainers
see the same batches, AdamW (0.9, 0.95, decay 0.1 on matrices), a constant rate, and clipping at 1.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import sysconfig
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RATE, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.1, 1.0
DISPATCH = 8  # steps in a call of the compiled program, where a trainer has one
Train = Callable[[np.ndarray], float]  # windows [K, B, S+1] -> mean loss


class Size(NamedTuple):
    width: int
    depth: int
    heads: int
    sequence: int
    batch: int
    vocab: int

    @classmethod
    def from_text(cls, text: str) -> Size:
        return cls(*map(int, text.split(",")))


def windows(size: Size, start: int, count: int) -> np.ndarray:
    """Batches start .. start + count - 1, int32 [count, B, S+1]: bytes of this Python's own standard library."""
    text = library()
    begins = np.random.default_rng(0).integers(0, len(text) - size.sequence - 1, (start + count, size.batch))[start:]
    return text[begins[..., None] + np.arange(size.sequence + 1)].astype(np.int32)


@cache
def library() -> np.ndarray:
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return np.frombuffer(b"".join(path.read_bytes() for path in paths), np.uint8)


def lmscale(size: Size, path: str) -> Train:
    """The very step that lmscale's train.py calls, with learned positions, as the peers have them."""
    from unprepared import unprepared

    from lmscale.config import MeshConfig
    from lmscale.mesh import make_mesh
    from lmscale.planning.layout import cpu_microbatches
    from lmscale.shapes import Shape
    from lmscale.step import Step
    from lmscale.study.recipe import Hyperparameters

    hyperparameters = Hyperparameters(
        sequence=size.sequence,
        documents="joined",  # as the peers have it
        batch_sequences=size.batch,
        learning_rate=RATE,
        warmup_steps=0,
        schedule="wsd",
        cooldown_fraction=0.2,
        cooldown_steps_min=1,
        weight_decay=DECAY,
        beta1=BETAS[0],
        beta2=BETAS[1],
        epsilon=1e-8,
        clip_norm=CLIP,
        compute_dtype="float32",
        moments_dtype="float32",
    )
    shape = Shape(
        width=size.width,
        depth=size.depth,
        heads=size.heads,
        head_size=size.width // size.heads,
        feedforward=4 * size.width,
        vocab=size.vocab,
        positions=size.sequence,
    )
    trajectory = unprepared(shape, hyperparameters, vocab=size.vocab)
    microbatches = cpu_microbatches(trajectory, MeshConfig())
    step = Step(trajectory, make_mesh(MeshConfig()), microbatches=microbatches, steps_per_dispatch=DISPATCH)
    state = step.init()
    rates = np.full(DISPATCH, RATE, np.float32)

    def train(batches: np.ndarray) -> float:
        nonlocal state
        pending = []
        for part in np.split(batches, range(DISPATCH, len(batches), DISPATCH)):
            state, metrics = step.advance(state, step.put(part), rates, np.int32(len(part)))
            pending.append((metrics, len(part)))
        return float(np.mean(np.concatenate([np.asarray(m.loss_nats)[:count] for m, count in pending])))

    return train


def nanodo(size: Size, path: str) -> Train:
    """nanodo's model under its own train step (train.py: value_and_grad, TrainState.apply_gradients, donated)."""
    sys.path.insert(0, path)
    import jax
    import jax.numpy as jnp
    import optax
    from flax.training.train_state import TrainState

    model = importlib.import_module("nanodo.model")
    config = model.DoConfig(
        D=size.width, H=size.heads, L=size.sequence, N=size.depth, V=size.vocab, F=4 * size.width, fsdp_enabled=False
    )
    net = model.TransformerDo(config)
    params = net.init(jax.random.key(0), jnp.zeros((1, size.sequence), jnp.int32))["params"]
    optimizer = optax.chain(
        optax.clip_by_global_norm(CLIP), optax.adamw(RATE, b1=BETAS[0], b2=BETAS[1], weight_decay=DECAY)
    )
    state = TrainState.create(apply_fn=net.apply, params=params, tx=optimizer)

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        def loss(params: Any) -> Any:
            logits = state.apply_fn({"params": params}, batch[:, :-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()

        value, gradients = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradients), value

    compiled = jax.jit(step, donate_argnums=0)

    def train(batches: np.ndarray) -> float:
        nonlocal state
        losses = []
        for batch in batches:
            state, value = compiled(state, jnp.asarray(batch))
            losses.append(value)
        return float(np.mean([np.asarray(x) for x in losses]))

    return train


def torch_train(model: Any, optimizer: Any) -> Train:
    """nanoGPT's inner loop: forward, backward, clip, step, zero_grad. `model(inputs, targets)` gives (logits, loss)."""
    import torch  # pyright: ignore[reportMissingImports]

    def train(batches: np.ndarray) -> float:
        losses = []
        for batch in torch.from_numpy(batches).long():
            _, loss = model(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    return train


def nanogpt(size: Size, path: str, *, compiled: bool = False) -> Train:
    """nanoGPT, eager, as its train.py configures it with bias = False and dropout = 0."""
    sys.path.insert(0, path)
    import torch  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    gpt = importlib.import_module("model")
    config = gpt.GPTConfig(
        block_size=size.sequence,
        vocab_size=size.vocab,
        n_layer=size.depth,
        n_head=size.heads,
        n_embd=size.width,
        dropout=0.0,
        bias=False,
    )
    model = gpt.GPT(config)
    optimizer = model.configure_optimizers(DECAY, RATE, BETAS, "cpu")
    return torch_train(torch.compile(model) if compiled else model, optimizer)


def nanogpt_compiled(size: Size, path: str) -> Train:
    """The same under torch.compile."""
    return nanogpt(size, path, compiled=True)


def plain_torch(size: Size, path: str) -> Train:
    """A pre-norm transformer of PyTorch's own layers, for machines without the peers' sources."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(size.vocab, size.width)
            self.positions = nn.Parameter(torch.randn(size.sequence, size.width) * 0.02)
            nn.init.normal_(self.embedding.weight, std=0.02)
            layer = nn.TransformerEncoderLayer(
                size.width, size.heads, 4 * size.width, 0.0, "gelu", batch_first=True, norm_first=True, bias=False
            )
            self.layers = nn.TransformerEncoder(layer, size.depth, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(size.width, bias=False)
            self.mask = nn.Transformer.generate_square_subsequent_mask(size.sequence)

        def forward(self, inputs: Any, targets: Any) -> tuple[Any, Any]:
            x = self.embedding(inputs) + self.positions
            x = self.norm(self.layers(x, mask=self.mask, is_causal=True))
            logits = x @ self.embedding.weight.T
            return logits, nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    model = Decoder()
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]
    return torch_train(model, torch.optim.AdamW(groups, lr=RATE, betas=BETAS))


TRAINERS = {f.__name__: f for f in (lmscale, nanodo, nanogpt, nanogpt_compiled, plain_torch)}


def matmul_flops(side: int) -> float:
    """FLOP/s of a jitted float32 product, for a second."""
    import jax
    import jax.numpy as jnp

    a = jnp.asarray(np.random.default_rng(0).normal(size=(side, side)), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < 1:
        product(a, a).block_until_ready()
        count += 1
    return 2 * side**3 * count / (time.perf_counter() - began)


def main() -> None:
    name, size, path = sys.argv[1], Size.from_text(sys.argv[2]), sys.argv[3]
    threads = int(sys.argv[4])
    if name == "lmscale":
        from lmscale.training.allocator import keep_memory

        keep_memory()
    if "torch" in name or "gpt" in name:
        import torch  # pyright: ignore[reportMissingImports]

        torch.set_num_threads(threads)
    train, position = TRAINERS[name](size, path), 0
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        verb, argument = line.split()
        if verb == "matmul":
            answer = {"flops_per_second": matmul_flops(int(argument))}
        else:
            batches = windows(size, position, int(argument))
            position += int(argument)
            began = time.perf_counter()
            loss = train(batches)
            answer = {"seconds": time.perf_counter() - began, "loss_nats": loss}
            if not math.isfinite(loss):
                raise SystemExit(f"{name}: loss {loss}")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

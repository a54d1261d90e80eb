"""Tokens a second that a model writes with its cache, beside passes over everything for each token.

    python tests/bench/generate.py                        # 96x4, quickstart's largest, on bytes
    python tests/bench/generate.py --size 256x6 --rows 1 8 64
    python tests/bench/generate.py --nanogpt PATH         # and nanoGPT's own `generate` (a clone of karpathy/nanoGPT)

Weights are random: what is written costs the same. Both ways write greedily after a prompt of --length tokens in one
compiled loop; the one without a cache passes over the last --length tokens for each token, as nanoGPT's `generate`
does. Medians of 5, the ways taken in turn; compiling is not among them, and is said.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

from lmscale.training.allocator import keep_memory

keep_memory()  # before jax is imported, as the command does

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from lmscale.asking.decoding import Network  # noqa: E402
from lmscale.asking.prompts import Asked  # noqa: E402
from lmscale.asking.sampling import Sampling  # noqa: E402
from lmscale.config import MeshConfig, Size  # noqa: E402
from lmscale.mesh import make_mesh  # noqa: E402
from lmscale.models import build  # noqa: E402
from lmscale.network.borders import rows_of  # noqa: E402
from lmscale.network.output_layer import Output, logits  # noqa: E402
from lmscale.objectives import Example  # noqa: E402
from lmscale.shapes import Shape, shape_of  # noqa: E402

REPEATS, VOCAB = 5, 259


def network_of(size: Size) -> Network:
    shape, mesh = shape_of(size, vocab=VOCAB), make_mesh(MeshConfig())
    module = build("decoder", shape, mesh, jnp.dtype("float32"))
    tokens = jnp.zeros((1, 8), jnp.int32)
    params = nn.unbox(module.init(jax.random.key(0), Example(rows_of(tokens), tokens, jnp.ones((1, 8))))["params"])
    return Network(module, params, family="decoder", shape=shape, dtype=jnp.dtype("float32"), mesh=mesh, end=None)


def with_cache(network: Network, prompt: np.ndarray, written: int) -> Callable[[], np.ndarray]:
    asked = [Asked(inputs=tuple(row.tolist())) for row in prompt]
    return lambda: np.array(
        [each.tokens for each in network.write(asked, Sampling(temperature=0), written, VOCAB)], np.int32
    )


def without(network: Network, prompt: np.ndarray, written: int) -> Callable[[], np.ndarray]:
    """A whole pass for each token, over as many tokens as the prompt has: the last ones."""
    length = prompt.shape[1]

    def write(params, tokens):
        def one(number, tokens):
            rows = rows_of(jax.lax.dynamic_slice_in_dim(tokens, number, length, axis=1))
            output = network.module.apply({"params": params}, Example(rows, rows.tokens, jnp.ones(rows.tokens.shape)))
            said = logits(Output(output.states[:, -1:], output.head), network.mesh)[:, 0, :VOCAB]  # type: ignore[union-attr]
            return tokens.at[:, length + number].set(jnp.argmax(said, axis=-1).astype(tokens.dtype))

        return jax.lax.fori_loop(0, written, one, tokens)[:, length:]

    compiled = jax.jit(write)
    start = np.pad(prompt, ((0, 0), (0, written)))
    return lambda: np.asarray(compiled(network.params, start))


def nanogpt(path: str, shape: Shape, prompt: np.ndarray, written: int) -> Callable[[], np.ndarray]:
    """nanoGPT's GPT.generate, likewise of random weights; it recomputes the last block_size tokens."""
    sys.path.insert(0, path)
    import torch  # pyright: ignore[reportMissingImports]
    from model import GPT, GPTConfig  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = GPT(
        GPTConfig(
            block_size=prompt.shape[1],
            vocab_size=shape.vocab,
            n_layer=shape.depth,
            n_head=shape.heads,
            n_embd=shape.width,
            dropout=0.0,
            bias=False,
        )
    ).eval()
    tokens = torch.tensor(prompt.astype(np.int64))
    return lambda: model.generate(tokens, written, top_k=1).numpy()[:, prompt.shape[1] :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=Size.from_text, default=Size(width=96, depth=4))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="prompts side by side")
    parser.add_argument("--length", type=int, default=256, help="tokens of a prompt")
    parser.add_argument("--written", type=int, default=256, help="tokens that are written after it")
    parser.add_argument("--nanogpt", metavar="PATH", help="a clone of karpathy/nanoGPT")
    args = parser.parse_args()
    network = network_of(args.size)
    device = jax.devices()[0]
    print(
        f"{args.size}, {network.shape.params:,} parameters, float32, {device.device_kind}, "
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, jax {jax.__version__}"
    )
    if args.nanogpt is None:
        print("nanoGPT is not compared: name a clone of it with --nanogpt")
    elif find_spec("torch") is None:
        print("nanoGPT is not compared: torch is not here (pip install '.[peers]')")
    for rows in args.rows:
        random = np.random.default_rng(0)
        prompt = random.integers(3, VOCAB, (rows, args.length)).astype(np.int32)
        ways = {"cache": with_cache(network, prompt, args.written), "passes": without(network, prompt, args.written)}
        if args.nanogpt is not None and find_spec("torch") is not None:
            ways["nanoGPT"] = nanogpt(args.nanogpt, network.shape, prompt, args.written)
        told = {}
        for name, way in ways.items():
            began = time.perf_counter()
            told[name] = way()
            print(f"{rows} rows  {name:<8} first call {time.perf_counter() - began:.1f} s, compiling among it")
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(REPEATS):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - began)
        rates = {name: rows * args.written / statistics.median(some) for name, some in seconds.items()}
        for name, rate in rates.items():
            beside = "" if name == "cache" else f", the cache is {rates['cache'] / rate:.1f} x as fast"
            print(f"{rows} rows  {name:<8} {rate:>9,.0f} tokens/s after {args.length} tokens{beside}")


if __name__ == "__main__":
    main()

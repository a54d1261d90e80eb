"""Throughput of models trained together in one step, against the same models one after the other.

    python tests/bench/replicas.py                 # small models on a CPU, a model of 10 M parameters on an accelerator
    python tests/bench/replicas.py --size 320x8 --batch-tokens 512,8192 --replicas 2,4,8,16

Prints one line a case: tokens/s of all models, and the ratio. Medians of 5, the two taken in turn and in both orders,
on the same devices in one process.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from lmscale.training.allocator import keep_memory

keep_memory()  # before jax is imported, as the command does

import jax  # noqa: E402
from unprepared import unprepared  # noqa: E402

from lmscale.config import MeshConfig, Recipe, Size  # noqa: E402
from lmscale.mesh import make_mesh  # noqa: E402
from lmscale.plan import Trajectory  # noqa: E402
from lmscale.shapes import shape_of  # noqa: E402
from lmscale.step import Step, Together  # noqa: E402
from lmscale.training.compilation import use_cache  # noqa: E402

REPEATS = 5
CALL_STEPS = 8
VOCAB = 256
CPU = {"size": "64x2,128x4", "sequence": 128, "batch_tokens": "512", "replicas": "2,4"}
# 9.9 M parameters
ACCELERATOR = {"size": "320x8", "sequence": 256, "batch_tokens": "512,1024,4096", "replicas": "4,16"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, text in (("size", "sizes"), ("replicas", "how many together"), ("batch-tokens", "batches")):
        parser.add_argument(f"--{name}", help=f"{text}, with commas between")
    parser.add_argument("--sequence", type=int)
    default = CPU if jax.devices()[0].platform == "cpu" else ACCELERATOR
    parser.set_defaults(**default)
    args = parser.parse_args()
    use_cache(print)
    device = jax.devices()[0]
    print(f"jax {jax.__version__} on {device.platform}:{device.device_kind}")
    print(
        f"{'shape':>12} {'params':>12} {'batch':>7} {'together':>8} {'one by one':>14} {'together':>14} {'ratio':>7}",
        flush=True,
    )
    for size in args.size.split(","):
        for batch in map(int, args.batch_tokens.split(",")):
            for count in map(int, args.replicas.split(",")):
                compare(trajectory(size, args.sequence, batch), count)
    return 0


def trajectory(size: str, sequence: int, batch_tokens: int) -> Trajectory:
    shape = shape_of(Size.from_text(size), vocab=VOCAB)
    recipe = Recipe(sequence=sequence, batch_tokens_max=batch_tokens)
    return unprepared(shape, recipe.resolve(shape.params_matrices), vocab=VOCAB)


def compare(t: Trajectory, count: int) -> None:
    """A line of the table for `count` models of one shape."""
    step = Step(t, make_mesh(MeshConfig()), microbatches=1, steps_per_dispatch=CALL_STEPS, replicas=count)
    h = t.hyperparameters
    batches = np.random.default_rng(0).integers(0, VOCAB, (CALL_STEPS, h.batch_sequences, h.sequence + 1), np.int32)
    rates = np.full(CALL_STEPS, h.learning_rate, np.float32)
    alone = [Together(step, [step.init(seed)]) for seed in range(count)]
    stack = Together(step, [step.init(seed) for seed in range(count)])

    def one_by_one() -> None:
        for model in alone:
            jax.block_until_ready(model.advance([batches], [rates], CALL_STEPS))

    def together() -> None:
        jax.block_until_ready(stack.advance([batches] * count, [rates] * count, CALL_STEPS))

    one_by_one()  # compiles
    together()
    seconds: dict[Callable[[], None], list[float]] = {one_by_one: [], together: []}
    for repeat in range(REPEATS):
        for run in (one_by_one, together) if repeat % 2 else (together, one_by_one):
            began = time.perf_counter()
            run()
            seconds[run].append(time.perf_counter() - began)
    tokens = count * CALL_STEPS * h.batch_tokens
    slow, fast = (tokens / statistics.median(seconds[run]) for run in (one_by_one, together))
    print(
        f"{t.shape!s:>12} {t.shape.params:>12,} {h.batch_tokens:>7,} {count:>8} {slow:>10,.0f} t/s "
        f"{fast:>10,.0f} t/s {fast / slow:>6.2f}x",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())

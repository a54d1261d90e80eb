"""Tokens and model FLOPs a second of each family in training, with the decoder's rate to compare them with.

    python tests/bench/families.py                           # two sizes on a CPU, a larger one on an accelerator
    python tests/bench/families.py --size 256x4 --sequence 256 --batch-tokens 4096

One line a family: tokens of the windows and FLOPs (forward x 3, exact) a second, and the FLOP rate as a share of the
decoder's. Medians of 5, the families taken in turn and in both orders, on the same device in one process. An
n-gram's arithmetic is counting: tests/bench/ngram.py.
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

from lmscale.config import Family, MeshConfig, Objective, Recipe, Size  # noqa: E402
from lmscale.mesh import make_mesh  # noqa: E402
from lmscale.network.noise import numbered  # noqa: E402
from lmscale.network.spans import extra_ids, written_tokens  # noqa: E402
from lmscale.plan import Trajectory  # noqa: E402
from lmscale.shapes import shape_of  # noqa: E402
from lmscale.step import Step, Together  # noqa: E402
from lmscale.training.compilation import use_cache  # noqa: E402

REPEATS = 5
CALL_STEPS = 4
VOCAB = 256
FAMILIES: tuple[tuple[Family, Objective], ...] = (
    ("decoder", "causal"),
    ("decoder", "prefix"),
    ("encoder", "masked"),
    ("encoder_decoder", "spans"),
    ("encoder_decoder", "prefix"),
    ("lstm", "causal"),
)
CPU = {"size": "64x2,128x4", "sequence": 128, "batch_tokens": 2048}
ACCELERATOR = {"size": "512x8", "sequence": 256, "batch_tokens": 32768}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", help="sizes, with commas between")
    parser.add_argument("--sequence", type=int)
    parser.add_argument("--batch-tokens", type=int)
    default = CPU if jax.devices()[0].platform == "cpu" else ACCELERATOR
    parser.set_defaults(**default)
    args = parser.parse_args()
    use_cache(print)
    device = jax.devices()[0]
    print(f"jax {jax.__version__} on {device.platform}:{device.device_kind}")
    for size in args.size.split(","):
        compare([trajectory(*each, size, args.sequence, args.batch_tokens) for each in FAMILIES])
    return 0


def trajectory(family: Family, objective: Objective, size: str, sequence: int, batch_tokens: int) -> Trajectory:
    shape = shape_of(
        Size.from_text(size),
        vocab=VOCAB + extra_ids(objective, sequence),
        family=family,
        written=written_tokens(family, objective, sequence),
    )
    hyperparameters = Recipe(sequence=sequence, batch_tokens_max=batch_tokens).resolve(shape.params_matrices)
    return unprepared(shape, hyperparameters, vocab=VOCAB, family=family, objective=objective, eos_id=1)


def advancing(t: Trajectory) -> Callable[[], None]:
    """CALL_STEPS steps of a model, which it compiles when it is first called."""
    step = Step(t, make_mesh(MeshConfig()), microbatches=1, steps_per_dispatch=CALL_STEPS)
    h, random = t.hyperparameters, np.random.default_rng(0)
    batches = random.integers(0, VOCAB, (CALL_STEPS, h.batch_sequences, h.sequence + 1), np.int32)
    if step.objective.noisy:
        batches = numbered(batches, 0, np.arange(CALL_STEPS * h.batch_sequences).reshape(CALL_STEPS, -1))
    rates = np.full(CALL_STEPS, h.learning_rate, np.float32)
    model = Together(step, [step.init()])
    return lambda: jax.block_until_ready(model.advance([batches], [rates], CALL_STEPS)) and None


def compare(trajectories: list[Trajectory]) -> None:
    """A table of families at one size, the first of which is the one to compare with."""
    runs = [advancing(t) for t in trajectories]
    for run in runs:
        run()  # compiles
    seconds: list[list[float]] = [[] for _ in runs]
    for repeat in range(REPEATS):
        for i in range(len(runs)) if repeat % 2 else reversed(range(len(runs))):
            began = time.perf_counter()
            runs[i]()
            seconds[i].append(time.perf_counter() - began)
    tokens = CALL_STEPS * trajectories[0].hyperparameters.batch_tokens
    h = trajectories[0].hyperparameters
    print(f"\nwindows of {h.sequence}, batches of {h.batch_tokens:,} tokens\n")
    print("| family | objective | shape | params | tokens/s | model GFLOP/s | of the decoder's |")
    print("|---" * 7 + "|")
    flops = [
        t.shape.train_flops(tokens, h.sequence) / statistics.median(s)
        for t, s in zip(trajectories, seconds, strict=True)
    ]
    for t, s, rate in zip(trajectories, seconds, flops, strict=True):
        cells = (
            t.family,
            t.objective,
            str(t.shape),
            f"{t.shape.params:,}",
            f"{tokens / statistics.median(s):,.0f}",
            f"{rate / 1e9:.1f}",
            f"{rate / flops[0]:.2f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

"""The loader against the step that it feeds, the time to a first batch, and memory over very many documents.

    python tests/bench/loader.py

Prints tokens/s of the compiled step of a small model on random tokens, of the loader for the same calls, and their
ratio (asked: 50): medians of 5 rounds, the two taken in turn in one process. On a CPU they are counted in processor
time, so that other work on the machine falls on neither. The text of 10 GB is a sparse file with a
valid header and manifest: nothing is written, and reading its zeros costs what reading any page in memory does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lmscale.training.allocator import keep_memory

keep_memory()  # before jax is imported, as the command does

import jax  # noqa: E402
from unprepared import unprepared  # noqa: E402

from lmscale.config import MeshConfig, PowerRule, Recipe, Size  # noqa: E402
from lmscale.data.loader import Loader, evaluation_set  # noqa: E402
from lmscale.data.shards import FORMAT, SPLITS, Split, Vocabulary, content_digest, open_shards  # noqa: E402
from lmscale.data.subset import Subset  # noqa: E402
from lmscale.data.writer import SHARD_TOKENS, ShardWriter  # noqa: E402
from lmscale.mesh import make_mesh  # noqa: E402
from lmscale.shapes import shape_of  # noqa: E402
from lmscale.step import Step, Together  # noqa: E402

ROUNDS = 5
BYTES = Vocabulary(class_name="Byte", name="bytes", size=256, eos_id=1, digest="bench")
CASES = ((128, 512, 32), (2048, 32_768, 1), (2048, 131_072, 1))  # sequence, batch in tokens, steps of a call
SIZE = "32x2"  # the smallest of the quickstart
LARGE_TOKENS = 5_000_000_000  # 10 GB as uint16
DOCUMENTS = 100_000_000
ASKED_RATIO, ASKED_SECONDS = 50, 0.2


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    device = jax.devices()[0]
    print(f"jax {jax.__version__} on {device.platform}:{device.device_kind}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        first_batch(sparse(Path(folder) / "large", documents=1000))
        many_documents(sparse(Path(folder) / "many", documents=DOCUMENTS))
        split = written(Path(folder) / "small", tokens=4 * SHARD_TOKENS)
        for sequence, batch_tokens, steps in CASES:
            against_the_step(split, sequence, batch_tokens, steps)
    return 0


def sparse(folder: Path, documents: int) -> Path:
    """A prepared folder of LARGE_TOKENS tokens, all zeros, of which nothing but headers and manifest is written.

    Its documents begin at token 0, but for the last, which is the whole.
    """
    folder.mkdir()
    files = {}
    splits = {}
    for split, tokens in (("train", LARGE_TOKENS), ("heldout", SHARD_TOKENS)):
        shards = [min(SHARD_TOKENS, tokens - start) for start in range(0, tokens, SHARD_TOKENS)]
        arrays = [(f"{i:05d}", "<u2", size) for i, size in enumerate(shards)]
        for part, dtype, size in (*arrays, ("offsets", "<i8", documents + 1), ("bytes", "<i8", documents)):
            path = folder / f"{split}-targets-{part}.npy"
            with path.open("wb") as stream:
                header = {"descr": dtype, "fortran_order": False, "shape": (size,)}
                np.lib.format.write_array_header_1_0(stream, header)
                stream.truncate(stream.tell() + size * np.dtype(dtype).itemsize)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": "not computed"}
        np.load(folder / f"{split}-targets-offsets.npy", mmap_mode="r+")[-1] = tokens
        counts = {"tokens": tokens, "bytes": tokens, "shards": shards, "digest": "not computed"}
        splits[split] = {"documents": documents, "features": {"targets": counts}}
    manifest = {
        "format": FORMAT,
        "digest": content_digest({split: splits[split] for split in SPLITS}),
        "features": {"targets": asdict(BYTES)},
        "splits": splits,
        "slices": {},
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def written(folder: Path, tokens: int) -> Split:
    """Random tokens in documents of 5,000, in shards of the usual size."""
    random = np.random.default_rng(0)
    with ShardWriter(folder, {"targets": BYTES}) as writer:
        for _ in range(tokens // 5000):
            writer.add("train", {"targets": random.integers(2, 256, 5000)}, {"targets": 5000})
        return open_shards(writer.finish({})).train


def loader(text: Split | Subset, sequence: int, batch_tokens: int) -> Loader:
    return Loader(parts=((text, 1.0),), sequence=sequence, batch_sequences=batch_tokens // sequence, seed=0)


def first_batch(folder: Path) -> None:
    began, busy = time.perf_counter(), time.process_time()
    split = open_shards(folder).train
    loader(split, 2048, 65_536).windows(0)
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    size = split.tokens * split.vocabulary.dtype.itemsize / 1e9
    asked = f"asked: {ASKED_SECONDS}"
    print(
        f"first batch of {size:.1f} GB: {seconds:.3f} s after opening ({asked}), {busy:.3f} of a processor", flush=True
    )


def many_documents(folder: Path) -> None:
    """What is held over DOCUMENTS documents, on each side: memory that is no mapped file."""
    shards, before = open_shards(folder), anonymous_bytes()
    loader(shards.train, 2048, 65_536).windows(0)
    drawn = anonymous_bytes() - before
    began = time.perf_counter()
    evaluation_set(shards.heldout, sequence=2048, tokens=131_072)
    seconds, scored = time.perf_counter() - began, anonymous_bytes() - before - drawn
    print(
        f"over {DOCUMENTS:,} documents a side: {drawn / 1e6:.0f} MB more after a batch, {scored / 1e6:.0f} MB more "
        f"after choosing the evaluation set, in {seconds:.1f} s",
        flush=True,
    )


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind, as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def against_the_step(split: Split, sequence: int, batch_tokens: int, steps: int) -> None:
    """A line of tokens/s for one sequence length and batch."""
    shape = shape_of(Size.from_text(SIZE), vocab=BYTES.size)
    h = Recipe(sequence=sequence, batch_tokens=PowerRule(value=batch_tokens)).resolve(shape.params_matrices)
    trajectory = unprepared(shape, h, vocab=BYTES.size, tokenizer="bytes", train_tokens=split.tokens)
    step = Step(
        trajectory, make_mesh(MeshConfig()), microbatches=max(1, h.batch_tokens // 16_384), steps_per_dispatch=steps
    )
    together, data = Together(step, [step.init()]), loader(split, sequence, h.batch_tokens)
    limited = loader(Subset(split, split.tokens // 2, "the text"), sequence, h.batch_tokens)
    batches, rates = data.batches(0, steps), np.zeros(steps, np.float32)

    def train(call: int) -> None:
        jax.block_until_ready(together.advance([batches], [rates], steps))

    def draw(call: int) -> None:
        data.batches(call * steps, (call + 1) * steps)

    def draw_limited(call: int) -> None:
        limited.batches(call * steps, (call + 1) * steps)

    clock = time.process_time if jax.devices()[0].platform == "cpu" else time.perf_counter
    train(0)  # compiles
    seconds: dict[Callable[[int], None], list[float]] = {train: [], draw: [], draw_limited: []}
    for number in range(ROUNDS):
        for run in list(seconds)[:: 1 if number % 2 else -1]:
            calls = 1 if run is train else 32  # of 128 samples in the first case: one pays for a block of 4,096
            began = clock()
            for call in range(calls):
                run(1 + number * calls + call)
            seconds[run].append((clock() - began) / calls)
    tokens = steps * h.batch_tokens
    consumed, drawn, of_limited = (tokens / statistics.median(seconds[run]) for run in seconds)
    print(
        f"sequence {sequence}, batch {h.batch_tokens:,} tokens: the step of {SIZE} takes {consumed:,.0f} tokens/s, the "
        f"loader gives {drawn:,.0f}: {drawn / consumed:,.0f} times (asked: {ASKED_RATIO}); of limited text "
        f"{of_limited:,.0f}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())

"""Counting and scoring n-grams of bytes: MB/s, stored counts, memory, loss against tokens, and equality with KenLM.

    python tests/bench/ngram.py [--lmplz PATH]

The text is Python's standard library, one document in ten held out, in windows of 128 as the loader draws them. Speeds
are of processor time, of one thread. `peak` is what counting held at most, in all: tables, block, sorting, merging.
KenLM's lmplz (github.com/kpu/kenlm, built by cmake) and its Python module (`pip install kenlm`) are run where both are
there. Compared are probabilities under the discounts that lmplz prints, for it takes the last gram of each lower order
by another count when it estimates them (kpu/kenlm#427), and under our own.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np

from lmscale.config import ORDER_MOST
from lmscale.data.loader import EvaluationSet, Loader, evaluation_set
from lmscale.data.python_source import list_python_source
from lmscale.data.shards import Vocabulary, open_shards
from lmscale.data.writer import ShardWriter
from lmscale.ngram import KneserNey, estimate
from lmscale.ngram_counts import NgramCounts

EOS, FIRST_BYTE = 1, 3  # ids as in seqio
BYTES = Vocabulary(class_name="Byte", name="bytes", size=259, eos_id=EOS, digest="bench")
SEQUENCE, ROWS = 128, 64
EVALUATION_TOKENS = 200_000
FIRST_TOKENS = 250_000  # of the ladder of token counts, which doubles
SPREAD = 8_000  # ids further apart by this: grams above order 3 do not fit in 64 bits
KENLM_ORDER, KENLM_TRAINING, KENLM_HELD_OUT = 5, 300_000, 30_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lmplz", help="KenLM's estimator (default: the one on the path)")
    given = parser.parse_args()
    documents = [np.frombuffer(path.read_bytes(), np.uint8) for _, path in list_python_source()[0]]
    documents = [document.astype(np.int32) + FIRST_BYTE for document in documents if len(document)]
    print(f"Python {platform.python_version()}, numpy {np.__version__}; {sum(map(len, documents)) / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory() as folder:
        loader, held_out = prepare(Path(folder), documents)
        windows = loader.batches(0, loader.windows_per_epoch[0] // ROWS)
        speeds("bytes", windows, held_out, BYTES.size)
        far = replace(held_out, tokens=held_out.tokens * SPREAD)
        vocab = BYTES.size * SPREAD
        speeds(f"the same bytes spread over {vocab:,} ids", windows * SPREAD, far, vocab, orders=(ORDER_MOST,))
        losses(windows, held_out)
        compare_with_kenlm(given.lmplz or shutil.which("lmplz"), documents, Path(folder))
    return 0


def prepare(folder: Path, documents: list[np.ndarray]) -> tuple[Loader, EvaluationSet]:
    with ShardWriter(folder / "text", {"targets": BYTES}) as writer:
        for number, document in enumerate(documents):
            split = "heldout" if number % 10 == 9 else "train"
            writer.add(split, {"targets": np.append(document, EOS)}, {"targets": len(document)})
        shards = open_shards(writer.finish({}))
    loader = Loader(parts=((shards.split("train"), 1.0),), sequence=SEQUENCE, batch_sequences=ROWS, seed=0)
    return loader, evaluation_set(shards.split("heldout"), sequence=SEQUENCE, tokens=EVALUATION_TOKENS)


def count(windows: np.ndarray, order: int, vocab: int) -> NgramCounts:
    counts = NgramCounts(order=order, vocab=vocab, eos_id=EOS * vocab // BYTES.size)
    for batch in windows:
        counts.add(batch)
    counts.stored(order)
    return counts


def bits_per_byte(model: KneserNey, held_out: EvaluationSet) -> float:
    nats = model.token_nats(held_out.tokens)
    return float((nats * held_out.weights).sum()) / math.log(2) / held_out.bytes_scored


def speeds(
    name: str, windows: np.ndarray, held_out: EvaluationSet, vocab: int, orders: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
) -> None:
    size, scored = windows[..., 1:].size / 1e6, held_out.weights.size / 1e6
    print(f"\n{name}: {size:.1f} MB counted, {scored:.2f} MB scored\n")
    print(
        "| order | counting, MB/s | estimating, s | scoring, MB/s | stored counts | tables, MB | peak, MB | model, MB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for order in orders:
        began = time.process_time()
        counts = count(windows, order, vocab)
        counted = time.process_time()
        model = estimate(counts)
        estimated = time.process_time()
        model.token_nats(held_out.tokens)
        ended = time.process_time()
        tracemalloc.start()
        count(windows, order, vocab)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        cells = (
            f"{order}",
            f"{size / (counted - began):.1f}",
            f"{estimated - counted:.2f}",
            f"{scored / (ended - estimated):.2f}",
            f"{model.params:,}",
            f"{counts.memory_bytes / 1e6:.1f}",
            f"{peak / 1e6:.0f}",
            f"{model.memory_bytes / 1e6:.1f}",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


def losses(windows: np.ndarray, held_out: EvaluationSet) -> None:
    """Bits per byte at each order, of one pass over the text; and where the discounts did not follow from it."""
    counts, per_batch = NgramCounts(order=ORDER_MOST, vocab=BYTES.size, eos_id=EOS), SEQUENCE * ROWS
    orders = range(1, ORDER_MOST + 1)
    print(f"\nbits per byte of {held_out.tokens_scored:,} held-out tokens (stored counts)\n")
    print("| tokens | " + " | ".join(f"order {order}" for order in orders) + " |")
    print("|---" * (ORDER_MOST + 1) + "|")
    tokens, start, models = FIRST_TOKENS, 0, []
    fallbacks: dict[str, None] = {}  # in order, once
    while start < len(windows):
        stop = min(tokens // per_batch, len(windows))
        for batch in windows[start:stop]:
            counts.add(batch)
        models = [estimate(counts, order) for order in orders]
        for model in models:
            for order, each in enumerate(model.discounts, 1):
                if each.fallback:
                    kind = "counts" if order == model.order else "adjusted counts"
                    fallbacks[f"{kind} of order {order} at {counts.targets:,} tokens"] = None
        cells = [f"{bits_per_byte(model, held_out):.3f} ({model.params:,})" for model in models]
        print(f"| {counts.targets:,} | " + " | ".join(cells) + " |", flush=True)
        tokens, start = tokens * 2, stop
    print("\ndiscounts by fallback: " + ("; ".join(fallbacks) or "none"))
    nats = models[-1].token_nats(held_out.tokens)
    for column in range(8):
        counting = held_out.weights[:, column] > 0
        print(f"target {column + 1} of a window: {nats[counting, column].mean() / math.log(2):.3f} bits", end="; ")
    counting = held_out.weights[:, 8:] > 0
    print(f"those after: {nats[:, 8:][counting].mean() / math.log(2):.3f}")


def compare_with_kenlm(lmplz: str | None, documents: list[np.ndarray], folder: Path) -> None:
    if lmplz is None or importlib.util.find_spec("kenlm") is None:
        missing = "lmplz (--lmplz PATH)" if lmplz is None else "its Python module (pip install kenlm)"
        print(f"\nKenLM: NOT COMPARED, for {missing} is not here", flush=True)
        return
    import kenlm  # pyright: ignore[reportMissingImports]

    ends = np.cumsum([len(document) for document in documents])
    training = documents[: int(np.searchsorted(ends, KENLM_TRAINING))]
    known = np.unique(np.concatenate(training))
    rest = [each for each in documents[len(training) :] if np.isin(each, known).all()]
    held_out = rest[: int(np.searchsorted(np.cumsum([len(each) for each in rest]), KENLM_HELD_OUT)) + 1]
    text, arpa = folder / "text.txt", folder / "model.arpa"
    text.write_text("".join(f"{sentence(each)}\n" for each in training))
    command = [lmplz, "-o", str(KENLM_ORDER), "--discount_fallback", "--vocab_pad", str(BYTES.size), "-S", "1G"]
    command += ["-T", str(folder), "--text", str(text), "--arpa", str(arpa)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    number = r"([0-9.e+-]+)"
    printed = re.findall(rf"^\d+ \d+ D1={number} D2={number} D3\+={number}", done.stderr, re.MULTILINE)
    held = [(float(d1), float(d2), float(d3)) for d1, d2, d3 in printed]
    counts = NgramCounts(order=KENLM_ORDER, vocab=BYTES.size, eos_id=EOS)
    for each in training:
        counts.add(whole(each))
    theirs, ours, own = kenlm.Model(str(arpa)), estimate(counts, held=held), estimate(counts)
    apart, apart_own, compared = 0.0, 0.0, 0
    for each in held_out:
        nats = -math.log(10) * np.array([score for score, _, _ in theirs.full_scores(sentence(each))])
        apart = max(apart, float(np.abs(nats - ours.token_nats(whole(each))[0]).max()))
        apart_own = max(apart_own, float(np.abs(nats - own.token_nats(whole(each))[0]).max()))
        compared += len(nats)
    print(
        f"\nKenLM, order {KENLM_ORDER}, {len(training)} documents: {compared:,} held-out tokens, largest difference "
        f"{apart:.1e} nats with the discounts it prints, {apart_own:.1e} with our own",
        flush=True,
    )


def sentence(document: np.ndarray) -> str:
    return " ".join(map(str, document.tolist()))


def whole(document: np.ndarray) -> np.ndarray:
    """[1, S + 1]: a document between two end-of-sequences."""
    return np.concatenate([[EOS], document, [EOS]]).astype(np.int32)[None]


if __name__ == "__main__":
    sys.exit(main())

"""Cleaning on a generated set: near duplicates found, contamination found, MB/s of every step, bytes held a document.

    python tests/bench/clean.py [--documents 20000]

Asked are a recall above 95 % at a Jaccard similarity of 0.8, a precision above 99 %, and planted contamination found
whole. Speeds are of processor time, so that a busy machine does not change them. datasketch, where it is installed, is
measured beside rensa on the same sets of shingles.
"""

import argparse
import importlib.util
import pickle
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from lmscale.data.clean.contamination import find_overlap
from lmscale.data.clean.duplicates import ORDERED, Duplicates, Fingerprinter
from lmscale.data.clean.near import Shingler
from lmscale.data.clean.pipeline import rules_of
from lmscale.data.clean.settings import STEPS, Cleaning, Contamination, Near, Personal
from lmscale.data.sources import Document

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with", "a", "in", "is", "it", "for", "as", "was", "on")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=20_000)
    count = parser.parse_args().documents
    rng = random.Random(0)
    vocabulary = make_vocabulary(rng, 20_000)
    documents, pairs = make_documents(rng, vocabulary, count)
    size = sum(len(each) for each in documents) / 1e6
    print(f"{len(documents):,} documents, {size:.1f} MB, {len(pairs):,} of them edited copies", flush=True)
    sets = [shingles(text) for text in documents]
    near_duplicates(documents, sets, pairs)
    minhash_libraries(sets)
    speeds(documents[: max(200, count // 10)])
    memory(documents[: max(200, count // 10)])
    contamination(rng, vocabulary, documents)
    return 0


def make_vocabulary(rng: random.Random, size: int) -> list[str]:
    letters = "etaoinshrdlucmfwypvbgk"
    return ["".join(rng.choices(letters, k=rng.randrange(2, 11))) for _ in range(size)]


def make_text(rng: random.Random, vocabulary: list[str], words: int) -> list[str]:
    """Words of Zipf's frequencies among stop words, in sentences and lines."""
    ranks = [int(len(vocabulary) ** rng.random()) - 1 for _ in range(words)]
    made = [rng.choice(STOP_WORDS) if rng.random() < 0.4 else vocabulary[rank] for rank in ranks]
    for place in range(11, words, 12):
        made[place] += ".\n" if place % 5 == 0 else "."
    return made


def make_documents(rng: random.Random, vocabulary: list[str], count: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Texts, a tenth of them copies of an earlier one with some words changed; and which is a copy of which."""
    made: list[list[str]] = []
    pairs = []
    for number in range(count):
        if number % 10 == 9:
            source = number - rng.randrange(1, 9)
            copy = list(made[source])
            for _ in range(max(1, int(len(copy) * rng.uniform(0.002, 0.035)))):
                copy[rng.randrange(len(copy))] = rng.choice(vocabulary)
            pairs.append((source, number))
            made.append(copy)
        else:
            made.append(make_text(rng, vocabulary, rng.randrange(150, 900)))
    return [" ".join(words) for words in made], pairs


def shingles(text: str) -> frozenset[int]:
    """Hashes of the 5-word shingles, by Python's own hash: independent of what is measured."""
    words = text.lower().split()
    return frozenset(hash(tuple(words[i : i + 5])) for i in range(len(words) - 4))


def similarity(first: frozenset[int], second: frozenset[int]) -> float:
    return len(first & second) / len(first | second)


def near_duplicates(documents: list[str], sets: list[frozenset[int]], pairs: list[tuple[int, int]]) -> None:
    cleaning = Cleaning(steps=("near",))
    fingerprint, duplicates = Fingerprinter(cleaning), Duplicates(cleaning)
    began = time.process_time()
    found = {
        number
        for number, text in enumerate(documents)
        if duplicates.judge("near", text, fingerprint(text)).text is None
    }
    seconds = time.process_time() - began
    duplicates.close()
    similar = {copy: similarity(sets[source], sets[copy]) for source, copy in pairs}
    for low, high in ((0.8, 1.01), (0.8, 0.82), (0.82, 0.85), (0.85, 0.9), (0.9, 1.01)):
        true = {copy for copy, value in similar.items() if low <= value < high}
        share = f"{len(true & found) / len(true):.2%}" if true else "none there"
        print(f"near: recall at Jaccard {low} to {min(high, 1)}: {share} of {len(true)}")
    true = {copy for copy, value in similar.items() if value >= 0.8}
    print(f"near: precision {len(found & true) / max(1, len(found)):.2%} of {len(found)} dropped")
    rate = sum(map(len, documents)) / 1e6 / seconds
    print(f"near: {rate:.1f} MB/s in all", flush=True)


def memory(documents: list[str]) -> None:
    """What the steps that see all documents hold of each that is kept."""
    for step in ORDERED:
        cleaning = Cleaning(steps=(step,))
        fingerprint, duplicates = Fingerprinter(cleaning), Duplicates(cleaning)
        made = [(text, pickle.dumps(fingerprint(text))) for text in documents]  # as from another process
        tracemalloc.start()
        kept = sum(duplicates.judge(step, text, pickle.loads(each)).text is not None for text, each in made)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        duplicates.close()
        print(f"{step}: {held / kept:.0f} bytes of memory a kept document", flush=True)


def minhash_libraries(sets: list[frozenset[int]]) -> None:
    """Signatures of 120 permutations of the same sets."""
    some = [np.array(sorted(each), np.int64).view(np.uint64) for each in sets[:2000]]
    shingler: Any = Shingler(Near())
    libraries: dict[str, Callable[[], object]] = {"rensa": lambda: [shingler._bands(each) for each in some]}
    if importlib.util.find_spec("datasketch"):
        from datasketch import MinHash  # pyright: ignore[reportMissingImports]

        def sketch() -> None:
            for each in some:
                MinHash(num_perm=120, scheme="affine64", hashfunc=int).update_batch(each.tolist())

        libraries["datasketch"] = sketch
    for name, work in libraries.items():
        began = time.process_time()
        work()
        rate = sum(map(len, some)) / 1e6 / (time.process_time() - began)
        print(f"MinHash by {name}: {rate:.2f} million shingles/s", flush=True)


def speeds(documents: list[str]) -> None:
    size = sum(map(len, documents)) / 1e6
    for step in STEPS:
        cleaning = Cleaning(steps=(step,), personal=Personal(masked_max=None))
        if step in ORDERED:
            fingerprint, duplicates = Fingerprinter(cleaning), Duplicates(cleaning)
            began = time.process_time()
            for text in documents:
                duplicates.judge(step, text, fingerprint(text))
            duplicates.close()
        else:
            rules = rules_of(step, cleaning)
            began = time.process_time()
            for text in documents:
                rules("", text)
        print(f"{step}: {size / (time.process_time() - began):.1f} MB/s", flush=True)


def contamination(rng: random.Random, vocabulary: list[str], documents: list[str]) -> None:
    """Spans of exactly one gram of every second evaluation document, planted in training documents."""
    evaluation = [" ".join(make_text(rng, vocabulary, 200)) for _ in range(2000)]
    for unit in ("words", "bytes"):
        training, planted = list(documents), {}
        for item in range(0, len(evaluation), 2):
            words = evaluation[item].split()
            start = rng.randrange(len(words) - 13)
            span = (
                " ".join(words[start : start + 13]).upper() if unit == "words" else evaluation[item][start : start + 50]
            )
            host = rng.randrange(len(training))
            training[host] += f"\n{span}\n{training[host][:40]}"
            planted[f"e{item}"] = host
        read: list[float] = []

        def stream(texts: list[str] = training, read: list[float] = read) -> Iterator[Document]:
            read.append(time.process_time())  # the index is made
            yield from named("t", texts)

        began = time.process_time()
        found = find_overlap(stream(), {"set": named("e", evaluation)}, Contamination(unit=unit))
        rate = found.training_bytes / 1e6 / (time.process_time() - read[0])
        size = sum(map(len, evaluation)) / 1e6
        flagged, hosts = set(found.sets["set"].contaminated), set(planted.values())
        print(
            f"contamination by {found.settings.gram} {unit}: {len(flagged & set(planted)) / len(planted):.1%} of "
            f"{len(planted)} planted found, {len(flagged - set(planted))} others flagged; "
            f"{len(hosts & set(found.training.tolist())) / len(hosts):.1%} of {len(hosts)} training documents, "
            f"{len(set(found.training.tolist()) - hosts)} others; {rate:.1f} MB/s, "
            f"after an index of {size:.1f} MB at {size / (read[0] - began):.1f} MB/s",
            flush=True,
        )


def named(name: str, texts: Iterable[str]) -> Iterable[Document]:
    return (Document(name=f"{name}{number}", text=text.encode()) for number, text in enumerate(texts))


if __name__ == "__main__":
    sys.exit(main())

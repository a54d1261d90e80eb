"""Seconds and memory of training a vocabulary of each kind on 10 MB of Python sources, and of reading with it.

    python tests/bench/tokenizers.py                    # all kinds; or some: python tests/bench/tokenizers.py bpe:4096

Each kind in a process of its own. Seconds are of a processor, for machines that do other things too.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from lmscale.data.python_source import list_package_source, list_python_source
from lmscale.data.tokenizer_training import train_model
from lmscale.data.training_sample import Sample, sentences
from lmscale.data.vocabulary_kind import VocabularyKind

BYTES = 10_000_000
KINDS = ("char", "word:4096", "unigram:4096", "bpe:4096")
PACKAGES = ("numpy", "scipy", "pandas", "matplotlib")


def text() -> Iterator[bytes]:
    """The standard library, then packages, up to BYTES."""
    files = [*list_python_source()[0], *list_package_source(PACKAGES)[0]]
    total = 0
    for _, path in files:
        content = path.read_bytes()
        total += len(content)
        if total > BYTES:
            return
        yield content


def measure(kind: str) -> None:
    from sentencepiece import SentencePieceProcessor

    sample = Sample()
    for document in text():
        sample.add(document)
    documents = sample.documents()
    before, began, clock = _peak_megabytes(), time.process_time(), time.monotonic()
    model = train_model(VocabularyKind.from_text(kind) or sys.exit(f"{kind} is no kind"), sentences(documents))
    trained, clock, peak = time.process_time() - began, time.monotonic() - clock, _peak_megabytes()
    processor = SentencePieceProcessor()
    processor.LoadFromSerializedProto(model)
    began = time.process_time()
    tokens = [processor.Encode(document) for document in documents]
    read = time.process_time() - began
    assert all(processor.Decode(ids) == document.decode() for ids, document in zip(tokens, documents, strict=True))
    print(
        f"{kind}: {processor.GetPieceSize()} pieces, {len(documents)} documents, {sample.bytes / 1e6:.1f} MB; "
        f"trained in {trained:.1f} s ({clock:.0f} s by the clock), {peak:.0f} MB at most ({before:.0f} MB before); "
        f"{sample.bytes / sum(map(len, tokens)):.2f} bytes a token, read at {sample.bytes / read / 1e6:.1f} MB/s, "
        f"all read back",
        flush=True,
    )


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # Linux counts in kB


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2])
    else:
        for each in sys.argv[1:] or KINDS:
            subprocess.run([sys.executable, __file__, "--one", each], check=True)

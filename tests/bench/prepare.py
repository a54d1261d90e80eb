"""What preparing a large text takes: MB/s of a core, memory of the largest process, the same with any number of them.

    python tests/bench/prepare.py [--megabytes 2000] [--folder DIR]

Makes a text of JSON lines in a temporary folder, and SentencePiece models for it, which read its first tenth. Every
preparation is the command that lmscale itself starts, and is counted whole, from the first look at the file to the last
byte of the shards. `MB/s of a core` are MB of text by second of processor time, of all its processes together; with one
process that is nearly what the clock says, unless others use the machine. `memory` is the largest resident size that
any of its processes had. Asked are 20 MB/s of a core for bytes and 3 for SentencePiece, and less than 1 GB.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SHARE = 10  # of the text that is read with SentencePiece: one part in so many
TASK = """
import json, seqio, tensorflow as tf
def rows():
    with open({text!r}, encoding="utf-8") as stream:
        for line in stream:
            yield {{"targets": json.loads(line)["text"]}}
def dataset(split, shuffle_files, seed=None):
    return tf.data.Dataset.from_generator(rows, output_signature={{"targets": tf.TensorSpec((), tf.string)}})
feature = seqio.Feature(seqio.SentencePieceVocabulary({model!r}), add_eos=True)
seqio.TaskRegistry.add("mine", seqio.FunctionDataSource(dataset, splits=["train"]), {{"targets": feature}},
                       preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos])
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000, help="size of the text (default 2000)")
    parser.add_argument("--folder", help="where to make it (default: the folder of temporary files)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        text, small = folder / "text.jsonl", folder / "small.jsonl"
        make_text(text, given.megabytes * 1_000_000)
        make_text(small, given.megabytes * 1_000_000 // SHARE)
        models = {kind: train(folder, small, kind) for kind in ("bpe", "unigram")}
        (folder / "my_task.py").write_text(TASK.format(text=str(small), model=models["bpe"]))
        print(f"text: {text.stat().st_size / 1e6:.0f} MB of JSON lines, {os.cpu_count()} cores", flush=True)
        show("bytes", {"files": [str(text)]}, folder)
        for kind, model in models.items():
            show(f"SentencePiece {kind}", {"files": [str(small)], "vocabulary": model}, folder)
        mine = {"task": "mine", "module": "my_task"}
        show("a seqio Task, SentencePiece bpe", mine, folder, processes=(1,))
        for ending in ("jsonl", "txt"):
            long_line(folder / f"long.{ending}", text)
            skipping = {"files": [str(folder / f"long.{ending}")], "on_bad": "skip"}
            show(f"a line of 1 GB in .{ending}, skipped", skipping, folder, processes=(1,))
    return 0


def make_text(path: Path, size: int) -> None:
    """Documents of 200 to 30,000 characters, cut out of the Python sources at hand: `size` bytes of file."""
    from lmscale.config import Corpus
    from lmscale.data.sources import documents

    texts = [d.text.decode() for task in ("python_source", "package_source") for d in documents(Corpus(task=task))]
    draw, pool = random.Random(0), "\n".join(texts)
    written = number = 0
    with path.open("w", encoding="utf-8") as stream:
        while written < size:
            start = draw.randrange(len(pool) - 30_000)
            body = pool[start : start + draw.randint(200, 30_000)]
            written += stream.write(json.dumps({"text": f"{number} {body}\n"}) + "\n")
            number += 1


def train(folder: Path, text: Path, kind: str) -> str:
    from sentencepiece import SentencePieceTrainer

    with text.open(encoding="utf-8") as stream:
        texts = [json.loads(next(stream))["text"] for _ in range(200)]
    SentencePieceTrainer.Train(
        sentence_iterator=(line for each in texts for line in each.splitlines()), model_prefix=str(folder / kind),
        vocab_size=8000, model_type=kind, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        minloglevel=2,
    )  # fmt: skip
    return str(folder / f"{kind}.model")


def long_line(path: Path, text: Path) -> None:
    """The first 100 MB of the text around a line of 1 GB."""
    with text.open("rb") as stream, path.open("wb") as out:
        lines = stream.readlines(100_000_000)
        out.writelines(lines[: len(lines) // 2])
        for _ in range(1000):
            out.write(b"x" * 1_000_000)
        out.write(b"\n")
        out.writelines(lines[len(lines) // 2 :])


def show(title: str, corpus: dict, folder: Path, processes: tuple[int, ...] = (1, 4)) -> None:
    digests = []
    for count in processes:
        out = folder / "out"
        taken = prepare(corpus, out, count, folder)
        manifests = [json.loads(path.read_text()) for path in out.glob("*/manifest.json")]
        assert len(manifests) == 1, manifests
        digests.append((manifests[0]["digest"], sorted(e["sha256"] for e in manifests[0]["files"].values())))
        size = sum(split["features"]["targets"]["bytes"] for split in manifests[0]["splits"].values()) / 1e6
        rate = f"{size / taken.processor_seconds:.1f} MB/s of a core"
        left_out = {name: n for name, n in manifests[0]["source"].get("left_out", {}).items() if n}
        print(
            f"{title}, {count} process{'es' if count > 1 else ''}: {size:.0f} MB in {taken.seconds:.1f} s, {rate}, "
            f"memory {taken.megabytes:.0f} MB, digest {digests[-1][0][:16]}"
            + (f", left out {left_out}" if left_out else ""),
            flush=True,
        )
        shutil.rmtree(out)
    if len(digests) > 1:
        same = "the same" if digests[0] == digests[1] else "OTHER"
        print(f"{title}: {same} files from {' and '.join(map(str, processes))} processes", flush=True)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """By a command: seconds of the clock, of processors, and the megabytes that its largest process had in memory."""

    seconds: float
    processor_seconds: float
    megabytes: float


def prepare(corpus: dict, out: Path, processes: int, folder: Path) -> Taken:
    """Raises CalledProcessError."""
    command = [sys.executable, "-P", "-m", "lmscale.data.prepare", json.dumps(corpus), str(out)]
    command += ["--processes", str(processes)]
    paths = [str(Path(__file__).resolve().parents[2]), str(folder)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    began = time.monotonic()
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as child:
        largest = Largest(child.pid)
        _, status, usage = os.wait4(child.pid, 0)  # with that of the processes that it waited for
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        largest.stop()
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    processor_seconds = usage.ru_utime + usage.ru_stime
    return Taken(seconds=seconds, processor_seconds=processor_seconds, megabytes=largest.megabytes)


class Largest(threading.Thread):
    """Watches the resident memory of the processes of a session, as the kernel keeps their highest (VmHWM)."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self._session, self._done, self.megabytes = session, threading.Event(), 0.0
        self.start()

    def run(self) -> None:
        while not self._done.wait(0.1):
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    if os.getsid(int(process.name)) != self._session:
                        continue
                    lines = (process / "status").read_text().splitlines()
                except OSError:
                    continue
                high = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
                self.megabytes = max(self.megabytes, *(kilobytes * 1024 / 1e6 for kilobytes in high), 0.0)

    def stop(self) -> None:
        self._done.set()
        self.join()


if __name__ == "__main__":
    sys.exit(main())

"""Runs a seqio Task once and writes its tokens as shards. `python -m lmscale.data.prepare` is the child process.

seqio and TensorFlow are imported inside `prepare` alone, so that a training process can call `ensure_prepared`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources
from lmscale.data.facts import Facts
from lmscale.data.heldout import heldout_share
from lmscale.data.shards import FEATURE, FORMAT, open_shards
from lmscale.data.writer import ShardWriter

Echo = Callable[[str], None]

PROGRESS_SECONDS = 2.0


def prepared_folder(corpus: Corpus, root: Path) -> tuple[Path, str]:
    """Where `corpus` belongs below `root`, and the fingerprint of its source; reads the text, not TensorFlow.

    The folder's name hashes all that changes the tokens: documents, Task, hold-out share, format. For a user's Task the
    documents are not known without running it, so its module's source stands for them.
    """
    if corpus.files or corpus.task in sources.BUILT_IN:
        fingerprint = sources.survey(corpus).fingerprint
    else:
        fingerprint = sources.module_fingerprint(corpus.module)
    settings = [FORMAT, corpus.name, None if corpus.files else corpus.module, corpus.heldout, fingerprint]
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in corpus.name)
    return root / f"{name}-{key}", fingerprint


def find_prepared(corpus: Corpus, root: Path) -> Path | None:
    """The prepared folder of `corpus` below `root`, or None.

    Raises:
        InputError: the folder is there but damaged; or the text itself cannot be read.
    """
    return _complete(prepared_folder(corpus, root)[0])


def ensure_prepared(corpus: Corpus, root: Path, *, echo: Echo) -> Path:
    """The prepared folder of `corpus`, made in a child process if need be: TensorFlow never enters this one.

    Raises:
        InputError: what `prepare` raises, also when it is raised in the child.
        ChildProcessError: the child ended in another way, such as by a signal.
    """
    if corpus.module is None and not corpus.files and corpus.task not in sources.BUILT_IN:
        raise InputError(
            f"corpus.task: {corpus.task!r} is no built-in corpus; did you mean {', '.join(sources.BUILT_IN)}? "
            "A Task of your own also needs --corpus.module, where it is registered"
        )
    if (found := find_prepared(corpus, root)) is not None:
        return found
    echo(f"prepare {corpus.name}: starting TensorFlow and seqio, once per corpus (some seconds)")
    _run_child(corpus, root, echo)
    if (found := find_prepared(corpus, root)) is None:
        raise _changed(corpus)
    return found


def prepare(corpus: Corpus, root: Path, *, echo: Echo) -> Path:
    """Runs the Task's `train` split once, writes the prepared folder below `root` and returns it.

    A document is held out when the SHA-256 of its content, as a fraction of all hashes, is below `corpus.heldout`:
    adding text moves none from one side to the other, and equal documents share a side. Two processes that prepare
    the same corpus take turns, and the second finds the work done. A Mixture gives each of its Tasks once.

    Raises:
        InputError: unknown Task or module; a Task without `train` split, `targets` or integer tokens; one that fails;
            no document on one side; a root that cannot be written.
    """
    folder, fingerprint = prepared_folder(corpus, root)
    try:
        with _lock(folder, echo):
            if (found := _complete(folder)) is not None:
                return found
            for stale in folder.parent.glob(f".{folder.name}.tmp-*"):
                shutil.rmtree(stale, ignore_errors=True)  # of a killed preparation: this process holds the lock
            return _prepare(corpus, folder, fingerprint, echo)
    except OSError as error:
        raise InputError(
            f"out: {str(folder.parent)!r} cannot be written ({error.strerror or error}); choose another with --out"
        ) from error


def _prepare(corpus: Corpus, folder: Path, fingerprint: str, echo: Echo) -> Path:
    import seqio

    from lmscale.data import tasks

    task = tasks.find_task(corpus)
    if isinstance(task, seqio.Mixture):
        echo(f"prepare {corpus.name}: a Mixture; each of its Tasks is prepared once, its rates do not act")
    started = shown = time.monotonic()
    dropped, size, lowest = 0, 0, 1.0
    with ShardWriter(folder, tasks.vocabularies(task)) as writer:
        for example in tasks.examples(task):
            if len(example.tokens[FEATURE]) == 0:
                dropped += 1
                continue
            share = heldout_share(example.content)
            writer.add("heldout" if share < corpus.heldout else "train", example.tokens, example.text_bytes)
            lowest, size = min(lowest, share), size + example.text_bytes[FEATURE]
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                echo(_progress(corpus, writer, size, shown - started))
        _check_sides(corpus, writer, lowest)
        echo(_progress(corpus, writer, size, time.monotonic() - started) + ", done")
        if corpus.files:
            echo(f"prepare files: a text longer than {sources.CHUNK_BYTES} bytes is cut into documents at line ends")
        source: dict[str, Any] = {"fingerprint": fingerprint, "module": corpus.module, "dropped_empty": dropped}
        if corpus.files or corpus.task in sources.BUILT_IN:
            survey = sources.survey(corpus)
            if survey.fingerprint != fingerprint:
                raise _changed(corpus)
            source["left_out"] = survey.left_out
        return writer.finish(
            {
                "corpus": corpus.name,
                "task": task.name,
                "heldout": corpus.heldout,
                "source": source,
                "versions": {
                    "python": platform.python_version(),
                    **{name: importlib.metadata.version(name) for name in ("seqio", "tensorflow")},
                },
            }
        )


def _check_sides(corpus: Corpus, writer: ShardWriter, lowest: float) -> None:
    train, heldout = writer.documents("train"), writer.documents("heldout")
    where = f"corpus.heldout: {corpus.heldout} leaves"
    if train + heldout == 0:
        raise InputError(f"corpus.task: {corpus.task!r} gives no documents; mend it")
    if heldout == 0:
        enough = math.floor(lowest * 100 + 1) / 100
        mend = f"raise it to {enough:.2f} or bring more text" if enough < 0.5 else "bring more text"
        raise InputError(f"{where} no document to evaluate on among {train}; {mend}")
    if train == 0:
        raise InputError(f"{where} no document to train on among {heldout}; bring more text")


def _progress(corpus: Corpus, writer: ShardWriter, size: int, seconds: float) -> str:
    documents = writer.documents("train") + writer.documents("heldout")
    rate = size / 1e6 / max(seconds, 1e-9)
    return f"prepare {corpus.name}: {documents} documents, {size / 1e6:.1f} MB, {rate:.1f} MB/s"


def _changed(corpus: Corpus) -> InputError:
    return InputError(f"corpus: the text of {corpus.name!r} changed while it was prepared; run the command again")


def _complete(folder: Path) -> Path | None:
    try:
        present = folder.is_dir()
    except OSError as error:
        raise InputError(f"out: {str(folder)!r} cannot be read ({error.strerror}); choose another with --out") from None
    return open_shards(folder).folder if present else None


@contextlib.contextmanager
def _lock(folder: Path, echo: Echo) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            echo(f"prepare: another process is preparing {folder.name}; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)  # the kernel releases it when that process ends, however it ends
        yield


def _run_child(corpus: Corpus, root: Path, echo: Echo) -> None:
    package_root = str(Path(__file__).resolve().parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([package_root, *(entry for entry in sys.path if entry), os.getcwd()]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",  # the training process needs the whole device
        "JAX_PLATFORMS": "cpu",
    }
    # -P: the folder a user works in comes last, for corpus.module, lest an analysis.py of theirs hides ours
    command = [sys.executable, "-P", "-m", "lmscale.data.prepare", json.dumps(asdict(corpus)), str(root)]
    # A file, not a pipe: nobody reads it while the child runs, and a full pipe would block it
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, text=True, env=environment
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                echo(line.rstrip("\n"))
            status = child.wait()
        except BaseException:
            child.kill()
            child.wait()
            raise
        errors.seek(0)
        lines = [line.strip() for line in errors if line.strip()]
    if status == 2 and (messages := [line for line in lines if line.startswith("error: ")]):
        raise InputError(messages[-1].removeprefix("error: "))
    if status != 0:
        last = lines[-1] if lines else "it wrote nothing"
        raise ChildProcessError(f"preparing {corpus.name!r} ended with status {status}: {last}")


def main(arguments: list[str] | None = None) -> int:
    """Prepares the corpus given as JSON. Exit status 2 and one line on standard error for an InputError."""
    parser = argparse.ArgumentParser(prog="python -m lmscale.data.prepare", description=main.__doc__)
    parser.add_argument("corpus", help="fields of lmscale.config.Corpus as JSON")
    parser.add_argument("root", type=Path, help="folder to hold the prepared folder")
    given = parser.parse_args(arguments)
    try:
        fields = json.loads(given.corpus)
        facts = Facts(**fields["facts"]) if fields.get("facts") else None
        corpus = Corpus(**{**fields, "files": tuple(fields.get("files", ())), "facts": facts})
        prepare(corpus, given.root, echo=lambda line: print(line, flush=True))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Prepares corpora: each of their Tasks is run once, and its tokens written. `python -m lmscale.data.prepare` does it.

TensorFlow is loaded for the Tasks of users and for TFDS alone (lmscale.data.tasks), and in the child, so that a
training process can call `ensure_prepared`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data import sources, tfds_folder
from lmscale.data.preparation import Echo, lock
from lmscale.data.prepare_own import prepare_own
from lmscale.data.prepare_task import prepare_task
from lmscale.data.prepared import (
    Part,
    Place,
    complete,
    find_own_place,
    find_prepared,
    member_place,
    own_place,
    task_place,
    unknown_task,
    write_parts,
)
from lmscale.data.shards import open_shards
from lmscale.data.train_vocabulary import train_vocabulary
from lmscale.executors.cores import cores
from lmscale.study.typed import build


def ensure_prepared(corpus: Corpus, root: Path, *, echo: Echo, processes: int | None = None) -> tuple[Part, ...]:
    """The prepared Tasks of `corpus`, made in a child process if need be: TensorFlow never enters this one.

    `processes` tokenise side by side; none: as many as there are cores.

    Raises:
        InputError: what `prepare` raises, also when it is raised in the child.
        ChildProcessError: the child ended in another way, such as by a signal.
    """
    if corpus.module is None and not sources.is_own(corpus):
        raise unknown_task(corpus.task, sources.BUILT_IN, module=False)
    if (found := find_prepared(corpus, root)) is not None:
        return found
    _check_seqio(corpus)
    if not sources.is_own(corpus):
        echo(f"prepare {corpus.name}: starting TensorFlow and seqio, once per corpus (some seconds)")
    _run_child(corpus, root, processes, echo)
    if (found := find_prepared(corpus, root)) is None:
        raise InputError(f"corpus: the text of {corpus.name!r} changed while it was prepared; run the command again")
    return found


def prepare(corpus: Corpus, root: Path, *, echo: Echo, processes: int | None = None) -> tuple[Part, ...]:
    """Writes the prepared folders of `corpus` below `root`, one for each of its Tasks, and returns them.

    A document is held out when the SHA-256 of its content, as a fraction of all hashes, is below `corpus.heldout`:
    adding text moves none from one side to the other, and equal documents share a side. Two processes that prepare
    the same corpus take turns, and the second finds the work done; one that was killed is gone on with.

    Raises:
        InputError: unknown Task or module; a Task without `train` split, `targets` or integer tokens; one that fails;
            a document that is bad; no document on one side; a root that cannot be written.
        ChildProcessError: a process that tokenises ended by itself.
    """
    processes = processes or cores()
    try:
        if sources.is_own(corpus):
            if corpus.task.startswith(tfds_folder.PREFIX) and not corpus.files and tfds_folder.find(corpus) is None:
                from lmscale.data.tfds_source import fetch_tfds

                fetch_tfds(corpus)  # first, for its place follows its content
            if (place := find_own_place(corpus, root)) is None:
                train_vocabulary(corpus, root, echo, processes)
                place = own_place(corpus, root)
            _once(place, echo, lambda place: prepare_own(place, echo, processes))
            return (Part(name=corpus.name, rate=1.0, folder=place.folder),)
        return _prepare_tasks(corpus, root, echo, processes)
    except OSError as error:
        if isinstance(error, ChildProcessError):
            raise
        raise InputError(
            f"out: {str(root)!r} cannot be written ({error.strerror or error}); choose another with --out"
        ) from error


def _prepare_tasks(corpus: Corpus, root: Path, echo: Echo, processes: int) -> tuple[Part, ...]:
    from lmscale.data import tasks

    task = tasks.find_task(corpus)
    members = tasks.members(task)
    if members[0].task is task:
        place = task_place(corpus, root)
        _once(place, echo, lambda place: prepare_task(place, members[0].task, echo, processes))
        return (Part(name=task.name, rate=1.0, folder=place.folder),)
    parts = []
    echo(f"prepare {corpus.name}: a Mixture of {len(members)} Tasks, each of which is prepared once")
    for member in members:
        name, made = member.task.name, member.task
        place = member_place(corpus, name, root)
        own = sources.is_own(place.corpus)
        _once(
            place,
            echo,
            lambda place, own=own, made=made: (
                prepare_own(place, echo, processes) if own else prepare_task(place, made, echo, processes)
            ),
        )
        parts.append(Part(name=name, rate=member.rate, folder=place.folder))
    _check_vocabularies(corpus, parts)
    write_parts(corpus, root, {part.name: part.rate for part in parts})
    return tuple(parts)


def _check_seqio(corpus: Corpus) -> None:
    """Raises InputError where a corpus is read by seqio, and that is not installed."""
    of_tfds = corpus.task.startswith(tfds_folder.PREFIX) and not corpus.files
    if (of_tfds or not sources.is_own(corpus)) and find_spec("seqio") is None:
        extra = "tfds" if of_tfds else "train"
        raise InputError(f"corpus.task: {corpus.task!r} needs seqio and TensorFlow; pip install 'lmscale[{extra}]'")


def _once(place: Place, echo: Echo, make: Callable[[Place], Path]) -> None:
    with lock(place.folder, echo):
        if not complete(place.folder):
            made = make(place)
            assert made == place.folder


def _check_vocabularies(corpus: Corpus, parts: list[Part]) -> None:
    first, *others = ((part.name, open_shards(part.folder).train.vocabulary) for part in parts)
    for name, vocabulary in others:
        if vocabulary.digest != first[1].digest:
            raise InputError(
                f"corpus.task: {corpus.task!r} mixes {first[0]!r} in vocabulary {first[1].name!r} with {name!r} in "
                f"{vocabulary.name!r}; give its Tasks one vocabulary"
            )


def _run_child(corpus: Corpus, root: Path, processes: int | None, echo: Echo) -> None:
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
    command += ["--processes", str(processes)] if processes else []
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
    parser.add_argument("--processes", type=int, help="that tokenise side by side (default: one a core)")
    given = parser.parse_args(arguments)
    try:
        corpus = build(Corpus, json.loads(given.corpus))
        prepare(corpus, given.root, echo=lambda line: print(line, flush=True), processes=given.processes)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ChildProcessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

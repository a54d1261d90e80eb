"""Faults of files, done to lmscale from outside and counted: damage, torn lines, disks that are full."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from workers import Counts, Worker, command, goes_on, share_text, uninterrupted

from lmscale.checkpoint import Checkpoints, CorruptCheckpoint
from lmscale.store.files import Lines
from lmscale.training import packing


def corruptions(count: int, seed: int, folder: Path) -> Counts:
    """Bits flipped, ranges zeroed, files cut or removed in a checkpoint: none may be restored as if nothing were. Half
    of them in a small state that was packed, half in one of many arrays.
    """
    counts, randomly = Counts("corrupt checkpoints", seed), random.Random(seed)
    for form, limit in (("packed", packing.PACKED_BYTES), ("array by array", 0)):
        with mock.patch.object(packing, "PACKED_BYTES", limit):
            _corrupt(-(-count // 2), folder / form, randomly, counts)
    assert "RESTORED WRONG" not in counts.done, counts
    return counts


def _corrupt(count: int, folder: Path, randomly: random.Random, counts: Counts) -> None:
    said: list[str] = []
    tree = {"a": jnp.arange(300.0), "b": {"c": jnp.ones((16, 16)), "n": jnp.int32(7)}}
    checkpoints = Checkpoints(folder, said.append)
    checkpoints.save(10, jax.tree.map(lambda x: x * 2, tree), keep=True)
    checkpoints.save(20, tree, keep=False)
    newest = folder / "000000020"
    sound = {path: path.read_bytes() for path in sorted(newest.rglob("*")) if path.is_file() and path.stat().st_size}
    for number in range(count):
        path = randomly.choice(list(sound))
        how = _damage(path, sound[path], randomly)
        try:
            restored = checkpoints.restore(20, tree)
        except CorruptCheckpoint:
            counts.add(f"{how}, seen")
            if number % 100 == 0:
                step, before = checkpoints.restore_latest(tree, 100) or (0, None)
                assert step == 10
                assert before is not None
                assert np.asarray(before["b"]["c"])[3, 3] == 2
                os.replace(newest.with_name(f"{newest.name}.corrupt"), newest)
                counts.add("fell back to the one before")
        else:  # white space of the manifest
            equal = all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (restored, tree)), strict=True))
            counts.add("without effect" if equal else "RESTORED WRONG")
        path.write_bytes(sound[path])
    assert said


def _damage(path: Path, content: bytes, randomly: random.Random) -> str:
    how = randomly.choice(("bit flipped", "range zeroed", "cut", "removed"))
    changed, place = bytearray(content), randomly.randrange(len(content))
    if how == "bit flipped":
        changed[place] ^= 1 << randomly.randrange(8)
    elif how == "range zeroed":
        end = min(len(content), place + randomly.randrange(1, 64))
        changed[place:end] = b"\1" * (end - place) if not any(changed[place:end]) else bytes(end - place)
    elif how == "cut":
        del changed[place:]
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(changed)
    return how


# `lmscale` with no file beyond argv[1] bytes
LIMITED = """
import resource, runpy, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = sys.argv[1:]
runpy.run_module("lmscale.cli", run_name="__main__")
"""


def full_disk(study: Path, limits: list[int], folder: Path) -> Counts:
    """No file may grow beyond a limit (RLIMIT_FSIZE): the worker says so, and what was saved before is of use."""
    counts, wanted = Counts("disk full", 0), uninterrupted(study)
    for limit in limits:
        out = folder / f"out{limit}"
        share_text(study, out)
        arguments = command(study, out, "--checkpoint-seconds", "0.2")
        worker = Worker([sys.executable, "-c", LIMITED, str(limit), *arguments[3:]])
        counts.add("limits")
        if worker.end() == 0:
            counts.add("nothing grew so large")
        else:
            _is_said(worker)
            counts.add("status 74, one line")
        goes_on(study, out, wanted)
        counts.add("went on to the same bits")
    return counts


def full_mount(study: Path, sizes: list[int], folder: Path) -> Counts:
    """A file system (tmpfs) of so many KiB is full, and then larger. Raises PermissionError where it cannot be had."""
    counts, wanted = Counts("file system full", 0), uninterrupted(study)
    out = folder / "mount"
    out.mkdir(parents=True)
    for size in sizes:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(out)])
        if mounted.returncode:
            raise PermissionError("mount: tmpfs cannot be mounted here")
        try:
            share_text(study, out)
            worker = Worker(command(study, out, "--checkpoint-seconds", "0.2"))
            if worker.end() == 0:
                counts.add("had room for all")
            else:
                _is_said(worker)
                counts.add("status 74, one line")
            subprocess.run(["mount", "-o", "remount,size=64m", str(out)], check=True)
            goes_on(study, out, wanted)
            counts.add("went on to the same bits")
        finally:
            subprocess.run(["umount", str(out)], check=True)
    assert counts.done["status 74, one line"] > len(sizes) / 2, counts
    return counts


def _is_said(worker: Worker) -> None:
    assert worker.process.returncode == 74, worker.errors
    # the last, whole, after what a thread of tensorstore may have to say
    assert re.fullmatch(r"lmscale: out: '.*' cannot be written \([A-Z][a-z ]+\); make room, .*\n", worker.errors[-1])
    assert len(worker.errors) <= 12, worker.errors


# appends lines to argv[1], from the number argv[2] on, and says each when it is there
APPENDER = """
import sys
from pathlib import Path
from lmscale.store.files import Lines
lines, number = Lines(Path(sys.argv[1])), int(sys.argv[2])
while True:
    lines.append({"step": number, "text": "x" * 3000})
    print(number, flush=True)
    number += 1
"""


def torn_appends(count: int, seed: int, folder: Path) -> Counts:
    """SIGKILLs while lines are appended to a file: none that was said is lost, and the next appends are sound."""
    counts, randomly, lines = Counts("kills while appending", seed), random.Random(seed), Lines(folder / "lines.jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    following = 0
    for number in range(count):
        if number % 50 == 0:
            lines.path.unlink(missing_ok=True)  # or reading it takes longer and longer
            following = 0
        process = subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(lines.path), str(following)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(randomly.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0].split()
        counts.add("kills")
        counts.add("lines torn", int(lines.path.read_bytes()[-1:] != b"\n"))
        steps = [row["step"] for row in lines.read()]
        assert steps == list(range(len(steps))), steps
        counts.add("lines said and lost", int(bool(said) and steps[-1] < int(said[-1])))
        following = steps[-1] + 1
    assert counts.done["lines said and lost"] == 0, counts
    return counts

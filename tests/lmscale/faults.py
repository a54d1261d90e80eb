"""Faults, done to lmscale from outside and counted: a few of each in test_faults.py, many in `make soak`."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from workers import (
    Worker,
    command,
    digits,
    environment,
    kill_holder,
    make_study,
    share_text,
    start_sweep,
    uninterrupted,
)

from lmscale import packing
from lmscale.checkpoint import Checkpoints, CorruptCheckpoint
from lmscale.files import Lines
from lmscale.records import Workspace


@dataclass
class Counts:
    """What a soak prints."""

    name: str
    seed: int
    done: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, count: int = 1) -> None:
        self.done[what] = self.done.get(what, 0) + count

    def __str__(self) -> str:
        said = ", ".join(f"{count:,} {what}" for what, count in self.done.items())
        return f"{self.name} (seed {self.seed}): {said}"


def commits(folder: Path) -> Iterator[Path]:
    """What is being written at this moment: files and folders under a temporary name."""
    for pattern in ("trajectories/*/checkpoints/.*", "runs/*/*/.0*", "runs/*/.record.json.*"):
        yield from folder.glob(pattern)


def kills(study: Path, count: int, seed: int, folder: Path) -> Counts:
    """SIGKILLs at random moments, every third one while something is being committed; each sweep is brought to its end
    and compared with one that nobody touched.
    """
    counts, randomly, wanted = Counts("SIGKILL", seed), random.Random(seed), uninterrupted(study)
    done = sweeps = 0
    while done < count:
        out = folder / f"out{sweeps}"
        sweeps += 1
        share_text(study, out)
        acknowledged: set[str] = set()
        while True:
            worker = Worker(command(study, out, "--checkpoint-seconds", "0.2"))
            if done < count and worker.wait_for("progress"):
                aimed = done % 3 == 2
                killed = _aim(worker, out / "small") if aimed else _wait(worker, randomly.uniform(0, 3))
                if killed:
                    worker.kill()
                    done += 1
                    counts.add("kills")
                    counts.add("aimed at a commit", int(aimed))
            status = worker.end()
            acknowledged |= set(worker.acknowledged)
            assert status in (0, -signal.SIGKILL), worker.errors
            if status == 0:
                break
        found = digits(Workspace(out, "small"))
        counts.add("sweeps brought to their end")
        counts.add("equal to the bit", int(found == wanted))
        counts.add("records lost", len(acknowledged - found.keys()))
        claims = list((out / "small").glob("trajectories/*/claims/*.json"))
        counts.add("attempts", len(claims))
    assert counts.done["equal to the bit"] == counts.done["sweeps brought to their end"], counts
    assert counts.done["records lost"] == 0, counts
    return counts


def _wait(worker: Worker, seconds: float) -> bool:
    """False if the worker ended within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if worker.process.poll() is not None:
            return False
        time.sleep(0.005)
    return worker.process.poll() is None


def _aim(worker: Worker, folder: Path) -> bool:
    """Until something is being committed; False if the worker ends first."""
    while worker.process.poll() is None:
        if next(commits(folder), None) is not None:
            return True
    return False


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


# the clock is as many seconds off as the file argv[1] says at that moment, or argv[1] itself
CLOCK = """
import sys, time
from pathlib import Path
def shift(said=Path(sys.argv[1]), true=time.time):
    return true() + float(said.read_text() if said.exists() else said.name)
for name in ("gmtime", "localtime", "strftime"):
    def shifted(*given, function=getattr(time, name), moments=name == "strftime"):
        moment = time.localtime() if moments else time.time()
        return function(*given) if len(given) > moments else function(*given, moment)
    setattr(time, name, shifted)
time.time = shift
"""
DAY = 86_400.0

# a launcher: for each round it is told, it tries to take the trajectory, waits, and commits a record
LAUNCHER = (
    CLOCK
    + """
import os
from lmscale import leases
from lmscale.files import write_json
leases.BEAT_SECONDS, leases.LEASE_SECONDS, leases.SAFE_SECONDS = 0.05, 1.0, 0.5
leases.Owner.is_gone = property(lambda self: False)  # as if each were a host of its own
root = Path(sys.argv[2])
print("ready", flush=True)
for line in sys.stdin:
    office, said = leases.Leases(lambda name: root / name, "soak"), "passed over"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not list(root.glob(f"{line.strip()}-*.json")):
        lease = office.take(line.strip(), "0")
        if lease is None:
            time.sleep(0.02)
            continue
        print("taken", flush=True)
        time.sleep(0.1)
        try:
            lease.check()
            # named after the token: nothing but the lease keeps two from committing
            write_json(root / f"{line.strip()}-{lease.claim.token}.json", {"pid": os.getpid()})
            said = "committed"
        except leases.LeaseLost:
            said = "lost"
        lease.release()
        break
    print(said, flush=True)
"""
)


def launchers(count: int, rounds: int, seed: int, folder: Path) -> Counts:
    """`count` processes want one trajectory; in each round the one that takes it is paused past its lease. The clocks
    of two in three are a day off.
    """
    counts = Counts(f"{count} launchers", seed)
    folder.mkdir(parents=True, exist_ok=True)
    many = [
        subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str((0.0, DAY, -DAY)[number % 3]), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for process in many:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for number in range(rounds):
            _round(many, folder, f"t{number}", counts)
    finally:
        for process in many:
            process.kill()
            process.communicate()
    assert counts.done["rounds with exactly one commit"] == rounds, counts
    return counts


def _round(many: list[subprocess.Popen], folder: Path, name: str, counts: Counts) -> None:
    said: dict[int, str] = {}
    paused = threading.Event()

    def follow(index: int) -> None:
        process = many[index]
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{name}\n")
        process.stdin.flush()
        while (line := process.stdout.readline().strip()) == "taken":
            if not paused.is_set():
                paused.set()
                process.send_signal(signal.SIGSTOP)
                time.sleep(2.0)  # twice its lease
                process.send_signal(signal.SIGCONT)
                counts.add("paused past the lease")
        said[index] = line

    threads = [threading.Thread(target=follow, args=(index,)) for index in range(len(many))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    commits = len(list(folder.glob(f"{name}-*.json")))
    counts.add("rounds with exactly one commit", int(commits == 1))
    counts.add("double commits", int(commits > 1))
    for word in said.values():
        counts.add(word)


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
        _goes_on(study, out, wanted)
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
            worker.end()
            _is_said(worker)
            counts.add("status 74, one line")
            subprocess.run(["mount", "-o", "remount,size=64m", str(out)], check=True)
            _goes_on(study, out, wanted)
            counts.add("went on to the same bits")
        finally:
            subprocess.run(["umount", str(out)], check=True)
    return counts


def _is_said(worker: Worker) -> None:
    assert worker.process.returncode == 74, worker.errors
    assert worker.errors[-1].startswith("lmscale: out: "), worker.errors
    assert len(worker.errors) <= 12, worker.errors  # the line, after what a thread of tensorstore may have to say


def _goes_on(study: Path, out: Path, wanted: dict[str, Any]) -> None:
    """The same command, undisturbed, ends with what an uninterrupted one made."""
    again = Worker(command(study, out))
    assert again.end() == 0, again.errors
    assert digits(Workspace(out, "small")) == wanted


def clocks(study: Path, shifts: list[float], folder: Path) -> Counts:
    """The clock of a worker jumps while it trains; it is killed, and another goes on whose clock is right."""
    counts, wanted = Counts("clock jumps", 0), uninterrupted(study)
    for number, shift in enumerate(shifts):
        out, said = folder / f"out{number}", folder / f"shift{number}"
        share_text(study, out)
        said.write_text("0")
        arguments = command(study, out, "--checkpoint-seconds", "0.2")[3:]
        lmscale = f"{CLOCK}import runpy; sys.argv = sys.argv[1:]; runpy.run_module('lmscale.cli', run_name='__main__')"
        worker = Worker([sys.executable, "-c", lmscale, str(said), *arguments])
        assert worker.wait_for("progress")
        said.write_text(str(shift))
        assert worker.wait_for("done")
        worker.kill()
        worker.end()
        (record,) = Workspace(out, "small").records()
        ahead = datetime.fromisoformat(record["finished"]).timestamp() - time.time()
        assert abs(ahead - shift) < 600
        _goes_on(study, out, wanted)
        counts.add(f"jumps of {shift / DAY:+.0f} days, went on to the same bits")
    return counts


# appends lines to argv[1], from the number argv[2] on, and says each when it is there
APPENDER = """
import sys
from pathlib import Path
from lmscale.files import Lines
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


def goodput(study: Path, seconds: float, every: float, folder: Path) -> Counts:
    """A sweep whose worker is killed every so many seconds: the time that its steps would have taken undisturbed, over
    the time that it lived.
    """
    counts = Counts(f"goodput under a SIGKILL every {every:.0f} s", 0)
    share_text(study, folder)
    worker = Worker(command(study, folder, "--name", "calm"))
    assert worker.wait_for("start")
    time.sleep(min(30.0, seconds / 4))
    worker.kill()
    worker.end()
    rates = sorted(e["tokens_per_second"] for e in worker.events if e["event"] == "progress")
    step_seconds = 256 / rates[len(rates) // 2]

    began, kills = time.monotonic(), 0
    sweep, workspace = start_sweep(study, folder), Workspace(folder, "small")
    while time.monotonic() - began < seconds - every / 2:
        time.sleep(every)
        kill_holder(workspace)
        kills += 1
    time.sleep(every / 2)
    sweep.send_signal(signal.SIGTERM)
    said, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 130, said
    (trunk,) = workspace.root.glob("trajectories/*/trunk.jsonl")
    steps = Lines(trunk).read()[-1]["step"]
    counts.add("kills", kills)
    counts.add("steps kept", steps)
    counts.add("percent of the time were useful steps", round(100 * steps * step_seconds / (time.monotonic() - began)))
    return counts


# what a process with eight devices does: python -c MESHES STUDY FOLDER PAIR...
MESHES = """
import sys
from pathlib import Path
import faults
faults.change_meshes(Path(sys.argv[1]), [tuple(pair.split("/")) for pair in sys.argv[3:]], Path(sys.argv[2]))
"""


def mesh_changes(pairs: list[tuple[str, str]], folder: Path) -> Counts:
    """A trajectory saved on one mesh and resumed on another: the state is the same to the bit, and what follows the
    same to 1e-5. In a process with eight devices.
    """
    study = make_study(folder / "study", size="width=64, depth=1, heads=8")
    words = ["/".join(pair) for pair in pairs]
    done = subprocess.run(
        [sys.executable, "-c", MESHES, str(study), str(folder), *words],
        env=environment(8) | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    furthest = max(float(line) for line in done.stdout.split())
    counts = Counts("changed meshes", 0)
    counts.add("pairs, state equal to the bit", len(pairs))
    counts.add(f"of them beyond 1e-5 after it (the furthest {furthest:.1e})", 0)
    assert len(done.stdout.split()) == len(pairs)
    assert furthest <= 1e-5
    return counts


def change_meshes(path: Path, pairs: list[tuple[str, str]], folder: Path) -> None:
    """Prints for each pair how far the losses of eight steps on the second mesh are from those on the first."""
    from lmscale.assemble import assemble
    from lmscale.config import MeshConfig
    from lmscale.mesh import make_mesh
    from lmscale.optim import learning_rates
    from lmscale.step import Step, Together
    from lmscale.studies import load_study

    assembly = assemble(load_study(str(path)), path.parent, lambda line: None)
    t = assembly.plan[0]
    loader = assembly.loader(t)

    def make(mesh: str) -> Step:
        data, fsdp, tensor = map(int, mesh.split(","))
        there = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
        return Step(t, there, microbatches=1, steps_per_dispatch=8)

    def go_on(step: Step, together: Together, start: int) -> np.ndarray:
        windows = np.stack([loader.windows(i, step.rows) for i in range(start, start + 8)])
        rates = learning_rates(t.hyperparameters, start, start + 8, steps=None, branch_step=0)
        return np.asarray(together.advance([windows], [rates], 8)[0])

    steps = {mesh: make(mesh) for mesh in dict.fromkeys(mesh for pair in pairs for mesh in pair)}
    for number, (first, second) in enumerate(pairs):
        together = Together(steps[first], [steps[first].init(0)])
        go_on(steps[first], together, 0)
        checkpoints = Checkpoints(folder / str(number))
        checkpoints.save(8, together.model(0), keep=True)
        saved = jax.tree.map(np.asarray, together.model(0))
        restored = checkpoints.restore(8, steps[second].abstract_state)
        for x, y in zip(*map(jax.tree.leaves, (saved, restored)), strict=True):
            assert x.tobytes() == np.asarray(y).tobytes(), (first, second)
        stayed, changed = go_on(steps[first], together, 8), go_on(steps[second], Together(steps[second], [restored]), 8)
        print(float(np.max(np.abs(changed / stayed - 1))), flush=True)

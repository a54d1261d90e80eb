"""Faults of processes, done to lmscale from outside and counted: a few of each in test_faults.py, many in the soak."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from workers import (
    Counts,
    Worker,
    command,
    digits,
    environment,
    goes_on,
    kill_holder,
    make_study,
    share_text,
    start_sweep,
    uninterrupted,
)

from lmscale.records import Workspace
from lmscale.store.files import Lines


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
from lmscale.work import leases
from lmscale.store.files import write_json
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
        goes_on(study, out, wanted)
        counts.add(f"jumps of {shift / DAY:+.0f} days, went on to the same bits")
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
    study = make_study(folder / "study", size="width=64, depth=2, heads=8")
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
    import jax
    import numpy as np

    from lmscale.checkpoint import Checkpoints
    from lmscale.config import MeshConfig
    from lmscale.mesh import make_mesh
    from lmscale.optim import learning_rates
    from lmscale.planning.assemble import assemble
    from lmscale.step import Step, Together
    from lmscale.study.studies import load_study

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

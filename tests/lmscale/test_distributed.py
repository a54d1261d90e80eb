"""`lmscale run` in two processes of four CPU devices each, for real: the same loss as one process, stopped, killed."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import workers

from lmscale import DISK, OUT_OF_MEMORY
from lmscale.checkpoint import PACKED, Checkpoints
from lmscale.cli import main
from lmscale.config import MeshConfig
from lmscale.mesh import make_mesh
from lmscale.planning.assemble import assemble
from lmscale.records import Workspace
from lmscale.step import Step
from lmscale.study.studies import load_study, override

# eight heads: a tensor axis through both processes fits
SMALL = ["--sizes", "64x1x8", "--tokens", "4096,8192", "--recipe.sequence", "16", "--recipe.batch-tokens.value", "128"]
SMALL += [
    "--eval-tokens",
    "1024",
    "--recipe.warmup-tokens",
    "512",
    "--recipe.cooldown-steps-min",
    "2",
    "--steps-per-dispatch",
    "4",
]


@pytest.fixture
def out(study, tmp_path) -> Path:
    return share(study, tmp_path)


def share(study: Path, folder: Path) -> Path:
    (folder / "shards").symlink_to(study.parent / "out" / "shards")
    return folder


@pytest.fixture(scope="module")
def alone(study, tmp_path_factory) -> Workspace:
    """The study trained by one process on one device."""
    out = share(study, tmp_path_factory.mktemp("alone"))
    assert main(["run", str(study), "--out", str(out), *SMALL]) == 0
    return Workspace(out, "small")


def start(study: Path, out: Path, *arguments: object) -> list[subprocess.Popen]:
    """`lmscale run` in two processes; each makes the CPU devices that are its share of the mesh."""
    words = ["-m", "lmscale.cli", "run", study, "--out", out, "--events", *SMALL, *arguments]
    return launch([str(word) for word in words], 60)


def launch(arguments: list[str], timeout: int) -> list[subprocess.Popen]:
    """Python with these arguments in the two processes of a job."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = {"LMSCALE_COORDINATOR": f"127.0.0.1:{port}", "LMSCALE_PROCESSES": "2", "LMSCALE_TIMEOUT": str(timeout)}
    variables = workers.environment() | variables
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=variables | {"LMSCALE_PROCESS": str(process)},
        )
        for process in range(2)
    ]


def events(process: subprocess.Popen) -> Iterator[dict]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.JSONDecoder().raw_decode(line)[0]  # Gloo prints as well


def ends(processes: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    """Their exit statuses and what they said on standard error."""
    said = [process.communicate(timeout=600)[1] for process in processes]
    return [process.returncode for process in processes], said


@pytest.fixture(scope="module")
def compare(study, alone) -> Callable[[Workspace], None]:
    """compare(found): held-out losses and final parameters of every run, beside those of one process."""
    (trajectory,) = assemble(override(load_study(str(study)), SMALL), alone.root.parent, print).plan
    step = Step(trajectory, make_mesh(MeshConfig()), microbatches=1, steps_per_dispatch=1)
    like = {"params": step.abstract_state.params}  # on one device, whatever it was saved from
    wanted = {record["row"]["run_id"]: record for record in alone.records()}

    def restored(workspace: Workspace, run_id: str) -> Any:
        return Checkpoints(workspace.run(run_id) / "final").restore(wanted[run_id]["steps"], like)

    def compare(found: Workspace) -> None:
        records = {record["row"]["run_id"]: record for record in found.records()}
        assert records.keys() == wanted.keys()
        for run_id, record in records.items():
            assert record["row"]["loss_nats"] == pytest.approx(wanted[run_id]["row"]["loss_nats"], rel=1e-5)
            for a, b in zip(*(jax.tree.leaves(restored(each, run_id)) for each in (found, alone)), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-4)

    return compare


@pytest.mark.long
def test_one_of_two_is_killed_and_a_sweep_of_two_goes_on(study, out, alone, compare, capfd, monkeypatch):
    mesh = ["--mesh", "2,2,2"]
    processes = start(study, out, *mesh, "--checkpoint-seconds", "1e-9")
    progress = 0
    for event in events(processes[0]):
        progress += event["event"] == "progress"
        if progress == 2:
            processes[1].send_signal(signal.SIGKILL)
            break
    statuses, said = ends(processes)
    assert statuses == [1, -signal.SIGKILL], said
    assert said[0].strip().splitlines()[-1].startswith("lmscale: process 1 of 2 died or hangs (silent for 10 s)")
    trunk = Checkpoints(next((out / "small" / "trajectories").iterdir()) / "checkpoints")
    assert max(trunk.steps()) >= 4
    # so that each of its processes makes four devices
    monkeypatch.setenv("XLA_FLAGS", workers.environment()["XLA_FLAGS"])
    assert main(["sweep", str(study), "--out", str(out), "--processes", "2", *SMALL, *mesh]) == 0, capfd.readouterr()
    found = Workspace(out, "small")
    compare(found)
    assert {record["row"]["mesh"] for record in found.records()} == {"2,2,2"}
    curve = (out / "small" / "curves.csv").read_text().splitlines()
    expected = (alone.root / "curves.csv").read_text().splitlines() if alone.export() else []
    assert len(curve) == len(expected) > 8  # no line twice, none missing


@pytest.mark.long
def test_sigterm_to_one_stops_both_and_one_process_goes_on(study, out, compare):
    processes = start(study, out, "--mesh", "1,1,8")  # the tensor axis runs through both: each holds every row
    for event in events(processes[0]):
        if event["event"] == "progress":
            processes[1].send_signal(signal.SIGTERM)
            break
    statuses, said = ends(processes)
    assert statuses == [130, 130], said
    assert Workspace(out, "small").records() == []
    trunk = Checkpoints(next((out / "small" / "trajectories").iterdir()) / "checkpoints")
    assert len(trunk.steps()) == 1
    before = time.time()
    assert main(["run", str(study), "--out", str(out), *SMALL]) == 0
    assert all(path.stat().st_mtime > before for path in out.glob("small/runs/*/record.json"))
    compare(Workspace(out, "small"))


def test_a_job_of_two_goes_on_with_what_one_process_began(study, out, compare):
    """On one device a small state is packed; each process of the job takes its parts of it."""
    arguments = [*SMALL, "--checkpoint-seconds", "1e-9"]
    one = workers.Worker(workers.command(study, out, *arguments), workers.environment())
    assert one.wait_for("progress")
    one.process.send_signal(signal.SIGTERM)
    assert one.end() == 130, one.errors
    assert len(Workspace(out, "small").records()) < 2
    assert list((out / "small" / "trajectories").glob(f"*/checkpoints/*/{PACKED}"))
    statuses, said = ends(start(study, out, "--mesh", "1,2,1"))
    assert statuses == [0, 0], said
    compare(Workspace(out, "small"))
    assert {tuple(record["meshes"]) for record in Workspace(out, "small").records()} == {("1,1,1", "1,2,1")}


def test_a_mesh_that_is_not_all_devices(study, out):
    statuses, said = ends(start(study, out, "--mesh", "1,1,1"))
    assert statuses == [2, 2], said
    for text in said:
        last = text.strip().splitlines()[-1]
        for word in ("mesh: '1,1,1'", "1 of the 2 devices", "2 processes", "such as 2,1,1"):
            assert word in last


def test_half_set_variables_and_a_silent_coordinator_end_the_command(study, out, monkeypatch, capsys):
    monkeypatch.setenv("LMSCALE_PROCESSES", "2")
    assert main(["run", str(study), "--out", str(out)]) == 2
    assert "LMSCALE_COORDINATOR: is not set, but LMSCALE_PROCESSES is" in capsys.readouterr().err
    assert main(["sweep", str(study), "--out", str(out)]) == 2
    assert "start 'lmscale run' in every process" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("LMSCALE_COORDINATOR", f"127.0.0.1:{port}")
    monkeypatch.setenv("LMSCALE_PROCESS", "1")
    monkeypatch.setenv("LMSCALE_TIMEOUT", "1")
    assert main(["run", str(study), "--out", str(out)]) == 2
    assert "does not answer" in capsys.readouterr().err
    monkeypatch.setenv("LMSCALE_PROCESS", "0")
    assert main(["run", str(study), "--out", str(out)]) == 2
    assert "1 of 2 processes came" in capsys.readouterr().err


FAILING = """
import os, runpy
if os.environ["LMSCALE_PROCESS"] == "1":
{}
runpy.run_module("lmscale.cli", run_name="__main__")
"""
FULL = """
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
"""
SHORT = """
    import lmscale.step
    def advance(*arguments):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 48 bytes")
    lmscale.step.Together.advance = advance
"""


@pytest.mark.long
def test_a_disk_or_a_memory_that_is_full_in_one_process_ends_the_job_by_its_name(study, tmp_path):
    """In all processes the status by which a sweep knows what happened."""
    words = ["run", str(study), "--events", *SMALL, "--mesh", "2,1,1", "--checkpoint-seconds", "1e-9", "--out"]
    pairs = {}
    for name, fault in (("disk", FULL), ("memory", SHORT)):  # at once: most of the time is waiting
        (tmp_path / name).mkdir()
        pairs[name] = launch(["-c", FAILING.format(fault), *words, str(share(study, tmp_path / name))], 60)
    expected = {"disk": (DISK, "out: "), "memory": (OUT_OF_MEMORY, "decoder-64x1-s0")}
    for name, (status, line) in expected.items():
        statuses, said = ends(pairs[name])
        assert statuses == [status, status], (name, said)
        assert said[0].strip().splitlines()[-1].startswith(f"lmscale: process 1 of 2 failed: {line}"), said
        assert said[1].strip().splitlines()[-1].startswith(f"lmscale: {line}"), said


TOGETHER = """
import os, sys, time
from analysis.errors import InputError
from lmscale.processes import distributed
from lmscale.processes.job import find_job
with distributed.joined(find_job(os.environ)):
    number = distributed.decide(lambda: int(os.environ["LMSCALE_PROCESS"]))
    distributed.barrier()
    stopping, due = distributed.agree(os.environ["LMSCALE_PROCESS"] == "1", distributed.leads())
    print("together", number, due, flush=True)
    if os.environ["LMSCALE_PROCESS"] == sys.argv[1]:
        raise InputError("field: 1 is wrong; give 2")
    time.sleep(300)
"""


CASES = {  # which process is sent what (None: it raises), what the other says, and its status
    "killed": (1, signal.SIGKILL, "lmscale: process 1 of 2 died or hangs (silent for 15 s); the others stop", 1),
    "hangs": (1, signal.SIGSTOP, "lmscale: process 1 of 2 died or hangs (silent for 15 s); the others stop", 1),
    "first killed": (0, signal.SIGKILL, "lmscale: process 1 of 2 was killed, or aborted by jax because", -6),
    "first hangs": (0, signal.SIGSTOP, "lmscale: process 0 at 127.0.0.1", 1),
    "fails": (1, None, "lmscale: process 1 of 2 failed: field: 1 is wrong; give 2", 2),
    "first fails": (0, None, "lmscale: process 0 of 2 failed: field: 1 is wrong; give 2", 2),
}


@pytest.mark.long
def test_whoever_ends_a_job_is_named_by_the_others():
    pairs = {}  # all cases at once: most of the time is waiting
    for name, (who, number, _, _) in CASES.items():
        pairs[name] = launch(["-c", TOGETHER, "-" if number else str(who)], 15)
    try:
        for name, (who, number, _, _) in CASES.items():
            for process in pairs[name]:
                assert process.stdout is not None
                assert next(line for line in process.stdout if not line.startswith("[")) == "together 0 True\n", name
            if number is not None:
                pairs[name][who].send_signal(number)
        for name, (who, number, line, status) in CASES.items():
            other = pairs[name][1 - who]
            text = other.communicate(timeout=600)[1]
            assert text.strip().splitlines()[-1].startswith(line), (name, text)
            assert other.returncode == status, (name, text)
            if number is None:
                assert pairs[name][who].communicate(timeout=600)[1] == "lmscale: field: 1 is wrong; give 2\n"
                assert pairs[name][who].returncode == 2
    finally:
        for process in (process for pair in pairs.values() for process in pair):
            process.kill()
            process.communicate()

"""`lmscale run` in two processes of four CPU devices each, for real: the same loss as one process, stopped, killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from lmscale.checkpoint import Checkpoints
from lmscale.cli import main
from lmscale.records import Workspace

# eight heads: a tensor axis through both processes fits
SMALL = ["--sizes", "64x1x8", "--tokens", "8192,16384", "--recipe.sequence", "16", "--recipe.batch-tokens.value", "128"]
SMALL += ["--eval-tokens", "1024", "--steps-per-dispatch", "4"]


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


def start(study: Path, out: Path, *arguments: object, timeout: int = 60) -> list[subprocess.Popen]:
    """`lmscale run` in two processes; each makes the CPU devices that are its share of the mesh."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "lmscale.cli", "run", study, "--out", out, "--events", *SMALL, *arguments]
    return [
        subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env
            | {
                "LMSCALE_COORDINATOR": f"127.0.0.1:{port}",
                "LMSCALE_PROCESSES": "2",
                "LMSCALE_PROCESS": str(process),
                "LMSCALE_TIMEOUT": str(timeout),
            },
        )
        for process in range(2)
    ]


def events(process: subprocess.Popen) -> Iterator[dict]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield json.loads(line)


def ends(processes: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    """Their exit statuses and what they said on standard error."""
    said = [process.communicate(timeout=300)[1] for process in processes]
    return [process.returncode for process in processes], said


def compare(found: Workspace, alone: Workspace) -> None:
    """Held-out losses and final parameters of every run."""
    wanted = {record["row"]["run_id"]: record for record in alone.records()}
    records = {record["row"]["run_id"]: record for record in found.records()}
    assert records.keys() == wanted.keys()
    for run_id, record in records.items():
        assert record["row"]["loss_nats"] == pytest.approx(wanted[run_id]["row"]["loss_nats"], rel=1e-5)
        final = [restore(workspace, run_id, record["steps"]) for workspace in (found, alone)]
        for a, b in zip(*map(jax.tree.leaves, final), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def restore(workspace: Workspace, run_id: str, step: int):
    import orbax.checkpoint as ocp

    folder = Checkpoints(workspace.run(run_id) / "final").folder / f"{step:09d}" / "state"
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(folder.absolute())


def test_one_of_two_is_killed_and_a_sweep_of_two_goes_on(study, out, alone, capfd, monkeypatch):
    mesh = ["--mesh", "2,2,2"]
    processes = start(study, out, *mesh, "--checkpoint-seconds", "1e-9", timeout=4)
    progress = 0
    for event in events(processes[0]):
        progress += event["event"] == "progress"
        if progress == 3:
            processes[1].send_signal(signal.SIGKILL)
            break
    statuses, said = ends(processes)
    assert statuses == [1, -signal.SIGKILL], said
    assert said[0].strip().splitlines()[-1].startswith("lmscale: process 1 of 2 died or hangs (silent for 4 s)")
    trunk = Checkpoints(next((out / "small" / "trajectories").iterdir()) / "checkpoints")
    assert max(trunk.steps()) >= 4
    monkeypatch.delenv("XLA_FLAGS")  # so that each of its processes makes four devices
    assert main(["sweep", str(study), "--out", str(out), "--processes", "2", *SMALL, *mesh]) == 0, capfd.readouterr()
    found = Workspace(out, "small")
    compare(found, alone)
    assert {record["row"]["mesh"] for record in found.records()} == {"2,2,2"}
    curve = (out / "small" / "curves.csv").read_text().splitlines()
    expected = (alone.root / "curves.csv").read_text().splitlines() if alone.export() else []
    assert len(curve) == len(expected) > 10  # no line twice, none missing


def test_sigterm_to_one_stops_both_and_one_process_goes_on(study, out, alone):
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
    compare(Workspace(out, "small"), alone)


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

"""Sweeps on Ray, the real one: a cluster for the sweep, a cluster by address, workers killed from outside."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from engines import GRID, same, share, train_here

from analysis.errors import InputError
from lmscale.config import ExecutorConfig
from lmscale.executors import ray
from lmscale.executors.base import make_executor
from lmscale.records import Workspace
from lmscale.study.studies import load_study, override

# two trajectories of two runs, a checkpoint a call: there is time to kill


@pytest.fixture(scope="module", autouse=True)
def _engine(without_engine):
    if find_spec("ray") is None:
        without_engine("ray", "the package ray is not installed; pip install 'lmscale[ray]'")
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # of the cluster by address


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def local(study, tmp_path_factory) -> Workspace:
    """The grid trained here."""
    return train_here(study, tmp_path_factory.mktemp("local"))


def test_a_cluster_for_the_sweep(study, tmp_path, local):
    out = share(study, tmp_path / "out")
    command = [sys.executable, "-m", "lmscale.cli", "sweep", str(study), "--out", str(out), *GRID]
    done = subprocess.run([*command, "--executor.name", "ray"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 runs trained, 0 were done before" in done.stdout
    same(Workspace(out, "small"), local)


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A cluster of two cores that somebody has started."""
    port = free_port()
    words = [f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--include-dashboard=false", "--block"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head"]
    log = tmp_path_factory.mktemp("ray") / "log"
    with open(log, "w") as file:
        process = subprocess.Popen([*command, *words], stdout=file, stderr=file, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while "Ray runtime started" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()  # it ends what it has started
            process.wait(timeout=60)


def workers(out: Path) -> list[int]:
    """Process ids of `lmscale run` that work on a folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:  # it has ended
                continue
            if b"--events" in words and str(out).encode() in words:
                found.append(int(folder.name))
    return sorted(found)


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.long
def test_killed_workers_go_on_from_their_checkpoints(study, tmp_path, local, address):
    out = share(study, tmp_path / "out")
    config = ["--executor.name", "ray", "--executor.address", address]
    made = override(load_study(str(study)), [*GRID, *config])
    begun, killed, said = 0, [], []
    with make_executor(made, out / "small") as executor:
        assert executor.default_workers(8, 1) == 2
        for event in executor.run([str(study), "--out", str(out), *GRID], 2, 1, lambda: 0):
            if event.status is not None:
                assert event.status == 0, event.stderr
            elif event.message["event"] == "say":
                said.append(event.message["line"])
            elif event.message["event"] == "progress":
                begun += 1
                if begun == 3:  # `lmscale run` itself
                    killed.append(workers(out)[0])
                    os.kill(killed[-1], signal.SIGKILL)
                elif len(killed) == 1 and any("was lost" in line for line in said):  # Ray's process around another
                    killed.append(parent(next(p for p in workers(out) if p not in killed)))
                    os.kill(killed[-1], signal.SIGKILL)
    assert len(killed) == 2
    assert len([line for line in said if "Ray has started it again" in line]) == 2
    same(Workspace(out, "small"), local)


@pytest.mark.long
def test_a_sweep_that_is_asked_to_stop_stops_its_tasks(study, tmp_path, address, local):
    out = share(study, tmp_path / "out")
    command = [sys.executable, "-m", "lmscale.cli", "sweep", str(study), "--out", str(out), *GRID, "--workers", "3"]
    command += ["--executor.name", "ray", "--executor.address", address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line.startswith("first step") for line in process.stdout), process.communicate()[1]
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "goes on from here" in stderr
    assert workers(out) == []
    assert list(out.glob("small/trajectories/*/checkpoints/*/manifest.json"))


def refused(study: Path, folder: Path, **settings) -> str:
    made = override(load_study(str(study)), [])
    object.__setattr__(made, "executor", ExecutorConfig(name="ray", **settings))
    with pytest.raises(InputError) as error, make_executor(made, folder) as executor:
        list(executor.run([], 1, 1, lambda: 0))
    return str(error.value)


def test_what_a_cluster_does_not_have_is_refused(study, tmp_path, address):
    line = refused(study, tmp_path, address=address, gpus=3)
    assert line.startswith("executor.gpus: '3' is more than any node of the cluster has (0)")
    line = refused(study, tmp_path, address=address, cpus=9)
    assert line.startswith("executor.cpus: '9' is more than any node of the cluster has (2)")
    line = refused(study, tmp_path, address=address, memory_bytes=1e18)
    assert line.startswith("executor.memory_bytes: '1e+18' is more than any node")


def test_addresses_that_cannot_be(study, tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "ADDRESS_SECONDS", 3.0)
    assert "does not answer" in refused(study, tmp_path, address=f"127.0.0.1:{free_port()}")
    assert "does not answer" in refused(study, tmp_path, address=f"ray://127.0.0.1:{free_port()}")
    assert "is not an address" in refused(study, tmp_path, address="cluster")
    with socket.create_server(("127.0.0.1", 0)) as server:  # something answers, but it is not Ray
        assert "does not answer" in refused(study, tmp_path, address=f"127.0.0.1:{server.getsockname()[1]}")

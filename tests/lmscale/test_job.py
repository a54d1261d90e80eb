"""Where a job comes from, and who comes to it: variables, Slurm, TPU metadata; the roll call over real sockets."""

import socket
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest
from jax._src.clusters import cloud_tpu_cluster

from analysis.errors import InputError
from lmscale import __version__
from lmscale.processes.job import Job, find_job
from lmscale.processes.rollcall import call_roll

EXPLICIT = {"LMSCALE_COORDINATOR": "10.0.0.1:1234", "LMSCALE_PROCESSES": "4", "LMSCALE_PROCESS": "2"}
SLURM = {
    "SLURM_JOB_ID": "4100",
    "SLURM_STEP_NODELIST": "node[003-004]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


def test_explicit_variables_come_first(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    job = Job(coordinator="10.0.0.1:1234", processes=4, process=2, timeout_seconds=7)
    assert find_job({**EXPLICIT, "LMSCALE_TIMEOUT": "7"}) == job
    assert find_job({"LMSCALE_PROCESSES": "1"}) is None
    assert Job(coordinator="[fe80::1]:80", processes=2, process=0, timeout_seconds=1).address == ("fe80::1", 80)


def test_a_slurm_step_is_read_as_jax_reads_it(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    job = find_job(SLURM)
    assert job is not None
    # jax's documented choice of a port: one of the last 4096, by the number of the job
    assert job.coordinator == f"node003:{65535 - 4096 + 1 + 4100 % 4096}"
    assert (job.processes, job.process, job.local_devices) == (2, 1, (0,))
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert find_job(SLURM) is None


def test_a_tpu_slice_is_read_as_jax_reads_it(monkeypatch):
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost,other,third")
    monkeypatch.setenv("TPU_WORKER_ID", "2")
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "1")
    monkeypatch.setenv("MEGASCALE_SLICE_ID", "0")
    monkeypatch.setenv("MEGASCALE_COORDINATOR_ADDRESS", "localhost")
    job = find_job({})
    assert job is not None
    assert (job.coordinator, job.processes, job.process, job.local_devices) == ("localhost:8482", 3, 2, None)
    assert find_job({"JAX_PLATFORMS": "cpu"}) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"LMSCALE_PROCESS": None}, ["LMSCALE_PROCESS:", "not set", "every process"]),
        ({"LMSCALE_COORDINATOR": None}, ["LMSCALE_COORDINATOR:", "not set"]),
        ({"LMSCALE_COORDINATOR": None, "LMSCALE_PROCESSES": None}, ["not set", "LMSCALE_PROCESS is"]),
        ({"LMSCALE_COORDINATOR": "host"}, ["LMSCALE_COORDINATOR", "'host'", "host:port"]),
        ({"LMSCALE_COORDINATOR": "host:99999"}, ["LMSCALE_COORDINATOR", "host:port"]),
        ({"LMSCALE_PROCESS": "4"}, ["LMSCALE_PROCESS", "'4'", "0 to 3", "number them from 0"]),
        ({"LMSCALE_PROCESS": "-1"}, ["LMSCALE_PROCESS", "'-1'"]),
        ({"LMSCALE_PROCESSES": "two"}, ["LMSCALE_PROCESSES", "'two'"]),
        ({"LMSCALE_TIMEOUT": "0"}, ["LMSCALE_TIMEOUT", "'0'", "seconds"]),
    ],
)
def test_variables_that_cannot_be(changes, words):
    variables = {name: value for name, value in {**EXPLICIT, **changes}.items() if value is not None}
    with pytest.raises(InputError) as error:
        find_job(variables)
    for word in words:
        assert word in str(error.value)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def answer(port: int, process: int, processes: int, seconds: int = 20) -> str:
    """What the roll call says to one process: '' if all have come."""
    coordinator = f"127.0.0.1:{port}"
    try:
        call_roll(Job(coordinator=coordinator, processes=processes, process=process, timeout_seconds=seconds))
    except InputError as error:
        return str(error)
    return ""


def test_all_come(port):
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(answer, port, process, 4) for process in (3, 1)]  # before process 0 is there
        stranger = pool.submit(shout, port)
        first = pool.submit(answer, port, 0, 4)
        assert "another job" in stranger.result()
        assert answer(port, 2, 4) == first.result() == others[0].result() == others[1].result() == ""


def shout(port: int) -> str:
    """A stranger's call, repeated until somebody answers."""
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"GET / HTTP/1.1\n")
                return connection.makefile().readline()
        except ConnectionRefusedError:
            time.sleep(0.05)


def test_whoever_is_missing_is_named(port):
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(answer, port, 2, 4)
        line = answer(port, 0, 4, 1)
        assert line == waiting.result()
    for words in ("LMSCALE_PROCESSES", "2 of 4 processes", "within 1 s", "missing: 1, 3", "LMSCALE_TIMEOUT"):
        assert words in line


def test_a_coordinator_that_does_not_answer(port):
    line = answer(port, 1, 2, 1)
    for words in ("LMSCALE_COORDINATOR", f"127.0.0.1:{port}", "does not answer", "1 s", "start process 0"):
        assert words in line


def test_processes_that_disagree_are_turned_away(port):
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(answer, port, 0, 3)
        assert "LMSCALE_PROCESSES: 5 in process 4, 3 in process 0" in answer(port, 4, 5)
        twins = [pool.submit(answer, port, 2, 3) for _ in range(2)]
        done, _ = wait(twins, return_when=FIRST_COMPLETED)
        assert "LMSCALE_PROCESS: 2 came twice" in done.pop().result()
        assert answer(port, 1, 3) == first.result() == ""
        assert sorted(twin.result() for twin in twins)[0] == ""


def test_another_version_is_turned_away(port):
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(answer, port, 0, 2)
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(b"lmscale 0.0.0 1 2\n")
                    said = connection.makefile().readline()
                    break
            except ConnectionRefusedError:
                time.sleep(0.05)
        assert answer(port, 1, 2) == first.result() == ""
    assert "0.0.0" in said
    assert __version__ in said


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = answer(server.getsockname()[1], 0, 2, 1)
    assert "cannot be opened in process 0" in line
    assert "choose a free port" in line

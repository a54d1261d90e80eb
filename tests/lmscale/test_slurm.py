"""Sweeps on Slurm, the real one: an array, jobs queued again, cancelled, and of two tasks."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import workers
from engines import GRID, same, share, train_here

from lmscale.records import Workspace

SCRIPT = Path(__file__).parents[1] / "engines" / "slurm.sh"
ON_SLURM = ["--executor.name", "slurm", "--executor.partition", "main"]


@pytest.fixture(scope="module", autouse=True)
def _cluster(without_engine) -> Iterator[None]:
    """Slurm on this machine, for as long as these tests run."""
    if find_spec("submitit") is None:
        without_engine("slurm", "the package submitit is not installed; pip install 'lmscale[slurm]'")
    folder = Path(tempfile.mkdtemp(prefix="lmscale-slurm-"))
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [str(server.getsockname()[1]) for server in (one, two)]
    log = folder / "start.log"  # not a pipe, which the daemons would keep open
    with open(log, "w") as file:
        started = subprocess.run([SCRIPT, "start", folder, *ports], stdout=file, stderr=file)
    if started.returncode:
        without_engine("slurm", " ".join(log.read_text().split()))
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield
    finally:
        del os.environ["SLURM_CONF"]
        subprocess.run([SCRIPT, "stop", folder], check=True)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def local(study, tmp_path_factory) -> Workspace:
    """The grid trained here."""
    return train_here(study, tmp_path_factory.mktemp("local"))


def sweep(study: Path, out: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "lmscale.cli", "sweep", str(study), "--out", str(out), *ON_SLURM, *arguments]
    env = workers.environment() if "--mesh" in arguments else None
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def until(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def jobs(form: str = "%i") -> list[str]:
    done = subprocess.run(["squeue", "--noheader", "--array", f"--format={form}"], capture_output=True, text=True)
    return done.stdout.split()


def at_once(job: str) -> None:
    """Spares a job that was queued again the two minutes that Slurm has it wait: for what is left of it on the node,
    lest its end be taken for that of the new one.
    """

    def says(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True).stdout

    until(lambda: says("squeue", "--noheader", f"--jobs={job}", "--states=PENDING") != "")
    number = says("scontrol", "show", "job", job).split()[0].removeprefix("JobId=")
    until(lambda: f"slurmstepd: [{number}." not in says("ps", "-eo", "args"))
    until(lambda: "comp" not in says("sinfo", "--noheader", "--format=%t"))
    time.sleep(1.0)  # for the last message of the node
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)


def events(out: Path) -> str:
    return "".join(path.read_text() for path in out.glob("small/slurm/*/*.jsonl"))


@pytest.mark.long
def test_an_array_goes_on_when_a_job_is_queued_again(study, tmp_path, local):
    out = share(study, tmp_path / "out")
    process = sweep(study, out, *GRID, "--workers", "2")
    until(lambda: '"progress"' in events(out))
    first = min(jobs())
    assert first.endswith("_0")
    subprocess.run(["scontrol", "requeue", first], check=True)
    at_once(first)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    assert f"worker 0: job {first} goes on (restart 1)" in stdout
    same(Workspace(out, "small"), local)
    assert jobs() == []


@pytest.mark.long
def test_a_job_saves_before_its_time_is_over_and_is_queued_again(study, tmp_path, local):
    out = share(study, tmp_path / "out")
    process = sweep(study, out, *GRID, "--workers", "1")
    until(lambda: '"progress"' in events(out))
    (job,) = jobs()
    subprocess.run(["scancel", "--signal=USR2", job], check=True)  # as Slurm does ahead of the limit
    at_once(job)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    assert "goes on (restart 1)" in stdout
    assert '"status": 130' in events(out)
    same(Workspace(out, "small"), local)


def test_a_sweep_that_is_interrupted_cancels_its_jobs(study, tmp_path):
    out = share(study, tmp_path / "out")
    process = sweep(study, out, *GRID, "--workers", "2", "--executor.cpus", "3")  # of the node's four
    until(lambda: '"progress"' in events(out))
    assert sorted(jobs("%t")) == ["PD", "R"]
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert stderr == "interrupted; the same command goes on from here\n"
    assert jobs() == []
    assert list(out.glob("small/trajectories/*/checkpoints/*/manifest.json"))


def test_jobs_that_are_left_alone_finish(study, tmp_path):
    out = share(study, tmp_path / "out")
    stdout, stderr = sweep(study, out, "--tokens", "8192", "--detach").communicate(timeout=300)
    assert "1 jobs submitted: " in stdout, stderr
    assert "1 runs to train" in stdout
    until(lambda: len(Workspace(out, "small").records()) == 1)
    until(lambda: jobs() == [])


@pytest.mark.long
def test_two_tasks_of_a_job_train_one_model(study, tmp_path, local):
    out = share(study, tmp_path / "out")
    process = sweep(study, out, *GRID, "--seeds", "0", "--tokens", "8192", "--processes", "2", "--mesh", "2,1,1")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stdout + stderr
    found = {r["row"]["run_id"]: r["row"] for r in Workspace(out, "small").records()}
    wanted = {r["row"]["run_id"]: r["row"] for r in local.records()}
    assert len(found) == 1
    for run_id, row in found.items():
        assert row["mesh"] == "2,1,1"
        assert row["loss_nats"] == pytest.approx(wanted[run_id]["loss_nats"], rel=1e-5)


def test_what_slurm_refuses_is_one_line_in_its_words(study, tmp_path):
    def refused(path: str, *settings: str) -> str:
        command = [sys.executable, "-m", "lmscale.cli", "sweep", str(study), "--out", str(out), "--tokens", "8192"]
        command += ["--executor.name", "slurm", *settings]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path})
        assert done.returncode == 2, done.stderr
        (line,) = done.stderr.splitlines()
        return line

    out = share(study, tmp_path / "out")
    line = refused(os.environ["PATH"], "--executor.partition", "nowhere")
    assert line.startswith("lmscale: executor: sbatch says: invalid partition specified: nowhere")
    assert "unrecognized option '--colour=blue'" in refused(os.environ["PATH"], "--executor.sbatch", "colour=blue")
    assert refused(str(tmp_path)).startswith("lmscale: executor.name: 'slurm' finds no sbatch here")

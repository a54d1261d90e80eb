"""Workers on this machine: who gets which cores and which accelerators; what makes up an executor's settings; engines
that are missing.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from analysis.errors import InputError
from lmscale.config import ExecutorConfig, MeshConfig, Size, Study
from lmscale.executors import local, ray, slurm
from lmscale.executors.base import cluster_arguments, make_executor, unread
from lmscale.executors.cores import claimed, cores, share
from lmscale.executors.local import Accelerators, Local, find_accelerators
from lmscale.executors.process import Process, converse
from lmscale.executors.slurm import Slurm, Tail
from lmscale.study.studies import override


def study(**changes) -> Study:
    return Study(**{"name": "x", "sizes": (Size(width=64),), "tokens": (10**6,)} | changes)


def on(**settings) -> Study:
    return study(executor=ExecutorConfig(**settings))


def test_settings_come_from_the_command_line_and_change_no_identity(make_assembly):
    words = [
        "--executor.name",
        "slurm",
        "--executor.partition",
        "gpu",
        "--executor.sbatch",
        "nodes=4",
        "exclusive=true",
    ]
    made = override(study(), [*words, "--executor.minutes", "90"]).executor
    assert made.sbatch == {"nodes": "4", "exclusive": "true"}
    assert made == ExecutorConfig(name="slurm", partition="gpu", sbatch=dict(made.sbatch), minutes=90)
    assert unread(made) == []
    assert unread(ExecutorConfig(name="ray", cpus=2, partition="gpu", gpus=1)) == ["partition"]
    ids = [[t.id for t in make_assembly(executor=ExecutorConfig(**e)).plan] for e in ({}, {"name": "ray", "cpus": 4})]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--executor.name", "slurn"], "executor.name: 'slurn' is not local or ray or slurm"),
        (["--executor.cpus", "0"], "executor.cpus: 0 must be at least 1"),
        (["--executor.gpus", "-1"], "executor.gpus: -1 must not be negative"),
        (["--executor.minutes", "0"], "executor.minutes: 0 must be at least 1"),
        (["--executor.memory-bytes", "4"], "executor.memory_bytes: 4.0 must be at least 1e6 bytes"),
        (["--executor.sbatch", "nodes"], "executor.sbatch: 'nodes' is not NAME=VALUE"),
        (["--executor.queue", "x"], "executor.queue: unknown field"),
        (["--executor", "ray"], "executor: 'ray' is not expected, for it has parts: --executor.name"),
    ],
)
def test_settings_that_cannot_be(words, line):
    with pytest.raises(InputError) as error:
        override(study(), words)
    assert str(error.value).startswith(line)


def hosts(folder: Path, *files: str) -> Path:
    """A /dev with these devices."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_accelerators_are_dealt_out_where_the_mesh_takes_fewer(tmp_path):
    gpus = hosts(tmp_path / "gpus", "nvidiactl", "nvidia-uvm", *(f"nvidia{i}" for i in (10, 2, 0, 1)))
    assert find_accelerators({}, gpus) == Accelerators(kind="gpu", names=("0", "1", "2", "10"))
    chosen = find_accelerators({"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b,GPU-c,GPU-d"}, gpus)
    assert chosen is not None
    assert chosen.variables(2, 2) == {"CUDA_VISIBLE_DEVICES": "GPU-c,GPU-d"}
    assert chosen.splits(2)
    assert not chosen.splits(4)
    for devices in (("accel0", "accel1", "accel2", "accel3"), ("vfio/vfio", "vfio/0", "vfio/1", "vfio/2", "vfio/3")):
        chips = find_accelerators({}, hosts(tmp_path / devices[0], *devices))
        assert chips == Accelerators(kind="tpu", names=("0", "1", "2", "3"))
        assert chips is not None
        assert not chips.splits(3)
        assert chips.variables(2, 2) == {
            "TPU_VISIBLE_CHIPS": "2,3",
            "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,2,1",
            "TPU_PROCESS_BOUNDS": "1,1,1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        }
    assert find_accelerators({}, hosts(tmp_path / "none", "null")) is None


def test_each_worker_has_its_own_accelerators_and_none_shares(monkeypatch):
    four = Accelerators(kind="gpu", names=("0", "1", "2", "3"))
    executor = Local(study(mesh=MeshConfig(data=2)))
    seen = [p.variables["CUDA_VISIBLE_DEVICES"] for p in executor.processes(2, 1, four)]
    assert seen == ["0,1", "2,3"]
    seen = [(p.worker, p.variables["CUDA_VISIBLE_DEVICES"]) for p in executor.processes(2, 2, four)]
    assert seen == [(0, "0"), (0, "1"), (1, "2"), (1, "3")]
    assert "CUDA_VISIBLE_DEVICES" not in executor.processes(1, 1, four)[0].variables  # all of them
    with pytest.raises(InputError, match=r"^workers: 3 of 2 devices each do not fit on the 4 here.*--workers 2"):
        executor.processes(3, 1, four)
    monkeypatch.setattr(local, "has_accelerator", lambda: True)
    monkeypatch.setattr(local, "find_accelerators", lambda environment: four)
    assert [executor.default_workers(stacks, 1) for stacks in (1, 8)] == [1, 2]
    assert Local(study(mesh=MeshConfig(data=4))).default_workers(8, 1) == 1


def test_cores_are_shared_out_and_claimed_by_one_alone():
    every = frozenset(os.sched_getaffinity(0))
    assert frozenset.union(*(share(worker, len(every)) for worker in range(len(every)))) == every
    assert share(5, 2 * len(every)) == every
    assert len(share(0, 1, 1)) == 1
    assert Local(on(cpus=cores())).default_workers(8, 1) == 1
    with claimed(1) as mine:
        code = "from lmscale.executors.cores import claimed\nwith claimed(1) as mine: print(*mine)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        if len(every) > 1:
            assert len(mine) == len(other) == 1
            assert int(other[0]) not in mine
        else:
            assert mine == every


def test_processes_are_started_as_told(study, tmp_path):
    (tmp_path / "shards").symlink_to(study.parent / "out" / "shards")
    core = min(os.sched_getaffinity(0))
    process = Process(worker=3, variables={"LMSCALE_TEST": "told"}, cores=frozenset([core]))
    seen: list[tuple[bytes, frozenset[int]]] = []

    def look() -> int:
        for folder in Path("/proc").iterdir():
            if not seen and folder.name.isdecimal():
                try:
                    mine = f"{os.getpid()}" == (folder / "stat").read_text().rpartition(")")[2].split()[1]
                    if mine and b"lmscale.cli" in (folder / "cmdline").read_bytes():
                        seen.append(
                            ((folder / "environ").read_bytes(), frozenset(os.sched_getaffinity(int(folder.name))))
                        )
                except OSError:
                    continue
        return len(seen)  # once seen, it is asked to stop

    arguments = [str(study), "--out", "."]
    *_, last = converse(arguments, [process], look, folder=str(tmp_path))
    assert (last.worker, last.status in (0, 130, -15)) == (3, True)
    environment, pinned = seen[0]
    assert b"LMSCALE_TEST=told" in environment.split(b"\0")
    assert pinned == {core}


def test_memory_of_a_cluster_is_told_to_its_workers():
    mesh = MeshConfig(data=4)
    held = study(mesh=mesh, executor=ExecutorConfig(name="ray", memory_bytes=8e9))
    assert cluster_arguments(held, ["a"], 2) == ["a", "--device-memory-bytes", "4000000000.0"]
    for other in (
        study(mesh=mesh, executor=ExecutorConfig(name="ray", memory_bytes=8e9, gpus=1)),
        study(mesh=mesh, executor=ExecutorConfig(name="ray", memory_bytes=8e9), device_memory_bytes=1e9),
        study(mesh=mesh, executor=ExecutorConfig(name="ray")),
    ):
        assert cluster_arguments(other, ["a"], 2) == ["a"]


def test_engines_that_are_not_installed(monkeypatch, tmp_path):
    for name, module, package in (("ray", ray, "lmscale[ray]"), ("slurm", slurm, "lmscale[slurm]")):
        monkeypatch.setattr(module, "find_spec", lambda package: None)
        with pytest.raises(InputError) as error, make_executor(on(name=name), tmp_path):
            pass
        assert str(error.value).startswith(f"executor.name: '{name}' needs")
        assert package in str(error.value)


def test_only_slurm_can_be_left_alone(tmp_path):
    with pytest.raises(InputError, match=r"^detach: "), make_executor(on(), tmp_path) as executor:
        executor.detach([], 1, 1)


def test_a_file_of_events_is_read_in_whole_lines(tmp_path):
    tail = Tail(tmp_path / "0-0.jsonl")
    assert list(tail.read(0, "7_0")) == []
    with open(tail.path, "a") as file:
        for text in (
            '\n{"begun": 0}\n{"message": {"event": "a"}}\n{"message": {"ev',
            'ent": "b"}}\n{"status": 130, "std',
        ):
            file.write(text)
            file.flush()
            found = [event.message["event"] for event in tail.read(0, "7_0")]
            assert found == (["a"] if "begun" in text else ["b"])
        file.write('\n{"begun": 1}\n')  # it was killed in the middle of a line, and started again
        file.flush()
        assert [event.message["line"] for event in tail.read(0, "7_0")] == ["worker 0: job 7_0 goes on (restart 1)"]
        assert tail.status is None
        file.write('{"status": 0, "stderr": ""}\n')
        file.flush()
        assert list(tail.read(0, "7_0")) == []
    assert tail.finished
    assert tail.end(0, "7_0", 0).status == 0


def test_parameters_of_a_job(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
    pytest.importorskip("submitit", reason="comes with the extra 'slurm'")
    made = Slurm(on(name="slurm", cpus=4, gpus=1, memory_bytes=10e9, qos="low", sbatch={"nodes": "2"}), tmp_path)
    found = made.parameters(3, 8)
    assert found["additional_parameters"] == {"requeue": True, "ntasks": 8, "nodes": "2"}
    assert found["srun_args"] == ["--cpus-per-task=4", "--gpu-bind=none"]
    assert (found["mem_per_cpu"], found["time"], found["signal_delay_s"], found["qos"]) == ("2500M", 60, 90, "low")


SKIPS = """
def test_ray(without_engine):
    without_engine("ray", "not here")

def test_slurm(without_engine):
    without_engine("slurm", "not here")
"""


@pytest.mark.parametrize(
    ("allowed", "counts"),
    [(None, "2 skipped"), ("ray,slurm", "2 skipped"), ("slurm", "1 failed, 1 skipped"), ("", "2 failed")],
)
def test_a_skipped_engine_fails_unless_it_is_allowed(tmp_path, allowed, counts):
    (tmp_path / "conftest.py").write_text((Path(__file__).parents[1] / "conftest.py").read_text())
    (tmp_path / "test_skips.py").write_text(textwrap.dedent(SKIPS))
    env = {name: value for name, value in os.environ.items() if name != "LMSCALE_ALLOW_SKIP"}
    env |= {} if allowed is None else {"LMSCALE_ALLOW_SKIP": allowed}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert counts in done.stdout.splitlines()[-1]
    assert done.returncode == ("failed" in counts)
    if "skipped" in counts:
        assert "SKIPPED 1 tests, engine slurm: not here" in done.stdout

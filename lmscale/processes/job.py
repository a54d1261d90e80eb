"""The job of several processes that this process belongs to, if any. Imports no framework before it must.

A job is looked for in this order:
1. LMSCALE_COORDINATOR=host:port, LMSCALE_PROCESSES and LMSCALE_PROCESS, all three, the same host and port everywhere;
   LMSCALE_PROCESSES=1 alone says that this process works by itself, whatever follows.
2. Slurm: a step that srun started, by jax's own reading of its variables (one GPU a task, as jax has it).
3. TPU virtual machines of Google Cloud, by jax's own reading of their metadata.
A job of one process is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.errors import InputError
from lmscale.study.typed import check

COORDINATOR, PROCESSES, PROCESS = "LMSCALE_COORDINATOR", "LMSCALE_PROCESSES", "LMSCALE_PROCESS"
TIMEOUT = "LMSCALE_TIMEOUT"
TIMEOUT_SECONDS = 100  # as jax.distributed waits for a heartbeat
PROCESSES_MAX = 65_536


@dataclass(frozen=True, kw_only=True)
class Job:
    """Several processes that train one model after another together, and which of them this one is."""

    coordinator: str  # host:port, where process 0 listens
    processes: int
    process: int
    timeout_seconds: int  # how long a process waits for one that does not come, or has fallen silent
    local_devices: tuple[int, ...] | None = None  # the accelerators of this process; None: all of the machine

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def find_job(environment: Mapping[str, str]) -> Job | None:
    """The job of this process, or None where it works by itself. Raises InputError for variables that cannot be."""
    timeout = _whole(environment, TIMEOUT, 1, 86_400, "seconds") if TIMEOUT in environment else TIMEOUT_SECONDS
    if any(name in environment for name in (COORDINATOR, PROCESSES, PROCESS)):
        return _explicit(environment, timeout)
    return _detected(timeout, tpu=environment.get("JAX_PLATFORMS") != "cpu")


def _explicit(environment: Mapping[str, str], timeout: int) -> Job | None:
    if environment.get(PROCESSES) == "1":
        return None
    missing = [name for name in (COORDINATOR, PROCESSES, PROCESS) if name not in environment]
    if missing:
        there = next(name for name in (COORDINATOR, PROCESSES, PROCESS) if name in environment)
        raise InputError(
            f"{missing[0]}: is not set, but {there} is; set {COORDINATOR}=host:port, {PROCESSES} and {PROCESS} in "
            "every process, or none of them"
        )
    coordinator = environment[COORDINATOR]
    host, _, port = coordinator.rpartition(":")
    good = bool(host) and port.isdecimal() and 1 <= int(port) <= 65_535
    check(good, COORDINATOR, coordinator, "is not host:port; give the host of process 0 and a free port of it")
    processes = _whole(environment, PROCESSES, 1, PROCESSES_MAX, "processes")
    process = _whole(environment, PROCESS, 0, processes - 1, f"for a job of {processes}; number them from 0")
    return Job(coordinator=coordinator, processes=processes, process=process, timeout_seconds=timeout)


def _whole(environment: Mapping[str, str], name: str, least: int, most: int, what: str) -> int:
    text = environment[name].strip()
    good = text.isascii() and text.isdecimal() and least <= int(text) <= most
    check(good, name, text, f"must be a whole number from {least} to {most}, {what}")
    return int(text)


def _detected(timeout: int, *, tpu: bool) -> Job | None:
    from jax._src import clusters  # jax.distributed.initialize asks the same classes, but tells nobody what they say

    for cluster in (clusters.SlurmCluster, *((clusters.GkeTpuCluster, clusters.GceTpuCluster) if tpu else ())):
        if not cluster.is_env_present():
            continue
        if cluster.get_process_count() == 1:
            return None
        local = cluster.get_local_process_id()
        return Job(
            coordinator=cluster.get_coordinator_address(timeout, None),
            processes=cluster.get_process_count(),
            process=cluster.get_process_id(),
            timeout_seconds=timeout,
            local_devices=None if local is None else (local,),
        )
    return None

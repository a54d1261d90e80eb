"""What every executor is to a sweep: somewhere to start workers, which say what they do. Imports no framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Protocol

from lmscale.config import ExecutorConfig, Study
from lmscale.executors.process import Events
from lmscale.planning.memory import Memory
from lmscale.store.places import beside

CLUSTER = frozenset({"cpus", "gpus", "memory_bytes"})
READ = {  # the settings that each executor reads
    "local": frozenset({"cpus"}),
    "ray": CLUSTER | {"tpus", "address"},
    "slurm": CLUSTER | {"partition", "account", "qos", "minutes", "sbatch"},
}


class Executor(Protocol):
    """Where the workers of a sweep run. All start the same command, `lmscale run STUDY --events`."""

    @property
    def accelerator(self) -> bool:
        """Whether workers find more than CPUs."""
        ...

    def default_workers(self, stacks: int, together: int) -> int:
        """How many workers, of `together` processes each, to start for `stacks` pieces of work."""
        ...

    def memory(self, workers: int, together: int) -> Memory | None:
        """What a device of a worker will have for a step; None where only the worker can tell."""
        ...

    def run(self, arguments: list[str], count: int, together: int, stops: Callable[[], int]) -> Events:
        """Starts `count` workers `lmscale run *arguments --events` and yields what they say until all have ended.

        A worker is one process, or a job of `together` processes, of which the first speaks for all. Whenever `stops()`
        has grown they are asked to save and stop; a second time, to stop at once. Raises InputError where they cannot
        be started.
        """
        ...

    def detach(self, arguments: list[str], count: int, together: int) -> str:
        """Starts the workers and leaves them; returns a line that says where. Raises InputError where they would not
        outlive the sweep.
        """
        ...


@contextmanager
def make_executor(study: Study, folder: Path) -> Iterator[Executor]:
    """The executor of a study, whose results are in `folder`; what it started or joined ends with the block.

    Raises InputError for an engine that is not there, does not answer, or has not what is asked of it.
    """
    match study.executor.name:
        case "local":
            from lmscale.executors.local import Local

            yield Local(study)
        case "ray":
            from lmscale.executors.ray import joined

            with joined(study) as executor:
                yield executor
        case "slurm":
            from lmscale.executors.slurm import Slurm

            yield Slurm(study, beside(folder))


def unread(config: ExecutorConfig) -> list[str]:
    """The settings that were given but that the executor named does not read: they are another's."""
    known = READ[config.name] | {"name"}
    return [f.name for f in fields(config) if f.name not in known and getattr(config, f.name) != getattr(PLAIN, f.name)]


PLAIN = ExecutorConfig()


def allotted_bytes(study: Study, together: int) -> float | None:
    """Bytes of each device of a worker on the CPUs of a cluster, where the executor's `memory_bytes` says so."""
    config = study.executor
    if config.memory_bytes is None or config.accelerated or study.device_memory_bytes is not None:
        return None
    return config.memory_bytes * together / study.mesh.devices


def cluster_memory(study: Study, together: int) -> Memory | None:
    """What a device of a worker on a cluster has, as far as the study says."""
    given = study.device_memory_bytes or allotted_bytes(study, together)
    if given is None:
        return None
    platform = "accelerator" if study.executor.accelerated else "cpu"
    return Memory(device_bytes=given, platform=platform, shared=False)


def cluster_arguments(study: Study, arguments: list[str], together: int) -> list[str]:
    """What a worker on a cluster is told beside `arguments`: the memory it is held to."""
    given = allotted_bytes(study, together)
    return arguments if given is None else [*arguments, "--device-memory-bytes", repr(given)]

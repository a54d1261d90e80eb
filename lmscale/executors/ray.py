"""Workers as tasks of a Ray cluster: one that runs already, or one of this machine for the length of the sweep.

A task starts `lmscale run` as a process of its node and hands on what it says through an actor, the mailbox. A process,
task or node that is killed is started again by Ray, and goes on from the checkpoints on the shared results folder.
"""

from __future__ import annotations

import logging
import os
import platform
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale import FAILURE, INTERRUPTED
from lmscale.config import ExecutorConfig, Study
from lmscale.executors.base import cluster_arguments, cluster_memory
from lmscale.executors.cores import claimed, cores, neighbours
from lmscale.executors.process import CPU_ALONE, Event, Events, Process, converse, job_variables
from lmscale.planning.memory import Memory, in_words
from lmscale.study.typed import check

RETRIES = 3  # Ray's own default for a task
ADDRESS_SECONDS = 30.0  # within which a cluster has to answer
ASK_SECONDS = 1.0  # between a task's questions whether to stop
POLL_SECONDS = 0.2
STORE_BYTES = 80_000_000  # Ray's object store, near its least: nothing but lines passes through it
# Of the sweep's environment, what reaches workers on other machines: whatever may change a program, and wandb's key
PASSED_ON = ("JAX_", "XLA_", "LMSCALE_", "WANDB_", "TF_CPP_")

JOIN = "start it, correct the address, or set RAY_AUTH_MODE and RAY_AUTH_TOKEN as it was started with them"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody's server is told
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def ours() -> dict[str, str]:
    """What makes a cluster of this machine ours alone: on loopback, behind a token that nobody else has."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # of any system: the node's address is then 127.0.0.1
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


class Died(Exception):
    """A process of a worker was killed."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a task has to start."""

    worker: int
    arguments: tuple[str, ...]
    together: int
    cpus: int  # of a process
    accelerated: bool
    variables: dict[str, str]
    folder: str  # the sweep's working folder, from which its paths are meant


class Mailbox:
    """An actor: lines from the tasks to the sweep, and how often it asked them to stop."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict]] = []
        self.stops = 0

    def put(self, worker: int, message: dict) -> None:
        self.lines.append((worker, message))

    def take(self, stops: int) -> list[tuple[int, dict]]:
        """All lines since the last call."""
        taken, self.lines, self.stops = self.lines, [], stops
        return taken

    def asked(self) -> int:
        return self.stops


def work(given: Work, mailbox: Any) -> list[tuple[int, str]]:
    """A task: one worker on this node. Returns status and last lines of stderr of each of its processes.

    Raises Died where one was killed though nobody asked it to stop, so that Ray starts the task again.
    """
    import ray

    if not Path(given.folder).is_dir():
        line = f"out: {given.folder!r} is not on {platform.node()}; run the sweep in a folder that all nodes share"
        return [(FAILURE, line)]
    ray.get(mailbox.put.remote(given.worker, {"event": "begun", "host": platform.node()}))
    asked = Asked(mailbox)
    if asked() > 0:
        return [(INTERRUPTED, "")]
    ends: list[tuple[int, str]] = []
    last = None
    with claimed(given.cpus * given.together) as mine:
        processes = [
            Process(
                worker=given.worker,
                variables={**given.variables, **variables},
                cores=frozenset() if given.accelerated else mine,
            )
            for variables in job_variables(given.together)
        ]
        arguments = [*given.arguments, "--workers", str(neighbours(given.cpus * given.together))]
        with closing(converse(arguments, processes, asked, folder=given.folder)) as events:
            for event in events:
                if event.status is None:
                    last = mailbox.put.remote(given.worker, event.message)
                else:
                    ends.append((event.status, event.stderr))
    if last is not None:
        ray.get(last)  # calls of one task arrive in order: all lines are there
    killed = [status for status, _ in ends if status < 0]
    if killed and asked.before == 0:
        raise Died(f"a process of worker {given.worker} on {platform.node()} was killed by signal {-killed[0]}")
    return ends


class Asked:
    """How often the sweep has asked to stop, by a question now and then."""

    def __init__(self, mailbox: Any):
        self.mailbox = mailbox
        self.before: int = 0
        self.next = 0.0

    def __call__(self) -> int:
        import ray

        if time.monotonic() >= self.next:
            self.before = int(ray.get(self.mailbox.asked.remote()))
            self.next = time.monotonic() + ASK_SECONDS
        return self.before


@contextmanager
def joined(study: Study) -> Iterator[Ray]:
    """The cluster of the study's address, or one of this machine alone, on loopback, that ends with the block.

    Raises InputError where Ray is not installed, does not answer within ADDRESS_SECONDS, or lacks what is asked.
    """
    if find_spec("ray") is None:
        raise InputError("executor.name: 'ray' needs its package; pip install 'lmscale[ray]', or choose local or slurm")
    address = study.executor.address
    for name, value in (QUIET | ours() if address is None else QUIET).items():
        os.environ.setdefault(name, value)  # Ray reads them when it is imported
    import ray

    common = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init(
                "local",
                num_cpus=cores(),
                include_dashboard=False,
                object_store_memory=STORE_BYTES,
                **common,
            )
        else:
            if address != "auto":
                _knock(address)
            ray.init(address, **common)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError among them
        words = " ".join(str(error).split())
        raise InputError(f"executor.address: {address!r} cannot be joined ({words}); {JOIN}") from None
    try:
        yield Ray(study)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raises InputError unless a cluster answers there: joining one that does not would take minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    good = bool(host) and port.isdecimal() and 1 <= int(port) <= 65_535
    check(good, "executor.address", address, "is not an address; give auto, host:port or ray://host:port")
    silent = f"does not answer (waited at most {ADDRESS_SECONDS:.0f} s); {JOIN}"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ADDRESS_SECONDS).close()
    except OSError:
        check(False, "executor.address", address, silent)
    if not address.startswith("ray://"):
        ask = [sys.executable, "-P", "-m", "ray.scripts.scripts", "health-check", "--address", address]
        try:
            healthy = subprocess.run(ask, capture_output=True, timeout=ADDRESS_SECONDS).returncode == 0
        except subprocess.TimeoutExpired:
            healthy = False
        check(healthy, "executor.address", address, silent)


class Ray:
    """Workers as tasks of the cluster that this process has joined."""

    def __init__(self, study: Study):
        self.study = study
        self.config: ExecutorConfig = study.executor
        self.cpus = self.config.cpus or 1

    @property
    def accelerator(self) -> bool:
        return self.config.accelerated

    def needs(self, together: int) -> dict[str, float]:
        """What a worker takes of its node, by Ray's names."""
        found = {
            "CPU": self.cpus,
            "GPU": self.config.gpus,
            "TPU": self.config.tpus,
            "memory": self.config.memory_bytes or 0,
        }
        return {name: number * together for name, number in found.items() if number}

    def default_workers(self, stacks: int, together: int) -> int:
        return max(1, min(stacks, self.room(together)))

    def room(self, together: int) -> int:
        """Workers that run at once. Raises InputError where no node has what one takes."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needs = self.needs(together)
        for name, number in needs.items():
            most = max((node.get(name, 0.0) for node in nodes), default=0.0)
            setting = {"CPU": "cpus", "GPU": "gpus", "TPU": "tpus", "memory": "memory_bytes"}[name]
            asked = f"{together} x " * (together > 1) + f"{number / together:g}"
            check(
                number <= most,
                f"executor.{setting}",
                asked,
                f"is more than any node of the cluster has ({in_words(most) if name == 'memory' else f'{most:g}'}); "
                "ask for less, or join another cluster (executor.address)",
            )
        return sum(int(min(node.get(name, 0.0) // number for name, number in needs.items())) for node in nodes)

    def memory(self, workers: int, together: int) -> Memory | None:
        return cluster_memory(self.study, together)

    def detach(self, arguments: list[str], count: int, together: int) -> str:
        raise InputError("detach: the tasks of a sweep end with it on Ray; leave it running, or use slurm")

    def run(self, arguments: list[str], count: int, together: int, stops: Callable[[], int]) -> Events:
        import ray

        self.room(together)
        variables = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        mailbox = ray.remote(Mailbox).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        task = ray.remote(work).options(**self.options(together))
        tasks = {}
        for worker in range(count):
            given = Work(
                worker=worker,
                arguments=tuple(cluster_arguments(self.study, arguments, together)),
                together=together,
                cpus=self.cpus,
                accelerated=self.accelerator,
                variables=variables | ({} if self.accelerator else CPU_ALONE),
                folder=str(Path.cwd()),
            )
            tasks[task.remote(given, mailbox)] = worker
        try:
            yield from _follow(tasks, mailbox, stops)
        finally:
            for each in ray.wait(list(tasks), num_returns=len(tasks), timeout=0)[1]:
                ray.cancel(each)

    def options(self, together: int) -> dict[str, Any]:
        """How Ray runs a task."""
        needs = self.needs(together)
        return {
            "num_cpus": needs["CPU"],
            "num_gpus": needs.get("GPU", 0),
            "resources": {"TPU": needs["TPU"]} if "TPU" in needs else None,
            "memory": int(needs["memory"]) if "memory" in needs else None,
            "max_retries": RETRIES,
            "retry_exceptions": [Died],
        }


def _follow(tasks: dict[Any, int], mailbox: Any, stops: Callable[[], int]) -> Events:
    """What the tasks say, until all have ended."""
    import ray

    begun: dict[int, int] = {}  # how often each worker was started
    left = dict(tasks)
    cancelled = False
    while left:
        done, _ = ray.wait(list(left), num_returns=1, timeout=POLL_SECONDS)
        for worker, message in ray.get(mailbox.take.remote(stops())):
            if message["event"] != "begun":
                yield Event(worker=worker, message=message)
                continue
            begun[worker] = begun.get(worker, 0) + 1
            if begun[worker] > 1:
                line = f"worker {worker} was lost; Ray has started it again on {message['host']}"
                yield Event(worker=worker, message={"event": "say", "line": line})
        for task in done:
            for status, stderr in _ends(task):
                yield Event(worker=left[task], message={}, status=status, stderr=stderr)
            del left[task]
        if stops() and not cancelled:
            cancelled = True
            for task, worker in left.items():
                if worker not in begun:  # it waits for its resources, and would begin only to stop
                    ray.cancel(task)


def _ends(task: Any) -> list[tuple[int, str]]:
    """How the processes of a task ended, or the task itself."""
    import ray
    from ray.exceptions import RayError, RayTaskError, TaskCancelledError

    try:
        return ray.get(task)
    except TaskCancelledError:
        return [(INTERRUPTED, "")]
    except RayTaskError as error:
        return [(FAILURE, f"{type(error.cause).__name__}: {error.cause}" if error.cause else str(error))]
    except RayError as error:
        return [(FAILURE, f"{type(error).__name__}: {' '.join(str(error).split())}")]

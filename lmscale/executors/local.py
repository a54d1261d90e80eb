"""Worker processes on this machine, each pinned to its share of the cores and running `lmscale run --events`.

Small models use a core fully and two cores badly: on a two-core CPU two workers train the quickstart grid 1.6 times as
fast as one. Workers agree through the locks of the trajectories, so nothing is scheduled here.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lmscale.job import COORDINATOR, PROCESS, PROCESSES

ACCELERATORS = ("/dev/nvidiactl", "/dev/accel0", "/dev/vfio/0", "/dev/kfd")  # NVIDIA, TPU, TPU, AMD
STDERR_LINES = 20  # of each worker, kept to say why it failed


def has_accelerator() -> bool:
    """Whether jax would find more than CPUs here."""
    return os.environ.get("JAX_PLATFORMS") != "cpu" and any(Path(p).exists() for p in ACCELERATORS)


def default_workers(stacks: int, devices: int) -> int:
    """A worker a core on a machine without accelerators; one worker where a mesh or an accelerator takes it all.
    `stacks` are the pieces into which the work falls.
    """
    if devices > 1 or has_accelerator():
        return 1
    return max(1, min(cores(), stacks))


def pin(process: int, worker: int, workers: int) -> None:
    """Gives a process (0: this one) its share of the cores; more workers than cores share them all. Linux only."""
    if sys.platform == "linux":
        available = sorted(os.sched_getaffinity(0))
        share = len(available) // workers
        os.sched_setaffinity(process, set(available[worker * share : (worker + 1) * share]) or set(available))


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a worker said (`message` of worker.py), or (`status` set) that it ended and its last lines of stderr."""

    worker: int
    message: dict
    status: int | None = None
    stderr: str = ""


def run_workers(arguments: list[str], count: int, together: int, stops: Callable[[], int]) -> Iterator[Event]:
    """Starts `count` workers `lmscale run *arguments --events` and yields what they say until all have ended.

    A worker is one process, or a job of `together` processes, of which the first speaks for all. Whenever `stops()` has
    grown they are asked to save and stop (SIGTERM; a second time, to stop at once). They are sessions of their own, so
    that a terminal's Ctrl-C reaches only this process.
    """
    command = [sys.executable, "-P", "-m", "lmscale.cli", "run", *arguments, "--events"]
    events: queue.Queue[Event] = queue.Queue()
    processes = []
    for worker in range(count):
        for variables in _jobs(together):
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
                env={**os.environ, **variables},
            )
            pin(process.pid, worker, count)
            processes.append(process)
            threading.Thread(target=_listen, args=(worker, process, events), daemon=True).start()
    running, asked = len(processes), 0
    try:
        while running:
            while asked < stops():
                asked += 1
                for process in processes:
                    process.send_signal(signal.SIGTERM)
            try:
                event = events.get(timeout=0.2)
            except queue.Empty:
                continue
            running -= event.status is not None
            yield event
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()


def _jobs(together: int) -> list[dict[str, str]]:
    """The variables of the processes of a worker. One alone is told so: it is no task of a Slurm step around it."""
    if together == 1:
        return [{PROCESSES: "1"}]
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    return [{COORDINATOR: coordinator, PROCESSES: str(together), PROCESS: str(i)} for i in range(together)]


def _listen(worker: int, process: subprocess.Popen[str], events: queue.Queue[Event]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    kept: list[str] = []
    drain = threading.Thread(target=_keep, args=(process.stderr, kept), daemon=True)
    drain.start()
    for line in process.stdout:
        try:
            message = json.loads(line)
        except json.JSONDecodeError:
            message = None
        if line.startswith("[Gloo]"):  # CPU collectives count their peers on standard output
            continue
        if not (isinstance(message, dict) and "event" in message):
            message = {"event": "say", "line": line.rstrip()}  # a library that prints
        events.put(Event(worker=worker, message=message))
    status = process.wait()
    drain.join()
    events.put(Event(worker=worker, message={}, status=status, stderr="".join(kept)))


def _keep(stream: IO[str], kept: list[str]) -> None:
    for line in stream:
        kept.append(line)
        del kept[:-STDERR_LINES]

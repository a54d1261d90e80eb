"""The processes of workers on the machine they run on: `lmscale run --events`, listened to and asked to stop.

Every executor ends here: `local` in the process of the sweep, `ray` and `slurm` in their tasks. Imports no framework.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from lmscale import DISK, FAILURE, GIVEN_UP, OUT_OF_MEMORY, USER_ERROR
from lmscale.executors.cores import pin
from lmscale.processes.job import COORDINATOR, PROCESS, PROCESSES
from lmscale.work.attempts import ATTEMPTS_MAX

STDERR_LINES = 20  # of each process, kept to say why it failed
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SHIELD = (signal.SIGTERM, signal.SIGUSR2)  # what Slurm sends to all processes of a job before it ends
CRASHES: Mapping[int | None, str] = {  # statuses after which another start may do better, in words
    FAILURE: "failed",
    -signal.SIGKILL: "was killed",
    -signal.SIGABRT: "was aborted",
    -signal.SIGSEGV: "crashed",
    -signal.SIGBUS: "crashed",
}
FINAL = (USER_ERROR, OUT_OF_MEMORY, DISK, GIVEN_UP)  # after which it would do no better
WORKER_RESTARTS = ATTEMPTS_MAX + 1  # of one that makes no step: the trajectory it fails at is given up before that
ENDING_SECONDS = 30.0
CPU_ALONE = {"JAX_PLATFORMS": "cpu"}  # for workers that were given no accelerator, whatever their host has


@dataclass(frozen=True, kw_only=True)
class Event:
    """What a worker said (`message` of worker.py), or (`status` set) that a process of it ended and its last lines of
    stderr.
    """

    worker: int
    message: dict
    status: int | None = None
    stderr: str = ""


Events = Generator[Event, None, None]  # closed before its end, it ends the processes


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process to start: of which worker, with what changed in its environment, on which cores (none: on any)."""

    worker: int
    variables: Mapping[str, str]
    cores: frozenset[int] = frozenset()


def converse(
    arguments: Sequence[str],
    processes: Sequence[Process],
    stops: Callable[[], int],
    *,
    folder: str | None = None,
    shielded: bool = False,
    restarts: int = 0,
) -> Events:
    """Starts `lmscale run *arguments --events` once for each of `processes` (in `folder`, or here); yields what they
    say until all have ended.

    Whenever `stops()` has grown they are asked to save and stop (SIGTERM; a second time, to stop at once). They are
    sessions of their own, so that a terminal's Ctrl-C reaches only this process. `shielded` is for schedulers that
    signal every process there is, whatever its session: SHIELD is blocked in them, and they are asked by SIGINT.
    A worker that was killed or failed (CRASHES) is started again, at most `restarts` times before it makes a step or
    gives up a trajectory that it had not given up before.
    """
    command = [sys.executable, "-P", "-m", "lmscale.cli", "run", *arguments, "--events"]
    events: queue.Queue[Event] = queue.Queue()
    started: list[subprocess.Popen[str]] = []
    ask, asked = signal.SIGINT if shielded else signal.SIGTERM, 0
    parts = {each.worker: [p for p in processes if p.worker == each.worker] for each in processes}
    ends: dict[int, list[Event]] = {worker: [] for worker in parts}  # how the processes of a worker ended
    idle = dict.fromkeys(parts, 0)  # starts of a worker since its last step
    running = set(parts)
    given_up: set[tuple[int, str]] = set()  # worker and trajectory

    def start(worker: int) -> None:
        with _blocked(SHIELD if shielded else ()):
            for each in parts[worker]:
                process = subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    start_new_session=True,
                    cwd=folder,
                    env={**os.environ, **each.variables},
                )
                started.append(process)
                pin(process.pid, each.cores)
                threading.Thread(target=_listen, args=(worker, process, events), daemon=True).start()

    try:
        for worker in parts:
            start(worker)
        while running:
            while asked < stops():
                asked += 1
                for process in started:
                    process.send_signal(ask)
            try:
                event = events.get(timeout=0.2)
            except queue.Empty:
                continue
            if event.status is None:
                if event.message["event"] == "progress" or _is_new(event, given_up):
                    idle[event.worker] = 0
                yield event
                continue
            ended = ends[event.worker]
            ended.append(event)
            if len(ended) < len(parts[event.worker]):
                continue
            crash = next((e for e in ended if e.status in CRASHES), None)
            final = any(e.status in FINAL for e in ended)
            if crash is not None and not final and not asked and idle[event.worker] < restarts:
                idle[event.worker] += 1
                line = f"worker {event.worker} {CRASHES[crash.status]}; started again, it goes on from its checkpoints"
                yield Event(worker=event.worker, message={"event": "restart", "line": line})
                ended.clear()
                start(event.worker)
            else:
                running.remove(event.worker)
                yield from ended
    finally:
        left = [process for process in started if process.poll() is None]
        for process in left:
            if not asked:
                process.send_signal(ask)
        deadline = time.monotonic() + ENDING_SECONDS  # to save: they are asked again when this process is gone
        for process in left:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, deadline - time.monotonic()))


def _is_new(event: Event, given_up: set[tuple[int, str]]) -> bool:
    """Whether a worker says for the first time that it gives a trajectory up; every process of it says so again."""
    if event.message["event"] != "given_up":
        return False
    known = (event.worker, event.message["trajectory"])
    fresh = known not in given_up
    given_up.add(known)
    return fresh


@contextmanager
def _blocked(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """Signals held back from this thread; a process that is started meanwhile never gets them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def job_variables(together: int) -> list[dict[str, str]]:
    """What makes the processes of a worker on one machine a job. One alone is told so: it is no task of a Slurm step
    around it.
    """
    if together == 1:
        return [{PROCESSES: "1"}]
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    return [{COORDINATOR: coordinator, PROCESSES: str(together), PROCESS: str(i)} for i in range(together)]


def end_with_parent() -> None:
    """Asks for SIGTERM when the process that started this one is gone: it saves and stops. Linux only; elsewhere a
    worker notices when nobody reads what it says.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _listen(worker: int, process: subprocess.Popen[str], events: queue.Queue[Event]) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    kept: list[str] = []
    drain = threading.Thread(target=_keep, args=(process.stderr, kept), daemon=True)
    drain.start()
    for line in process.stdout:
        try:
            message, _ = json.JSONDecoder().raw_decode(line)  # a library may have printed before the line's end
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

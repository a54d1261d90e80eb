"""Several processes that train one model: all run the same loop, process 0 decides and writes.

Alone, a process calls none of this machinery: `decide` calls its function, `agree` returns what it was given, `barrier`
does nothing. In a job, what processes must agree on goes through the key-value store of jax's coordination service, on
the host: nothing waits for a device, and a decision costs about a millisecond.

A process that fails says so under FAILED, and one that falls silent is named there by process 0; a thread of each
process reads it, so that none waits in a collective for one that is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from analysis.errors import InputError
from lmscale import DISK, FAILURE, INTERRUPTED, OUT_OF_MEMORY, USER_ERROR
from lmscale.planning.out_of_memory import OutOfMemory
from lmscale.processes.job import COORDINATOR, Job
from lmscale.processes.rollcall import call_roll, is_loopback
from lmscale.store.full_disk import DiskFailure
from lmscale.store.last_line import say_last
from lmscale.study.typed import check

T = TypeVar("T")

DECIDED, ALIVE, STOPPING, FAILED = "lmscale/decided/", "lmscale/alive/", "lmscale/stopping/", "lmscale/failed/"
COLLECTIVES = ("Gloo", "NCCL")  # they name themselves in their errors
BEAT_SECONDS = 1.0
GRACE_SECONDS = 3.0  # for a process to see for itself why another failed, before it is told
SUSPECT_SECONDS = 10  # of silence are enough once a collective has failed
LINE_LETTERS = 500  # of an error, in the line about it
VISIBLE_SECONDS = 10.0  # within which a file that process 0 made must be seen by the others
FOREVER_MS = 10**9  # 12 days: whoever waits is ended by the watch when nobody is left to answer

_team: Team | None = None


def leads() -> bool:
    """Whether this process decides and writes: it is alone, or process 0 of its job."""
    return _team is None or _team.job.process == 0


def hosts() -> int:
    """How many machines the job runs on, as far as its coordinator's address tells: a loopback address means one."""
    return 1 if _team is None or is_loopback(_team.job.address[0]) else _team.job.processes


def decide(function: Callable[[], T]) -> T:
    """What `function` returns in process 0, in every process (a JSON value). The others do not call it.

    Returns once process 0 has: files it writes in `function` are there. An error of it ends the whole job.
    """
    return function() if _team is None else _team.decide(function)


def agree(stopping: bool, due: bool) -> tuple[bool, bool]:
    """Whether any process has been asked to stop, and whether process 0 finds something due."""
    if _team is None:
        return stopping, due
    team = _team
    if stopping:
        team.ask_to_stop()
    asked, due = team.decide(lambda: (stopping or team.someone_stops(), due))
    return asked, due


def barrier() -> None:
    """Returns when every process has come here."""
    if _team is not None:
        _team.barrier()


def in_turn(function: Callable[[], T]) -> T:
    """Calls `function` in every process, in process 0 first: what it writes, the others find."""
    if leads():
        made = function()
        decide(lambda: None)
        return made
    decide(lambda: None)
    return function()


def check_shared(folder: Path, mend: str = "pass --out DIR, one that all hosts share") -> None:
    """Raises InputError where this process does not see in `folder` what process 0 writes there."""
    if _team is None:
        return
    path = folder / decide(lambda: f".shared.{uuid.uuid4().hex}")
    if leads():
        path.touch()
    decide(lambda: None)
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not (seen := path.exists()) and time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 10)
    check(seen, "out", str(folder), f"is another folder in process 0; {mend}")
    barrier()
    if leads():
        path.unlink()


def check_same(name: str, value: str) -> None:
    """Raises InputError where `value` is not that of process 0."""
    theirs = decide(lambda: value)
    check(theirs == value, name, value, f"is {theirs!r} in process 0; start the same command in every process")


@contextlib.contextmanager
def joined(job: Job | None) -> Iterator[None]:
    """The time in which this process is one of its job; without a job, nothing. To be entered before jax has a backend.

    Raises InputError if the others do not come, or cannot be joined. An error inside ends this process here, with its
    line and its exit status, once the others have been told.
    """
    global _team
    if job is None:
        yield
        return
    call_roll(job)
    _team = Team(job)
    try:
        yield
    except BaseException as error:
        _team.fail(error)
    _team.leave()
    _team = None


class Team:
    """This process in its job: jax.distributed is initialised, and the others are watched."""

    def __init__(self, job: Job):
        import jax
        from jax._src.distributed import global_state  # jax offers the key-value store to libraries, not by a name

        self.job = job
        self.decisions = self.meetings = 0
        self.asked = False
        self.ended = threading.Event()
        self.ending = threading.Lock()  # never given back: one thread ends this process
        self.last_word = LastWord(
            f"lmscale: process {job.process} of {job.processes} was killed, or aborted by jax because process 0 at "
            f"{job.coordinator} died; repeat the command in all of them"
        )
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
        host, _ = job.address
        try:
            jax.distributed.initialize(
                job.coordinator,
                job.processes,
                job.process,
                local_device_ids=job.local_devices,
                cluster_detection_method="deactivate",
                initialization_timeout=job.timeout_seconds,
                heartbeat_timeout_seconds=job.timeout_seconds + 300,  # the watch comes first, and says more
                coordinator_bind_address=job.coordinator if is_loopback(host) else None,
            )
        except RuntimeError as error:
            self.last_word.keep()
            check(False, COORDINATOR, job.coordinator, f"cannot be joined ({error}); choose another port")
        self.client: Any = global_state.client
        self.limit = job.timeout_seconds
        self.unheard = 0  # beats since the coordinator last answered
        for target in (self._beat, self._listen):
            threading.Thread(target=target, daemon=True).start()

    def decide(self, function: Callable[[], T]) -> T:
        self.decisions += 1
        key = f"{DECIDED}{self.meetings}/{self.decisions}"
        if self.job.process == 0:
            text = json.dumps(function())
            self.client.key_value_set(key, text)
        else:
            text = self.client.blocking_key_value_get(key, FOREVER_MS)
        return json.loads(text)

    def ask_to_stop(self) -> None:
        if not self.asked:
            self.asked = True
            self.client.key_value_set(f"{STOPPING}{self.job.process}", "")

    def someone_stops(self) -> bool:
        return bool(self.client.key_value_dir_get(STOPPING))

    def barrier(self) -> None:
        self.client.wait_at_barrier(f"lmscale-{self.meetings}", FOREVER_MS)
        if self.job.process == 0:  # all have read what was decided before
            self.client.key_value_delete(f"{DECIDED}{self.meetings}/")
        self.meetings += 1

    def leave(self) -> None:
        """The end of a job that went well."""
        import jax

        self.barrier()
        self.ended.set()
        jax.distributed.shutdown()
        self.last_word.keep()

    def fail(self, error: BaseException) -> None:
        """Says why this process ends, tells the others, and ends it."""
        if any(name in str(error) for name in COLLECTIVES):  # of a type that depends on where it was met
            # a collective fails at once when a process is gone; the watch will soon say which
            self.limit = min(self.limit, SUSPECT_SECONDS)
            self.ended.wait(self.limit + GRACE_SECONDS + 3 * BEAT_SECONDS)
        self._claim()
        match error:
            case InputError():
                status, line = USER_ERROR, str(error)
            case KeyboardInterrupt():
                status, line = INTERRUPTED, "interrupted"
            case SystemExit():
                status, line = FAILURE, f"exit {error.code}"
            case OutOfMemory():
                status, line = OUT_OF_MEMORY, str(error)
            case DiskFailure():
                status, line = DISK, str(error)
            case _:
                status, line = FAILURE, f"{type(error).__name__}: {' '.join(str(error).split())}"[:LINE_LETTERS]
                if not isinstance(error, OSError):
                    traceback.print_exception(error)
        self._end(status, line, f"process {self.job.process} of {self.job.processes} failed: {line}")

    def _claim(self) -> None:
        """Makes this thread the one that ends the process; any other stays here until it has."""
        self.ending.acquire()
        self.ended.set()

    def _end(self, status: int, line: str, told: str | None) -> None:
        """Ends this process, and tells the others why: jax's own way out waits for them."""
        say_last(line)
        self.last_word.keep()
        if told is not None:
            with contextlib.suppress(Exception):  # the coordinator may be what failed
                self.client.key_value_set(f"{FAILED}{self.job.process}", json.dumps([status, told]))
                if self.job.process == 0:  # the coordinator lives here: the others have to read it first
                    time.sleep(GRACE_SECONDS + 3 * BEAT_SECONDS)
        os._exit(status)

    def _beat(self) -> None:
        """Shows that this process lives; process 0 looks who does not.

        Silence is counted in beats of one's own, not by a clock: a machine that stood still has not been silent.
        """
        beats = 0
        # of each process its last beat, and ours at which it was first seen
        last = {f"{ALIVE}{process}": ("", 0) for process in range(self.job.processes)}
        while not self.ended.wait(BEAT_SECONDS):
            beats += 1
            with contextlib.suppress(Exception):  # the coordinator does not answer: _listen counts how long
                self.client.key_value_set(f"{ALIVE}{self.job.process}", str(beats), allow_overwrite=True)
                failures = self.client.key_value_dir_get(FAILED)
                self.unheard = 0
                if failures and not self.ended.wait(GRACE_SECONDS):
                    self._claim()
                    status, told = json.loads(failures[0][1])
                    self._end(status, told, told)
                if self.job.process == 0:
                    for key, beat in self.client.key_value_dir_get(ALIVE):
                        if last[key][0] != beat:
                            last[key] = beat, beats
                    if silent := [key for key, (_, seen) in last.items() if (beats - seen) * BEAT_SECONDS > self.limit]:
                        self._claim()
                        line = (
                            f"process {silent[0].rpartition('/')[2]} of {self.job.processes} died or hangs (silent for "
                            f"{self.limit} s); the others stop: repeat the command in all of them"
                        )
                        self._end(FAILURE, line, line)

    def _listen(self) -> None:
        """Gives up where the coordinator has not answered for too long: then `_beat` itself may hang."""
        while not self.ended.wait(BEAT_SECONDS):
            self.unheard += 1
            if self.unheard * BEAT_SECONDS > self.limit + GRACE_SECONDS:
                self._claim()
                line = (
                    f"process 0 at {self.job.coordinator} died or hangs (silent for {self.limit} s); this process "
                    "stops: repeat the command in all of them"
                )
                self._end(FAILURE, line, None)


class LastWord:
    """A line on standard error, said when this process has ended without keeping it: jax may abort it from C++."""

    def __init__(self, line: str):
        code = "import os, sys\nif not os.read(0, 1): sys.stderr.write(sys.argv[1] + '\\n')"
        self.speaker = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, line], stdin=subprocess.PIPE, start_new_session=True
        )

    def keep(self) -> None:
        assert self.speaker.stdin is not None
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.speaker.stdin.write(b"-")
            self.speaker.stdin.close()
            self.speaker.wait(timeout=GRACE_SECONDS)

"""Who is there: process 0 counts the others before any of them hands over to jax.

jax's coordination client ends its process (a C++ abort) when another does not come; asked first, over the same port,
the processes know who is missing and say so.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator

from analysis.errors import InputError
from lmscale import __version__
from lmscale.processes.job import COORDINATOR, PROCESS, PROCESSES, TIMEOUT, Job

LINE_BYTES = 1000  # no line of a roll call is longer
STRANGER_SECONDS = 5.0  # whoever connects has this long to say who it is
RETRY_SECONDS = 0.3
GO = "go"
UNKNOWN = "the port belongs to another job; choose another one"


def call_roll(job: Job) -> None:
    """Returns in every process once all have come.

    Raises InputError in process 0 when some do not come in time, and in the others when process 0 does not answer, or
    turns them away.
    """
    if job.process == 0:
        _count(job)
    else:
        _report(job)


def _count(job: Job) -> None:
    deadline = time.monotonic() + job.timeout_seconds
    present: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(job))
        while len(present) < job.processes - 1:
            ready, _, _ = select.select([server], [], [], max(0.0, deadline - time.monotonic()))
            for process in [p for p, connection in present.items() if _gone(connection)]:
                present.pop(process).close()  # it was ended while it waited; another may take its place
            if ready:
                connection = stack.enter_context(server.accept()[0])
                process, refusal = _admit(job, _read_line(connection, STRANGER_SECONDS), present)
                if refusal:
                    _send(connection, refusal)
                    connection.close()
                else:
                    present[process] = connection
            elif time.monotonic() >= deadline:
                missing = [p for p in range(1, job.processes) if p not in present]
                named = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
                line = (
                    f"{PROCESSES}: {len(present) + 1} of {job.processes} processes came to {job.coordinator} within "
                    f"{job.timeout_seconds} s, missing: {named}; start all of them, or raise {TIMEOUT}"
                )
                for connection in present.values():
                    _send(connection, line)
                raise InputError(line)
        for connection in present.values():
            _send(connection, GO)


def _listen(job: Job) -> socket.socket:
    """Loopback where the coordinator is loopback, as jax is told too; else every interface, as jax does."""
    host, port = job.address
    try:
        if is_loopback(host):
            return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise InputError(
            f"{COORDINATOR}: {job.coordinator!r} cannot be opened in process 0 ({error.strerror}); choose a free port"
        ) from None


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _admit(job: Job, line: str | None, present: dict[int, socket.socket]) -> tuple[int, str]:
    """The number of a process that says hello, and why it cannot be let in ('' if it can)."""
    words = (line or "").split()
    if len(words) != 4 or words[0] != "lmscale" or not (words[2] + words[3]).isdecimal():
        return -1, UNKNOWN
    process, processes = int(words[2]), int(words[3])
    if words[1] != __version__:
        return -1, f"lmscale: {words[1]!r} is not {__version__}, the version of process 0; install one version on all"
    if processes != job.processes:
        return -1, f"{PROCESSES}: {processes} in process {process}, {job.processes} in process 0; give all the same"
    if not 0 < process < processes or process in present:
        return -1, f"{PROCESS}: {process} came twice; number the processes from 0 to {processes - 1}"
    return process, ""


def _report(job: Job) -> None:
    deadline = time.monotonic() + job.timeout_seconds
    answered = False
    for connection in _connections(job, deadline):
        with connection:
            answered = True
            _send(connection, f"lmscale {__version__} {job.process} {job.processes}")
            # process 0 may have begun to wait later than this one did, and its answer names who is missing
            answer = _read_line(connection, job.timeout_seconds + STRANGER_SECONDS)
        if answer == GO:
            return
        if answer:
            raise InputError(answer)
    what = "ended the call" if answered else "does not answer"
    raise InputError(
        f"{COORDINATOR}: {job.coordinator!r} {what} (waited {job.timeout_seconds} s); start process 0 there, "
        f"or correct the address, or raise {TIMEOUT}"
    )


def _connections(job: Job, deadline: float) -> Iterator[socket.socket]:
    """A connection to process 0 whenever there is one, until the deadline."""
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = socket.create_connection(job.address, timeout=left)
            if connection.getsockname() != connection.getpeername():  # TCP may meet itself on a port nobody opened
                yield connection
            connection.close()
        except OSError:  # not there yet, or its name is not known yet
            pass
        time.sleep(min(RETRY_SECONDS, left))


def _read_line(connection: socket.socket, seconds: float) -> str | None:
    """A line of at most LINE_BYTES, or None if it does not come whole in time."""
    deadline, received = time.monotonic() + seconds, b""
    try:
        while not received.endswith(b"\n") and len(received) < LINE_BYTES:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            more = connection.recv(LINE_BYTES - len(received))
            if not more:
                return None
            received += more
        return received.decode().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _send(connection: socket.socket, line: str) -> None:
    with contextlib.suppress(OSError):  # one that is gone is missed when it does not come to jax
        connection.sendall(line.encode() + b"\n")


def _gone(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True

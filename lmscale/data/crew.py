"""Processes that do pieces of work side by side. They end with the process that started them, however it ends."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

from analysis.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
END_SECONDS = 5.0  # which a process gets to end by itself once its pipe is closed


def work(items: Iterable[Item], make: Callable[[], Callable[[Item], Result]], processes: int) -> Iterator[Result]:
    """Yields function(item) for each item, where function = make() in each process, in the order in which they end.

    With one process nothing is started. Otherwise each process is given an item when it has none, and one more is read
    meanwhile, so that memory does not follow their number. `make`, items and results must be picklable.

    Raises:
        InputError: one that a function raised.
        ChildProcessError: a process ended by itself, or with another error.
    """
    if processes == 1:
        function = make()
        for item in items:
            yield function(item)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy TensorFlow's threads half
    idle: list[Connection] = []
    busy: dict[Connection, BaseProcess] = {}
    crew: dict[Connection, BaseProcess] = {}
    try:
        for item in items:
            if not idle and len(crew) < processes:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, make), daemon=True)
                process.start()
                theirs.close()  # the end of either process closes the pipe, which ends the other
                crew[ours] = process
                idle.append(ours)
            while not idle:
                yield from _results(busy, idle)
            connection = idle.pop()
            busy[connection] = crew[connection]
            _send(connection, item, crew[connection])
        while busy:
            yield from _results(busy, idle)
    finally:
        for connection in crew:
            connection.close()
        for connection, process in crew.items():
            if connection in busy:
                process.terminate()
            process.join(END_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()


def _results(busy: dict[Connection, BaseProcess], idle: list[Connection]) -> Iterator:
    for connection in wait(list(busy)):
        assert isinstance(connection, Connection)
        try:
            kind, value = connection.recv()
        except (EOFError, ConnectionError):
            raise _ended(busy[connection]) from None
        del busy[connection]
        idle.append(connection)
        if kind == "input":
            raise InputError(value)
        if kind == "error":
            raise ChildProcessError(value)
        yield value


def _send(connection: Connection, item: object, process: BaseProcess) -> None:
    try:
        connection.send(item)
    except (BrokenPipeError, ConnectionError):
        raise _ended(process) from None


def _ended(process: BaseProcess) -> ChildProcessError:
    process.join(END_SECONDS)
    hint = (
        "; was there memory enough? --processes takes a smaller number" if process.exitcode == -signal.SIGKILL else ""
    )
    return ChildProcessError(f"a process of the preparation ended with status {process.exitcode}{hint}")


def _serve(connection: Connection, make: Callable[[], Callable]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which also goes to the process that started this one
    function = None
    while True:
        try:
            item = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            function = function or make()
            answer = "done", function(item)
        except InputError as error:
            answer = "input", str(error)
        except Exception as error:  # what it was goes to the process that can say it
            answer = "error", f"{type(error).__name__}: {error}"
        try:
            connection.send(answer)
        except ConnectionError:
            return

"""Windows drawn ahead of the training loop by a thread of its own. Imports no framework."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

Windows = list[np.ndarray]  # of one call of the program, of each model
Draw = Callable[[int, int], Windows]
DEPTH = 2  # calls drawn ahead: one is ready while the next is drawn


@contextmanager
def drawn(draw: Draw, calls: Sequence[tuple[int, int]], *, ahead: bool) -> Iterator[Iterator[Windows]]:
    """draw(start, stop) for each of `calls`, in their order and once: when asked for, or `ahead` of it.

    What `draw` raises is raised where its call is asked for. When the block is left, by whatever, the thread has ended.
    """
    if not ahead:
        yield (draw(start, stop) for start, stop in calls)
        return
    ready: queue.Queue[Windows | BaseException] = queue.Queue(DEPTH - 1)  # and one in the thread's hands
    left = threading.Event()

    def work() -> None:
        for start, stop in calls:
            if left.is_set():
                return
            made: Windows | BaseException
            try:
                made = draw(start, stop)
            except BaseException as error:
                made = error
            ready.put(made)
            if isinstance(made, BaseException):
                return

    thread = threading.Thread(target=work, name="lmscale-prefetch", daemon=True)

    def take() -> Iterator[Windows]:
        for _ in calls:
            made = ready.get()
            if isinstance(made, BaseException):
                raise made
            yield made

    thread.start()
    try:
        yield take()
    finally:
        left.set()
        with suppress(queue.Empty):
            ready.get_nowait()  # the thread may wait for room; it puts once more at most
        thread.join()

"""TensorBoard's event files, through the package that also shows them; its writer would import TensorFlow, this not.

A file is a sequence of records (length, check sum of it, an Event, check sum of that), one written at a time and whole,
so that a killed process leaves no torn one.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmscale.store.files import names, on_store
from lmscale.store.places import beside

PREFIX = "events.out.tfevents."  # TensorBoard reads files whose names hold "tfevents", in the order of their names


class EventFile:
    """The scalars of one curve, from here on: a process that goes on with a curve opens a file of its own.

    Where results are on a store, the file grows on this machine (lmscale.store.places.beside), PUT when it is closed.
    """

    def __init__(self, folder: Path):
        from tensorboard.compat.proto.event_pb2 import (
            Event,  # pyright: ignore[reportAttributeAccessIssue]
            SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
        )
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

        self._event, self._log, self._summary, self._check = Event, SessionLog, Summary, masked_crc32c
        self._folder, here = folder, beside(folder)
        here.mkdir(parents=True, exist_ok=True)
        known = names(folder) | names(here)
        numbers = [int(name.removeprefix(PREFIX)) for name in known if name.startswith(PREFIX)]
        number = max([int(time.time()), *(n + 1 for n in numbers)])  # after those before, whatever the clock says
        self._path = here / f"{PREFIX}{number:010d}"
        self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115
        self._last: int | None = None
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, step: int, values: Mapping[str, float], *, first: int) -> None:
        """Adds the scalars of `step`, which stand for the steps from `first` on.

        Where an earlier event of the curve lies at `first` or beyond it (training went on from a checkpoint made before
        it), TensorBoard is told to drop that one, as TensorFlow's own sessions do: SessionLog.START at a step.
        """
        if self._last is None or first <= self._last:
            start = self._log(status=self._log.START)
            self._write(self._event(wall_time=time.time(), step=first, session_log=start))
        self._last = step
        scalars = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(self._event(wall_time=time.time(), step=step, summary=self._summary(value=scalars)))

    def summarise(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the scalars of a finished run, at its last step."""
        self.write(step, values, first=step + 1)

    def close(self) -> None:
        self._file.close()
        if (store := on_store(self._folder)) is not None:
            with suppress(OSError):  # the same numbers are in the curve, which must be there
                store.upload({self._path.name: str(self._path)})

    def _write(self, event: Any) -> None:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        checks = (struct.pack("<I", self._check(part)) for part in (length, data))
        self._file.write(length + next(checks) + data + next(checks))

"""A profile of chosen steps: whole calls of the compiled program, traced by jax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


class Profiler:
    """Traces the calls of one trajectory that cover the wanted steps; without any it does nothing."""

    def __init__(self, wanted: range | None, folder: Path, say: Callable[[str], None]):
        self.wanted, self.folder, self.say = wanted, folder, say
        self.traced = False

    def covers(self, start: int, stop: int) -> bool:
        """Whether a call that trains the steps start + 1 .. stop holds a wanted one."""
        return self.wanted is not None and start < self.wanted[-1] and stop >= self.wanted[0]

    def call(self, start: int, stop: int, dispatch: Callable[[], Any], inputs: Any) -> Any:
        """What `dispatch` gives; if its steps are wanted it is traced and awaited, with nothing else in flight."""
        if not self.covers(start, stop):
            return dispatch()
        folder = self.folder / f"steps-{start + 1}-{stop}"
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # the host's Python would drown the step's operations
        jax.block_until_ready(inputs)
        with jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options):
            result = jax.block_until_ready(dispatch())
        self.traced = True
        self.say(
            f"profile of steps {start + 1} to {stop}, the whole call, in {folder}: tensorboard --logdir {folder} (pip "
            "install xprof), or open its perfetto_trace.json.gz at ui.perfetto.dev"
        )
        return result

    def close(self) -> None:
        """Says where wanted steps were not seen."""
        if self.wanted is not None and not self.traced:
            self.say(
                f"profile: no call trained steps {self.wanted[0]} to {self.wanted[-1]} of {self.folder.parent.name}"
            )
            self.wanted = None

"""What a sweep shows while it runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_SECONDS = 15.0  # between plain lines


class Display(Protocol):
    """Shows the sweep's progress, measured in training FLOPs."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def say(self, line: str) -> None:
        """A line that stays."""
        ...

    def update(self, *, label: str, flops: float, loss_nats: float, tokens_per_second: float) -> None:
        """`flops` are those spent or saved so far, of the total."""
        ...


def make_display(total_flops: float) -> Display:
    """Bars if standard output is a terminal, else lines."""
    return Bars(total_flops) if sys.stdout.isatty() else Lines(total_flops)


class Bars:
    """A live bar for the whole sweep with loss, tokens/s and the time left."""

    def __init__(self, total_flops: float):
        self.console = Console()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[rate]} tokens/s"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            speed_estimate_period=120.0,
        )
        self.task = self.progress.add_task("starting", total=total_flops, loss="-", rate="-")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)

    def update(self, *, label: str, flops: float, loss_nats: float, tokens_per_second: float) -> None:
        self.progress.update(
            self.task,
            description=label,
            completed=flops,
            loss=f"{loss_nats:.3f}",
            rate=f"{tokens_per_second:,.0f}",
        )


class Lines:
    """A line now and then, for logs."""

    def __init__(self, total_flops: float):
        self.total = total_flops
        self.began = self.printed = time.monotonic()
        self.first: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def say(self, line: str) -> None:
        print(line, flush=True)

    def update(self, *, label: str, flops: float, loss_nats: float, tokens_per_second: float) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.began = flops, now  # what was done before this sweep began says nothing of its speed
        if now - self.printed < LINE_SECONDS:
            return
        self.printed = now
        spent = flops - self.first
        left = (self.total - flops) * (now - self.began) / spent if spent > 0 else float("nan")
        self.say(
            f"{flops / self.total:4.0%}  {label}  loss {loss_nats:.3f}  {tokens_per_second:,.0f} tokens/s  "
            f"{left / 60:.1f} min left"
        )

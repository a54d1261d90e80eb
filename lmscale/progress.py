"""What a sweep shows while it runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_SECONDS = 15.0  # between plain lines


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a worker does, and how far the sweep is."""

    worker: int
    label: str
    flops: float  # of the whole sweep so far
    loss_nats: float
    tokens_per_second: float
    share_of_peak: float

    def __str__(self) -> str:
        speed = f"{self.tokens_per_second:,.0f} tokens/s ({self.share_of_peak:.0%} of peak)"
        return f"{self.label}  loss {self.loss_nats:.3f}  {speed}"


class Display(Protocol):
    """Shows the sweep's progress, measured in training FLOPs."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def say(self, line: str) -> None:
        """A line that stays."""
        ...

    def update(self, report: Report) -> None:
        """What a worker does now."""
        ...


def make_display(total_flops: float, workers: int) -> Display:
    """Bars if standard output is a terminal, else lines."""
    return Bars(total_flops, workers) if sys.stdout.isatty() else Lines(total_flops)


class Bars:
    """A live bar for the whole sweep with the time left, and under it a line for what each worker does."""

    def __init__(self, total_flops: float, workers: int):
        self.console = Console()
        self.whole = Progress(
            TextColumn("sweep"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("left")
        )
        self.task = self.whole.add_task("", total=total_flops)
        self.each = Progress(TextColumn("{task.description}"))
        self.lines = [self.each.add_task(f"worker {worker}  starting") for worker in range(workers)]
        self.live = Live(Group(self.whole, self.each), console=self.console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)

    def update(self, report: Report) -> None:
        self.whole.update(self.task, completed=report.flops)
        self.each.update(self.lines[report.worker], description=f"worker {report.worker}  {report}")


class Lines:
    """A line now and then, for logs."""

    def __init__(self, total_flops: float):
        self.total = total_flops
        self.pace = Pace(total_flops)
        self.printed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def say(self, line: str) -> None:
        print(line, flush=True)

    def update(self, report: Report) -> None:
        now = time.monotonic()
        left = self.pace.left(report.worker, report.flops, now)
        if now - self.printed < LINE_SECONDS:
            return
        self.printed = now
        words = "" if left is None else f"  about {left / 60:.1f} min left"
        self.say(f"{report.flops / self.total:4.0%}  {report}{words}")


class Pace:
    """The time left, from the pace since every worker was seen to train: what it did before was starting and compiling,
    and says nothing of the rest.
    """

    def __init__(self, total_flops: float):
        self.total = total_flops
        self.seen: set[int] = set()
        self.since = (0.0, 0.0)  # when the last worker was first seen, and the FLOPs there were then

    def left(self, worker: int, flops: float, now: float) -> float | None:
        """Seconds left at `now` (seconds), when the sweep has `flops`; None while there is no telling."""
        if worker not in self.seen:
            self.seen.add(worker)
            self.since = (now, flops)
        began, before = self.since
        return None if flops <= before else (self.total - flops) * (now - began) / (flops - before)


def done_line(row: dict) -> str:
    """A finished run for a person."""
    shape = f"{row['width']}x{row['depth']}x{row['heads']}"
    return (
        f"done  {shape:>10}  {row['params']:>13,} params  {row['tokens']:>15,} tokens  "
        f"loss {row['loss_nats']:.4f} +- {row['loss_stderr']:.4f} nats"
    )

"""What a sweep shows while it runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_SECONDS = 15.0  # between plain lines


class Display(Protocol):
    """Shows the sweep's progress, measured in training FLOPs."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def say(self, line: str) -> None:
        """A line that stays."""
        ...

    def update(self, *, worker: int, label: str, flops: float, loss_nats: float, tokens_per_second: float) -> None:
        """What a worker does; `flops` are those of the whole sweep so far."""
        ...


def make_display(total_flops: float, workers: int) -> Display:
    """Bars if standard output is a terminal, else lines."""
    return Bars(total_flops, workers) if sys.stdout.isatty() else Lines(total_flops)


class Bars:
    """A live bar for the whole sweep with the time left, and under it what each worker does."""

    def __init__(self, total_flops: float, workers: int):
        self.console = Console()
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self.console,
            speed_estimate_period=120.0,
        )
        self.total = total_flops
        self.task = self.progress.add_task("sweep", total=total_flops, note="starting")
        self.lines: list[TaskID] = [
            self.progress.add_task(f"worker {worker}", total=None, note="starting") for worker in range(workers)
        ]

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)

    def update(self, *, worker: int, label: str, flops: float, loss_nats: float, tokens_per_second: float) -> None:
        self.progress.update(self.task, completed=flops, note=f"{flops / self.total:.0%}, time left")
        self.progress.update(
            self.lines[worker], note=f"{label}  loss {loss_nats:.3f}  {tokens_per_second:,.0f} tokens/s"
        )


class Lines:
    """A line now and then, for logs."""

    def __init__(self, total_flops: float):
        self.total = total_flops
        self.began = self.printed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def say(self, line: str) -> None:
        print(line, flush=True)

    def update(self, *, worker: int, label: str, flops: float, loss_nats: float, tokens_per_second: float) -> None:
        now = time.monotonic()
        if now - self.printed < LINE_SECONDS:
            return
        self.printed = now
        left = (self.total / flops - 1) * (now - self.began)
        self.say(
            f"{flops / self.total:4.0%}  {label}  loss {loss_nats:.3f}  {tokens_per_second:,.0f} tokens/s  "
            f"about {left / 60:.1f} min left"
        )


def done_line(row: dict) -> str:
    """A finished run for a person."""
    shape = f"{row['width']}x{row['depth']}x{row['heads']}"
    return (
        f"done  {shape:>10}  {row['params']:>13,} params  {row['tokens']:>15,} tokens  "
        f"loss {row['loss_nats']:.4f} +- {row['loss_stderr']:.4f} nats"
    )

"""What a sweep shows while it runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

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

    def update(self, *, worker: int, label: str, flops: float, loss_nats: float, tokens_per_second: float) -> None:
        self.whole.update(self.task, completed=flops)
        text = f"worker {worker}  {label}  loss {loss_nats:.3f}  {tokens_per_second:,.0f} tokens/s"
        self.each.update(self.lines[worker], description=text)


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

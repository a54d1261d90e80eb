"""What a sweep shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live

from lmscale.plan import Run, Trajectory
from lmscale.watch.pacing import duration
from lmscale.watch.standing import Status, UnderWay
from lmscale.watch.status_table import head, tally, under_way_table

LINE_SECONDS = 15.0  # between plain lines


class Display(Protocol):
    """Shows the sweep's progress, measured in training FLOPs."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def say(self, line: str) -> None:
        """A line that stays."""
        ...

    def update(self, *, worker: int, doing: UnderWay | None, flops: float, counts: Mapping[Status, int]) -> None:
        """What a worker does (None: it has ended); `flops` are those of the whole sweep so far, `counts` its runs."""
        ...


def make_display(total_flops: float, workers: int) -> Display:
    """A table if standard output is a terminal, else lines."""
    return LiveTable(total_flops, workers) if sys.stdout.isatty() else Lines(total_flops)


class LiveTable:
    """The whole sweep with the time left, its runs by status, and a row for what each worker does."""

    def __init__(self, total_flops: float, workers: int, console: Console | None = None):
        self.console = console or Console()
        self.total, self.flops, self.left = total_flops, 0.0, None
        self.pace = Pace(total_flops)
        self.counts: Mapping[Status, int] = {}
        self.workers: dict[int, UnderWay | None] = {worker: _starting(worker) for worker in range(workers)}
        self.live = Live(get_renderable=self.render, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False)

    def update(self, *, worker: int, doing: UnderWay | None, flops: float, counts: Mapping[Status, int]) -> None:
        self.flops, self.counts, self.workers[worker] = flops, counts, doing
        if doing is not None:
            self.left = self.pace.left(worker, flops, time.monotonic())

    def render(self) -> RenderableType:
        return Group(
            head(self.flops, self.total, self.left),
            tally(self.counts),
            under_way_table(doing for doing in self.workers.values() if doing is not None),
        )


def _starting(worker: int) -> UnderWay:
    return UnderWay(
        who=str(worker), shape="", tokens=0, phase=None, step=0, steps=0, loss_nats=None, tokens_per_second=None
    )


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

    def update(self, *, worker: int, doing: UnderWay | None, flops: float, counts: Mapping[Status, int]) -> None:
        if doing is None:
            return
        now = time.monotonic()
        left = self.pace.left(worker, flops, now)
        if now - self.printed < LINE_SECONDS:
            return
        self.printed = now
        words = "" if left is None else f"  about {duration(left)} left"
        self.say(f"{flops / self.total:4.0%}  {doing_words(doing)}{words}")


TOLD = 1e-5  # share of all FLOPs from which there is telling: what n-grams count takes time and next to no FLOPs


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
        done = flops - before
        return None if done <= TOLD * self.total else (self.total - flops) * (now - began) / done


def run_words(trajectory: Trajectory, run: Run) -> str:
    """A planned run for a person."""
    return f"{trajectory.shape} to {run.tokens / 1e6:.2f} M tokens"


def doing_words(doing: UnderWay) -> str:
    """What a worker does, for a person."""
    words = f"{doing.shape} to {doing.tokens / 1e6:.2f} M tokens, {doing.phase}, step {doing.step:,} of {doing.steps:,}"
    if doing.loss_nats is not None:
        words += f"  loss {doing.loss_nats:.3f}"
    if doing.tokens_per_second is not None:
        words += f"  {doing.tokens_per_second:,.0f} tokens/s"
    return words if doing.share_of_peak is None else f"{words} ({doing.share_of_peak:.0%} of peak)"


def done_line(row: dict) -> str:
    """A finished run for a person."""
    shape = f"{row['order']}-gram" if row.get("order") else f"{row['width']}x{row['depth']}x{row['heads']}"
    shape = shape if row["family"] in ("decoder", "ngram") else f"{row['family']} {shape}"
    return (
        f"done  {shape:>9} {row['params']:>11,} params {row['tokens']:>13,} tokens  "
        f"loss {row['loss_nats']:.4f} +- {row['loss_stderr']:.4f} nats"
    )

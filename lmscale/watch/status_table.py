"""Where a sweep stands, as a table on a terminal: of `lmscale status`, and live while it trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lmscale.watch.pacing import duration
from lmscale.watch.standing import STATUSES, Standing, Status, UnderWay, unfinished

COLOURS: Mapping[Status, str] = {
    "done": "green",
    "running": "cyan",
    "planned": "dim",
    "interrupted": "yellow",
    "stalled": "red",
    "failed": "red",
    "diverged": "magenta",
}
ROWS = 30  # of a table that may be long


def as_table(standing: Standing) -> RenderableType:
    """All of it: how much is done, who trains what, the sizes, and what went wrong."""
    began = Text(f"study {standing.study}, begun {standing.started}, read {standing.read}")
    parts: list[RenderableType] = [began, head(standing.flops_done, standing.flops, standing.seconds_left)]
    parts.append(tally(standing.counts))
    if standing.until:
        parts.append(Text(f"stops when {standing.until}"))
    if standing.other_records:
        parts.append(Text(f"{standing.other_records} more runs are recorded here that this plan does not have"))
    if standing.under_way:
        parts += [Text(), under_way_table(standing.under_way)]
    parts += [Text(), sizes_table(standing)]
    if wrong := unfinished(standing):
        parts += [Text(), wrong_table(wrong)]
    return Group(*parts)


def head(flops_done: float, flops: float, seconds_left: float | None) -> RenderableType:
    """One line: a bar of the FLOPs spent, and the time left."""
    table = Table.grid(padding=(0, 1))
    left = "" if seconds_left is None else f"about {duration(seconds_left)} left"
    share = flops_done / flops if flops else 1.0
    bar = ProgressBar(total=flops or 1.0, completed=flops_done, width=30)
    table.add_row(bar, f"{share:.0%}", f"{flops_done:.2e} of {flops:.2e} FLOPs", left)
    return table


def tally(counts: Mapping[Status, int]) -> Text:
    """One line: how many runs have which status."""
    told = [f"[{COLOURS[status]}]{counts[status]} {status}[/]" for status in STATUSES if counts.get(status)]
    return Text.from_markup("runs: " + (", ".join(told) or "none"))


def under_way_table(rows: Iterable[UnderWay]) -> Table:
    """Who trains what, a row a trajectory."""
    rows = list(rows)
    peak = any(row.share_of_peak is not None for row in rows)
    table = _table("worker", "model", ">tokens", "phase", ">step", ">of", ">loss", ">tokens/s", *([">peak"] * peak))
    for row in rows:
        table.add_row(
            Text(row.who),
            row.shape,
            f"{row.tokens:,}" if row.tokens else "",
            row.phase or "starting",
            f"{row.step:,}" if row.step else "",
            f"{row.steps:,}" if row.steps else "",
            "" if row.loss_nats is None else f"{row.loss_nats:.3f}",
            "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}",
            *([] if row.share_of_peak is None else [f"{row.share_of_peak:.0%}"]),
        )
    return table


def sizes_table(standing: Standing) -> Table:
    """Runs by size, a column a status that some run has."""
    shown: list[Status] = [status for status in STATUSES if standing.counts[status]]
    by_shape: dict[tuple[int, str, str], dict[Status, int]] = {}
    for run in standing.runs:
        trajectory = standing.trajectories[run.trajectory]
        known = trajectory["params"]
        key = (known or 0, trajectory["shape"], "after counting" if known is None else f"{known:,}")
        row = by_shape.setdefault(key, dict.fromkeys(STATUSES, 0))
        row[run.status] += 1
    table = _table("model", ">params", *(f">{status}" for status in shown))
    for (_, shape, params), row in sorted(by_shape.items())[:ROWS]:
        table.add_row(shape, params, *(str(row[status] or "") for status in shown))
    if len(by_shape) > ROWS:
        table.add_row(f"and {len(by_shape) - ROWS} more sizes")
    return table


def wrong_table(rows: list[tuple[str, str, Status, str]]) -> Table:
    """Runs that did not come to their end, and why."""
    table = _table("model", ">tokens", "status", "why")
    for shape, tokens, status, why in rows[:ROWS]:
        table.add_row(shape, tokens, Text(status, style=COLOURS[status]), Text(why))
    if len(rows) > ROWS:
        table.add_row(f"and {len(rows) - ROWS} more")
    return table


def _table(*columns: str) -> Table:
    """Without lines, for narrow terminals; `>` before a column puts its numbers to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold")
    return table

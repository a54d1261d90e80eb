"""Where a sweep stands, as a page that a browser reads again by itself: no script, nothing from the network."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from html import escape

from analysis.errors import InputError
from lmscale.records import Workspace
from lmscale.store.files import write_atomic
from lmscale.watch.pacing import SHARE, duration
from lmscale.watch.standing import STATUSES, RunStanding, Standing, read_standing, unfinished

PAGE = "status.html"
REFRESH_SECONDS = 10  # of the page, and about that of its file while a sweep goes on
STYLE = """
:root { color-scheme: light dark; --line: #8884; --done: #2e9e5b; --running: #1f86d6; --planned: #8886;
  --interrupted: #d99a1c; --stalled: #d4552a; --failed: #c9302c; --diverged: #a341b8; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
.quiet { opacity: .7; } .bar { background: var(--planned); border-radius: 4px; height: 14px; margin: .8rem 0 .4rem; }
.bar div { background: var(--done); border-radius: 4px; height: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
.n { text-align: right; } .scroll { overflow-x: auto; }
.cell { display: inline-block; min-width: 1.1rem; height: 1.1rem; border-radius: 3px; margin: 0 2px -3px 0; }
.key { margin-right: 1.1rem; white-space: nowrap; }
""" + "".join(f".{status} {{ background: var(--{status}); }}\n" for status in STATUSES)


def write_page(workspace: Workspace, standing: Standing) -> None:
    """Rewrites the page of a study, whole."""
    write_atomic(workspace.root / PAGE, as_html(standing))


def refresh(workspace: Workspace) -> None:
    """Rewrites the page from what is on the disk; where that cannot be, the sweep goes on without."""
    with suppress(OSError, InputError):
        write_page(workspace, read_standing(workspace))


@contextmanager
def kept_fresh(workspace: Workspace) -> Iterator[None]:
    """Rewrites the page every REFRESH_SECONDS, in a thread, or less often where that would take much of the time."""
    ended = threading.Event()

    def keep() -> None:
        wait = 0.0
        while not ended.wait(wait):
            began = time.monotonic()
            refresh(workspace)
            wait = max(REFRESH_SECONDS, (time.monotonic() - began) / SHARE)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def as_html(standing: Standing) -> str:
    """The page: how much is done, who trains what, every run of the grid, and what went wrong."""
    share = standing.flops_done / standing.flops if standing.flops else 1.0
    left = "" if standing.seconds_left is None else f", about {duration(standing.seconds_left)} left"
    counts = standing.counts
    keys = "".join(
        f'<span class="key"><span class="cell {status}"></span> {counts[status]} {status}</span>'
        for status in STATUSES
        if counts[status]
    )
    notes = [f"stops when {standing.until}"] * bool(standing.until)
    if standing.other_records:
        notes.append(f"{standing.other_records} more runs are recorded here that this plan does not have")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="{REFRESH_SECONDS}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{share:.0%} {escape(standing.study)}</title><style>{STYLE}</style></head><body>
<h1>{escape(standing.study)}</h1>
<div class="quiet">begun {escape(standing.started)}, as of {escape(standing.read)} (if that is long ago, no sweep
writes this page: lmscale status does)</div>
<div class="bar"><div style="width: {100 * share:.1f}%"></div></div>
<div>{share:.0%}: {standing.flops_done:.2e} of {standing.flops:.2e} FLOPs{left}</div>
<p>{keys}</p>{"".join(f"<p>{escape(note)}</p>" for note in notes)}
{_under_way(standing)}{_grid(standing)}{_wrong(standing)}
</body></html>
"""


def _under_way(standing: Standing) -> str:
    rows = [
        (
            row.who,
            row.shape,
            f"{row.tokens:,}",
            row.phase or "starting",
            f"{row.step:,} of {row.steps:,}",
            "" if row.loss_nats is None else f"{row.loss_nats:.3f}",
            "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}",
        )
        for row in standing.under_way
    ]
    return _table("Training now", ("worker", "model", ">tokens", "phase", ">step", ">loss", ">tokens/s"), rows)


def _grid(standing: Standing) -> str:
    """A row a trajectory, a square a run; what differs between trajectories is told."""
    by_trajectory: dict[str, list[RunStanding]] = {}
    for run in standing.runs:
        by_trajectory.setdefault(run.trajectory, []).append(run)
    told = [n for n in ("seed", "schedule", "learning_rate") if len({t[n] for t in standing.trajectories.values()}) > 1]
    rows = []
    for name, runs in by_trajectory.items():
        t = standing.trajectories[name]
        cells = "".join(f'<span class="cell {run.status}" title="{escape(_words(run))}"></span>' for run in runs)
        params = "" if t["params"] is None else f"{t['params']:,}"
        values = [escape(t["shape"]), params]
        values += [escape(f"{t[n]:.4g}" if n == "learning_rate" else str(t[n])) for n in told]
        rows.append(
            f"<tr><td>{values[0]}<td class=n>{values[1]}{''.join(f'<td>{v}' for v in values[2:])}<td>{cells}</tr>"
        )
    head = "".join(f"<th>{n.replace('_', ' ')}" for n in told)
    return (
        f"<h2>Runs</h2><div class=scroll><table><tr><th>model<th class=n>params{head}<th>runs, fewest tokens first</tr>"
        f"{''.join(rows)}</table></div>"
    )


def _words(run: RunStanding) -> str:
    loss = "" if run.loss_nats is None else f", loss {run.loss_nats:.4f} nats"
    return f"{run.tokens:,} tokens: {run.status}{loss}{f' ({run.why})' if run.why else ''}"


def _wrong(standing: Standing) -> str:
    return _table("Not finished, or not usable", ("model", ">tokens", "status", "why"), unfinished(standing))


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    of = ["<td class=n>" if name.startswith(">") else "<td>" for name in columns]
    head = "".join(f"{td.replace('td', 'th')}{name.removeprefix('>')}" for td, name in zip(of, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"{td}{escape(value)}" for td, value in zip(of, row, strict=True)) + "</tr>" for row in rows
    )
    return f"<h2>{title}</h2><div class=scroll><table><tr>{head}</tr>{body}</table></div>"

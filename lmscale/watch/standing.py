"""Where a sweep stands, read from its results folder by anyone who sees it. No framework.

<out>/<study>/sweep.json                        the plan of the sweep that was started last
<out>/<study>/runs/<run_id>/record.json         a finished run (lmscale.records)
<out>/<study>/trajectories/<id>/lease.json      who trains it, how far it is; rewritten every few seconds
<out>/<study>/runs/<run_id>/lease.json          the same of a cooldown
<out>/<study>/trajectories/<id>/attempts.jsonl  how each attempt at it ended
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from analysis.errors import InputError
from lmscale.plan import Trajectory, cost
from lmscale.records import Workspace
from lmscale.store.files import Lines, modified, names, now, sealed, unsealed, write_atomic
from lmscale.work.attempts import ATTEMPTS
from lmscale.work.leases import LEASE, LEASE_SECONDS, Owner, read_lease

Status = Literal["planned", "running", "done", "diverged", "failed", "stalled", "interrupted"]
STATUSES: tuple[Status, ...] = ("done", "running", "planned", "interrupted", "stalled", "failed", "diverged")
BLOCKED = ("failed", "stalled")  # of a trajectory: none of its runs will come by itself
PLAN = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class RunStanding:
    """A planned run. flops: what it adds to those before it in its trajectory; why: of a run that ended badly."""

    run_id: str
    trajectory: str
    tokens: int
    flops: float
    status: Status
    loss_nats: float | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A trajectory that a worker has at the moment; None where it has not said."""

    who: str
    shape: str
    tokens: int  # of the run it is on the way to
    phase: str | None
    step: int
    steps: int  # of the run
    loss_nats: float | None
    tokens_per_second: float | None
    share_of_peak: float | None = None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A whole sweep. trajectories: shape, params, seed, schedule and learning_rate of each, by id."""

    study: str
    started: str
    read: str
    until: str | None
    runs: tuple[RunStanding, ...]
    trajectories: Mapping[str, Mapping[str, Any]]
    under_way: tuple[UnderWay, ...]
    flops_done: float
    flops: float  # of all
    seconds_left: float | None  # at the speed of those under way
    other_records: int  # of runs that this plan does not have

    @property
    def counts(self) -> dict[Status, int]:
        """Runs of each status."""
        found = Counter(run.status for run in self.runs)
        return {status: found[status] for status in STATUSES}


def unfinished(standing: Standing) -> list[tuple[str, str, Status, str]]:
    """Model, tokens, status and cause of runs that did not come to their end, those that one cause stopped together."""
    found: dict[tuple[str, Status, str], list[int]] = {}
    for run in standing.runs:
        if run.why:
            found.setdefault((run.trajectory, run.status, run.why), []).append(run.tokens)
    return [
        (standing.trajectories[name]["shape"], ", ".join(f"{count:,}" for count in tokens), status, why)
        for (name, status, why), tokens in found.items()
    ]


def write_plan(workspace: Workspace, plan: Iterable[Trajectory], until: str | None) -> None:
    """Notes what a sweep is about to do, for whoever asks where it stands."""
    trajectories, runs = {}, []
    plan = list(plan)
    several = len({t.family for t in plan}) > 1
    for t in plan:
        h, before = t.hyperparameters, 0
        trajectories[t.id] = {
            "shape": f"{t.family} {t.shape}" if several else str(t.shape),
            "params": t.shape.planned_params,
            "seed": t.seed,
            "schedule": h.schedule,
            "learning_rate": h.learning_rate,
            "flops_per_token": t.shape.train_flops(1, h.sequence),
        }
        for run in t.runs:
            runs.append(
                {
                    "run_id": run.id,
                    "trajectory": t.id,
                    "tokens": run.tokens,
                    "steps": run.steps,
                    "from_step": before,
                    "flops": cost(t, run),
                }
            )
            before = run.branch_step
    told = {
        "study": workspace.root.name,
        "started": _iso(time.time()),
        "until": until,
        "trajectories": trajectories,
        "runs": runs,
    }
    write_atomic(workspace.root / PLAN, json.dumps(sealed(told), allow_nan=False) + "\n")


def read_standing(workspace: Workspace) -> Standing:
    """Reads the folder, and changes nothing in it. Raises InputError without a plan in it, or with a damaged one."""
    path = workspace.root / PLAN
    try:
        told = unsealed(json.loads(path.read_text(encoding="utf-8")))
        runs, trajectories = told["runs"], told["trajectories"]
    except FileNotFoundError:
        raise InputError(
            f"study: no sweep of {workspace.root.name!r} was started in {str(workspace.root.parent)!r}; pass "
            "--out DIR, or sweep it first"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"study: {str(path)!r} cannot be read ({error}); the next sweep writes it anew") from None
    finished = _finished(workspace.root / "runs", workspace.root / "runs.csv")
    read, begun = now(workspace.root), names(workspace.root / "trajectories")
    left: dict[str, list[dict]] = {}
    for run in runs:
        if run["run_id"] not in finished:
            left.setdefault(run["trajectory"], []).append(run)
    known = {name: _attempt(workspace.trajectory(name), read) for name in left if name in begun}
    standings, under_way, done, speed = [], [], 0.0, 0.0
    running, aheads = set(), {}
    for name, unfinished in left.items():
        attempt = known.get(name, Attempt())
        leases = {run["run_id"]: lease for run in unfinished if (lease := _live(workspace.run(run["run_id"]), read))}
        # what the holder of the trajectory does; others train cooldowns
        ahead = aheads[name] = _ahead(unfinished, attempt, leases)
        if attempt.status == "running" and ahead is not None:
            leases[ahead["run_id"]] = attempt.lease
        for run in unfinished:
            if (lease := leases.get(run["run_id"])) is not None:
                under_way.append(_under_way(lease, trajectories[name], run))
                done += _progress(lease, run)
                speed += trajectories[name]["flops_per_token"] * (lease["tokens_per_second"] or 0.0)
        running |= leases.keys()
    for run in runs:
        status, loss, why = finished.get(run["run_id"], ("planned", None, ""))
        if run["run_id"] in finished:
            done += run["flops"]
        else:
            attempt = known.get(run["trajectory"], Attempt())
            first = run is aheads[run["trajectory"]]
            if first or attempt.status in BLOCKED:
                status, why = attempt.status, attempt.why
            if run["run_id"] in running:
                status, why = "running", ""
        standings.append(
            RunStanding(
                run_id=run["run_id"],
                trajectory=run["trajectory"],
                tokens=run["tokens"],
                flops=run["flops"],
                status=status,
                loss_nats=loss,
                why=why,
            )
        )
    total = sum(run["flops"] for run in runs)
    return Standing(
        study=told["study"],
        started=told["started"],
        read=_iso(read),
        until=told["until"],
        runs=tuple(standings),
        trajectories=trajectories,
        under_way=tuple(under_way),
        flops_done=done,
        flops=total,
        seconds_left=(total - done) / speed if speed else None,
        other_records=len(finished.keys() - {run["run_id"] for run in runs}),
    )


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The last attempt at a trajectory."""

    status: Status = "planned"
    why: str = ""
    lease: dict[str, Any] = field(default_factory=dict)


def _attempt(folder: Path, read: float) -> Attempt:
    """What lease and attempts of a trajectory say. The lease counts until its attempt has a line, or falls silent."""
    lease, lines = read_lease(folder), Lines(folder / ATTEMPTS).read()
    last = max(lines, key=lambda line: line["attempt"], default=None)
    if lease is not None and (last is None or lease["token"] > last["attempt"]):
        if live := _live(folder, read):
            return Attempt(status="running", lease=live)
        return Attempt(status="interrupted", why=f"its worker on {Owner.from_text(lease['owner']).host} fell silent")
    if last is not None and last["status"] in ("failed", "stalled", "interrupted"):
        return Attempt(status=last["status"], why=last["why"])
    return Attempt()


def _live(folder: Path, read: float) -> dict | None:
    """The lease of a trajectory or run, if somebody has it."""
    lease = read_lease(folder)
    if lease is None or lease["released"] or Owner.from_text(lease["owner"]).is_gone:
        return None
    try:
        return lease if read - modified(folder / LEASE) < LEASE_SECONDS else None
    except OSError:
        return None


def _ahead(unfinished: list[dict], attempt: Attempt, taken: Container[str]) -> dict | None:
    """The run that an attempt at a trajectory is on the way to: the one its lease names, else the shortest that nobody
    else has.
    """
    if attempt.status == "running" and (named := attempt.lease["run"]):
        return next((run for run in unfinished if run["run_id"] == named), None)
    return next((run for run in unfinished if run["run_id"] not in taken), None)


def _progress(lease: Mapping[str, Any], run: Mapping[str, Any]) -> float:
    """FLOPs that a run under way has taken of those it adds."""
    behind = run["steps"] - run["from_step"]
    return run["flops"] * min(1.0, max(0.0, ((lease["step"] or 0) - run["from_step"]) / behind))


def _under_way(lease: Mapping[str, Any], trajectory: Mapping[str, Any], run: Mapping[str, Any]) -> UnderWay:
    return UnderWay(
        who=Owner.from_text(lease["owner"]).host,
        shape=trajectory["shape"],
        tokens=run["tokens"],
        phase=lease["phase"],
        step=lease["step"] or 0,
        steps=run["steps"],
        loss_nats=lease["loss_nats"],
        tokens_per_second=lease["tokens_per_second"],
    )


def _finished(folder: Path, table: Path) -> dict[str, tuple[Status, float | None, str]]:
    """Status, loss and cause of every run that has a record. Records never change, so that runs.csv stands for those
    that were there before it was written; of later ones the record itself is read.
    """
    exported, rows = _exported(table)
    found: dict[str, tuple[Status, float | None, str]] = {}
    for name in names(folder):
        path = folder / name / "record.json"
        try:
            row = rows.get(name)
            if row is None or modified(path) >= exported:
                row = json.loads(path.read_text(encoding="utf-8"))["row"]
            loss = float(row["loss_nats"]) if row["loss_nats"] not in (None, "") else None
            diverged = row["status"] == "diverged"
        except (OSError, ValueError, KeyError, TypeError):  # none, or a damaged one, which the next sweep sets aside
            continue
        found[name] = (
            "diverged" if diverged else "done",
            loss,
            "its loss was not finite" if diverged else "",
        )
    return found


def _exported(table: Path) -> tuple[float, dict[str, dict[str, str]]]:
    """When runs.csv was written, and its rows by run."""
    try:
        written = modified(table)  # asked first: of what is written meanwhile there are rows too many, never too few
        lines = csv.reader(io.StringIO(table.read_text(encoding="utf-8"), newline=""))
        columns = next(lines)
        at = {name: columns.index(name) for name in ("run_id", "status", "loss_nats")}
        return written, {row[at["run_id"]]: {name: row[i] for name, i in at.items()} for row in lines}
    except (OSError, ValueError, StopIteration, IndexError):
        return 0.0, {}


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

"""Run directories, atomic records and the export of the three tables. No framework.

    <out>/<study>/runs/<run_id>/record.json         immutable, written once the run is finished
    <out>/<study>/runs/<run_id>/curve.jsonl         its cooldown, a line a dispatch
    <out>/<study>/runs/<run_id>/scores/*.json       an evaluation set beside the headline, or rounded weights on one,
                                                    whenever it was added
    <out>/<study>/trajectories/<id>/trunk.jsonl     the trunk that its runs share

Tables are exports: `export` rebuilds them from these files at any time.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale.store.files import Lines, on_store, set_aside, try_out, unsealed, write_atomic

if TYPE_CHECKING:
    from lmscale.evaluate import NamedSet

# fmt: off
RUN_COLUMNS = (
    "run_id", "study", "trajectory", "family", "objective", "corpus", "tokenizer", "eval_set", "vocab",
    "params", "params_embedding", "tokens", "unique_tokens", "epochs", "trained_bytes",
    "flops", "flops_6nd", "flops_budget", "loss_nats", "loss_stderr", "bits_per_byte", "entropy_nats",
    "width", "depth", "heads", "order", "sequence", "batch_tokens", "learning_rate", "schedule", "cooldown_tokens",
    "recipe", "seed", "status", "interventions", "mesh", "device", "step_seconds", "params_trained", "start",
    "pretrained_tokens",
)
# fmt: on
RECORD = "record.json"
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)  # what a damaged file of JSON raises
# Which earlier records lack: empty cells
LATER_COLUMNS = {"order", "params_trained", "start", "pretrained_tokens"}
# loss_nats is held-out; train_loss_nats is the mean over the steps since the line before, on the text of
# those steps before they are trained on it
CURVE_COLUMNS = ("run_id", "step", "tokens", "flops", "loss_nats", "decayed", "train_loss_nats")
# eval_set tells apart two states of a set whose name stayed; slice is a part of it such as source=web, or the whole
SCORE_COLUMNS = ("run_id", "task", "metric", "value", "stderr", "eval_set", "slice")
SCORES = "scores"  # the folder of a run's scores, a file an evaluation set, and one a rounding of weights on it


class Curve:
    """The points of a trunk or a cooldown, one a dispatch, in the order of their steps."""

    def __init__(self, path: Path):
        self.lines = Lines(path)
        self.last_step: int | None = None

    def append(self, row: Mapping) -> bool:
        """Adds a point, unless the curve already reaches its step (a trunk walked again for a run added later).

        Returns whether it did.
        """
        if self.last_step is None:
            self.last_step = max((r["step"] for r in self.read()), default=-1)
        if row["step"] <= self.last_step:
            return False
        self.last_step = row["step"]
        self.lines.append(row)
        return True

    def flush(self) -> None:
        """Sees to it that all points are there, as `Lines.flush`."""
        self.lines.flush()

    def read(self) -> list[dict]:
        """The sound points. Of two of one step, left by processes that took over from one another, the later."""
        points = {row["step"]: row for row in self.lines.read()}
        return [points[step] for step in sorted(points)]

    def truncate(self, step: int) -> list[str]:
        """Drops the points after `step`: training goes on from a checkpoint made there. Returns the damaged lines
        that were found and set aside.
        """
        damaged = self.lines.damaged()
        rows = [row for row in self.read() if row["step"] <= step]
        self.last_step = max((row["step"] for row in rows), default=-1)
        if self.lines.path.exists():
            self.lines.write(rows)
        return damaged


class Workspace:
    """The results folder of one study."""

    def __init__(self, out: Path, study: str):
        self.root = out / study
        self._known: dict[str, dict] = {}  # records on a store, which never change: each is asked for once

    def create(self) -> None:
        """Raises InputError if the folder cannot be written, or its store cannot make an object once."""
        try:
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            (self.root / "trajectories").mkdir(exist_ok=True)
            try_out(self.root)
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"out: {str(self.root)!r} cannot be written ({reason}); pass --out DIR") from None

    def run(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def trajectory(self, trajectory_id: str) -> Path:
        return self.root / "trajectories" / trajectory_id

    def record(self, run_id: str) -> dict | None:
        """The record of a finished run, or None. A record that cannot be read is set aside, and said."""
        try:
            return self._read(run_id)
        except UNREADABLE as error:
            aside = set_aside(self.run(run_id) / RECORD)
            print(f"record of {run_id} cannot be read ({error}); set aside as {aside.name}, the run is repeated")
            return None

    def look_up(self, run_id: str, field: str) -> dict | None:
        """As `record`, for those who only read: nothing is moved. Raises InputError under `field` for a record that
        cannot be read.
        """
        try:
            return self._read(run_id)
        except (*UNREADABLE, OSError) as error:
            raise InputError(
                f"{field}: {run_id!r} has a record that cannot be read ({error}); it is left as it is, name another run"
            ) from None

    def _read(self, run_id: str) -> dict | None:
        if run_id in self._known:
            return self._known[run_id]
        path = self.run(run_id) / RECORD
        try:
            record = unsealed(json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if record["row"]["run_id"] != run_id:
            raise ValueError("its run_id is another run's")
        needed = set(RUN_COLUMNS) - LATER_COLUMNS
        if missing := {"scores", "steps", "branch_step"} - set(record) | needed - set(record["row"]):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        if on_store(path):
            self._known[run_id] = record
        return record

    def scores(self, run_id: str) -> list[dict]:
        """Rows of scores.csv beside those of its record (SCORES). A file that cannot be read is set aside."""
        rows = []
        for path in sorted((self.run(run_id) / SCORES).glob("*.json")):
            try:
                found = unsealed(json.loads(path.read_text(encoding="utf-8")))["scores"]
                if any({*row, "slice"} != set(SCORE_COLUMNS) or row["run_id"] != run_id for row in found):
                    raise ValueError("its rows are no scores of this run")
                rows += found
            except UNREADABLE as error:
                set_aside(path)
                print(f"scores of {run_id} in {path.name} cannot be read ({error}); set aside, score it again")
        return rows

    def records(self) -> list[dict]:
        """All readable records, in the order of their compute."""
        folders = sorted((self.root / "runs").iterdir()) if (self.root / "runs").is_dir() else []
        found = [record for folder in folders if (record := self.record(folder.name)) is not None]
        return sorted(found, key=lambda record: (record["row"]["flops"], record["row"]["run_id"]))

    def export(self) -> int:
        """Rebuilds runs.csv, curves.csv and scores.csv from the records; returns the number of runs."""
        records = self.records()
        rows = [record["row"] for record in records]
        write_atomic(self.root / "runs.csv", to_csv(RUN_COLUMNS, rows))
        write_atomic(self.root / "curves.csv", to_csv(CURVE_COLUMNS, self._curve_rows(records)))
        scores = [row for record in records for row in self._score_rows(record)]
        write_atomic(self.root / "scores.csv", to_csv(SCORE_COLUMNS, scores))
        return len(rows)

    def _score_rows(self, record: dict) -> Iterable[dict]:
        """Of one run, each once: the groups of a set may have been scored beside it, or after others of its groups."""
        found = {}
        for row in record["scores"] + self.scores(record["row"]["run_id"]):
            key = tuple(row.get(name, "") for name in ("task", "metric", "eval_set", "slice"))
            found.setdefault(key, row)
        return found.values()

    def _curve_rows(self, records: list[dict]) -> Iterable[dict]:
        for record in records:
            row = record["row"]
            flops_per_token = row["flops"] / row["tokens"]
            trunk = Curve(self.trajectory(row["trajectory"]) / "trunk.jsonl").read()
            cooldown = Curve(self.run(row["run_id"]) / "curve.jsonl").read()
            for point in [p for p in trunk if p["step"] <= record["branch_step"]] + cooldown:
                last = point["step"] == record["steps"]
                yield {
                    "run_id": row["run_id"],
                    "step": point["step"],
                    "tokens": point["tokens"],
                    "flops": flops_per_token * point["tokens"],
                    "loss_nats": row["loss_nats"] if last else "",
                    "decayed": last,
                    "train_loss_nats": point["train_loss_nats"],
                }


def unscored(workspace: Workspace, run_id: str, sets: Iterable[NamedSet]) -> list[NamedSet]:
    """The sets on which a run that finished lacks scores, of the whole or of a group; none for a run that diverged or
    has no record.
    """
    folder = workspace.run(run_id) / SCORES
    missing = [s for s in sets if not (folder / s.file_name).exists()]
    record = workspace.record(run_id) if missing else None
    if record is None or record["row"]["status"] != "done":
        return []
    objective = record["row"]["objective"]
    return [s for s in missing if s.is_for(objective) and not s.recorded(record["scores"])]


def to_csv(columns: Iterable[str], rows: Iterable[Mapping]) -> str:
    """CSV with `columns`; a missing or None value is an empty cell, an unknown one an error."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()

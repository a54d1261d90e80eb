"""The evaluation sets beside the headline: scored when a run is finished, or later from its final parameters.

So is the headline once more, where its documents have groups that a run's record does not know.

Each has a file of its own beside the run's record, which stays as it was written.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lmscale.checkpoint import Checkpoints, CorruptCheckpoint
from lmscale.evaluate import NamedSet, score_rows
from lmscale.plan import Run
from lmscale.processes import distributed
from lmscale.records import SCORES, unscored
from lmscale.store.files import sealed, write_json

if TYPE_CHECKING:
    from lmscale.training.lanes import Training


def score(t: Training, run: Run, params: Any, sets: Iterable[NamedSet]) -> None:
    """Scores `params` on each set and keeps the result beside the run's record."""
    folder = t.workspace.run(run.id) / SCORES
    if distributed.leads():
        folder.mkdir(exist_ok=True)
    for each in sets:
        began = time.monotonic()
        with t.telemetry.clock.waiting():
            found = each.measure(t.step, params)
        t.ledger.evaluation += time.monotonic() - began
        if distributed.leads():
            rows = score_rows(run.id, each.name, each.label, found)
            write_json(folder / each.file_name, sealed({"scores": rows}))
        t.telemetry.evaluated(run, each.name, found)


def score_finished(t: Training) -> int:
    """Scores runs that were finished before a set, or its groups, were added; trains nothing.

    Returns how many runs it scored.
    """
    count = 0
    for run in t.trajectory.runs:
        names = distributed.decide(lambda run=run: [s.name for s in unscored(t.workspace, run.id, t.sets)])
        missing = [s for s in t.sets if s.name in names]
        if not missing:
            continue
        like = {"params": t.step.abstract_state.params}
        try:
            params = Checkpoints(t.workspace.run(run.id) / "final", t.say).restore(run.steps, like)["params"]
        except CorruptCheckpoint as error:
            line = (
                f"{run.id} cannot be scored on {', '.join(s.name for s in missing)}, its final parameters are damaged"
            )
            t.say(f"{line} ({error}); remove {t.workspace.run(run.id)} and sweep again to train it anew")
            continue
        score(t, run, params, missing)
        count += 1
    return count

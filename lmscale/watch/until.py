"""`lmscale sweep --until 'N*@1e15 within 25 %'`: whether the law is known well enough to stop. No framework."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from analysis.errors import InputError
from lmscale.watch.pacing import Sparing

NUMBER = r"(\d+\.?\d*(?:[eE]\+?\d+)?)"
GOAL = re.compile(rf"N\*\s*@\s*{NUMBER}\s+within\s+{NUMBER}\s*%")
FLOPS_MIN, FLOPS_MAX = 1e6, 1e40
RESAMPLES = 1000  # as `lmscale fit`


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Stop once the 95 % interval of N* at the budget `flops` reaches from N* (1 - within) to N* (1 + within), or has
    that width.
    """

    flops: float
    within: float
    words: str  # as it was asked

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Such as `N*@1e15 within 25 %`. Raises InputError for anything else."""
        found = GOAL.fullmatch(text.strip())
        flops, percent = (float(number) for number in found.groups()) if found else (0.0, 0.0)
        if not (FLOPS_MIN <= flops <= FLOPS_MAX and 0 < percent <= 100):
            raise InputError(
                f"until: {text!r} is not understood; write a budget from 1e6 to 1e40 FLOPs and a share up to 100 %, as "
                "in 'N*@1e15 within 25 %'"
            )
        return cls(flops=flops, within=percent / 100, words=text.strip())


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the runs so far tell of a goal, in words; half_width is that of N*, relative, None where it is not told."""

    reached: bool
    half_width: float | None
    words: str


def judge(goal: Goal, rows: Iterable[Mapping[str, Any]]) -> Verdict:
    """Fits rows of runs.csv as `lmscale fit` would, and looks at the interval of N*."""
    import pandas as pd

    import analysis

    try:
        fit = analysis.fit(analysis.from_frame(pd.DataFrame(list(rows))), bootstrap=RESAMPLES)
        (best,) = analysis.optimal(fit, [goal.flops])
    except InputError as error:
        return Verdict(reached=False, half_width=None, words=f"no law yet ({error})")
    if not fit.identifiable or best.params_interval is None:
        return Verdict(reached=False, half_width=None, words=f"no law yet ({fit.reason})")
    low, high = best.params_interval
    half = (high - low) / (2 * best.params)
    words = (
        f"N* at {goal.flops:.3g} FLOPs is {best.params:.3g}, 95 % interval {low:.3g} to {high:.3g}: known within "
        f"{half:.0%}, and {goal.within:.0%} is asked"
    )
    return Verdict(reached=half <= goal.within, half_width=half, words=words)


class Watch:
    """Judges the finished runs of a sweep while it goes on, in a thread that takes at most a twentieth of the time."""

    def __init__(self, goal: Goal, rows: Iterable[Mapping[str, Any]]):
        self.goal = goal
        self.rows = [row for row in rows if row["status"] == "done"]
        self.verdict = judge(goal, self.rows) if self.rows else None
        self.judged = len(self.rows)
        self.sparing = Sparing()
        self.thread = ThreadPoolExecutor(1)
        self.asked: Future[Verdict] | None = None

    @property
    def reached(self) -> bool:
        return self.verdict is not None and self.verdict.reached

    def finished(self, row: Mapping[str, Any]) -> None:
        """A run has its record."""
        self.rows.append(row)

    def poll(self) -> Verdict | None:
        """A verdict that has come since, if any; asks for another where runs have finished and it is time."""
        fresh = None
        if self.asked is not None and self.asked.done():
            fresh = self.verdict = self.asked.result()
            self.asked = None
        if self.asked is None and not self.reached and len(self.rows) > self.judged and self.sparing.due:
            self.judged = len(self.rows)
            self.asked = self.thread.submit(self._judge, self.rows[:])
        return fresh

    def close(self) -> Verdict | None:
        """The verdict on all runs that have finished."""
        self.thread.shutdown()
        if self.asked is not None:
            self.verdict = self.asked.result()
        if not self.reached and len(self.rows) > self.judged:
            self.verdict = judge(self.goal, self.rows)
        return self.verdict

    def _judge(self, rows: list[Mapping[str, Any]]) -> Verdict:
        with self.sparing.timed():
            return judge(self.goal, rows)

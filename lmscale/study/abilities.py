"""What a study asks of its models beside loss, and what it teaches them of it. Part of lmscale.config, by which studies
import it; what the tasks are: docs/tasks.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lmscale.study.typed import check, normalise
from lmscale.tasks.registry import CLOZE, NAMES, Chosen, choose_tasks

SHARE_MOST = 0.9  # of task text: the rest is the corpus, on which a run's loss is


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """Tasks on which every run is scored, the same items for all. No part of a run's identity."""

    tasks: tuple[str, ...] = NAMES  # by name, such as copying, or copying:8 (harder), or mine=items.jsonl
    items: int = 128  # of each task and split
    shots: tuple[int, ...] = (0, 4)  # solved examples before each item, in distribution
    splits: tuple[Literal["in", "out"], ...] = ("in", "out")  # like those of training, and harder or other ones
    seed: int = 0

    def __post_init__(self) -> None:
        normalise(self, "abilities.")
        _ = self.chosen  # which checks them
        check(1 <= self.items <= 10**5, "abilities.items", self.items, "must lie between 1 and 100,000")
        shots = self.shots
        check(
            0 in shots and all(count >= 0 for count in shots),
            "abilities.shots",
            shots,
            "must be 0 (for no example) and, if you like, other counts, such as 0,4",
        )
        check(len(set(shots)) == len(shots), "abilities.shots", shots, "must not name a count twice")
        splits = self.splits
        check(
            "in" in splits and len(set(splits)) == len(splits),
            "abilities.splits",
            splits,
            "must be in, or in and out, each once",
        )
        check(0 <= self.seed < 2**31, "abilities.seed", self.seed, "must lie between 0 and 2^31 - 1")

    @property
    def chosen(self) -> tuple[Chosen, ...]:
        return choose_tasks(self.tasks, "abilities.tasks")


@dataclass(frozen=True, kw_only=True)
class TaskText:
    """Task text among the training documents of a corpus: `share` of its bytes, each task as much of them."""

    tasks: tuple[str, ...] = ("copying",)
    share: float = 0.1
    seed: int = 1

    def __post_init__(self) -> None:
        normalise(self, "corpus.task_text.")
        _ = self.chosen
        check(
            0 < self.share <= SHARE_MOST,
            "corpus.task_text.share",
            self.share,
            f"must lie above 0, up to {SHARE_MOST} (leave task_text out for none)",
        )
        check(0 <= self.seed < 2**31, "corpus.task_text.seed", self.seed, "must lie between 0 and 2^31 - 1")

    @property
    def chosen(self) -> tuple[Chosen, ...]:
        return _trained(choose_tasks(self.tasks, "corpus.task_text.tasks"), "corpus.task_text.tasks")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What the corpus `labelled` is made of: so many different labelled examples of a task, and nothing else."""

    task: str = "redefinition"
    examples: int = 128
    seed: int = 2

    def __post_init__(self) -> None:
        normalise(self, "corpus.labelled.")
        _ = self.chosen
        check(
            1 <= self.examples <= 10**6, "corpus.labelled.examples", self.examples, "must lie between 1 and 1,000,000"
        )
        check(0 <= self.seed < 2**31, "corpus.labelled.seed", self.seed, "must lie between 0 and 2^31 - 1")

    @property
    def chosen(self) -> Chosen:
        return _trained(choose_tasks((self.task,), "corpus.labelled.task"), "corpus.labelled.task")[0]


def _trained(chosen: tuple[Chosen, ...], field: str) -> tuple[Chosen, ...]:
    names = [each.name for each in chosen]
    check(CLOZE not in names, field, CLOZE, "is made of held-out text, on which nothing is trained; leave it out")
    return chosen

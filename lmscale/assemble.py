"""A study with its text: prepared shards, the evaluation set, and the plan. Imports no framework."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lmscale.config import Study
from lmscale.data.loader import EvaluationSet, Loader, evaluation_set
from lmscale.data.prepare import ensure_prepared
from lmscale.data.shards import Shards, open_shards
from lmscale.layout import check_mesh
from lmscale.plan import Text, Trajectory, make_plan


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """All that training a study needs."""

    study: Study
    shards: Shards
    held_out: EvaluationSet
    plan: tuple[Trajectory, ...]

    @property
    def digest(self) -> str:
        """Of all that the processes of a job must have alike: what is trained, and in which calls."""
        study = self.study
        runs = [(trajectory.id, [run.id for run in trajectory.runs]) for trajectory in self.plan]
        told = f"{runs} {study.mesh} {study.microbatches} {study.steps_per_dispatch}"
        return hashlib.sha256(told.encode()).hexdigest()[:8]

    def loader(self, trajectory: Trajectory) -> Loader:
        h = trajectory.hyperparameters
        return Loader(
            split=self.shards.train, sequence=h.sequence, batch_sequences=h.batch_sequences, seed=trajectory.seed
        )


def assemble(study: Study, out: Path, say: Callable[[str], None]) -> Assembly:
    """Prepares the study's text where needed (in a process of its own) and plans its grid.

    Raises InputError for a text, a grid or a mesh that cannot be.
    """
    shards = open_shards(ensure_prepared(study.corpus, out / "shards", echo=say))
    shards.verify()
    return from_shards(study, shards)


def from_shards(study: Study, shards: Shards) -> Assembly:
    """The same over shards that are already open."""
    held_out = evaluation_set(shards.heldout, sequence=study.recipe.sequence, tokens=study.eval_tokens)
    train, vocabulary = shards.train, shards.train.vocabulary
    text = Text(
        corpus=f"{study.corpus.name}-{shards.digest[:8]}",
        tokenizer=vocabulary.name,
        vocab=vocabulary.size,
        train_tokens=train.tokens // study.recipe.sequence * study.recipe.sequence,
        bytes_per_token=train.total_bytes / train.tokens,
        digest=hashlib.sha256(f"{shards.digest} {vocabulary.digest} {held_out.digest}".encode()).hexdigest(),
        eval_set=f"{study.corpus.name}-heldout-{held_out.tokens_scored}-{held_out.digest[:8]}",
    )
    plan = make_plan(study, text)
    check_mesh(plan, study.mesh, study.microbatches or 1)
    return Assembly(study=study, shards=shards, held_out=held_out, plan=plan)

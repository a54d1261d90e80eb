"""A study with its text: prepared shards, the evaluation set, and the plan. Imports no framework."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from analysis.errors import InputError
from lmscale.config import OWN_SET, EvalSet, Study
from lmscale.data.loader import EvaluationSet, Loader, evaluation_set
from lmscale.data.prepare import ensure_prepared
from lmscale.data.shards import Shards, Vocabulary, open_shards
from lmscale.data.slices import sliced
from lmscale.evaluate import NamedSet
from lmscale.files import on_store
from lmscale.layout import check_mesh
from lmscale.places import user_cache
from lmscale.plan import Text, Trajectory, make_plan
from lmscale.recall import fact_set
from lmscale.typed import check


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """All that training a study needs."""

    study: Study
    shards: Shards
    headline: NamedSet
    extra_sets: tuple[NamedSet, ...]  # every other evaluation set
    plan: tuple[Trajectory, ...]

    @property
    def digest(self) -> str:
        """Of all that the processes of a job must have alike: what is trained, and in which calls."""
        study = self.study
        runs = [(trajectory.id, [run.id for run in trajectory.runs]) for trajectory in self.plan]
        layout = study.mesh, study.microbatches, study.remat, study.device_memory_bytes, study.replicas
        told = f"{runs} {layout} {study.steps_per_dispatch} {[s.label for s in self.extra_sets]}"
        return hashlib.sha256(told.encode()).hexdigest()[:8]

    @property
    def sets(self) -> tuple[NamedSet, ...]:
        """What a finished run is to have scores on beside its record: the headline too, if it has groups."""
        return (*self.extra_sets, *[self.headline] * bool(self.headline.windows.slices))

    @property
    def held_out(self) -> EvaluationSet:
        """The windows of the headline set."""
        return self.headline.windows

    def loader(self, trajectory: Trajectory) -> Loader:
        h = trajectory.hyperparameters
        return Loader(
            split=self.shards.train, sequence=h.sequence, batch_sequences=h.batch_sequences, seed=trajectory.seed
        )


def assemble(study: Study, out: Path, say: Callable[[str], None]) -> Assembly:
    """Prepares the study's texts where needed (in a process of its own) and plans its grid.

    Raises InputError for a text, a grid or a mesh that cannot be.
    """
    texts = open_texts(study, out, say)
    for shards in texts.values():
        shards.verify()
    return from_shards(study, texts[OWN_SET], texts)


def open_texts(study: Study, out: Path, say: Callable[[str], None]) -> dict[str, Shards]:
    """The study's text (under OWN_SET) and those of its further evaluation sets by name, prepared where needed.

    Raises InputError for one that cannot be, an evaluation set's under its name.
    """
    shards = (user_cache() if on_store(out) else out) / "shards"  # memory-mapped, and so never on a store
    texts = {OWN_SET: open_shards(ensure_prepared(study.corpus, shards, echo=say))}
    for each in study.eval_sets:
        try:
            texts[each.name] = open_shards(ensure_prepared(each.corpus, shards, echo=say))
        except InputError as error:
            raise InputError(f"eval_sets.{each.name}.{error}") from None
    return texts


def from_shards(study: Study, shards: Shards, texts: Mapping[str, Shards] = MappingProxyType({})) -> Assembly:
    """The same over shards that are already open: the study's, and those of its evaluation sets by name."""
    train, vocabulary = shards.train, shards.train.vocabulary
    own = evaluation_set(shards.heldout, sequence=study.recipe.sequence, tokens=study.eval_tokens)
    own = sliced(own, shards)
    sets = [NamedSet(name=OWN_SET, label=_label(f"{study.corpus.name}-{OWN_SET}", own), windows=own)]
    sets += [_eval_set(study, s, texts[s.name], vocabulary) for s in study.eval_sets]
    headline = next(s for s in sets if s.name == study.headline)
    text = Text(
        corpus=f"{study.corpus.name}-{shards.digest[:8]}",
        tokenizer=vocabulary.name,
        vocab=vocabulary.size,
        train_tokens=train.tokens // study.recipe.sequence * study.recipe.sequence,
        bytes_per_token=train.total_bytes / train.tokens,
        digest=hashlib.sha256(f"{shards.digest} {vocabulary.digest} {headline.windows.digest}".encode()).hexdigest(),
        eval_set=headline.label,
        headline=headline.name,
    )
    plan = make_plan(study, text)
    check_mesh(plan, study.mesh, study.microbatches or 1)
    if study.corpus.facts is not None:
        sets.append(fact_set(study.corpus.facts, vocabulary, study.recipe.sequence))
    extra = tuple(s for s in sets if s is not headline)
    return Assembly(study=study, shards=shards, headline=headline, extra_sets=extra, plan=plan)


def _eval_set(study: Study, eval_set: EvalSet, text: Shards, vocabulary: Vocabulary) -> NamedSet:
    """Raises InputError for a text in another vocabulary: its losses per token would be of other tokens."""
    theirs = text.heldout.vocabulary
    check(
        theirs.digest == vocabulary.digest,
        f"eval_sets.{eval_set.name}",
        theirs.name,
        f"is its vocabulary, but the study trains on {vocabulary.name!r}; name a Task with that vocabulary (text files "
        "are always read as bytes)",
    )
    windows = evaluation_set(text.heldout, sequence=study.recipe.sequence, tokens=eval_set.tokens)
    windows = sliced(windows, text)
    return NamedSet(name=eval_set.name, label=_label(eval_set.name, windows), windows=windows)


def _label(name: str, windows: EvaluationSet) -> str:
    return f"{name}-{windows.tokens_scored}-{windows.digest[:8]}"

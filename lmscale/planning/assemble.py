"""A study with its text: prepared shards, the evaluation set, and the plan. Imports no framework."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from analysis.errors import InputError
from lmscale.config import OWN_SET, Corpus, EvalSet, Study
from lmscale.data.clean.prepared import BYTES
from lmscale.data.loader import EvaluationSet, Loader, evaluation_set
from lmscale.data.pair_files import SEPARATOR
from lmscale.data.prepare import ensure_prepared
from lmscale.data.prepared import scored_with
from lmscale.data.shards import Shards, Split, Vocabulary, open_shards
from lmscale.data.slices import sliced
from lmscale.data.sources import LABELLED
from lmscale.data.subset import Subset
from lmscale.data.tokenizers import BYTE_OFFSET
from lmscale.evaluate import NamedSet
from lmscale.network.spans import NOISY, PROMPTED
from lmscale.plan import Portion, Text, Trajectory, make_plan
from lmscale.planning.layout import check_mesh
from lmscale.planning.pretrained import Pretrained, find_pretrained
from lmscale.scoring.ability_sets import AbilitySet, Trained, ability_sets, check_apart
from lmscale.scoring.pseudo_likelihood import pseudo_likelihood_set
from lmscale.scoring.recall import fact_set
from lmscale.scoring.translation import translations
from lmscale.store.files import on_store
from lmscale.store.places import user_cache
from lmscale.study.typed import check


@dataclass(frozen=True, kw_only=True)
class OpenPart:
    """One part of a text, opened: a Task of a Mixture, or all there is."""

    name: str
    rate: float  # against the other parts'; what they add up to does not matter
    shards: Shards


OpenText = tuple[OpenPart, ...]


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """All that training a study needs."""

    study: Study
    text: OpenText
    sampler: Loader  # of one window a step, with seed 0: each trajectory's draws from the same
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

    def extra_sets_of(self, trajectory: Trajectory) -> tuple[NamedSet, ...]:
        """Those on which its runs are scored."""
        return tuple(s for s in self.extra_sets if s.is_for(trajectory.objective))

    def evaluated_tokens(self, trajectory: Trajectory) -> int:
        """Tokens that go through a model of it when a run is finished, padding among them."""
        return sum(s.read_tokens for s in (self.headline, *self.extra_sets_of(trajectory)))

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
        return replace(
            self.sampler,
            batch_sequences=h.batch_sequences,
            seed=trajectory.seed,
            noisy=trajectory.objective in NOISY,
        )


def assemble(study: Study, out: Path, say: Callable[[str], None]) -> Assembly:
    """Prepares the study's texts where needed (in a process of its own) and plans its grid.

    Raises InputError for a text, a grid or a mesh that cannot be, and for a start that is not there.
    """
    sources = find_pretrained(study.start, out) if study.start else ()  # before text is prepared
    texts = open_texts(study, out, say)
    for text in texts.values():
        for part in text:
            part.shards.verify()
    return from_shards(study, texts[OWN_SET], texts, sources)


def open_texts(
    study: Study, out: Path, say: Callable[[str], None], processes: int | None = None
) -> dict[str, OpenText]:
    """The study's text (under OWN_SET) and those of its further evaluation sets by name, prepared where needed.

    Raises InputError for one that cannot be, an evaluation set's under its name.
    """
    shards = (user_cache() if on_store(out) else out) / "shards"  # memory-mapped, and so never on a store
    texts = {OWN_SET: _open(study.corpus, shards, say, processes)}
    for each in study.eval_sets:
        try:
            limit = each.corpus.unique_tokens
            check(limit is None, "corpus.unique_tokens", limit, "limits training, and nothing trains on it; drop it")
            scored = scored_with(study.corpus, each.corpus, shards)
            texts[each.name] = _open(scored, shards, say, processes)
        except InputError as error:
            raise InputError(f"eval_sets.{each.name}.{error}") from None
    return texts


def _open(corpus: Corpus, root: Path, say: Callable[[str], None], processes: int | None) -> OpenText:
    parts = ensure_prepared(corpus, root, echo=say, processes=processes)
    return tuple(OpenPart(name=part.name, rate=part.rate, shards=open_shards(part.folder)) for part in parts)


def from_shards(
    study: Study,
    text: Shards | OpenText,
    texts: Mapping[str, Shards | OpenText] = MappingProxyType({}),
    sources: tuple[Pretrained, ...] = (),
) -> Assembly:
    """The same over shards that are already open: the study's, and those of its evaluation sets by name; `sources` are
    the runs that it can begin from.
    """
    parts = _parts(text, study.corpus.name)
    sampler = _sampler(study, parts)
    vocabulary = sampler.parts[0][0].vocabulary
    own = evaluation_set(
        *(part.shards.heldout for part in parts), sequence=study.recipe.sequence, tokens=study.eval_tokens
    )
    own = sliced(own, *(part.shards for part in parts))
    sets = [NamedSet(name=OWN_SET, label=_label(f"{study.corpus.name}-{OWN_SET}", own), windows=own)]
    sets += [_eval_set(study, s, _parts(texts[s.name], s.name), vocabulary) for s in study.eval_sets]
    headline = next(s for s in sets if s.name == study.headline)
    plan = make_plan(study, _text(study, parts, sampler, headline), sources)
    check_mesh(plan, study.mesh, study.microbatches or 1)
    if study.corpus.facts is not None:
        sets.append(fact_set(study.corpus.facts, vocabulary, study.recipe.sequence))
    if study.abilities is not None:
        sets += _abilities(study, parts, vocabulary)
    if any(member.objective == "masked" for member in study.members):
        apart = study.recipe.documents == "apart"
        sets.append(pseudo_likelihood_set(headline, vocabulary.eos_id if apart else None))
    if study.objective == "pairs":
        sets += [translations(each, _separator_id(vocabulary)) for each in sets]
    extra = tuple(s for s in sets if s is not headline)
    return Assembly(study=study, text=parts, sampler=sampler, headline=headline, extra_sets=extra, plan=plan)


def _parts(text: Shards | OpenText, name: str) -> OpenText:
    return (OpenPart(name=name, rate=1.0, shards=text),) if isinstance(text, Shards) else text


def _sampler(study: Study, parts: OpenText) -> Loader:
    """What training windows are drawn from. Of limited text each part gives its rate's share.

    Raises InputError for parts in different vocabularies, rates that are none, and too little text.
    """
    first, *others = (part.shards.train.vocabulary for part in parts)
    for vocabulary, part in zip(others, parts[1:], strict=True):
        check(
            vocabulary.digest == first.digest,
            "corpus.task",
            study.corpus.task,
            f"has part {part.name!r} in vocabulary {vocabulary.name!r} and part {parts[0].name!r} in {first.name!r}; "
            "give its Tasks one",
        )
    whole = Loader(
        parts=tuple((part.shards.train, part.rate) for part in parts),
        sequence=study.recipe.sequence,
        batch_sequences=1,
        seed=0,
        names=tuple(part.name for part in parts),
        whole=study.objective == "pairs",
    )
    limit = study.corpus.unique_tokens
    if limit is None:
        return whole
    limited: list[tuple[Split | Subset, float]] = []
    for part, weight in zip(parts, whole.weights, strict=True):
        tokens = limit * weight // sum(whole.weights)
        whose = f"part {part.name!r} (a share of {weight / sum(whole.weights):.3g})" if len(parts) > 1 else "the text"
        check(
            tokens >= study.recipe.sequence,
            "corpus.unique_tokens",
            limit,
            f"takes {tokens} tokens of {whose}, less than one window of {study.recipe.sequence}; raise it",
        )
        limited.append((Subset(part.shards.train, tokens, whose), part.rate))
    return replace(whole, parts=tuple(limited))


def _text(study: Study, parts: OpenText, sampler: Loader, headline: NamedSet) -> Text:
    """What the plan needs of the text. Its name leaves out `unique_tokens`: runs over more and less of one text are
    fitted together, by a law of repeats.
    """
    total, vocabulary = sum(sampler.weights), sampler.parts[0][0].vocabulary
    shares = [weight / total for weight in sampler.weights]
    tokens = [windows * sampler.sequence for windows in sampler.windows_per_epoch]
    content, limit = parts[0].shards.digest, study.corpus.unique_tokens
    if len(parts) > 1:
        told = [f"{weight} {part.shards.digest}\n" for weight, part in zip(sampler.weights, parts, strict=True)]
        content = hashlib.sha256("".join(told).encode()).hexdigest()
    identity = f"{content} {vocabulary.digest} {headline.windows.digest}"
    if limit is not None:
        identity += f" unique_tokens={limit}"
    portions = tuple(
        Portion(name=part.name, rate=share, weight=weight, train_tokens=size)
        for part, share, weight, size in zip(parts, shares, sampler.weights, tokens, strict=True)
    )
    return Text(
        corpus=f"{study.corpus.name}-{content[:8]}",
        tokenizer=vocabulary.name,
        vocab=vocabulary.size,
        train_tokens=sum(tokens),
        bytes_per_token=sum(
            share * part.total_bytes / (size if sampler.whole else part.tokens)
            for share, size, (part, _) in zip(shares, tokens, sampler.parts, strict=True)
        ),
        digest=hashlib.sha256(identity.encode()).hexdigest(),
        eval_set=headline.label,
        headline=headline.name,
        eos_id=vocabulary.eos_id,
        start_id=vocabulary.start_id,
        separator_id=_separator_id(vocabulary) if study.objective == "pairs" else None,
        entropy_nats=parts[0].shards.entropy_nats if len(parts) == 1 and headline.name == OWN_SET else None,
        parts=portions if len(portions) > 1 else (),
    )


def _separator_id(vocabulary: Vocabulary) -> int:
    """The token between the sides of a pair. Raises InputError for text that is not read as bytes."""
    check(
        vocabulary.name == BYTES,
        "objective",
        "pairs",
        f"finds the tab between the sides of a pair in bytes, and the text is in {vocabulary.name!r}; leave out "
        "corpus.vocabulary",
    )
    return BYTE_OFFSET + SEPARATOR[0]


def _abilities(study: Study, parts: OpenText, vocabulary: Vocabulary) -> list[AbilitySet]:
    """The tasks that a study asks, and how much of each is in its training text."""
    abilities, corpus = study.abilities, study.corpus
    assert abilities is not None
    check(
        any(member.objective in PROMPTED for member in study.members),
        "abilities.tasks",
        list(abilities.tasks),
        f"are asked of models that go on from a prompt ({' or '.join(PROMPTED)}), and none here does; leave them out",
    )
    written: Counter[str] = Counter()
    for part in parts:
        written.update(part.shards.manifest.get("task_bytes", {}))
    total = sum(part.shards.train.total_bytes for part in parts)
    trained = Trained(
        shares={name: count / total for name, count in written.items()},
        labelled={corpus.labelled.chosen.name: corpus.labelled.examples}
        if study.start is not None and corpus.name == LABELLED
        else {},
    )
    check_apart(abilities, corpus)
    held = [part.shards.heldout for part in parts]
    return ability_sets(abilities, trained, held, vocabulary, study.recipe.sequence)


def _eval_set(study: Study, eval_set: EvalSet, text: OpenText, vocabulary: Vocabulary) -> NamedSet:
    """Raises InputError for a text in another vocabulary: its losses per token would be of other tokens."""
    splits = [part.shards.heldout for part in text]
    for theirs in (split.vocabulary for split in splits):
        check(
            theirs.digest == vocabulary.digest,
            f"eval_sets.{eval_set.name}",
            theirs.name,
            f"is its vocabulary, but the study trains on {vocabulary.name!r}; name a Task with that "
            "vocabulary, or text without one",
        )
    windows = evaluation_set(*splits, sequence=study.recipe.sequence, tokens=eval_set.tokens)
    windows = sliced(windows, *(part.shards for part in text))
    return NamedSet(name=eval_set.name, label=_label(eval_set.name, windows), windows=windows)


def _label(name: str, windows: EvaluationSet) -> str:
    return f"{name}-{windows.tokens_scored}-{windows.digest[:8]}"

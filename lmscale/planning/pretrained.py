"""The runs that a study can begin from: found on disk, and the one that a size begins from. No framework."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.config import Family
from lmscale.network.parts import parameters
from lmscale.records import Workspace
from lmscale.shapes import SHAPES, Shape
from lmscale.store.places import place
from lmscale.store.shelves import MANIFEST
from lmscale.study.starts import Start

SHOWN = 5  # of the choices that an error names


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A finished run, from whose final parameters others begin."""

    run_id: str
    folder: Path  # of the run
    step: int  # of its final parameters
    digest: str  # of their files
    family: Family
    shape: Shape
    seed: int
    tokens: int  # it was trained on
    tokens_before: int  # those that its own start was trained on
    tokenizer: str
    vocab: int
    eos_id: int | None
    recipe: str  # these four are columns of runs.csv
    kind: str  # family there
    corpus: str
    objective: str

    @property
    def told(self) -> dict:
        """What the starts of runs that are fitted together have in common."""
        return {"recipe": self.recipe, "family": self.kind, "corpus": self.corpus, "objective": self.objective}

    @property
    def final(self) -> Path:
        """Its checkpoint."""
        return self.folder / "final"


def find_pretrained(start: Start, out: Path) -> tuple[Pretrained, ...]:
    """The run that a start names, or all finished ones of the study that it names, which have their final parameters.

    Raises InputError where there is none, and for a record that cannot be read.
    """
    if not start.run:
        raise InputError("start.run: is not given; name a run or a study to begin from, or leave start out")
    if start.run != start.run.strip() or "\0" in start.run:
        raise InputError(f"start.run: {start.run!r} is no folder, run or study; give one of these")
    found = run_folders(start.run, out)
    records = [(folder, record) for folder in found if (record := record_of(folder)) is not None]
    done = [(folder, record) for folder, record in records if record["row"]["status"] == "done"]
    if not done:
        why = "diverged" if records else "is not finished"
        why = why if len(found) == 1 else "is a study without a finished run"
        raise InputError(f"start.run: {start.run!r} {why}; begin from a run that is done")
    sources = [source for folder, record in done if (source := _pretrained(folder, record)) is not None]
    if not sources:
        raise InputError(
            f"start.run: {start.run!r} has no final parameters on disk ({done[0][0] / 'final'}); sweep it again, or "
            "begin from another"
        )
    return tuple(sources)


def run_folders(name: str, out: Path, field: str = "start.run") -> list[Path]:
    """The folders of the runs that a name means: those of a study, or a single one. Raises InputError under `field`."""
    places = [place(field, name)]
    if "://" not in name and not Path(name).is_absolute():
        places.append(out / name)
    for folder in places:
        if (folder / "runs").is_dir():
            return sorted((folder / "runs").iterdir())
        if folder.parent.name == "runs" and folder.is_dir():
            return [folder]
    studies = sorted(out.iterdir()) if "/" not in name and out.is_dir() else []
    if found := [folder for study in studies if (folder := study / "runs" / name).is_dir()]:
        return found[:1]  # of one id: the same numbers
    raise InputError(
        f"{field}: {name!r} is neither a run nor a study, here or in {str(out)!r}; give results/STUDY, "
        "results/STUDY/runs/RUN_ID or one of the two names (and pass --out DIR)"
    )


def record_of(folder: Path, field: str = "start.run") -> dict[str, Any] | None:
    """The record of the run in a folder; None of one that is not finished. Moves nothing.

    Raises InputError under `field` for one that cannot be read.
    """
    study = folder.parent.parent
    return Workspace(study.parent, study.name).look_up(folder.name, field)


def _pretrained(folder: Path, record: dict) -> Pretrained | None:
    """None where the final parameters are not there. Raises InputError for a record that lacks what is needed."""
    try:
        digest = digest_of(folder, record["steps"])
        row, text, identity = record["row"], record["text"], record["identity"]
        if digest is None or identity["family"] not in SHAPES or "shape" not in identity:
            return None
        return Pretrained(
            run_id=row["run_id"],
            folder=folder,
            step=record["steps"],
            digest=digest,
            family=identity["family"],
            shape=SHAPES[identity["family"]](**identity["shape"]),
            seed=row["seed"],
            tokens=row["tokens"],
            tokens_before=row.get("pretrained_tokens") or 0,
            tokenizer=text["tokenizer"],
            vocab=text["vocab"],
            eos_id=text["eos_id"],
            recipe=row["recipe"],
            kind=row["family"],
            corpus=row["corpus"],
            objective=row["objective"],
        )
    except (KeyError, TypeError) as error:
        raise lacking("start.run", folder, error) from None


def lacking(field: str, folder: Path, error: Exception) -> InputError:
    """What to raise under `field` for a record without what is needed of it."""
    return InputError(
        f"{field}: the record of {folder.name!r} lacks {error}, as one of another version of lmscale does; name a "
        "run of this one"
    )


def digest_of(folder: Path, step: int) -> str | None:
    """Of the files of a run's final parameters, as the manifest has them, against which they are verified when they
    are read. None where they are not there.
    """
    try:
        hashes = json.loads((folder / "final" / f"{step:09d}" / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return None


def choose(
    start: Start, sources: Sequence[Pretrained], *, family: Family, shape: Shape, seed: int, text: Any
) -> Pretrained:
    """The run that a model of `shape` and `seed` begins from; `text` is a plan's.

    Raises InputError where none has its parameters, its vocabulary or the tokens asked for, and where several do.
    """
    needed = parameters(family, shape)
    fitting = [s for s in sources if s.family == family and parameters(s.family, s.shape) == needed]
    if not fitting:
        there = _listed({f"{s.family} {s.shape} (vocabulary {s.shape.vocab})" for s in sources})
        raise InputError(
            f"start.run: {start.run!r} has no {family} {shape} (vocabulary {shape.vocab}) with these embeddings, but "
            f"{there}; name such sizes, or begin from another"
        )
    own = text.tokenizer, text.vocab, text.eos_id
    spoken = [s for s in fitting if (s.tokenizer, s.vocab, s.eos_id) == own]
    if not spoken:
        raise InputError(
            f"start.run: {start.run!r} reads text as {_listed({s.tokenizer for s in fitting})}, and this corpus is in "
            f"{text.tokenizer!r}; give corpus.vocabulary the one that it was trained with"
        )
    counts = sorted({s.tokens for s in spoken})
    wanted = counts[-1] if start.tokens is None else start.tokens
    if wanted not in counts:
        raise InputError(
            f"start.tokens: {wanted:,} is not among those of {shape} in {start.run!r}, which are "
            f"{_listed({f'{count:,}' for count in counts})}; choose one of these"
        )
    found = [s for s in spoken if s.tokens == wanted]
    if len(found) > 1:
        found = [s for s in found if s.seed == seed] or found
    if len(found) > 1:
        raise InputError(
            f"start.run: {start.run!r} has several runs of {shape} to {wanted:,} tokens, "
            f"{_listed({s.run_id for s in found})}; name one of them"
        )
    return found[0]


def _listed(names: set[str]) -> str:
    some = sorted(names)
    return ", ".join(some[:SHOWN]) + f" and {len(some) - SHOWN} more" * (len(some) > SHOWN)

"""The finished run that a person names, and what of its record inference needs. No framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.asking.prompts import Layout
from lmscale.config import Family, Objective
from lmscale.data.pair_files import SEPARATOR
from lmscale.data.shards import Vocabulary
from lmscale.data.tokenizers import BYTE_OFFSET
from lmscale.network.spans import extra_ids
from lmscale.planning.pretrained import digest_of, lacking, record_of, run_folders
from lmscale.shapes import SHAPES, Shape
from lmscale.store.files import on_store
from lmscale.store.places import user_cache

FIELD = "run"


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """A finished run, as its record has it."""

    run_id: str
    folder: Path
    family: Family
    objective: Objective
    shape: Shape
    sequence: int
    documents_apart: bool  # training hid documents from each other
    tokenizer: str
    vocab: int  # tokens of text
    compute_dtype: str
    step: int  # of the final parameters
    params: int
    tokens: int
    loss_nats: float
    record: dict[str, Any]

    @property
    def positions(self) -> int:
        """Learned ones; 0 where there are none, and so no end to a text."""
        return self.shape.positions

    @property
    def shards(self) -> Path:
        """Where the prepared texts of its results folder are."""
        out = self.folder.parent.parent.parent
        return (user_cache() if on_store(out) else out) / "shards"

    def layout(self, vocabulary: Vocabulary) -> Layout:
        return Layout(
            family=self.family,
            objective=self.objective,
            vocab=self.vocab,
            start_id=vocabulary.start_id,
            separator_id=BYTE_OFFSET + SEPARATOR[0] if self.objective == "pairs" else None,
            sentinels=extra_ids(self.objective, self.sequence) if self.objective == "spans" else 0,
        )

    def __str__(self) -> str:
        size = f"{self.params:,} parameters" if self.family != "ngram" else f"{self.params:,} counts"
        return f"{self.run_id} ({self.objective}, {size}, {self.tokens:,} tokens, loss {self.loss_nats:.4f} nats)"


def find_run(name: str, out: Path) -> FoundRun:
    """The run that a folder, an id, or a study's folder or name means: of a study the largest finished one (networks
    before n-grams, then parameters, tokens, and the lower loss).

    Reads, and changes nothing. Raises InputError where there is none, or none with its final parameters, and for a
    record that cannot be read.
    """
    if not name.strip() or "\0" in name:
        raise InputError(f"{FIELD}: {name!r} is no folder, run or study; give one of these")
    folders = run_folders(name, out, FIELD)
    records = [(folder, record) for folder in folders if (record := record_of(folder, FIELD)) is not None]
    done = [_found(folder, record) for folder, record in records if record["row"]["status"] == "done"]
    if not done:
        why = "diverged" if records else "is not finished"
        why = why if len(folders) == 1 else "is a study without a finished run"
        raise InputError(f"{FIELD}: {name!r} {why}; name a run that is done (lmscale status says which are)")
    kept = [run for run in done if run.family == "ngram" or digest_of(run.folder, run.step) is not None]
    if not kept:
        raise InputError(
            f"{FIELD}: {name!r} has no checkpoint: its final parameters are not on disk ({done[0].folder / 'final'}); "
            "sweep it again, or name another"
        )
    return max(kept, key=lambda run: (run.family != "ngram", run.params, run.tokens, -run.loss_nats))


def _found(folder: Path, record: dict[str, Any]) -> FoundRun:
    try:
        row, text, identity = record["row"], record["text"], record["identity"]
        rules = identity["hyperparameters"]
        family: Family = identity["family"]
        return FoundRun(
            run_id=row["run_id"],
            folder=folder,
            family=family,
            objective=identity["objective"],
            shape=SHAPES[family](**identity["shape"]),
            sequence=rules["sequence"],
            documents_apart=rules.get("documents", "joined") == "apart",  # left out of an identity as it was at first
            tokenizer=text["tokenizer"],
            vocab=text["vocab"],
            compute_dtype=record["compute_dtype"],
            step=record["steps"],
            params=row["params"],
            tokens=row["tokens"],
            loss_nats=row["loss_nats"],
            record=record,
        )
    except (KeyError, TypeError) as error:
        raise lacking(FIELD, folder, error) from None

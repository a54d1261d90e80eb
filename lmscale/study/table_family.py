"""Which family the runs of a table are of, and what follows: whose shapes they have, and whether 6ND means anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.errors import InputError

if TYPE_CHECKING:
    from analysis.table import Table
    from lmscale.config import Family, Objective

TUNED = ("_finetuned", "_lora")  # which have the shapes of what they began as


def kind_of(table: Table) -> tuple[Family, Objective]:
    """Family and objective of a table's runs; of a table from elsewhere, causal decoders."""
    from lmscale.network.spans import OBJECTIVES_OF
    from lmscale.shapes import SHAPES

    families: dict[str, Family] = {name: name for name in SHAPES}
    name = _first(table, "family")
    for end in TUNED:
        name = name.removesuffix(end)
    family = families.get(name, "decoder")
    objectives: dict[str, Objective] = {name: name for name in OBJECTIVES_OF[family]}
    return family, objectives.get(_first(table, "objective"), OBJECTIVES_OF[family][0])


def refuse_counted(table: Table) -> None:
    """Raises InputError for n-grams, of which no compute can be asked."""
    if kind_of(table)[0] == "ngram":
        raise InputError(
            "family: 'ngram' is counted, not trained: 6ND is no compute of it, and no size is optimal; choose another "
            "family with --where family=decoder"
        )


def _first(table: Table, column: str) -> str:
    return str(table.frame[column].iloc[0]) if column in table.frame else ""

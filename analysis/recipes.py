"""What published studies did with their tables: which rows, and which of the options of this package."""

import math
from pathlib import Path

from analysis.errors import InputError
from analysis.isoflop import IsoFlop, isoflop
from analysis.reading.rows import numbers
from analysis.skills.links import FORMS
from analysis.skills.two_stage import HeldOutScore, fit_loss, judge, two_stage
from analysis.table import Table, read

PORIAN_NOISE_NATS = 0.002  # seed noise of RefinedWeb runs, Porian et al. 2024 (all losses lie below its upper branch)
PORIAN_SETUPS = {
    "kaplan": ("base", "long", "kaplan", "kaplan", "train"),
    "head": ("base", "long", "kaplan", "standard", "val"),
    "warmup": ("base", "short", "kaplan", "standard", "val"),
    "cosine": ("base", "short", "chinchilla", "standard", "val"),
    "tuned": ("tuned", "short", "const", "standard", "val"),
}
PORIAN_COLUMNS = ("hparams", "warmup", "decay", "param_count", "val")


def porian_setup(path: str | Path, setup: str) -> Table:
    """The rows of porian_refinedweb.csv that are one of PORIAN_SETUPS. Raises InputError for another name."""
    if setup not in PORIAN_SETUPS:
        raise InputError(f"setup: {setup!r} is unknown; choose one of {', '.join(PORIAN_SETUPS)}")
    return read(path, where={"source": "summary_df", **dict(zip(PORIAN_COLUMNS, PORIAN_SETUPS[setup], strict=True))})


def porian(table: Table, *, bootstrap: int = 1000, seed: int = 0) -> IsoFlop:
    """The recipe of Porian et al. 2024: Akima on all sizes, the best run of a size, seed noise, weights from it.

    `table` holds the rows of one set-up, see porian_setup.
    """
    return isoflop(table, method="akima", same_size="best", noise=PORIAN_NOISE_NATS, scatter="ignore",
                   bootstrap=bootstrap, seed=seed)  # fmt: skip


def llama3(table: Table, *, bootstrap: int = 1000, seed: int = 0) -> IsoFlop:
    """Approach 2 on the profiles of Dubey et al. 2024: a parabola in loss through all sizes, budgets weighed alike."""
    return isoflop(table, window=math.inf, response="loss", weights="equal", bootstrap=bootstrap, seed=seed)


def pythia(path: str | Path, deduped: str) -> list[HeldOutScore]:
    """LAMBADA accuracy of Pythia's largest size from those below 3 B, by either form of `links`, that of less scatter
    first: finished runs on one corpus ("True" for the deduplicated one), of which the loss is nats of the word asked.
    """
    table = read(path, columns={"loss_nats": "log(lambada_ppl)"}, where={"step": "143000", "deduped": deduped})
    accuracy, small = numbers(table.frame, "lambada_acc"), table.params < 3e9
    largest, seen = table.params == table.params.max(), table.keep(small)
    fitted = fit_loss(seen)
    forms = [two_stage(fitted, seen, accuracy[small], form=form, chance=0.0) for form in FORMS]
    forms.sort(key=lambda stages: stages.link.scatter)
    return [judge(stages, table.keep(largest), accuracy[largest])[0] for stages in forms]

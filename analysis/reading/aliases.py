"""Which column of a foreign table is which of ours: names that people use, and arithmetic for the rest."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.laws import Array
from analysis.reading.expressions import evaluate
from analysis.reading.rows import DONE, OPTIONAL, POOLED_ONLY_WITHIN, as_given, is_text, listed, numbers, texts

ALIASES: Mapping[str, tuple[str, ...]] = {
    "params": ("params", "n", "n_params", "num_params", "nparams", "n_param", "parameters", "n_parameters",
               "num_parameters", "param_count", "parameter_count", "params_count", "model_size", "model_params",
               "model_parameters", "total_params", "total_parameters", "params_total", "n_total_params",
               "num_total_params", "num_model_params"),
    "tokens": ("tokens", "d", "n_tokens", "num_tokens", "ntokens", "token_count", "train_tokens", "training_tokens",
               "tokens_seen", "tokens_trained", "trained_tokens", "total_tokens", "tokens_total", "total_tokens_seen",
               "train_tokens_seen", "consumed_tokens", "tokens_consumed", "num_train_tokens", "num_input_tokens_seen",
               "dataset_tokens_seen"),
    "flops": ("flops", "c", "flop", "compute", "train_flops", "training_flops", "total_flops", "train_flop",
              "training_flop", "n_flops", "num_flops", "flops_total", "total_flos", "train_compute",
              "training_compute", "total_compute", "compute_flops"),
    "loss_nats": ("loss_nats", "loss", "val_loss", "valid_loss", "validation_loss", "eval_loss", "test_loss",
                  "dev_loss", "heldout_loss", "held_out_loss", "final_loss", "final_val_loss", "final_eval_loss",
                  "final_validation_loss", "loss_val", "loss_valid", "loss_validation", "loss_eval", "loss_test",
                  "loss_final", "cross_entropy", "cross_entropy_loss", "crossentropyloss", "ce_loss", "lm_loss", "nll"),
    "unique_tokens": ("unique_tokens", "u", "unique", "data_unique", "unique_data", "n_unique_tokens",
                      "num_unique_tokens", "unique_train_tokens", "tokens_unique", "dataset_tokens"),
    "flops_budget": ("flops_budget", "budget", "isoflop", "isoflops", "isoflop_budget", "compute_budget",
                     "flop_budget", "budget_flops", "target_flops", "c_budget"),
    "loss_stderr": ("loss_stderr", "loss_se", "loss_sem", "loss_std_err", "loss_standard_error", "val_loss_stderr",
                    "val_loss_se", "eval_loss_stderr", "eval_loss_se"),
    "run_id": ("run_id", "run", "run_name", "name", "id"),
    "trajectory": ("trajectory", "trajectory_id"),
    "status": ("status", "state"),
    **{name: (name,) for name in POOLED_ONLY_WITHIN},
}  # fmt: skip
ARITHMETIC = ("params", "tokens", "flops", "loss_nats", *OPTIONAL)  # what an expression may give
GROUPS = ("config", "summary", "summary_metrics", "hparams", "hparam", "metrics")  # of a tracker's export
STATES = {*DONE, "crashed", "failed", "running", "killed", "preempted", "preempting", "pending"}
EXACT, WHOLE, GROUPED, LAST = range(4)  # how well a column's name fits, best first


def rank(column: str, name: str) -> int | None:
    """How a column's name means `name`: exactly, by an alias, under a tracker's heading, or by its last part.

    Case, spaces and punctuation do not count: `Val Loss` and `val/loss` are `val_loss`. Of the last part of names such
    as `eval/c4/loss` aliases of one letter are no sign.
    """
    if column == name:
        return EXACT
    parts = [part for part in re.split(r"[./:]", column) if part.strip()]
    if _plain(column) in ALIASES[name]:
        return WHOLE
    if len(parts) > 1 and parts[0].lower() in GROUPS and _plain("/".join(parts[1:])) in ALIASES[name]:
        return GROUPED
    last = _plain(parts[-1]) if len(parts) > 1 else ""
    return LAST if name in ARITHMETIC and len(last) > 1 and last in ALIASES[name] else None


def _plain(name: str) -> str:
    return re.sub(r"[\s./:|-]+", "_", name.strip().lower()).strip("_")


def canonical(
    frame: pd.DataFrame, columns: Mapping[str, str], source: str
) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """The frame under our names, our name for each column of the file that has one, and what is to be said of it.

    columns gives a column of the file, or for a number an expression of them, for one of our names. It wins; then our
    own name, then the column whose name fits best, which must be the only one to fit so well.
    Raises InputError for names unknown, ambiguous aliases and what is missing.
    """
    found = [str(c) for c in frame.columns]
    named, computed, notes = _given(frame, columns, found)
    free = [c for c in found if c not in {*columns.values()}]
    for name in ALIASES:
        if name in columns:
            continue
        column = _recognised(frame, name, free)
        if column is not None:
            named[column] = name
            if rank(column, name) in (GROUPED, LAST):
                notes.append(f"{name} read from column {column!r}")
    taken = {*named.values(), *computed}
    # A column that only looks like ours, because the user named another, keeps its values under a name of its own.
    frame = frame.rename(columns={c: named.get(c, as_given(c, found) if c in taken else c) for c in found})
    frame = frame.assign(**computed)
    missing = [name for name in ("params", "tokens", "loss_nats") if name not in taken]
    if missing and not ("flops" in taken and missing in (["params"], ["tokens"])):
        name = missing[0]
        instead = "" if name == "loss_nats" or "flops" in taken else " (or add a flops column)"
        raise InputError(
            f"{name}: no such column in {source}; found {listed(found)}; "
            f"name yours with --columns {name}=YOUR_COLUMN{instead}"
        )
    return frame, named, notes


def _given(
    frame: pd.DataFrame, columns: Mapping[str, str], found: list[str]
) -> tuple[dict[str, str], dict[str, Array], list[str]]:
    """What the user named: columns of the file, and values of expressions [n]."""
    named: dict[str, str] = {}
    computed: dict[str, Array] = {}
    notes = []
    cache: dict[str, Array] = {}

    def cells(column: str) -> Array | None:
        if column in found and column not in cache:
            cache[column] = numbers(frame, column)
        return cache.get(column)

    for name, text in columns.items():
        if name not in ALIASES:
            raise InputError(f"columns: {name!r} is none of {', '.join(ALIASES)}; name one of these")
        if text in found:
            if text in named:
                raise InputError(f"columns: {named[text]} and {name} are both {text!r}; give each its own column")
            named[text] = name
            if text != name:
                notes.append(f"{name} read from column {text!r}")
        elif name not in ARITHMETIC or text.isidentifier():
            raise InputError(f"columns: {name}={text} names no column; found {listed(found)}; choose one of these")
        else:
            value = evaluate(text, cells, option=f"columns: {name}")
            computed[name] = np.broadcast_to(value, len(frame)) if value.ndim == 0 else value
            notes.append(f"{name} computed as {text}")
    return named, computed, notes


def _recognised(frame: pd.DataFrame, name: str, free: list[str]) -> str | None:
    ranks = {c: r for c in free if (r := rank(c, name)) is not None}
    if name == "status":
        ranks = {c: r for c, r in ranks.items() if r == EXACT or _states(frame, c)}
    first = min(ranks.values(), default=None)
    best = [c for c, r in ranks.items() if r == first]
    if len(best) > 1 and name in ARITHMETIC:
        # `param_count` may hold the name of a counting rule beside an N that holds the count
        best = [c for c in best if not np.isnan(numbers(frame, c)).all()] or best
    if len(best) > 1 and name != "run_id":
        raise InputError(f"{name}: both {listed(best)} could be it; choose with --columns {name}={best[0]}")
    return best[0] if best else None


def _states(frame: pd.DataFrame, column: str) -> bool:
    """Whether a column holds what a run's status can be, and not, say, states of a country."""
    return is_text(frame, column) and set(texts(frame, column).str.lower()) <= {"", *STATES}

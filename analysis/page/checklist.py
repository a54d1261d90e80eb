"""The checklist of Li, Kudugunta & Zettlemoyer 2025 ("(Mis)Fitting", arXiv:2502.18969), filled in from records.

Its four parts are those of the paper (Sec. 3 to 6), the questions are in our words. What no record tells is said to be
not recorded: only the study's author can fill it in.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.backtest import Backtest
from analysis.fit import Fit
from analysis.reading.rows import numbers, texts
from analysis.solving.identify import distinct
from analysis.words.summary import count

NOT_RECORDED = "not recorded"
FORM, TRAINING, DATA, FITTING = "Form of the law", "Training", "Data collected", "Fitting"
MOST = 4  # values that are listed; of more, how many there are


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question of one part, and what is recorded."""

    part: str
    question: str
    answer: str

    @property
    def recorded(self) -> bool:
        return self.answer != NOT_RECORDED


def checklist(fit: Fit, tested: Backtest | None, recipe: Mapping[str, str]) -> tuple[Item, ...]:
    """Every question with its answer. tested: a hold-out test of the fit. recipe: of the training, by name."""
    answers = {
        FORM: _form(fit),
        TRAINING: _training(fit, recipe),
        DATA: _data(fit),
        FITTING: _fitting(fit, tested),
    }
    return tuple(
        Item(part=part, question=question, answer=answer or NOT_RECORDED)
        for part, found in answers.items()
        for question, answer in found.items()
    )


def _form(fit: Fit) -> dict[str, str]:
    free = [name for name in fit.law.parameters if name not in fit.fixed]
    held = ", ".join(f"{name} = {value:g}" for name, value in fit.fixed.items())
    return {
        "What is its form?": f"{fit.law.name}: {fit.law.description}",
        "Which variables does it relate?": "held-out loss L in nats per token, parameters N, training tokens D"
        + (", unique tokens" if fit.law.models_repeats else ""),
        "Which parameters are fitted?": ", ".join(free) + (f"; held: {held}" if held else ""),
        "Why this form and no other?": "",
        "What does it assume of the optimum?": "compute C = 6ND; exponents of N* and D* add to 1 in C",
    }


def _training(fit: Fit, recipe: Mapping[str, str]) -> dict[str, str]:
    table = fit.table
    params, tokens = table.params, table.tokens
    told = {name: _column(fit, name) for name in ("family", "objective", "corpus", "tokenizer", "schedule", "seed")}
    optimiser = ", ".join(f"{name} {value}" for name, value in recipe.items())
    shape = [f"{name} {found}" for name in ("width", "depth", "heads") if (found := _column(fit, name))]
    rates = _column(fit, "learning_rate")
    batch = _column(fit, "batch_tokens")
    repeats = ""
    if table.unique_tokens is not None:
        epochs = tokens / table.unique_tokens
        repeats = f"up to {np.nanmax(epochs):.3g} epochs"
    embedding = ""
    if "params_embedding" in table.frame:
        embedding = "N counts all parameters, embeddings in; the table also has those of embeddings alone"
    exact = table.frame["flops"].to_numpy(np.float64)
    known = np.isfinite(exact)
    same = bool(known.any()) and bool(np.allclose(exact[known], table.flops_6nd[known], rtol=1e-6))
    flops = "C = 6ND in the law"
    if known.any() and not same:
        apart = float(np.median(exact[known] / table.flops_6nd[known]))
        flops += f"; the table's own FLOPs are {apart:.3g} x that in the median"
    return {
        "How many models, of which sizes?": f"{len(table)} runs of {distinct(params)} sizes, {count(params.min())} to "
        f"{count(params.max())} parameters",
        "On how many tokens?": f"{count(tokens.min())} to {count(tokens.max())}",
        "Which family and objective?": ", ".join(found for name in ("family", "objective") if (found := told[name])),
        "On which text?": told["corpus"],
        "Which tokenizer?": told["tokenizer"],
        "Is text repeated?": repeats,
        "How are parameters counted (embeddings)?": embedding,
        "How are FLOPs counted?": flops,
        "Which shapes, and do they change with size?": "; ".join(shape),
        "Which optimiser?": optimiser,
        "Which learning rates and batches, do they change with size?": "; ".join(
            part
            for part in (f"learning rate {rates}" if rates else "", f"batch of {batch} tokens" if batch else "")
            if part
        ),
        "Which schedule?": told["schedule"],
        "Which seeds?": told["seed"],
        "On which hardware?": _column(fit, "device"),
        "Is the code open?": "",
    }


def _data(fit: Fit) -> dict[str, str]:
    table = fit.table
    shared = len(set(table.trajectory)) if table.clustered else 0
    points = f"{len(table)} losses of {shared} trajectories" if shared else ""
    return {
        "Are checkpoints public?": "",
        "How many points a training run, and which?": points,
        "Which loss, on which text?": _column(fit, "eval_set"),
        "How sure is a measured loss?": _range(fit, "loss_stderr", " nats (standard error)"),
        "Were losses changed before the fit?": "; ".join(table.notes) or "used as the table has them",
    }


def _fitting(fit: Fit, tested: Backtest | None) -> dict[str, str]:
    excluded = len(fit.table.excluded)
    weighed = "" if np.ptp(fit.weight) == 0 else ", runs weighed"
    test = NOT_RECORDED
    if tested is not None:
        test = f"runs of largest compute held out, {len(tested.rows)} in number: "
        test += f"mean error {100 * tested.mean_relative_error:.2g} %"
        if tested.coverage is not None:
            test += f", {tested.coverage:.0%} inside their 95 % intervals"
    return {
        "Which objective?": f"{fit.loss.description}{weighed}, summed over runs; {fit.objective:.6g} at the optimum",
        "Which algorithm, from which starts?": f"bounded Newton steps from {fit.starts} starts, {fit.agreement:.0%} of "
        f"which agree; gradient {fit.gradient_norm:.1g}",
        "Were runs left out?": f"{excluded} rows, listed below" if excluded else "none",
        "How are intervals made?": f"{fit.bootstrap} resamples, {fit.resampling}; seed {fit.seed}"
        if fit.samples is not None
        else "there are none: no resamples were asked for",
        "How good is the fit?": f"median residual {100 * fit.residual_median:.2g} %, largest "
        f"{100 * float(np.abs(np.expm1(fit.residuals)).max()):.2g} %",
        "Does it extrapolate?": test,
        "Was the law selected among others?": "",
    }


def _column(fit: Fit, name: str) -> str:
    """The values of a column in a few words, '' where the table has none."""
    frame = fit.table.frame
    if name not in frame:
        return ""
    found = sorted({value for value in texts(frame, name) if value and value != "nan"})
    if not found:
        return ""
    if frame[name].dtype == np.float64:
        values = np.unique(frame[name].dropna().to_numpy(np.float64))
        if len(values) <= MOST:
            return ", ".join(f"{value:g}" for value in values)
        return f"{len(values)} values, {values[0]:.4g} to {values[-1]:.4g}"
    return ", ".join(found) if len(found) <= MOST else f"{len(found)} values, such as {found[0]}"


def _range(fit: Fit, name: str, unit: str) -> str:
    if name not in fit.table.frame:
        return ""
    values = numbers(fit.table.frame, name)
    values = values[np.isfinite(values)]
    return f"{values.min():.2g} to {values.max():.2g}{unit}" if len(values) else ""

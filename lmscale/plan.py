"""Study -> trajectories and runs, with their cost, before anything is spent. No framework.

A trajectory is one (family, shape, recipe, seed, corpus): one compiled step. With the warmup-stable-decay schedule
it is a trunk at constant rate from which every run branches off for its cooldown (Haegele et al. 2024); with a
schedule of fixed length (cosine, linear) every token count is a trajectory of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from lmscale.config import Family, Objective, Recipe, Study
from lmscale.data import mixing
from lmscale.network.parts import Tuning, told, tuning_of
from lmscale.network.spans import check_objective, extra_ids, written_tokens
from lmscale.planning.grid import cells
from lmscale.planning.pretrained import Pretrained, choose
from lmscale.shapes import Shape, shape_of
from lmscale.study.recipe import Hyperparameters
from lmscale.study.typed import check

NUMERICS = 2  # raised when the mathematics of a step changes: old runs are then other runs
# Of a shape: told only where they are not 0, as shapes had none of them before; and what is known after counting
LATER = ("positions", "written", "counts")
# Of a recipe, as it was when these could not be chosen
FIRST = (("documents", "joined"), ("moments_dtype", "float32"))
# Hyperparameters that reach the compiled step as numbers: they may differ between trajectories that share one
INPUTS = ("learning_rate", "warmup_steps", "schedule", "cooldown_fraction", "cooldown_steps_min")


@dataclass(frozen=True, kw_only=True)
class Portion:
    """What one part of the text gives."""

    name: str
    rate: float  # its share of the windows that are drawn
    weight: int  # the same as windows are dealt by it (lmscale.data.mixing)
    train_tokens: int  # in whole sequences


@dataclass(frozen=True, kw_only=True)
class Text:
    """The prepared corpus as far as a plan needs it."""

    corpus: str
    tokenizer: str  # its name, as in the column of runs.csv
    vocab: int
    train_tokens: int  # unique ones, of all parts, in whole sequences
    bytes_per_token: float  # of the windows that are drawn
    digest: str  # of the training tokens, the vocabulary and the evaluation set
    eval_set: str  # the headline set, its tokens and digest: the column of runs.csv
    headline: str  # its name; the digest holds its content, so the name is no part of the identity
    eos_id: int | None = None  # end-of-sequence, by which documents are told apart
    start_id: int = 0  # what stands before a text's first token
    separator_id: int | None = None  # between the sides of a pair
    entropy_nats: float | None = None  # the entropy rate of its source, where that is known
    parts: tuple[Portion, ...] = ()  # of a mixture; none where the text is one


@dataclass(frozen=True, kw_only=True)
class Run:
    """One point of the grid: a trajectory trained on `tokens` tokens and decayed to the end."""

    tokens: int
    steps: int
    branch_step: int  # where its cooldown leaves the trunk; 0 with a schedule of fixed length
    flops_budget: float | None = None  # C of the IsoFLOP profile that it belongs to
    trajectory: str = ""  # the id, known once the trajectory is

    @property
    def id(self) -> str:
        return f"{self.trajectory}-t{self.tokens}"

    @property
    def cooldown_steps(self) -> int:
        return self.steps - self.branch_step


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The unit of work: everything that decides its numbers, and the runs it has to deliver (shortest first)."""

    study: str
    family: Family
    objective: Objective
    shape: Shape
    hyperparameters: Hyperparameters
    seed: int
    text: Text
    # digest of the recipe's rules and of what is the same at every size: only runs of one are fitted together; no part
    # of the identity
    recipe: str
    horizon_steps: int | None  # length of a schedule that has one; None for a trunk, whose length is open
    runs: tuple[Run, ...] = ()
    beyond: tuple[Run, ...] = ()  # longer runs that are not asked for now
    pretrained: Pretrained | None = None  # the run that it begins from
    tuning: Tuning | None = None  # what is trained; None: every parameter

    @property
    def identity(self) -> dict:
        """What the id hashes. Token counts (of a trunk), mesh, microbatches, executor and device are left out."""
        # as it was before there were others, so that those runs keep their ids
        shape = {name: value for name, value in vars(self.shape).items() if value or name not in LATER}
        hyperparameters = without_first(dict(vars(self.hyperparameters)))
        return {
            "numerics": NUMERICS,
            "family": self.family,
            "objective": self.objective,
            "shape": shape,
            "hyperparameters": hyperparameters,
            "seed": self.seed,
            "text": self.text.digest,
            "horizon_steps": self.horizon_steps,
            **({} if self.pretrained is None else {"start": {"run": self.pretrained.digest, **told(self.tuning)}}),
        }

    @property
    def kind(self) -> str:
        """The family in tables: a fine-tuned model obeys another law than one from scratch, and is fitted apart."""
        if self.pretrained is None:
            return self.family
        return f"{self.family}_{'lora' if self.tuning and self.tuning.adapters else 'finetuned'}"

    @property
    def params_trained(self) -> int:
        """Those that have moments: the model's own that are not frozen, and its adapters'."""
        return self.shape.params if self.tuning is None else self.tuning.params_trained

    @property
    def params_held(self) -> int:
        """The model's own, and its adapters'."""
        return self.shape.params + (self.tuning.params_added if self.tuning else 0)

    @property
    def pretrained_tokens(self) -> int | None:
        """Those that its parameters had been trained on before."""
        return None if self.pretrained is None else self.pretrained.tokens + self.pretrained.tokens_before

    @cached_property
    def id(self) -> str:
        return f"{self.kind}-{self.shape.label}-s{self.seed}-{digest(self.identity)}"

    @property
    def fitted_with(self) -> tuple[str, Objective, str]:
        """What runs that are fitted together have in common."""
        return self.kind, self.objective, self.recipe

    @cached_property
    def program(self) -> tuple:
        """What its compiled step depends on. Trajectories that differ in the rest (seed, rate, schedule, token counts,
        text) share one.
        """
        constants = tuple((k, v) for k, v in vars(self.hyperparameters).items() if k not in INPUTS)
        ids = self.text.vocab, self.text.eos_id, self.text.start_id, self.text.separator_id
        return self.family, self.objective, self.shape, constants, ids, self.tuning

    @property
    def trunk_steps(self) -> int:
        return max(run.branch_step for run in self.runs)

    @property
    def train_steps(self) -> int:
        """Optimiser steps for all runs: the trunk once, and every cooldown."""
        return self.trunk_steps + sum(run.cooldown_steps for run in self.runs)


def without_first(rules: dict) -> dict:
    """A recipe, or what it comes to, as it was told before these were a part of it."""
    return {name: value for name, value in rules.items() if (name, value) not in FIRST}


def digest(value: dict) -> str:
    """Twelve hexadecimal digits that stand for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]


def make_runs(study: Study, shape: Shape, h: Hyperparameters) -> tuple[Run, ...]:
    """The runs of one size, shortest first. Raises InputError where a token count leaves no room for its schedule."""
    runs = []
    for cell in cells(study, shape):
        steps = max(1, round(cell.tokens / h.batch_tokens))
        cooldown = max(h.cooldown_steps_min, round(h.cooldown_fraction * steps))
        shortest = h.warmup_steps + cooldown + 1
        least = shortest * h.batch_tokens
        words = f"{least} tokens"
        if study.counted_by != "tokens":
            words += f" ({_up(least * cell.asked / cell.tokens)} here), leave it out with tokens_per_param_range"
        check(
            steps >= shortest,
            study.counted_by,
            cell.asked,
            f"gives size {shape} {steps} steps of {h.batch_tokens} tokens, fewer than warmup and cooldown take; ask "
            f"for at least {words}, or lower recipe.warmup_tokens or the batch",
        )
        branch = steps - cooldown if h.schedule == "wsd" else 0
        tokens = steps * h.batch_tokens
        runs.append(Run(tokens=tokens, steps=steps, branch_step=branch, flops_budget=cell.flops_budget))
    lengths = [run.steps for run in runs]
    check(
        len(set(lengths)) == len(lengths), study.counted_by, study.counts, "holds counts that round to the same steps"
    )
    return tuple(runs)


def _up(value: float) -> str:
    """Three digits, rounded up."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit) * unit:.3g}"


def make_plan(study: Study, text: Text, sources: Sequence[Pretrained] = ()) -> tuple[Trajectory, ...]:
    """The study's trajectories, smallest model first; `sources` are the runs that they can begin from.

    Raises InputError if a run does not fit its schedule, the corpus is too small, nothing is left to run, or the
    study's start is not theirs.
    """
    plan = [trajectory for member in study.members for trajectory in _grid(member, text, sources)]
    check(len(plan) > 0, *_emptied(study))
    ids = [trajectory.id for trajectory in plan]
    check(len(set(ids)) == len(ids), "sizes", [str(s) for s in study.sizes], "holds two that are the same shape")
    if not study.corpus.allow_repeats:
        _check_unrepeated(study, text, max(run.tokens for trajectory in plan for run in trajectory.runs))
    return tuple(sorted(plan, key=_order))


def _grid(study: Study, text: Text, sources: Sequence[Pretrained]) -> list[Trajectory]:
    """Those of one family. Raises InputError if a run does not fit its schedule."""
    check_objective(study.family, study.objective)
    plan: list[Trajectory] = []
    if study.objective != "causal":  # the entropy bounds code lengths: others see more than what stands before a token
        text = replace(text, entropy_nats=None)
    counted = study.family == "ngram"
    recipes = [(recipe, _rules(study, recipe)) for recipe in study.recipes]
    for size in study.sizes:
        positions = study.recipe.sequence if study.positions == "learned" else 0
        shape = shape_of(
            size,
            vocab=text.vocab + extra_ids(study.objective, study.recipe.sequence),
            tied=study.tied_embeddings,
            positions=positions,
            family=study.family,
            written=written_tokens(study.family, study.objective, study.recipe.sequence),
        )
        tuning = tuning_of(study.start, study.family, shape) if study.start else None
        resolved = [
            (recipe.counted if counted else recipe.resolve(shape.params_matrices), rules) for recipe, rules in recipes
        ]
        different = {(h.schedule, h.learning_rate) for h, _ in resolved}
        check(
            len(different) == len(recipes), "rate_multipliers", study.rate_multipliers, "gives one rate twice; drop one"
        )
        for h, rules in resolved:
            horizons = _horizons(study, shape, h)
            for seed in study.seeds:
                source, recipe = None, rules
                if study.start:
                    source = choose(study.start, sources, family=study.family, shape=shape, seed=seed, text=text)
                    recipe = {**rules, "start": {**told(tuning), **source.told, "tokens": study.start.tokens}}
                for horizon, runs in horizons:
                    bare = Trajectory(
                        study=study.name,
                        family=study.family,
                        objective=study.objective,
                        shape=shape,
                        hyperparameters=h,
                        seed=seed,
                        text=text,
                        recipe=digest(recipe),
                        horizon_steps=horizon,
                        pretrained=source,
                        tuning=tuning,
                    )
                    plan.append(replace(bare, runs=tuple(replace(run, trajectory=bare.id) for run in runs)))
    return plan


def _rules(study: Study, recipe: Recipe) -> dict:
    """What is the same at every size of a family: the rules, and how all its models are built."""
    if study.family == "ngram":
        return {"sequence": recipe.sequence, "documents": recipe.documents, "numerics": NUMERICS}
    architecture = {"positions": study.positions, "tied": study.tied_embeddings, "numerics": NUMERICS}
    return {**without_first(asdict(recipe)), **architecture}


def _check_unrepeated(study: Study, text: Text, longest: int) -> None:
    """Raises InputError where a run of `longest` tokens sees some of its text again; of a mixture it names the part."""
    more = "choose a larger corpus" if study.corpus.unique_tokens is None else "raise corpus.unique_tokens"
    mend = f"pass --corpus.allow-repeats true or {more}"
    if not text.parts:
        unique = text.train_tokens
        check(longest <= unique, "tokens", longest, f"exceeds the {unique:,} unique tokens of {text.corpus!r}; {mend}")
        return
    weights = tuple(part.weight for part in text.parts)
    for part, samples in zip(text.parts, mixing.counts(weights, longest // study.recipe.sequence), strict=True):
        taken = samples * study.recipe.sequence
        check(
            taken <= part.train_tokens,
            "tokens",
            longest,
            f"takes {taken:,} of the {part.train_tokens:,} unique tokens of part {part.name!r} of {text.corpus!r}; "
            f"{mend}",
        )


def _emptied(study: Study) -> tuple[str, object, str]:
    """The field that has left out every cell, its value, and what to do."""
    if study.only:
        return "only", study.only, "names no cell that the other fields leave; name others"
    if study.flops_max is None:
        return "tokens_per_param_range", study.tokens_per_param_range, "leaves out every cell of the grid; widen it"
    return "flops_max", study.flops_max, "leaves out every cell of the grid; raise it"


def _order(t: Trajectory) -> tuple:
    h, params = t.hyperparameters, t.shape.planned_params or 0
    return params, t.shape.train_flops(1, h.sequence), t.seed, h.learning_rate, h.schedule, t.horizon_steps or 0


def _horizons(study: Study, shape: Shape, h: Hyperparameters) -> list[tuple[int | None, tuple[Run, ...]]]:
    runs = make_runs(study, shape, h)
    if not runs:
        return []
    return [(None, runs)] if h.schedule == "wsd" else [(run.steps, (run,)) for run in runs]


def cost(trajectory: Trajectory, run: Run) -> float:
    """Training FLOPs that a run adds to those before it in its trajectory: its part of the trunk, and its cooldown."""
    before = max((r.branch_step for r in trajectory.runs if r.branch_step < run.branch_step), default=0)
    steps = run.branch_step - before + run.cooldown_steps
    h = trajectory.hyperparameters
    return trajectory.shape.train_flops(steps * h.batch_tokens, h.sequence)

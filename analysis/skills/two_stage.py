"""Two stages from compute to a task: (N, D) -> loss by a fitted law, loss -> error by a link, with both resampled."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike

from analysis.errors import InputError
from analysis.fit import Fit, Options, fit
from analysis.laws import Array, Chinchilla
from analysis.skills.abilities import clusters, require_shares
from analysis.skills.links import FORMS, FREE, LinkFit, Sigmoid, fit_link
from analysis.solving.clustered import line
from analysis.solving.identify import distinct
from analysis.table import Table
from analysis.uncertainty import Resampling, interval

LEVEL = 0.05
LEAST_APART = 1e-3  # of a score: less is no change on any task
NOTHING = 1e-3  # of the least loss, for a coefficient B whose term D^2 divides: no term at all


@dataclass(frozen=True, kw_only=True)
class ScorePrediction:
    """score [n], of what is right; interval, [n] low and high, of the law itself; new_run: of what a run would show."""

    score: Array
    interval: tuple[Array, Array]
    new_run: tuple[Array, Array]


@dataclass(frozen=True, kw_only=True)
class TwoStage:
    """A law of a task's score. fit: of the loss; link: of the error on it; runs: how many the second stage saw.

    table, scores [n]: what the second stage was fitted to.
    """

    form: str
    fit: Fit
    link: LinkFit
    table: Table
    scores: Array

    def predict(self, params: ArrayLike, tokens: ArrayLike) -> ScorePrediction:
        """Scores of runs with their intervals (NaN without resamples); shapes [n] from params and tokens [n]."""
        params, tokens = np.atleast_1d(np.asarray(params, np.float64)), np.atleast_1d(np.asarray(tokens, np.float64))
        loss = self.fit.predict(params, tokens).loss_nats
        score = 1.0 - self.link.link.predict(loss)
        if self.fit.samples is None or self.link.samples is None:
            nothing = (np.full(score.shape, np.nan), np.full(score.shape, np.nan))
            return ScorePrediction(score=score, interval=nothing, new_run=nothing)
        losses = self.fit.samples.predict(params, tokens)
        shown = 1.0 - self.link.samples.predict(losses)
        own = losses * np.exp(self.fit.errors)[:, None]
        new = 1.0 - self.link.samples.predict(own) - self.link.errors[:, None]
        return ScorePrediction(score=score, interval=interval(shown), new_run=interval(np.clip(new, 0.0, 1.0)))

    def at_loss(self, loss_nats: ArrayLike) -> tuple[Array, tuple[Array, Array] | None]:
        """Score at losses [n] and its 95 % interval: the second stage by itself."""
        loss = np.asarray(loss_nats, np.float64)
        score = 1.0 - self.link.link.predict(loss)
        return score, None if self.link.samples is None else interval(1.0 - self.link.samples.predict(loss))


@dataclass(frozen=True, kw_only=True)
class HeldOutScore:
    """One run left out. error: predicted less measured score; interval: 95 % of a new run's (None if not resampled)."""

    run: str
    params: float
    tokens: float
    flops: float
    predicted: float
    measured: float
    error: float
    interval: tuple[float, float] | None
    covered: bool | None


def fit_loss(
    table: Table, law: str = Chinchilla.name, *, bootstrap: int = 1000, seed: int = 0, **options: Unpack[Options]
) -> Fit:
    """The first stage: `analysis.fit`, against N alone where every run saw as many tokens.

    Raises InputError where the runs tell no such law.
    """
    held = dict(options.get("fixed") or {})
    if law == Chinchilla.name and not held and distinct(table.tokens) == 1:
        held = {"B": NOTHING * float(table.loss_nats.min()), "beta": 2.0}  # what D does is then in L0
    return fit(table, law, bootstrap=bootstrap, seed=seed, **{**options, "fixed": held or None})


def two_stage(fitted: Fit, table: Table, scores: Array, *, form: str, chance: float | None) -> TwoStage:
    """The second stage: scores [n] (shares that are right) of the table's runs on their losses, after a fitted law.

    Resamples are as many as those of the fit. Raises InputError for an unknown form, scores outside 0 to 1 and runs
    that cannot tell how score depends on loss: too few, all at chance, or no slope away from zero.
    """
    if form not in FORMS:
        raise InputError(f"form: {form!r} is unknown; choose one of {', '.join(FORMS)}")
    require_shares("scores", scores)
    require_told(table, scores, chance)
    if form == Sigmoid.name and chance is None:
        raise InputError("chance: a sigmoid begins there and it is not known; give --chance, such as 0.25")
    resampling = Resampling.of(table.params, table.trajectory, clustered=table.clustered)
    link = fit_link(form, table.loss_nats, 1.0 - scores, resampling, chance=chance, bootstrap=fitted.bootstrap,
                    seed=fitted.seed)  # fmt: skip
    return TwoStage(form=form, fit=fitted, link=link, table=table, scores=scores)


def held_out_scores(stages: TwoStage, fitted: Callable[[Table], Fit], holdout: int) -> tuple[HeldOutScore, ...]:
    """The `holdout` runs of largest compute, with those that tie with the least, from both stages fitted to the others.

    fitted: a table to the law of its loss, such as `fit_loss`. Raises InputError as both stages do.
    """
    compute, chance = stages.table.flops_6nd, getattr(stages.link.link, "chance", None)
    if not 1 <= holdout < len(compute):
        raise InputError(f"holdout: {holdout} of {len(compute)} runs; give at least 1 and fewer than there are")
    out = compute >= np.sort(compute)[-holdout] * (1 - 1e-9)
    seen = stages.table.keep(~out)
    others = two_stage(fitted(seen), seen, stages.scores[~out], form=stages.form, chance=chance)
    return judge(others, stages.table.keep(out), stages.scores[out])


def judge(stages: TwoStage, table: Table, scores: Array) -> tuple[HeldOutScore, ...]:
    """Runs that neither stage saw, as it predicts them."""
    told = stages.predict(table.params, table.tokens)
    low, high = told.new_run
    resampled = stages.link.samples is not None
    return tuple(
        HeldOutScore(
            run=str(run),
            params=float(table.params[i]),
            tokens=float(table.tokens[i]),
            flops=float(table.flops_6nd[i]),
            predicted=float(told.score[i]),
            measured=float(scores[i]),
            error=float(told.score[i] - scores[i]),
            interval=(float(low[i]), float(high[i])) if resampled else None,
            covered=bool(low[i] <= scores[i] <= high[i]) if resampled else None,
        )
        for i, run in enumerate(table.frame["run_id"])
    )


def require_told(table: Table, scores: Array, chance: float | None) -> None:
    """Raise InputError unless the runs can tell how a score depends on the loss."""
    if len(table) <= FREE or distinct(np.exp(table.loss_nats)) <= FREE:
        raise InputError(f"runs: {len(table)} cannot fit a link of {FREE} parameters; give at least {FREE + 1} losses")
    if np.ptp(scores) < LEAST_APART:
        raise InputError(f"scores: all are {scores.mean():.3g}: no law of a score that does not change")
    if chance is not None and scores.max() <= chance:
        raise InputError(f"scores: none is above chance, {chance:.3g}: no law of a task that nothing has learned")
    ranks = table.frame["loss_nats"].rank().to_numpy(np.float64)  # the link is no straight line
    slope = line(ranks, scores, clusters(table))
    if slope is not None and slope.slope > 0 and slope.p_value <= LEVEL:
        raise InputError("scores: they fall as the loss does, which neither form can; see the kinds of scaling")
    if slope is None or slope.p_value > LEVEL:
        found = "too few trajectories" if slope is None else f"p = {slope.p_value:.2g}"
        raise InputError(f"scores: no dependence on the loss is told from none ({found}); add runs, or a longer test")

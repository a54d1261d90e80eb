"""Planted abilities: what a token's probability is at each scale, known, and the scores that come of it."""

from collections.abc import Callable

import numpy as np
import pandas as pd

import analysis
from analysis.laws import Array
from analysis.skills.abilities import Ability, Metric

CHANGE = 0.02  # sd of log p between runs, of all its change


def ladder(scales: int, decades: float = 4.0) -> analysis.Table:
    """Runs of growing size, each on 20 tokens a parameter, by Besiroglu et al.'s law."""
    params = np.geomspace(1e6, 1e6 * 10 ** (decades / 2), scales)
    tokens = 20 * params
    loss = 1.8172 + 482.01 / params**0.3478 + 2085.43 / tokens**0.3658
    names = [f"run{i}" for i in range(scales)]
    return analysis.from_frame(pd.DataFrame({"run_id": names, "params": params, "tokens": tokens, "loss_nats": loss}))


def answered(log_p: Array, *, answer: int, items: int, rng: np.random.Generator) -> dict[str, Metric]:
    """Exact match and log-probability of answers of so many tokens, each right with probability exp(log_p) [n].

    The log-probability of an item has a standard deviation of 1 beside its run's mean.
    """
    whole = answer * log_p
    hits = rng.binomial(items, np.exp(whole)) / items
    said = whole + rng.normal(size=len(whole)) / np.sqrt(items)
    nothing, share = np.full(len(whole), np.nan), np.sqrt(hits * (1 - hits) / items)
    exact = Metric(name="exact_match", value=hits, stderr=share, low=nothing, high=nothing, chance=0.0)
    stderr = np.full(len(whole), items**-0.5)
    log_prob = Metric(name="log_prob", value=said, stderr=stderr, low=nothing, high=nothing, chance=None)
    return {"exact_match": exact, "log_prob": log_prob}


def power(x: Array, rng: np.random.Generator) -> Array:
    """log p that falls as a power of compute."""
    return -rng.uniform(1.0, 3.0) * np.exp(-rng.uniform(2.0, 5.0) * x)


def logistic(x: Array, rng: np.random.Generator) -> Array:
    """p that rises by a logistic curve, 80 % of it over a third to all of the scales."""
    low, high, width = rng.uniform(0.05, 0.3), rng.uniform(0.8, 0.98), rng.uniform(0.35, 1.0)
    return np.log(low + (high - low) / (1 + np.exp(-4.394 * (x - rng.uniform(0.2, 0.8)) / width)))


def straight(x: Array, rng: np.random.Generator) -> Array:
    """log p in proportion to log compute."""
    return -rng.uniform(1.0, 2.5) * (1.02 - x)


def step(x: Array, rng: np.random.Generator) -> Array:
    """p that rises at one scale, with a drift of up to a tenth of that on either side."""
    low, high, at = np.log(rng.uniform(0.1, 0.4)), np.log(rng.uniform(0.8, 0.97)), rng.uniform(0.2, 0.8)
    return np.where(x > at, high, low) + rng.uniform(0.0, 0.1) * (high - low) * (x - at)


SMOOTH: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "power": power,
    "logistic": logistic,
    "straight": straight,
}


def planted_task(kind: str, *, scales: int, items: int, seed: int) -> Ability:
    """One of SMOOTH, or `step`, over answers of 2 to 12 tokens; runs scatter by CHANGE beside their items."""
    rng = np.random.default_rng([seed, scales])
    table = ladder(scales)
    x = np.log(table.flops_6nd)
    x = (x - x.min()) / np.ptp(x)
    log_p = SMOOTH.get(kind, step)(x, rng)
    log_p = np.minimum(log_p + CHANGE * np.ptp(log_p) * rng.normal(size=scales), -1e-3)
    metrics = answered(log_p, answer=int(rng.integers(2, 13)), items=items, rng=rng)
    return Ability(task=kind, table=table, metrics=metrics, items=items)

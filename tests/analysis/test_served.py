"""The size for a model that will be served: Sardana et al.'s own examples, brute force, and bounds."""

from dataclasses import replace

import numpy as np
import pytest

from analysis import InputError, fit
from analysis.deciding.served import cheapest, served
from analysis.laws import Chinchilla
from analysis.rivals import Coupled, Interaction

# Hoffmann et al.'s constants as Sardana et al. 2024 use them: exponents of three digits, which their examples need
HOFFMANN = Chinchilla(A=406.4, B=410.7, L0=1.69, alpha=0.336, beta=0.283)


def budget_of(law, params):
    """The compute at which a size is the best."""
    a = law.beta / (law.alpha + law.beta)
    g = (law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta))
    return np.array([6 * (params / g) ** (1 / a)])


@pytest.mark.parametrize(
    ("quality", "demand", "params", "more_text", "saved", "saved_flops"),
    [
        (13e9, 2e12, 7e9, None, 0.17, 1.7e22),  # arXiv:2401.00448v2, Fig. 1
        (30e9, 1e13, 13.6e9, 2.84, 0.28, None),  # ibid., v1, Sec. 2: at a loss of about 1.95
    ],
)
def test_examples_of_sardana_et_al(quality, demand, params, more_text, saved, saved_flops):
    flops = budget_of(HOFFMANN, quality)
    best = HOFFMANN.optimum(flops)
    n, d, share = (float(value[0]) for value in cheapest(HOFFMANN, flops, demand))
    assert float(best.params[0]) == pytest.approx(quality)
    assert n == pytest.approx(params, rel=0.02)
    assert 1 - share == pytest.approx(1 - saved, rel=0.02)
    if more_text is not None:
        assert d / float(best.tokens[0]) == pytest.approx(more_text, rel=0.02)
        assert float(best.loss_nats[0]) == pytest.approx(1.95, abs=0.01)
    if saved_flops is not None:
        total = float(flops[0]) + 2 * quality * demand
        assert share * total == pytest.approx(saved_flops, rel=0.02)


@pytest.mark.parametrize(
    "law",
    [
        HOFFMANN,
        Coupled(A=406.4, B=410.7, L0=1.69, alpha=0.336, beta=0.283, gamma=0.7),
        Interaction(A=406.4, B=410.7, L0=1.69, alpha=0.336, beta=0.283, kappa=0.02),
    ],
    ids=lambda law: law.name,
)
def test_cheapest_is_the_least_of_all_sizes_of_that_loss(law):
    """Against sizes scanned, each with the text that bisection says it needs."""
    flops, demand = np.array([1e21]), 1e12
    best = law.optimum(flops)
    n, d, _ = cheapest(law, flops, demand)
    assert law.predict(n, d) == pytest.approx(best.loss_nats, rel=1e-9)
    sizes = n * np.geomspace(0.5, 2.0, 801)
    sizes = sizes[law.predict(sizes, 1e40) < best.loss_nats]
    low, high = np.zeros(len(sizes)), np.full(len(sizes), 90.0)
    for _ in range(100):
        middle = 0.5 * (low + high)
        short = law.predict(sizes, np.exp(middle)) > best.loss_nats
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    total = 6 * sizes * np.exp(high) + 2 * sizes * demand
    assert float(6 * n[0] * d[0] + 2 * n[0] * demand) <= total.min() * (1 + 1e-9)
    assert float(n[0]) == pytest.approx(float(sizes[np.argmin(total)]), rel=5e-3)


def test_more_demand_asks_for_a_smaller_model(branched):
    fitted = fit(branched(), bootstrap=60)
    sizes = []
    for demand in (1.0, 1e6, 1e8):
        (row,) = served(fitted, [1e13], demand)
        sizes.append(row.params)
        assert row.params_interval is not None
        assert row.params_interval[0] < row.params < row.params_interval[1]
        assert row.total_flops == pytest.approx(6 * row.params * row.tokens + 2 * row.params * demand)
        assert 0 <= row.saved < 1
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == pytest.approx(float(fitted.law.optimum(1e13).params), rel=1e-3)


def test_bad_demand_is_named_and_without_resamples_there_is_no_interval(branched):
    bare = fit(branched(), bootstrap=0)
    (row,) = served(bare, [1e13], 1e8)
    assert row.params_interval is None
    for demand in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match=r"^served: "):
            served(bare, [1e13], demand)


def test_laws_of_resamples_give_one_answer_each():
    many = replace(HOFFMANN, A=np.array([[406.4], [500.0]]))
    n, d, _ = cheapest(many, np.array([1e21, 1e22]), 1e12)
    assert n.shape == d.shape == (2, 2)
    alone = cheapest(replace(HOFFMANN, A=500.0), np.array([1e21, 1e22]), 1e12)[0]
    assert n[1] == pytest.approx(alone, rel=1e-6)

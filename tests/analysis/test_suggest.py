"""Suggested runs against every choice there is, against costs of the planner's own kind, and against a regular grid."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from analysis.coverage import DESIGNS
from analysis.deciding.planned import Planned
from analysis.deciding.prior import Prior
from analysis.errors import InputError
from analysis.expected import expected
from analysis.pictures.design_plot import design_figure
from analysis.rivals import Interaction
from analysis.solving.sandwich import Noise
from analysis.suggest import Candidates, _Search, cost, suggest

COOLDOWN = 0.2
NOISE = Noise(sd=0.004, shared=0.5)


def branched(params, ratios, first: int) -> Candidates:
    n, d = np.repeat(params, len(ratios)), np.repeat(params, len(ratios)) * np.tile(ratios, len(params))
    trajectory = np.repeat(np.arange(first, first + len(params)), len(ratios))
    runs = Planned(params=n, tokens=d, trajectory=trajectory, trunk_flops=(1 - COOLDOWN) * 6 * n * d)
    return Candidates(runs=runs, own_flops=COOLDOWN * 6 * n * d)


@pytest.fixture
def first() -> Planned:
    return branched(np.geomspace(1e8, 1e10, 4), np.geomspace(5.0, 80.0, 3), 0).runs


@pytest.fixture
def prior() -> Prior:
    return Prior(law=DESIGNS["branched 4x3"].law, noise=NOISE, spread=0.1, source="constants")


def nothing(runs: Planned) -> Planned:
    return runs.take(np.arange(0))


def test_trunks_are_paid_once(first):
    """As lmscale.plan counts: f + (1 - f) D_max / sum of D of training one by one, and what goes on from a branch."""
    grid = branched(np.array([1e9]), np.array([10.0, 20.0, 40.0]), 0)
    whole = cost(nothing(first), grid, range(3))
    assert whole == pytest.approx(6e18 * (0.2 * 70 + 0.8 * 40))
    parts = [cost(grid.runs.take(np.arange(k)), grid, [k]) for k in range(3)]
    assert sum(parts) == pytest.approx(whole)
    # a count below the end of a finished trunk is trained again from the branch before it
    assert cost(grid.runs.take(np.array([0, 2])), grid, [1]) == pytest.approx(6e18 * (0.2 * 20 + 0.8 * 10))


def test_marginal_costs_and_updated_values_are_those_of_the_whole(first, prior):
    candidates = branched(np.geomspace(5e7, 4e10, 5), np.array([3.0, 30.0, 100.0]), 4)
    search = _Search.of(first, candidates, prior, 1e23, "params", 0)
    at = np.array([i for i in range(15) if i not in (4, 9)])
    values, marginal = search.values([4, 9], at), search.marginal([4, 9], at)
    before = cost(first, candidates, [4, 9])
    for k, i in enumerate(at):
        assert values[k] == pytest.approx(search.value([4, 9, i]), abs=1e-9)
        assert marginal[k] == pytest.approx(cost(first, candidates, [4, 9, i]) - before)


@pytest.mark.parametrize("budget", [3e21, 2e22])
def test_the_choice_is_that_of_trying_all(first, prior, budget):
    """Of 560 triples, the best within the budget; the exchange may miss it by a little."""
    candidates = branched(np.geomspace(5e7, 2e10, 4), np.array([2.5, 20.0, 60.0, 160.0]), 4)
    found = suggest(first, candidates, prior, flops=1e23, runs=3, budget_flops=budget)
    search = _Search.of(first, candidates, prior, 1e23, "params", 0)
    tried = [search.value(three) for three in combinations(range(16), 3) if cost(first, candidates, three) <= budget]
    assert 2 * np.log(found.after) <= min(tried) + 0.05
    assert found.flops <= budget
    assert found.flops == pytest.approx(cost(first, candidates, found.indices.tolist()))


def test_suggested_runs_tell_more_than_a_regular_grid_of_their_cost(first, prior):
    """tests/soak/suggest.py is the long form, on simulated studies that are fitted."""
    scale = 1.41
    again = branched(scale * np.geomspace(1e8, 1e10, 4), scale * np.geomspace(5.0, 80.0, 3), 4)
    budget, target = cost(first, again, range(12)), 10 * float(first.flops.max())
    candidates = branched(np.geomspace(5e7, 4e10, 10), np.geomspace(2.5, 160.0, 6), 4)
    found = suggest(first, candidates, prior, flops=target, runs=12, budget_flops=budget)
    sure = replace(prior, spread=0.0)
    suggested = expected(first.joined(candidates.runs.take(found.indices)), sure, target, simulations=400)["N*"]
    regular = expected(first.joined(again.runs), sure, target, simulations=400)["N*"]
    assert suggested.standard_error < 0.7 * regular.standard_error
    errors = [choice.standard_error for choice in found.choices]
    assert errors == sorted(errors, reverse=True)
    assert found.before > errors[0]


def test_a_collinear_design_is_mended(prior):
    params = np.geomspace(1e8, 1e10, 8)
    planned = Planned.independent(params, 20 * params)
    candidates = branched(np.geomspace(1e8, 1e10, 6), np.array([4.0, 100.0]), 8)
    found = suggest(planned, candidates, prior, flops=1e22, runs=4, budget_flops=1e22)
    together = planned.joined(candidates.runs.take(found.indices))
    assert expected(together, prior, 1e22)["alpha"].standard_error < 0.1


def test_what_cannot_be_suggested(first, prior):
    candidates = branched(np.array([1e9]), np.array([10.0, 20.0]), 4)
    with pytest.raises(InputError, match="suggest: 0 runs are none"):
        suggest(first, candidates, prior, flops=1e23, runs=0, budget_flops=1e22)
    with pytest.raises(InputError, match=r"budget: 1e\+15 FLOPs pay for none of the 2 candidates; the cheapest"):
        suggest(first, candidates, prior, flops=1e23, runs=1, budget_flops=1e15)
    own = Candidates(runs=first, own_flops=np.ones(len(first)))
    with pytest.raises(InputError, match="every candidate is planned already"):
        suggest(first, own, prior, flops=1e23, runs=1, budget_flops=1e22)
    law = Interaction(A=480.0, B=2e3, L0=1.8, alpha=0.35, beta=0.3, kappa=0.4)
    with pytest.raises(InputError, match="no interior optimum"):
        suggest(first, candidates, replace(prior, law=law), flops=1e23, runs=1, budget_flops=1e22)


def test_the_figure_shows_the_runs_and_both_intervals(first, prior):
    candidates = branched(np.geomspace(5e7, 2e10, 4), np.array([2.5, 160.0]), 4)
    target = 10 * float(first.flops.max())
    found = suggest(first, candidates, prior, flops=target, runs=3, budget_flops=1e22)
    chosen = candidates.runs.take(found.indices)
    now = expected(first, prior, target, simulations=100)
    then = expected(first.joined(chosen), prior, target, simulations=100)
    figure = design_figure(first, prior, target, chosen, now, then)
    (axes,) = figure.axes
    shown = {text for handle in figure.legends for text in (t.get_text() for t in handle.get_texts())}
    assert {"12 runs planned", "3 runs suggested, in their order", "N* to expect, planned runs"} <= shown
    assert [t.get_text() for t in axes.texts if t.get_text() in "123"] == ["1", "2", "3"]
    assert json.dumps([axes.get_xscale(), axes.get_yscale()]) == '["log", "log"]'

"""What an audit expects, against studies that are simulated and fitted whole; designs and priors that are refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.coverage import DESIGNS, SHARED, losses, simulate
from analysis.deciding.planned import Planned
from analysis.deciding.prior import Prior, constants, fitted, published, with_noise
from analysis.errors import InputError
from analysis.expected import expected, form_at
from analysis.fit import fit
from analysis.rivals import Interaction
from analysis.solving.sandwich import Noise
from analysis.solving.solve import Loss, minimise
from analysis.solving.targets import quantities, slopes
from analysis.solving.widening import widening
from analysis.table import from_frame
from analysis.words.audit_text import expected_text, head_text


def planned(name: str) -> Planned:
    design = DESIGNS[name]
    runs = Planned.independent(design.params, design.tokens)
    return runs if design.trajectory is None else replace(runs, trajectory=design.trajectory)


def truth(name: str, noise: float) -> Prior:
    shared = 0.0 if DESIGNS[name].trajectory is None else SHARED
    return Prior(law=DESIGNS[name].law, noise=Noise(sd=noise, shared=shared), source="the truth")


@pytest.mark.parametrize("name", ["grid 5x5", "branched 5x4"])
def test_standard_errors_are_those_of_simulated_studies(name):
    """400 studies from the starts of the search: their standard deviation is known to 3.5 %. tests/soak/audit.py is the
    long form.
    """
    runs, noise = planned(name), 0.004
    budget = 10 * float(runs.flops.max())
    ahead = expected(runs, truth(name, noise), budget, simulations=1500)
    form, at = form_at(runs, truth(name, noise))
    targets = np.log(np.array([losses(DESIGNS[name], noise, seed)[0] for seed in range(400)]))
    theta, lowest = np.empty((400, 5)), np.full(400, np.inf)
    for start in form.starts(at)[:2]:
        begin = np.repeat(start[None], 400, axis=0)
        found = minimise(form.model(at), targets, np.ones((1, len(runs))), begin, form.lower, form.upper, loss=Loss())
        better = found.objective < lowest
        theta[better], lowest = found.theta[better], np.minimum(lowest, found.objective)
    simulated = quantities(form.law(theta), budget)
    for quantity in ("alpha", "beta", "N*", "loss"):
        assert ahead[quantity].standard_error == pytest.approx(float(np.std(simulated[quantity])), rel=0.12), quantity
        assert ahead[quantity].linearised == pytest.approx(ahead[quantity].standard_error, rel=0.15), quantity


def test_intervals_are_as_wide_as_those_that_fit_gives():
    name, noise = "branched 5x4", 0.004
    runs = planned(name)
    ahead = expected(runs, truth(name, noise), 10 * float(runs.flops.max()))
    widths = []
    for seed in range(7):
        low, high = fit(simulate(DESIGNS[name], noise, seed)[0], bootstrap=60).intervals["alpha"]
        widths.append(high - low)
    low, high = ahead["alpha"].interval
    assert high - low == pytest.approx(float(np.median(widths)), rel=0.35)
    assert high - low > 1.1 * 2 * 1.96 * ahead["alpha"].standard_error  # five trajectories tell their spread badly


def test_independent_runs_widen_as_students_t():
    runs = planned("grid 5x5")
    jacobian = np.random.default_rng(0).normal(size=(25, 5))
    found = widening(runs, Noise(sd=0.01), jacobian, np.zeros((1, 25)), {"alpha": np.ones(5)}, 0)
    assert found["alpha"] == pytest.approx(2.086 / 1.95996, rel=1e-4)  # 20 degrees of freedom, tables


def test_trajectories_make_runs_worth_less():
    runs = planned("branched 8x3")
    apart = replace(runs, trajectory=np.arange(24))
    prior = truth("branched 8x3", 0.004)
    budget = 10 * float(runs.flops.max())
    assert expected(runs, prior, budget)["loss"].linearised > 1.1 * expected(apart, prior, budget)["loss"].linearised


def test_a_collinear_design_is_refused_with_the_reason():
    params = np.geomspace(1e6, 1e9, 12)
    runs = Planned.independent(params, 20 * params)
    with pytest.raises(InputError, match="every run has D = 20 N, so alpha and beta cannot be told apart"):
        expected(runs, published("besiroglu", Noise(sd=0.005)), 1e21)


def test_budgets_and_laws_that_have_no_answer():
    runs = planned("grid 5x5")
    with pytest.raises(InputError, match=r"flops: .* below the smallest run"):
        expected(runs, truth("grid 5x5", 0.01), 1e10)
    law = Interaction(A=480.0, B=2e3, L0=1.8, alpha=0.35, beta=0.3, kappa=0.4)
    prior = Prior(law=law, noise=Noise(sd=0.01), source="constants")
    with pytest.raises(InputError, match=r"no interior optimum at .* largest model is always"):
        expected(runs, prior, 1e23)


def test_priors_by_name_by_constants_and_by_a_table(branched):
    noise = Noise(sd=0.01)
    assert published("hoffmann", noise).law.optimum(5.76e23).params == pytest.approx(32.19e9, rel=1e-3)  # reproduced
    with pytest.raises(InputError, match="prior: 'nobody' is unknown; name one of besiroglu, hoffmann"):
        published("nobody", noise)
    with pytest.raises(InputError, match="prior: L0 is missing"):
        constants({"A": 1.0, "B": 1.0, "alpha": 0.3, "beta": 0.3}, noise)
    with pytest.raises(InputError, match="prior: gamma is no parameter"):
        constants({"A": 1.0, "B": 1.0, "L0": 1.0, "alpha": 0.3, "beta": 0.3, "gamma": 1.0}, noise)
    table = branched(row=0.002, trajectory=0.002, sizes=tuple(np.geomspace(2e4, 1e6, 8)))
    prior = fitted(fit(table, bootstrap=60), source="a table")
    assert prior.samples is not None
    assert 0.001 < prior.noise.sd < 0.008
    assert with_noise(prior, sd=0.5, shared=0.1).noise == Noise(sd=0.5, shared=0.1)


def test_laws_of_a_prior_spread_as_it_says():
    runs = planned("grid 5x5")
    prior = published("besiroglu", Noise(sd=0.01), spread=0.05)
    form, _ = form_at(runs, prior)
    drawn = prior.laws(form, 4000, np.random.default_rng(0))
    assert drawn[:, 3].std() == pytest.approx(0.05 * 0.3478, rel=0.05)
    assert drawn[:, 0].std() == pytest.approx(0.05, rel=0.05)


def test_slopes_are_those_of_the_closed_form():
    """d log N* / d log A = 1 / (alpha + beta), from Hoffmann et al. 2022, eq. 4."""
    runs = planned("grid 5x5")
    prior = truth("grid 5x5", 0.01)
    form, _ = form_at(runs, prior)
    found = slopes(form, form.theta(prior.law)[None], 1e23)["N*"][0]
    assert found[0] == pytest.approx(1 / (0.3478 + 0.3658), rel=1e-6)
    assert found[2] == pytest.approx(0.0, abs=1e-9)


def test_the_text_names_every_quantity_and_what_is_believed():
    runs = planned("grid 5x5")
    prior = published("besiroglu", Noise(sd=0.004))
    ahead = expected(runs, prior, 10 * float(runs.flops.max()), simulations=200)
    text = head_text(runs, prior, ahead.flops) + expected_text(ahead, None)
    for word in ("the law of besiroglu", "uncertain: 10 %", "0.4 %", "10 x the largest run", "parameters N*", "alpha"):
        assert word in text
    assert "not told" in expected_text(None, ahead)


def test_a_table_that_tells_no_law_is_no_prior():
    rng = np.random.default_rng(0)
    n, d = (np.repeat(np.geomspace(1e6, 1e8, 4), 4), np.tile(np.geomspace(1e8, 1e9, 4), 4))
    flat = pd.DataFrame({"params": n, "tokens": d, "loss": 3.0 * np.exp(0.01 * rng.normal(size=16))})
    with pytest.raises(InputError, match=r"prior: .* tells no law"):
        fitted(fit(from_frame(flat), bootstrap=60), source="flat.csv")

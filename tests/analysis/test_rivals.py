"""Every law: its form, its derivatives, its optimum, its constants from runs that it made, and published numbers."""

import numpy as np
import pandas as pd
import pytest

from analysis import fit, from_frame
from analysis.errors import InputError
from analysis.laws import Chinchilla, EqualExponent
from analysis.rivals import BrokenCompute, Coupled, Interaction, Kaplan, Repeats, numeric_optimum
from analysis.solving.form import Runs
from analysis.solving.forms import FORMS

LAWS = (
    Chinchilla(A=480.0, B=2085.0, L0=1.82, alpha=0.348, beta=0.366),
    EqualExponent(A=480.0, B=1600.0, L0=1.82, alpha=0.35),
    Coupled(A=480.0, B=2085.0, L0=1.7, alpha=0.348, beta=0.366, gamma=0.6),
    Kaplan(N_c=8.8e13, D_c=5.4e13, alpha=0.076, beta=0.095),  # Kaplan et al. 2020, eq. 1.1, 1.2
    Interaction(A=480.0, B=2085.0, L0=1.8, alpha=0.348, beta=0.34, kappa=0.05),
    Repeats(A=520.0, B=1488.0, L0=1.87, alpha=0.3527, beta=0.36, R_D=15.4, R_N=5.3),
    BrokenCompute(L0=1.6, F=3e3, c0=0.17, c1=0.06, C_b=3e19, f=1.0, G=0.1, alpha=0.35, beta=0.37),
)
MUENNIGHOFF = Repeats(
    A=np.exp(6.255414), B=np.exp(7.3049974), L0=np.exp(0.6254804), alpha=0.3526596, beta=0.3526596, R_D=15.387756,
    R_N=5.309743,
)  # fmt: skip
every_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)


@pytest.fixture
def grid():
    rng = np.random.default_rng(0)
    params, tokens = np.repeat(np.geomspace(1e7, 3e9, 7), 6), np.tile(np.geomspace(5e8, 2e11, 6), 7)
    epochs = np.where(rng.random(42) < 0.5, rng.choice([1.0, 2.0, 4.0, 8.0, 16.0], 42), 1.0)
    return params, tokens, tokens / epochs


def runs_of(law, grid):
    params, tokens, unique = grid
    return Runs(params=params, tokens=tokens, loss_nats=law.predict(params, tokens, unique), unique_tokens=unique)


def table_of(law, grid, noise=0.0, seed=0):
    runs = runs_of(law, grid)
    loss = runs.loss_nats * np.exp(noise * np.random.default_rng(seed).normal(size=42))
    names = {"params": runs.params, "tokens": runs.tokens, "loss_nats": loss, "unique_tokens": runs.unique_tokens}
    return from_frame(pd.DataFrame(names))


def test_every_law_is_tried_here():
    assert [law.name for law in LAWS] == list(FORMS)


@every_law
def test_form_has_the_loss_of_its_law_and_exact_slopes(law, grid):
    runs = runs_of(law, grid)
    form = FORMS[law.name].of(runs)
    model, theta = form.model(runs), form.theta(law)
    value, slopes = model.jacobian(theta)
    np.testing.assert_allclose(np.exp(value), runs.loss_nats, rtol=1e-12)
    for k in range(len(theta)):
        step = 1e-6 * (np.arange(len(theta)) == k)
        numeric = (model.jacobian(theta + step)[0] - model.jacobian(theta - step)[0]) / 2e-6
        np.testing.assert_allclose(slopes[:, k], numeric, atol=2e-9)
    back = form.law(theta).parameters
    for name, planted in law.parameters.items():
        assert float(back[name]) == pytest.approx(planted, rel=1e-9)


@every_law
def test_planted_constants_are_recovered(law, grid):
    fitted = fit(table_of(law, grid), law.name, bootstrap=0)
    assert fitted.objective < 1e-15
    for name, planted in law.parameters.items():
        assert float(fitted.law.parameters[name]) == pytest.approx(planted, rel=1e-3), name


@every_law
def test_optimum_is_the_least_loss_of_all_sizes(law):
    flops = 1e22
    best = law.optimum(flops)
    sizes = np.geomspace(1e7, 1e12, 4001)
    losses = law.predict(sizes, flops / 6 / sizes)
    assert float(best.loss_nats) <= losses.min() + 1e-12
    assert float(best.params) == pytest.approx(sizes[losses.argmin()], rel=5e-3)
    assert 6 * float(best.params) * float(best.tokens) == pytest.approx(flops, rel=1e-9)


@every_law
def test_intervals_of_the_optimum_hold_the_truth(law, grid):
    """N* of the planted law lies among its resamples, from noisy runs, in at least five of six studies."""
    truth, held = float(law.optimum(1e22).params), []
    for seed in range(6):
        fitted = fit(table_of(law, grid, noise=0.002, seed=seed), law.name, bootstrap=40)
        assert fitted.samples is not None
        drawn = fitted.samples.optimum(1e22).params
        held.append(drawn.min() < truth < drawn.max())
        assert all(low <= high for low, high in fitted.intervals.values())
    assert sum(held) >= 5


@every_law
def test_exponents_are_the_slopes_of_the_optimum(law):
    ends = law.optimum(np.array([1e21, 1e22]))
    slope = np.log(ends.params[1] / ends.params[0]) / np.log(10.0)
    assert float(law.exponents["a"]) == pytest.approx(slope, rel=1e-6)
    assert float(law.exponents["a"]) + float(law.exponents["b"]) == pytest.approx(1.0)


def test_coupled_law_holds_both_of_its_ends(grid):
    params, tokens, _ = grid
    plain = LAWS[0]
    same = Coupled(**plain.parameters, gamma=1.0)
    np.testing.assert_allclose(same.predict(params, tokens), plain.predict(params, tokens), rtol=1e-12)
    kaplan = LAWS[3]
    by_hand = ((kaplan.N_c / params) ** (kaplan.alpha / kaplan.beta) + kaplan.D_c / tokens) ** kaplan.beta
    np.testing.assert_allclose(kaplan.predict(params, tokens), by_hand, rtol=1e-12)


def test_broken_law_without_a_break_is_chinchillas(grid):
    params, tokens, _ = grid
    plain = LAWS[0]
    total = plain.alpha + plain.beta
    g = (plain.alpha * plain.A / (plain.beta * plain.B)) ** (1 / total)
    reducible = plain.A * g**-plain.alpha + plain.B * g**plain.beta
    exponent = plain.alpha * plain.beta / total
    same = BrokenCompute(
        L0=plain.L0, F=reducible * 6**exponent, c0=exponent, c1=0.0, C_b=1e20, f=1.0, G=g, alpha=plain.alpha,
        beta=plain.beta,
    )  # fmt: skip
    np.testing.assert_allclose(same.predict(params, tokens), plain.predict(params, tokens), rtol=1e-12)


def test_muennighoffs_losses_and_optimum():
    """Computed by the authors' published notebook for 25 B unique tokens."""
    assert float(MUENNIGHOFF.predict(6.34e9, 242e9, 25e9)) == pytest.approx(2.225644089, abs=5e-10)
    assert float(MUENNIGHOFF.predict(8.67e9, 178e9, 25e9)) == pytest.approx(2.2269634075, abs=5e-10)
    best = MUENNIGHOFF.optimum(1e22, 25e9)
    assert float(best.tokens) == pytest.approx(237.3e9, rel=1e-3)
    assert float(best.params) == pytest.approx(7.02e9, rel=1e-3)
    assert float(best.tokens) / 25e9 == pytest.approx(9.49, abs=0.005)


def test_repeats_cost_nothing_while_there_are_none():
    plain, best = MUENNIGHOFF.unlimited, MUENNIGHOFF.optimum(1e20, 1e15)
    assert float(best.params) == pytest.approx(float(plain.optimum(1e20).params), rel=1e-5)
    assert float(MUENNIGHOFF.predict(1e8, 1e11)) == pytest.approx(float(plain.predict(1e8, 1e11)), rel=1e-12)


def test_numeric_optimum_is_the_closed_form():
    found = numeric_optimum(LAWS[0], np.array([1e18, 1e24]), np.array(1e30))
    np.testing.assert_allclose(found.params, LAWS[0].optimum(np.array([1e18, 1e24])).params, rtol=1e-5)


def test_repeats_need_unique_tokens(branched):
    with pytest.raises(InputError, match="unique_tokens: no row of the table tells it; name"):
        fit(branched(), "repeats")
    with pytest.raises(InputError, match="unique_tokens"):
        MUENNIGHOFF.optimum(1e22, 0.0)


def test_a_model_that_learns_more_the_larger_it_is_has_no_optimum():
    endless = Interaction(A=480.0, B=2085.0, L0=1.8, alpha=0.348, beta=0.05, kappa=0.3)
    assert np.log(float(endless.optimum(1e21).params)) > 100

"""Laws against published optima and closed forms."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from analysis.errors import InputError
from analysis.laws import Chinchilla

HOFFMANN = Chinchilla(
    A=np.exp(6.0073404), B=np.exp(6.0179186), L0=np.exp(0.5267228), alpha=0.33917084, beta=0.2849083
)  # unrounded, from the source of arXiv:2203.15556; Besiroglu et al. 2024, App. A.2
BESIROGLU = Chinchilla(A=482.01, B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)  # Besiroglu et al. 2024, eq. 4

exponents = st.floats(0.1, 1.5)
laws = st.builds(
    Chinchilla, A=st.floats(1.0, 1e4), B=st.floats(1.0, 1e4), L0=st.floats(0.1, 3.0), alpha=exponents, beta=exponents
)


@pytest.mark.parametrize(("law", "params", "tokens"), [(HOFFMANN, 40.36e9, 2.379e12), (BESIROGLU, 72.25e9, 1.329e12)])
def test_optimum_is_the_published_one(law, params, tokens):
    optimum = law.optimum(5.76e23)
    assert float(optimum.params) == pytest.approx(params, rel=1e-3)
    assert float(optimum.tokens) == pytest.approx(tokens, rel=1e-3)


def test_rounded_coefficients_give_32_billion_instead_of_40():
    rounded = Chinchilla(A=406.4, B=410.7, L0=1.69, alpha=0.34, beta=0.28)  # Hoffmann et al. 2022, eq. 10
    assert float(rounded.optimum(5.76e23).params) == pytest.approx(32.19e9, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(laws, st.floats(15, 24))
def test_closed_form_is_the_numeric_minimum(law, log10_flops):
    flops = 10**log10_flops
    found: Any = minimize_scalar(
        lambda log_n: float(law.predict(np.exp(log_n), flops / 6 / np.exp(log_n))), bounds=(-50, 120), method="bounded"
    )
    optimum = law.optimum(flops)
    assert float(optimum.loss_nats) <= float(found.fun) + 1e-9
    assert 6 * float(optimum.params) * float(optimum.tokens) == pytest.approx(flops, rel=1e-9)
    assert law.exponents["a"] + law.exponents["b"] == pytest.approx(1)


def test_arrays_of_parameters_broadcast_over_budgets():
    many = Chinchilla(A=np.full((3, 1), 482.01), B=2085.43, L0=1.8172, alpha=0.3478, beta=0.3658)
    assert many.optimum(np.array([1e20, 1e21])).params.shape == (3, 2)


def test_large_counts_do_not_overflow():
    assert float(BESIROGLU.predict(np.int64(10**12), np.int64(10**14))) > 1.8172


@pytest.mark.parametrize("flops", [0.0, -1e20, float("nan"), float("inf")])
def test_a_bad_budget_is_named(flops):
    with pytest.raises(InputError, match="flops"):
        BESIROGLU.optimum(flops)


def test_a_bad_parameter_is_named():
    with pytest.raises(InputError, match="alpha"):
        Chinchilla(A=1.0, B=1.0, L0=1.0, alpha=-0.3, beta=0.3)

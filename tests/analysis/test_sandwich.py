"""Covariances of clustered Huber estimators against their limits and a simulation; the factor against the book."""

import math

import numpy as np
import pytest

from analysis.errors import InputError
from analysis.solving.sandwich import Noise, covariance, huber_factor


def test_huber_factor_has_its_limits():
    assert huber_factor(1e-6) == pytest.approx(math.pi / 2, rel=1e-4)  # the median's variance over the mean's
    assert huber_factor(8.0) == pytest.approx(1.0, rel=1e-6)
    assert huber_factor(1.345) == pytest.approx(1 / 0.95, rel=1e-3)  # Huber 1964: 95 % efficiency


def test_shared_errors_are_those_of_signs_and_of_squares_at_the_ends():
    own, together = Noise(sd=2.0, shared=0.5).moments(2e-5)
    assert own == pytest.approx(4 * math.pi / 2, rel=1e-4)
    assert together == pytest.approx(4 * math.asin(0.5), rel=1e-4)  # Sheppard 1899: E sign sign = 2/pi asin rho
    assert Noise(sd=2.0, shared=0.3).moments(40.0) == pytest.approx((4.0, 1.2))
    own, together = Noise(sd=1.0, shared=1.0).moments(0.4)
    assert together == pytest.approx(own, rel=1e-4)


@pytest.mark.parametrize("delta", [0.2, 5.0])
def test_a_location_of_clusters_spreads_as_the_sandwich_says(delta):
    """The Huber location of 60 clusters of 5, by iteration, 600 times."""
    noise, trajectory = Noise(sd=1.0, shared=0.6), np.repeat(np.arange(60), 5)
    errors = noise.draw(trajectory, 600, np.random.default_rng(3))
    found = np.zeros(len(errors))
    for _ in range(60):
        found += np.clip(errors - found[:, None], -delta, delta).mean(axis=1)
    expected = math.sqrt(covariance(np.ones((300, 1)), trajectory, noise, delta)[0, 0])
    assert found.std() == pytest.approx(expected, rel=0.08)


def test_of_independent_least_squares_it_is_the_textbook():
    jacobian = np.random.default_rng(0).normal(size=(30, 3))
    found = covariance(jacobian, np.arange(30), Noise(sd=0.1), 10.0)
    assert found == pytest.approx(0.01 * np.linalg.inv(jacobian.T @ jacobian), rel=1e-9)


@pytest.mark.parametrize("wrong", [{"sd": 0.0}, {"sd": math.nan}, {"sd": 0.1, "shared": 1.5}])
def test_no_noise_is_refused(wrong):
    with pytest.raises(InputError, match=r"^(residual_sd|shared): "):
        Noise(**wrong)

"""The expected interval against a simulation."""

import math

import numpy as np
import pytest

from analysis import InputError, audit, fit
from analysis.audit import larger
from analysis.uncertainty import residual_sd


def test_expected_width_is_what_a_simulation_shows(branched, planted):
    sizes, tokens = tuple(np.geomspace(2e4, 1e6, 8)), tuple(np.geomspace(5e5, 2e7, 8))
    table = branched(row=0.0, trajectory=0.0, sizes=sizes, tokens=tokens)
    expected = audit(table.params, table.tokens, planted, residual_sd=0.003, flops=1e15)
    found = []
    for seed in range(60):
        noisy = branched(row=0.003, trajectory=0.0, seed=seed, sizes=sizes, tokens=tokens)
        found.append(math.log(float(fit(noisy, bootstrap=0).law.optimum(1e15).params)))
    assert float(np.std(found)) == pytest.approx(expected.sd_log_params, rel=0.25)


def test_a_larger_study_tells_more(branched, planted):
    table = branched()
    now = audit(table.params, table.tokens, planted, residual_sd=0.005, flops=1e14)
    params, tokens = larger(table.params, table.tokens, times_flops=10)
    then = audit(params, tokens, planted, residual_sd=0.005, flops=1e14)
    assert then.factor < now.factor
    assert then.largest_flops == pytest.approx(10 * now.largest_flops)
    assert then.total_flops == pytest.approx(11 * now.total_flops)


def test_residual_sd_of_normal_errors():
    residuals = np.random.default_rng(0).normal(scale=0.01, size=4000)
    assert residual_sd(residuals, 5) == pytest.approx(0.01, rel=0.05)


def test_degenerate_designs_are_refused(planted):
    params = np.geomspace(1e6, 1e9, 9)
    with pytest.raises(InputError, match="D = 20 N"):
        audit(params, 20 * params, planted, residual_sd=0.01, flops=1e20)

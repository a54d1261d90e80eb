"""The fit against planted constants, SciPy on the same objective, and Besiroglu et al. 2024."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from analysis import InputError, fit, from_frame, read
from analysis.laws import ChinchillaForm
from analysis.solve import minimise


def objective(theta, features, target, delta):
    size = np.abs(np.log(np.exp(np.einsum("tnk,k->tn", features, theta)).sum(0)) - target)
    return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum())


def test_planted_constants_are_recovered_exactly(branched, planted):
    fitted = fit(branched(row=0.0, trajectory=0.0), bootstrap=0)
    for name, value in planted.parameters.items():
        assert float(fitted.law.parameters[name]) == pytest.approx(value, rel=1e-5)
    assert fitted.objective < 1e-15
    assert fitted.intervals == {}


@pytest.mark.parametrize("seed", range(3))
def test_scipy_finds_nothing_lower(branched, seed):
    table = branched(seed=seed)
    fitted = fit(table, bootstrap=0)
    features, target = fitted.form.features(table.params, table.tokens), np.log(table.loss_nats)
    theta = fitted.form.theta(fitted.law)
    assert objective(theta, features, target, 1e-3) == pytest.approx(fitted.objective, abs=1e-12)
    bounds = list(zip(fitted.form.lower, fitted.form.upper, strict=True))
    arguments = (features, target, 1e-3)
    starts = fitted.form.starts(table.params, table.tokens, table.loss_nats)[::25]
    lowest = min(
        minimize(objective, s, arguments, "Nelder-Mead", bounds=bounds, options={"maxfev": 4000, "fatol": 1e-13}).fun
        for s in (*starts, theta + 0.01)
    )
    assert fitted.objective <= lowest + 1e-9
    assert fitted.agreement > 0.2


def test_a_batch_solves_each_problem_as_it_would_alone(branched):
    table = branched()
    form = ChinchillaForm.of(table.params, table.tokens, table.loss_nats)
    features, target = form.features(table.params, table.tokens), np.log(table.loss_nats)[None]
    starts = form.starts(table.params, table.tokens, table.loss_nats)[[20, 60, 70]]
    weights = np.random.default_rng(0).multinomial(len(table), np.full(len(table), 1 / len(table)), 3).astype(float)
    together = minimise(features, target, weights, starts, form.lower, form.upper, delta=1e-3)
    for i in range(3):
        alone = minimise(features, target, weights[[i]], starts[[i]], form.lower, form.upper, delta=1e-3)
        np.testing.assert_allclose(alone.objective[0], together.objective[i], rtol=1e-9)


def test_quickstart_size_study_is_sane_and_says_what_it_is(branched):
    fitted = fit(branched(), bootstrap=200)
    assert fitted.identifiable
    assert fitted.residual_median < 0.01
    assert fitted.gradient_norm < 1e-8
    assert all(low <= high for low, high in fitted.intervals.values())
    text = " ".join(fitted.warnings)
    assert "only 18 runs" in text
    assert "5 trajectories" in text
    assert "embeddings are up to 41%" in text


def test_same_seed_same_intervals(branched):
    table = branched()
    assert fit(table, bootstrap=50, seed=3).intervals == fit(table, bootstrap=50, seed=3).intervals


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ([(1e7, d) for d in np.geomspace(1e8, 1e11, 12)], "params: all 12 runs have"),
        ([(n, 1e9) for n in np.geomspace(1e6, 1e9, 12)], "tokens: all 12 runs have"),
        ([(n, 20 * n) for n in np.geomspace(1e6, 1e9, 12)], "every run has D = 20 N"),
        ([(n, 1e18 / n) for n in np.geomspace(1e6, 1e9, 12)], "every run spends one budget of about 6e\\+18"),
        ([(n, n**1.5) for n in np.geomspace(1e6, 1e9, 12)], "D ~ N\\^1.50"),
        ([(1e6, 1e8), (1e7, 1e9), (1e8, 1e8), (1e7, 1e10)], "runs: 4 usable rows cannot fit 5"),
        ([(n, d) for n in (1e6, 1e7) for d in (1e8, 3e8, 1e9, 3e9)], "params: only 2 values"),
    ],
)
def test_designs_that_cannot_tell_are_refused_with_the_cause(planted, rows, cause):
    frame = pd.DataFrame(rows, columns=["params", "tokens"])
    frame["loss_nats"] = planted.predict(frame["params"], frame["tokens"])
    with pytest.raises(InputError, match=cause):
        fit(from_frame(frame))


def test_no_dependence_on_size_is_not_identifiable(branched_frame):
    frame = branched_frame(row=0.0)
    frame["loss_nats"] = 1.0 + 4e3 / frame["tokens"] ** 0.6
    fitted = fit(from_frame(frame), bootstrap=0)
    assert not fitted.identifiable
    assert "bound" in fitted.reason


@pytest.mark.parametrize("options", [{"law": "cubic"}, {"delta": 0.0}, {"bootstrap": -1}, {"bootstrap": 1}])
def test_bad_options_are_named(branched, options):
    with pytest.raises(InputError, match=next(iter(options))):
        fit(branched(), **options)


def test_besiroglu(reference):
    table = read(reference / "epoch_chinchilla.csv", where={"besiroglu_excluded": "False"})
    begun = time.perf_counter()
    fitted = fit(table, bootstrap=1000)
    assert time.perf_counter() - begun < 5
    assert fitted.objective <= 0.00101827405  # expected.json beside the table
    for name, value in {"A": 477.83, "B": 2143.4, "L0": 1.81722, "alpha": 0.34731, "beta": 0.36717}.items():
        assert float(fitted.law.parameters[name]) == pytest.approx(value, rel=0.01)
    assert fitted.samples is not None
    for name, error in {"L0": 0.0257, "alpha": 0.0154, "beta": 0.0206}.items():  # authors' bootstrap, 4,000 resamples
        assert float(np.std(fitted.samples.parameters[name])) == pytest.approx(error, rel=0.15)
    assert float(np.std(fitted.samples.exponents["a"])) == pytest.approx(0.020, rel=0.15)


def test_a_collinear_public_study_is_refused(reference):
    with pytest.raises(InputError, match="D = 20 N"):
        fit(read(reference / "collinear_d20n.csv"))

"""Counting otherwise: exact FLOPs against the ladder's own, optima against brute force, a planted law found by each."""

import numpy as np
import pandas as pd
import pytest

from analysis import InputError, fit, from_frame
from analysis.curves import from_table
from analysis.deciding.counting import (
    COUNTINGS,
    Counting,
    PowerSum,
    counted,
    counted_optimum,
    flops_per_token,
    with_embeddings,
    without_embeddings,
)
from analysis.laws import Chinchilla
from lmscale.config import Size
from lmscale.shapes import shape_for, shape_of

PLANTED = Chinchilla(A=30.0, B=4e3, L0=1.1, alpha=0.4, beta=0.6)  # in parameters outside embeddings
VOCAB, SEQUENCE = 264, 128
WIDTHS = (32, 48, 64, 96, 128, 192)


def shapes():
    return [shape_of(Size(width=width), vocab=VOCAB) for width in WIDTHS]


def frame(noise=0.0):
    rng = np.random.default_rng(0)
    rows = []
    for shape in shapes():
        for tokens in np.geomspace(5e5, 8e6, 5):
            loss = float(PLANTED.predict(shape.params_matrices, tokens)) * np.exp(noise * rng.normal())
            flops = shape.train_flops(tokens, SEQUENCE)
            rows.append((shape.params, shape.params_embedding, tokens, flops, loss))
    return pd.DataFrame(rows, columns=["params", "params_embedding", "tokens", "flops", "loss_nats"])


@pytest.fixture(scope="module")
def table():
    return from_frame(frame())


@pytest.mark.parametrize("params", [1e6, 1e8, 7e9])
def test_flops_and_embeddings_of_models_far_beyond_the_data_are_those_of_the_ladder(table, params):
    shape = shape_for(params, shape_of(Size(width=16), vocab=VOCAB))
    exact = shape.train_flops(1.0, SEQUENCE)
    for counting, size in ((Counting(flops="exact"), shape.params),
                           (Counting(params="matrices", flops="exact"), shape.params_matrices)):  # fmt: skip
        per_token = flops_per_token(table, counting)
        assert per_token is not None
        assert float(per_token(size)) == pytest.approx(exact, rel=0.03)
    assert float(with_embeddings(table)(shape.params_matrices)) == pytest.approx(shape.params, rel=0.01)


def test_optimum_under_other_flops_is_that_of_brute_force():
    per_token = PowerSum(base=6.0, log_coefficient=np.log(300.0), exponent=0.6)
    best = counted_optimum(PLANTED, np.array([1e13, 1e15]), per_token)
    for i, budget in enumerate((1e13, 1e15)):
        low, high, grid, at = 0.0, np.log(budget / 6), np.zeros(1), 0
        for _ in range(12):
            grid = np.linspace(low, high, 2001)
            losses = PLANTED.predict(np.exp(grid), budget / per_token(np.exp(grid)))
            at = int(np.argmin(losses))
            low, high = grid[max(at - 2, 0)], grid[min(at + 2, 2000)]
        assert float(best.params[i]) == pytest.approx(np.exp(grid[at]), rel=1e-6)
        assert float(per_token(best.params[i]) * best.tokens[i]) == pytest.approx(budget)


def test_with_six_per_parameter_it_is_the_law_own_optimum():
    six = PowerSum(base=0.0, log_coefficient=np.log(6.0), exponent=1.0)
    best, own = counted_optimum(PLANTED, np.array([1e14]), six), PLANTED.optimum([1e14])
    assert best.params == pytest.approx(own.params, rel=1e-6)


def test_the_law_without_embeddings_is_found(table):
    fitted = fit(table, bootstrap=0)
    found = counted(fitted, from_table(table), [1e13])
    plain = {str(answer.counting): answer for answer in found.answers if answer.method == "parametric"}
    assert set(plain) == {str(counting) for counting in COUNTINGS}
    answer = plain["no embed., 6ND"]
    best = float(PLANTED.optimum(1e13).params)
    assert answer.row.params == pytest.approx(best, rel=1e-3)
    assert answer.params_all == pytest.approx(float(with_embeddings(table)(best)), rel=1e-3)
    assert answer.a == pytest.approx(0.6, rel=1e-3)
    exact = plain["no embed., exact"]
    per_token = flops_per_token(table, exact.counting)
    assert per_token is not None
    assert float(per_token(exact.row.params)) * exact.row.tokens == pytest.approx(1e13)
    assert exact.row.tokens < answer.row.tokens  # attention and the output layer take their part
    assert all(a.row.params_interval is None for a in found.answers)


def test_what_the_table_does_not_know_is_refused(table):
    bare = from_frame(frame().drop(columns=["params_embedding", "flops"]))
    found = counted(fit(bare, bootstrap=0), None, [1e13])
    reasons = dict(found.refused)
    assert "counts FLOPs as 6ND" in reasons["all params, exact"]
    assert "no such column" in reasons["no embed., 6ND"]
    assert "no curves" in reasons["all params, 6ND, envelope"]
    assert {str(answer.counting) for answer in found.answers} == {"all params, 6ND"}
    broken = from_frame(frame().assign(params_embedding=1e9))
    with pytest.raises(InputError, match=r"^params_embedding: a run has no parameters beside"):
        without_embeddings(broken)


def test_intervals_follow_the_count():
    noisy = from_frame(frame(noise=0.002))
    found = counted(fit(noisy, bootstrap=60), None, [1e13])
    for answer in found.answers:
        assert answer.params_all_interval is not None
        assert answer.params_all_interval[0] < answer.params_all < answer.params_all_interval[1]
        assert answer.a_interval is not None
        assert answer.a_interval[0] < answer.a < answer.a_interval[1]

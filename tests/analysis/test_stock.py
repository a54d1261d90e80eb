"""The stock of text: its growth, its tokens, and when an answer is warned of."""

from dataclasses import replace
from datetime import date

import pytest

from analysis import fit, from_frame, optimal
from analysis.deciding.served import served
from analysis.deciding.stock import stock_tokens, stock_warnings

DAY = date(2026, 10, 1)  # four years after the estimate


def test_the_stock_grows_by_seven_per_cent_a_year(branched):
    low, high = stock_tokens(branched(), DAY)
    assert low == pytest.approx(4.6e12 * 4 / 3 * 1.07**4, rel=1e-3)
    assert high == pytest.approx(1.7e13 * 4 / 3 * 1.07**4, rel=1e-3)
    assert stock_tokens(branched(), date(2020, 1, 1))[0] == pytest.approx(4.6e12 * 4 / 3)


def test_a_byte_is_a_smaller_token(branched_frame):
    frame = branched_frame()
    low, _ = stock_tokens(from_frame(frame.assign(trained_bytes=frame["tokens"])), DAY)
    assert low == pytest.approx(4.6e12 * 5.5 * 1.07**4, rel=1e-3)


def test_warnings_say_may_and_does(branched):
    fitted = fit(branched(), bootstrap=0)
    (row,) = optimal(fitted, [1e15])
    few, some, many = (replace(row, tokens=tokens) for tokens in (1e12, 1.2e13, 1e14))
    assert stock_warnings(fitted.table, [few], DAY) == ()
    (may,), (does,) = (stock_warnings(fitted.table, [each], DAY) for each in (some, many))
    assert "may exceed the stock" in may
    assert "exceeds the stock" in does
    assert "2026" in does


def test_a_model_to_serve_is_warned_of_too(branched):
    """It is smaller and reads more text than the best to train, so that it alone may go beyond the stock."""
    fitted = fit(branched(), bootstrap=0)
    (row,) = optimal(fitted, [1e22])
    (model,) = served(fitted, [1e22], 1e18)
    assert row.tokens < stock_tokens(fitted.table, DAY)[0] < model.tokens
    (line,) = stock_warnings(fitted.table, [row, model], DAY)
    assert line.startswith("at 1.00e+22 FLOPs D of the model to serve = ")

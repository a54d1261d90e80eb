"""The line through clustered points, against Welch's two-sample test, which it is in the simplest designs."""

import numpy as np
import pytest

from analysis.solving.clustered import holm, line
from analysis.solving.proportions import wilson


def test_rows_alone_give_welchs_variance():
    """For two groups HC2 is s1^2 / n1 + s2^2 / n2; with equal sizes the degrees of freedom are n1 + n2 - 2."""
    rng = np.random.default_rng(0)
    x, y = np.repeat([0.0, 1.0], 6), rng.normal(size=12)
    found = line(x, y, [str(i) for i in range(12)])
    assert found is not None
    assert found.slope == pytest.approx(y[6:].mean() - y[:6].mean())
    assert found.stderr**2 == pytest.approx(y[:6].var(ddof=1) / 6 + y[6:].var(ddof=1) / 6)
    assert found.degrees == pytest.approx(10)


def test_clusters_give_the_variance_of_their_means():
    """Clusters of one size, each at one x: as if each were its mean (Imbens & Kolesar 2016, Sec. 4)."""
    rng = np.random.default_rng(1)
    clusters, x = np.repeat(np.arange(8), 3), np.repeat([0.0, 1.0], 12)
    y = rng.normal(size=8)[clusters] + 0.1 * rng.normal(size=24)
    means = y.reshape(8, 3).mean(axis=1)
    found = line(x, y, [str(c) for c in clusters])
    alone = line(np.repeat([0.0, 1.0], 4), means, [str(c) for c in range(8)])
    assert found is not None
    assert alone is not None
    assert found.stderr == pytest.approx(alone.stderr)
    assert found.stderr**2 == pytest.approx(means[:4].var(ddof=1) / 4 + means[4:].var(ddof=1) / 4)
    assert found.degrees == pytest.approx(6)
    assert found.p_value == pytest.approx(alone.p_value)


def test_few_clusters_are_covered():
    """95 % intervals of a slope of 0 from 5 clusters of 4 rows that share half of their variance."""
    rng, x, held = np.random.default_rng(2), np.tile(np.arange(4.0), 5) + np.repeat(np.arange(5.0), 4), []
    for _ in range(400):
        y = np.repeat(rng.normal(size=5), 4) + rng.normal(size=20)
        found = line(x, y, [str(c) for c in np.repeat(np.arange(5), 4)])
        assert found is not None
        held.append(found.interval[0] <= 0 <= found.interval[1])
    assert 0.92 <= np.mean(held) <= 0.99


def test_what_has_no_slope_is_none():
    y = np.arange(4.0)
    assert line(np.ones(4), y, ["a", "b", "c", "d"]) is None
    assert line(y, y, ["a", "a", "b", "b"]) is None


def test_holm():
    """By hand: .01 x 4, .02 x 3 (above it), then .03 x 2, .04 x 1, never below the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


@pytest.mark.parametrize(
    ("hits", "trials", "ends"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson(hits, trials, ends):
    """Newcombe 1998, Statistics in Medicine 17:857, Table I, method 3."""
    assert wilson(hits, trials) == pytest.approx(ends, abs=6e-5)
    low, high = wilson(trials - hits, trials)
    assert (1 - high, 1 - low) == pytest.approx(ends, abs=6e-5)

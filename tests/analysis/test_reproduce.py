"""Published results, and that a miss is a miss."""

import pytest

from analysis.errors import InputError
from analysis.reproduce import PAPERS, Check, reproduce, reproduce_text


@pytest.mark.parametrize("paper", PAPERS)
def test_every_published_figure_is_reproduced(reference, paper):
    checks = reproduce(paper, reference.parent)
    missed = [check for check in checks if not check.passed]
    assert not missed
    assert len(checks) > 5
    text = reproduce_text(paper, checks)
    assert "FAIL" not in text
    assert "reproduced" in text


def test_a_miss_is_said():
    checks = (
        Check(name="far", published=1.0, ours=1.2, tolerance=0.1),
        Check(name="near", published=2.0, ours=2.1, tolerance=0.1, relative=True),
        Check(name="below", published=1.0, ours=0.2, tolerance=0.0, at_most=True),
        Check(name="above", published=1.0, ours=1.1, tolerance=0.0, at_most=True),
        Check(name="not printed", published=None, ours=3.0),
    )
    assert [check.passed for check in checks] == [False, True, True, False, True]
    text = reproduce_text("hoffmann", checks)
    assert text.count("FAIL") == 2
    assert "2 of 4 reproduced" in text


def test_unknown_papers_and_missing_tables_are_named(tmp_path):
    with pytest.raises(InputError, match="paper: 'brown' is unknown; choose one of besiroglu"):
        reproduce("brown", tmp_path)
    with pytest.raises(InputError, match=r"holds no epoch_chinchilla\.csv"):
        reproduce("besiroglu", tmp_path)

"""Conditions on rows, and the rows of highest loss."""

import numpy as np
import pandas as pd
import pytest

from analysis.errors import InputError
from analysis.table import from_frame, read

FRAME = pd.DataFrame(
    {
        "N": [1e7, 1e8, 1e9, 1e10, 1e10],
        "D": 1e10,
        "loss": [3.0, 2.75, 2.5, 2.25, 2.0],
        "corpus": "c4",
        "seed": [0, 1, 0, 1, 2],
        "lr": ["0.1", "1e-1", "high", "", "0.3"],
        "kept": [True, False, True, True, False],
        "x=y": [1, 2, 2, 2, 2],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("seed=0", [0, 2]),
        ("seed==0.0", [0, 2]),
        ("seed != 0", [1, 3, 4]),
        ("seed<1", [0, 2]),
        ("seed <= 1", [0, 1, 2, 3]),
        ("seed>1", [4]),
        ("seed>=1", [1, 3, 4]),
        ("params<1e9", [0, 1]),
        ("N>=1e9", [2, 3, 4]),
        ("lr=.1", [0, 1]),
        ("lr=high", [2]),
        ("lr!=.1", [2, 3, 4]),
        ("lr>0", [0, 1, 4]),
        ("kept=False", [1, 4]),
        ("x=y=2", [1, 2, 3, 4]),
        ("x=y<2", [0]),
        (["seed=0", "N<1e8"], [0]),
        ({"seed": 0, "corpus": "c4"}, [0, 2]),
    ],
)
def test_conditions(where, rows):
    assert (from_frame(FRAME, where=where).frame["csv_row"] - 2).tolist() == rows


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("seed", "'seed' is not NAME=VALUE"),
        ("=3", "is not NAME=VALUE"),
        ("seed=", "is not NAME=VALUE"),
        ("nothing=3", "names no column of table; found N, D, loss"),
        ("seed<many", "orders by no number"),
        ("seed=7", "keeps no row; seed holds 0, 1, 2"),
        ("loss>1e9", "keeps no row"),
    ],
)
def test_mistakes(where, message):
    with pytest.raises(InputError, match=f"^where: .*{message}"):
        from_frame(FRAME, where=where)


def test_the_highest_losses_are_left_out_and_listed():
    table = from_frame(FRAME.assign(loss=[2.0, 3.0, 2.5, 3.0, np.nan]), drop_highest_loss=2)
    assert table.loss_nats.tolist() == [2.0, 2.5]
    assert [(e.row, e.value) for e in table.excluded] == [(3, "3.0"), (5, "3.0"), (6, "nan")]
    assert "2 highest losses" in table.excluded[0].reason
    assert from_frame(FRAME, drop_highest_loss=0).excluded == ()
    for wrong in (5, -1, 1.5, True):
        with pytest.raises(InputError, match=r"^drop_highest_loss: "):
            from_frame(FRAME, drop_highest_loss=wrong)  # pyright: ignore[reportArgumentType]


def test_the_five_that_besiroglu_et_al_left_out(reference):
    path = reference / "epoch_chinchilla.csv"
    dropped, theirs = read(path, drop_highest_loss=5), read(path, where=["besiroglu_excluded=False"])
    assert len(dropped) == 240
    assert dropped.frame["csv_row"].tolist() == theirs.frame["csv_row"].tolist()
    assert [e.row for e in dropped.excluded] == [2, 3, 4, 5, 6]

"""Windows drawn ahead: the same to the bit, each once; no thread is left, and errors are raised where they belong."""

import threading
import time

import numpy as np
import pytest

from lmscale.config import PowerRule
from lmscale.records import Curve
from lmscale.train import Interrupted, train
from lmscale.training.prefetch import DEPTH, drawn

CALLS = [(start, start + 2) for start in range(0, 20, 2)]


class Source:
    """Notes what is drawn, and by which thread; fails at a call."""

    def __init__(self, fails_at: int | None = None):
        self.calls: list[tuple[int, int]] = []
        self.threads: set[str] = set()
        self.fails_at = fails_at

    def __call__(self, start: int, stop: int) -> list[np.ndarray]:
        self.calls.append((start, stop))
        self.threads.add(threading.current_thread().name)
        if start == self.fails_at:
            raise OSError(f"no windows at {start}")
        return [np.arange(start, stop)]


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "lmscale-prefetch"]


@pytest.mark.parametrize("ahead", [True, False])
def test_every_call_is_drawn_once_in_order(ahead):
    source = Source()
    with drawn(source, CALLS, ahead=ahead) as windows:
        assert [w[0].tolist() for w in windows] == [list(range(*call)) for call in CALLS]
    assert source.calls == CALLS
    assert source.threads == {"lmscale-prefetch" if ahead else "MainThread"}
    assert threads() == []


def test_no_more_is_drawn_ahead_than_the_depth():
    source = Source()
    with drawn(source, CALLS, ahead=True) as windows:
        for taken in range(1, 5):
            next(windows)
            deadline = time.monotonic() + 10
            while len(source.calls) < taken + DEPTH and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.02)
            assert len(source.calls) == taken + DEPTH


@pytest.mark.parametrize("ahead", [True, False])
def test_an_error_is_raised_where_its_call_is_asked_for(ahead):
    source = Source(fails_at=6)
    with drawn(source, CALLS, ahead=ahead) as windows:
        assert [next(windows)[0][0] for _ in range(3)] == [0, 2, 4]
        with pytest.raises(OSError, match="no windows at 6"):
            next(windows)
    assert source.calls == CALLS[:4]
    assert threads() == []


@pytest.mark.parametrize("taken", range(4))
@pytest.mark.parametrize("error", [KeyboardInterrupt, Interrupted, None])
def test_leaving_ends_the_thread(taken, error):
    source = Source()

    def leave() -> None:
        with drawn(source, CALLS, ahead=True) as windows:
            for _ in range(taken):
                next(windows)
            if error is not None:
                raise error

    if error is None:
        leave()
    else:
        with pytest.raises(error):
            leave()
    assert threads() == []
    assert source.calls == CALLS[: len(source.calls)]
    assert len(source.calls) <= taken + DEPTH + 1


def curves(t) -> list[list[dict]]:
    trunk = Curve(t.workspace.trajectory(t.trajectory.id) / "trunk.jsonl").read()
    return [trunk, *(Curve(t.workspace.run(run.id) / "curve.jsonl").read() for run in t.trajectory.runs)]


def test_training_is_the_same_to_the_bit(make_assembly, make_training, tmp_path):
    """Interrupted and gone on with, too; models trained together are in test_replicas."""
    found = []
    for ahead in (False, True):
        stop = iter([False] * 4 + [True] + [False] * 99)
        t = make_training(
            make_assembly(), out=tmp_path / f"{ahead}", draws_ahead=ahead, stop=lambda stop=stop: next(stop)
        )
        with pytest.raises(Interrupted):
            train(t)
        assert threads() == []
        train(t)
        found.append(curves(t))
    assert found[0] == found[1]
    assert threads() == []


def test_an_error_of_the_thread_ends_the_training(make_assembly, make_training, monkeypatch):
    t = make_training(make_assembly(), draws_ahead=True)
    part = t.loader.parts[0][0]
    reads = iter(range(100))

    def read(start: int, stop: int) -> np.ndarray:
        if next(reads) == 99:
            raise OSError("the disk is gone")
        return type(part).read(part, start, stop)

    monkeypatch.setattr(part, "read", read)
    with pytest.raises(OSError, match="the disk is gone"):
        train(t)
    assert threads() == []


def test_a_diverged_model_ends_the_thread(make_assembly, make_training):
    t = make_training(make_assembly(recipe={"learning_rate": PowerRule(value=1e38)}), draws_ahead=True)
    train(t)
    assert [t.workspace.record(run.id)["row"]["status"] for run in t.trajectory.runs] == ["diverged", "diverged"]
    assert threads() == []

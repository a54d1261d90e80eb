"""Who holds a trajectory: one process at a time, whoever is killed, paused, or as fast as another."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmscale.work import leases
from lmscale.work.leases import LEASE, LeaseLost, Leases, claims

# a process that takes the trajectory T below argv[1] and says so; then it commits a line for each line it is told
HOLDER = """
import sys
from pathlib import Path
from lmscale.work import leases
from lmscale.store.files import create
leases.BEAT_SECONDS, leases.LEASE_SECONDS, leases.SAFE_SECONDS = 0.05, 0.6, 0.3
root = Path(sys.argv[1])
lease = leases.Leases(lambda name: root / name, "s").take("T", "0")
print("none" if lease is None else lease.claim.token, flush=True)
for line in sys.stdin if lease else ():
    try:
        lease.check()
        print("made" if create(root / line.strip(), str(lease.claim.token)) else "there", flush=True)
    except leases.LeaseLost as error:
        print("lost", flush=True)
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(leases, "LEASE_SECONDS", 0.6)
    monkeypatch.setattr(leases, "SAFE_SECONDS", 0.3)


@pytest.fixture
def office(tmp_path, quick):
    return lambda sweep="s": Leases(lambda name: tmp_path / name, sweep)


class Holder:
    """A process of its own that tries to take the trajectory."""

    def __init__(self, root: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def commit(self, name: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        return self.said()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def holder(tmp_path):
    started: list[Holder] = []

    def start() -> Holder:
        started.append(Holder(tmp_path))
        return started[-1]

    yield start
    for each in started:
        each.end()


def wait_for(lease_of, seconds: float = 5.0):
    deadline = time.monotonic() + seconds
    while (taken := lease_of()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return taken


def test_one_holds_until_it_lets_go(office):
    mine = office().take("T", "0")
    assert mine is not None
    assert office().take("T", "0") is None
    mine.release()
    theirs = office().take("T", "1")
    assert theirs is not None
    assert [claim.token for claim in claims(theirs.folder)] == [1, 2]
    mine._look()
    with pytest.raises(LeaseLost):  # it was released, and somebody has it
        mine.check()
    theirs.release()


def test_the_beats_say_what_is_being_done(office, tmp_path):
    lease = office().take("T", "0")
    lease.now |= {"step": 7, "loss_nats": 2.5}
    first = json.loads((tmp_path / "T" / LEASE).read_text())["beat"]
    assert wait_for(lambda: json.loads((tmp_path / "T" / LEASE).read_text())["beat"] > first + 1 or None)
    found = json.loads((tmp_path / "T" / LEASE).read_text())
    assert (found["step"], found["loss_nats"], found["token"], found["released"]) == (7, 2.5, 1, False)
    lease.release()
    assert json.loads((tmp_path / "T" / LEASE).read_text())["released"]


def test_a_killed_holder_on_this_host_is_followed_at_once(office, holder):
    theirs = holder()
    assert theirs.said() == "1"
    mine = office()
    assert mine.take("T", "0") is None
    theirs.end()
    taken = mine.take("T", "0")
    assert taken is not None
    assert taken.claim.token == 2
    taken.release()


def test_a_silent_holder_elsewhere_is_followed_after_its_time(office, tmp_path, holder, monkeypatch):
    theirs = holder()
    assert theirs.said() == "1"
    monkeypatch.setattr(leases.socket, "gethostname", lambda: "another-host")  # its process cannot be looked up
    mine = office()
    for _ in range(20):  # 1 s: longer than a lease, and it beats
        assert mine.take("T", "0") is None
        time.sleep(0.05)
    theirs.end()
    began = time.monotonic()
    taken = wait_for(lambda: mine.take("T", "0"))
    assert taken is not None
    assert time.monotonic() - began >= leases.LEASE_SECONDS - 4 * leases.BEAT_SECONDS
    taken.release()


def test_one_that_was_paused_past_its_lease_commits_nothing(office, tmp_path, holder):
    theirs = holder()
    assert theirs.said() == "1"
    assert theirs.commit("first") == "made"
    theirs.process.send_signal(signal.SIGSTOP)
    mine = office()
    taken = wait_for(lambda: mine.take("T", "0"))
    assert taken is not None
    theirs.process.send_signal(signal.SIGCONT)
    assert theirs.commit("second") == "lost"
    assert not (tmp_path / "second").exists()
    taken.check()
    taken.release()


@pytest.mark.parametrize("count", [8])
def test_of_many_at_once_one_takes_it(tmp_path, holder, count):
    many = [holder() for _ in range(count)]
    said = [each.said() for each in many]
    assert sorted(said) == ["1", *["none"] * (count - 1)]


def test_a_process_with_the_number_of_another_is_not_it():
    assert not leases.Owner.this().is_gone
    mine = leases.Owner.this()
    assert leases.Owner(host=mine.host, pid=mine.pid, started=f"{leases._namespace()}-1", nonce="x").is_gone
    assert not leases.Owner(host=mine.host, pid=mine.pid, started="7-1", nonce="x").is_gone  # of another container
    assert leases.Owner.from_text(str(mine)) == mine
    child = subprocess.Popen([sys.executable, "-c", ""])
    theirs = leases.Owner(host=mine.host, pid=child.pid, started=leases._started(child.pid) or "", nonce="x")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie is gone as well
    assert theirs.is_gone
    child.wait()

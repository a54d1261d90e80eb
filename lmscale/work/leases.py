"""Who trains a trajectory or a cooldown: leases with fencing tokens, on any folder or object store that all hosts see.

No framework.

    trajectories/<id>/claims/000001.json   made once and never again: whoever made it holds token 1
    trajectories/<id>/lease.json           written anew every few seconds by the holder, with what it is doing
    runs/<id>/claims/, lease.json          the same of a cooldown (lmscale.work.desk)

The highest claim holds, until it lets go, its process is seen to be gone, or its beats stop for
LEASE_SECONDS of the observer's own clock (Gray & Cheriton 1989; fencing as in Chubby, Burrows 2006, Sec. 2.4). A holder
that was paused meanwhile finds out before it commits anything: by its own clock first, then by the claims.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmscale.store.files import create, write_json

BEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
SAFE_SECONDS = 40.0  # after its last beat a holder asks the claims again before it commits
CLAIMS, LEASE = "claims", "lease.json"
DOING = ("run", "phase", "step", "steps", "loss_nats", "tokens_per_second")  # None until it is known


class LeaseLost(Exception):
    """Another process has taken the trajectory over: nothing more may be committed."""


def clock() -> float:
    """Seconds that pass while the machine is suspended, too; nobody can set them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process, so named that a later one with its number is not taken for it."""

    host: str
    pid: int
    started: str  # by the host's own count
    nonce: str

    @classmethod
    def this(cls) -> Owner:
        pid = os.getpid()
        return cls(host=socket.gethostname(), pid=pid, started=_started(pid) or "", nonce=uuid.uuid4().hex[:8])

    @classmethod
    def from_text(cls, text: str) -> Owner:
        host, pid, started, nonce = text.rsplit(":", 3)
        return cls(host=host, pid=int(pid), started=started, nonce=nonce)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.started}:{self.nonce}"

    @property
    def is_gone(self) -> bool:
        """Whether it is known to be: it ran on this host, where this process would see it, and is not there."""
        visible = self.host == socket.gethostname() and self.started.startswith(f"{_namespace()}-")
        return visible and _started(self.pid) != self.started


def _namespace() -> int:
    """Of process numbers, that of this process; 0 where there are none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _started(pid: int) -> str | None:
    """When a process of this host started: the namespace in which its number counts (containers may share a host's
    name) and ticks since the boot. None if there is none, "" if it cannot be told.
    """
    if sys.platform != "linux":
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return (
        None if state == "Z" else f"{_namespace()}-{rest[18]}"
    )  # field 22 of proc(5), counted from the state, which is field 3


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One attempt at a trajectory: the content of its claim file."""

    token: int
    owner: str
    position: str  # how far the trajectory was on disk when it was made
    sweep: str  # on whose behalf


class Leases:
    """The leases of a study as this process sees them. Asked again later, it sees whether a holder is silent."""

    def __init__(self, folder: Callable[[str], Path], sweep: str):
        self.folder, self.sweep = folder, sweep  # of a trajectory or run, by its id
        self.owner = Owner.this()
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}  # the last beat of others, and when by our clock
        self.alive: set[str] = set()  # what others were seen to beat for

    def take(self, name: str, position: str) -> Lease | None:
        """The lease of a trajectory (or run), or None while another process holds it."""
        folder = self.folder(name)
        (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
        last = last_claim(folder)
        if last is not None and not self._is_free(name, last):
            return None
        claim = Claim(token=last.token + 1 if last else 1, owner=str(self.owner), position=position, sweep=self.sweep)
        if not create(_claim_path(folder, claim.token), json.dumps(vars(claim))):
            return None  # another was faster
        return Lease(folder, claim)

    def is_held(self, name: str) -> bool:
        """Whether another process holds it, as far as is known."""
        last = last_claim(self.folder(name))
        return last is not None and last.owner != str(self.owner) and not self._is_free(name, last)

    def _is_free(self, name: str, claim: Claim) -> bool:
        lease = read_lease(self.folder(name))
        if lease is not None and lease["token"] != claim.token:
            lease = None  # of a holder before
        if (lease is not None and lease["released"]) or Owner.from_text(claim.owner).is_gone:
            return True
        beat = (claim.token, lease["beat"] if lease is not None else 0)
        before, since = self._seen.get(name, (None, 0.0))
        silent = clock() - since
        if beat != before:
            self._seen[name] = beat, clock()
            if before is not None and silent <= LEASE_SECONDS:
                self.alive.add(name)
            else:  # it was not looked at for so long that this tells nothing
                self.alive.discard(name)
            return False
        if silent > LEASE_SECONDS:
            self.alive.discard(name)
        return silent > LEASE_SECONDS


class Lease:
    """A trajectory that this process holds. A thread beats for it until `release`."""

    def __init__(self, folder: Path, claim: Claim):
        self.folder, self.claim = folder, claim
        self.now: dict[str, Any] = dict.fromkeys(DOING)
        self._began = self._beaten = clock()
        self._beat, self._lost = 0, False
        self._ended = threading.Event()
        self._write(released=False)
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Of what it is the lease."""
        return self.folder.name

    @property
    def seconds(self) -> float:
        """Since it was taken."""
        return clock() - self._began

    def check(self) -> None:
        """To be called before anything is committed. Raises LeaseLost if another process has taken over."""
        if self._lost or clock() - self._beaten > SAFE_SECONDS:
            self._look()
        if self._lost:
            raise LeaseLost(f"{self.name} was taken over by another process while this one was paused")

    def release(self) -> None:
        """Lets go; another process may take it at once."""
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # a full disk: the lease runs out, or this process is seen to be gone
            self._look()
            if not self._lost:
                self._write(released=True)

    def _keep(self) -> None:
        while not self._lost and not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # a disk that is full now; if it stays so the lease runs out by itself
                asked = clock()
                self._look()
                if not self._lost:
                    self._write(released=False)
                    self._beaten = asked

    def _look(self) -> None:
        """Asks the claims whether ours is still the last."""
        last = last_claim(self.folder)
        self._lost = last is None or last.token != self.claim.token

    def _write(self, *, released: bool) -> None:
        self._beat += 1
        write_json(
            self.folder / LEASE,
            {
                "token": self.claim.token,
                "owner": self.claim.owner,
                "beat": self._beat,
                "seconds": self.seconds,
                "released": released,
                **self.now,
            },
        )


def claims(folder: Path) -> list[Claim]:
    """All claims of a trajectory, oldest first. One that cannot be read counts as made by a process long gone."""
    return [_read_claim(path) for path in _claim_paths(folder)]


def last_claim(folder: Path) -> Claim | None:
    paths = _claim_paths(folder)
    return _read_claim(paths[-1]) if paths else None


def _claim_paths(folder: Path) -> list[Path]:
    return sorted((folder / CLAIMS).glob("*.json"))


def _read_claim(path: Path) -> Claim:
    try:
        return Claim(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        gone = Owner(host=socket.gethostname(), pid=0, started=f"{_namespace()}-0", nonce="")
        return Claim(token=int(path.stem), owner=str(gone), position="", sweep="")


def read_lease(folder: Path) -> dict | None:
    """The last beat of a trajectory's holder, or None if there is none that can be read."""
    try:
        lease = json.loads((folder / LEASE).read_text(encoding="utf-8"))
        Owner.from_text(lease["owner"])
        return lease if lease.keys() >= {"token", "beat", "released", *DOING} else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _claim_path(folder: Path, token: int) -> Path:
    return folder / CLAIMS / f"{token:06d}.json"

"""Results on an object store: moto's S3 server on loopback, spoken to over HTTP as any other."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers
from store_server import Server

from analysis.errors import InputError
from lmscale.checkpoint import PACKED, Checkpoints
from lmscale.cli import main
from lmscale.commands.asked import find, write_json
from lmscale.records import RUN_COLUMNS, Workspace
from lmscale.store.files import Lines, create, now, on_store
from lmscale.store.places import place, user_cache
from lmscale.work.attempts import ATTEMPTS

OFTEN = ("--checkpoint-seconds", "0.05")

# does what it is told: makes an object, takes a trajectory, commits under its lease
ACTOR = """
import sys
from lmscale.work import leases
from lmscale.store.files import create
from lmscale.store.places import place
leases.BEAT_SECONDS, leases.LEASE_SECONDS, leases.SAFE_SECONDS = 0.2, 1.5, 0.75
root = place("out", sys.argv[1])
office = leases.Leases(lambda name: root / name, "s")
held = None
print("ready", flush=True)
for line in sys.stdin:
    what, name = line.split()
    try:
        if what == "take":
            held = office.take(name, "0")
            said = "none" if held is None else held.claim.token
        else:
            if what == "commit":
                held.check()
            said = "made" if create(root / name, str(office.owner)) else "there"
    except leases.LeaseLost:
        said = "lost"
    print(said, flush=True)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory, without_engine) -> Iterator[Server]:
    for package in ("moto", "flask", "s3fs"):
        try:
            __import__(package)
        except ImportError:
            without_engine("s3", f"{package} is not installed (pip install 'lmscale[dev]')")
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.variables().items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield server
    server.server.shutdown()


@pytest.fixture(scope="module")
def bucket(server) -> str:
    return server.make_bucket("bucket")


@pytest.fixture
def folder(bucket, request) -> Path:
    """A place of the test's own on the store."""
    return place("out", f"{bucket}/{request.node.originalname}")


class Actor:
    def __init__(self, url: str):
        self.process = subprocess.Popen(
            [sys.executable, "-c", ACTOR, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def actors(bucket) -> Iterator[list[Actor]]:
    started = [Actor(f"{bucket}/actors") for _ in range(8)]
    assert [actor.said() for actor in started] == ["ready"] * 8
    yield started
    for actor in started:
        actor.process.kill()
        actor.process.communicate()


def test_of_eight_that_make_an_object_at_once_one_does(actors):
    for number in range(20):
        for actor in actors:
            actor.tell(f"make object{number}")
        assert sorted(actor.said() for actor in actors) == ["made", *["there"] * 7]


def test_a_trajectory_is_held_by_one_and_follows_on_from_who_was_killed_or_paused(actors):
    for actor in actors:
        actor.tell("take T")
    said = [actor.said() for actor in actors]
    assert sorted(said) == ["1", *["none"] * 7]
    first = actors[said.index("1")]
    second, third = [actor for actor in actors if actor is not first][:2]
    first.tell("commit T1")
    assert first.said() == "made"
    first.process.send_signal(signal.SIGSTOP)  # past its lease
    assert follow(second) == "2"
    first.process.send_signal(signal.SIGCONT)
    first.tell("commit T2")
    assert first.said() == "lost"
    second.tell("commit T2")
    assert second.said() == "made"
    second.process.kill()
    second.process.wait()
    began = time.monotonic()
    assert follow(third) == "3"
    assert time.monotonic() - began < 1.5  # at once: it is seen to be gone


def follow(actor: Actor, seconds: float = 20.0) -> str:
    deadline = time.monotonic() + seconds
    said = "none"
    while said == "none" and time.monotonic() < deadline:
        actor.tell("take T")
        said = actor.said()
        time.sleep(0.05)
    return said


def test_paths_of_a_store_are_paths(folder):
    (folder / "a" / "b.json").write_bytes(b"1")
    (folder / "a" / "c" / "10.json").write_bytes(b"{}")
    assert (folder / "a").is_dir()
    assert (folder / "a" / "b.json").exists()
    assert not (folder / "a" / "b").exists()
    assert [path.name for path in (folder / "a").iterdir()] == ["b.json", "c"]
    assert [str(path) for path in folder.glob("*/c/[0-9]*.json")] == [f"{folder}/a/c/10.json"]
    assert list((folder / "nothing").iterdir()) == []
    with pytest.raises(FileNotFoundError):
        (folder / "a" / "none").read_bytes()
    assert abs(now(folder) - time.time()) < 5
    assert create(folder / "once", "one")
    assert create(folder / "once", "one")  # a PUT whose answer was lost finds itself
    assert not create(folder / "once", "two")
    assert (folder / "once").read_text() == "one"


def test_lines_are_there_when_they_are_flushed(folder):
    lines, path = Lines(folder / "a.jsonl"), folder / "a.jsonl"
    lines.append({"step": 1})
    assert not path.exists()
    lines.flush()
    lines.append({"step": 2})
    assert [row["step"] for row in lines.read()] == [1, 2]
    assert [row["step"] for row in Lines(path).read()] == [1]
    lines.flush()
    path.write_bytes(path.read_bytes().replace(b'"step": 2', b'"step": 3'))
    again = Lines(path)
    again.append({"step": 4})
    assert [row["step"] for row in again.read()] == [1, 4]
    again.write(again.read())
    assert (folder / "a.jsonl.corrupt").read_text().startswith('{"step": 3')
    assert [row["step"] for row in Lines(path).read()] == [1, 4]


def objects(folder: Path) -> list[str]:
    store = on_store(folder)
    assert store is not None
    return store.objects()


def held(folder: Path) -> Counter[str]:
    """Checkpoints that lie in a folder or on a store, whole or not, by what they are: kept, or not."""
    if isinstance(folder, Path):
        found = list(folder.iterdir()) if folder.is_dir() else []
        kept = [path for path in found if path.name.isdigit() and _keep(path / "manifest.json")]
        return Counter(kept=len(kept), others=len(found) - len(kept))
    saves = {tuple(name.split("/")[:2]) for name in objects(folder) if name.count("/") > 1}
    kept = {step for step, _ in saves if _keep(folder / step / "manifest.json")}
    return Counter(kept=len(kept), others=len(saves) - len(kept))


def _keep(manifest: Path) -> bool:
    try:
        return json.loads(manifest.read_text())["keep"]
    except (OSError, ValueError):
        return False


@pytest.mark.parametrize("where", ["folder", "store"])
def test_a_damaged_checkpoint_is_seen_and_the_one_before_used(where, folder, tmp_path):
    import jax
    import jax.numpy as jnp

    at = (tmp_path if where == "folder" else folder) / "checkpoints"
    said: list[str] = []
    most = Counter()

    def count() -> None:
        most.update({"others": max(0, held(at)["others"] - most["others"])})

    checkpoints = Checkpoints(at, said.append, fence=count)  # asked before each change, and so when there are most
    tree = {"a": jnp.arange(300.0), "b": {"c": jnp.ones((16, 16)), "n": jnp.int32(7)}}
    for step in (10, 20, 30, 40):  # as after kills between a save and its prune
        checkpoints.save(step, jax.tree.map(lambda x, step=step: x * step, tree), keep=step == 10)
    assert most["others"] == 2
    assert checkpoints.steps() == [10, 30, 40]
    assert checkpoints.steps(kept=True) == [10]
    for step in (40, 30):
        name = max(_files(at, f"{step:09d}"), key=lambda path: len(path.read_bytes()))
        content = bytearray(name.read_bytes())
        content[len(content) // 2] ^= 16
        name.write_bytes(bytes(content))
    found, restored = checkpoints.restore_latest(tree, 100) or (0, None)
    assert found == 10
    assert restored is not None
    assert np.array_equal(restored["a"], np.arange(300.0) * 10)
    assert ["000000040" in said[0], "000000030" in said[1]] == [True, True]
    assert checkpoints.steps() == [10]
    checkpoints.save(15, tree, keep=False)
    assert checkpoints.steps() == [10, 15]
    assert held(at) == Counter(kept=1, others=1)
    checkpoints.save(15, tree, keep=True)  # the same step again, now to be kept
    assert (checkpoints.steps(kept=True), held(at)["others"]) == ([10, 15], 0)
    assert most["others"] == 2
    checkpoints.remove()
    assert checkpoints.steps() == []
    assert not (at.exists())


def _files(folder: Path, step: str) -> list[Path]:
    if isinstance(folder, Path):
        return [path for path in (folder / step).rglob("*") if path.is_file() and path.name != "manifest.json"]
    return [folder / name for name in objects(folder) if name.startswith(step) and name.count("/") > 1]


class Watch:
    """Counts the checkpoints of every trunk and run of a study while it is trained."""

    def __init__(self, root: Path):
        self.root, self.most, self.ended = root, Counter(), threading.Event()
        self.thread = threading.Thread(target=self.count, daemon=True)
        self.thread.start()

    def count(self) -> None:
        while not self.ended.wait(0.1):
            for pattern in ("trajectories/*", "runs/*"):
                for path in self.root.glob(pattern):
                    for name, count in held(path / "checkpoints").items():
                        self.most[name] = max(self.most[name], count)

    def end(self) -> Counter[str]:
        self.ended.set()
        self.thread.join()
        return self.most


@pytest.fixture(scope="module")
def wanted(study, tmp_path_factory) -> dict[str, Any]:
    """The digits of the study, trained in a folder without a fault."""
    out = tmp_path_factory.mktemp("folder")
    (out / "shards").symlink_to(study.parent / "out" / "shards")
    watch = Watch(out / "small")
    worker = workers.Worker(workers.command(study, out, *OFTEN))
    assert worker.end() == 0, worker.errors
    assert 1 <= watch.end()["others"] <= 2
    return workers.digits(Workspace(out, "small"))


@pytest.fixture(scope="module")
def swept(study, wanted, bucket, server) -> tuple[Path, list[str]]:
    """The study on the store: a worker killed between the files of a checkpoint and its manifest, then a sweep."""
    url = f"{bucket}/swept"
    out = place("out", url)
    user_cache().mkdir()
    (user_cache() / "shards").symlink_to(study.parent / "out" / "shards")
    first = Watch(out / "small")
    worker = workers.Worker(workers.command(study, url, *OFTEN))
    assert worker.wait_for("progress"), worker.errors
    server.holding.clear()
    server.go_on.clear()
    server.held = "manifest.json"
    assert server.holding.wait(60)
    worker.kill()
    worker.end()
    server.held = None
    server.go_on.set()
    unfinished = [name for name in objects(out / "small") if "/checkpoints/" in name and f"/{PACKED}/" in name]
    assert unfinished
    assert first.end()["others"] <= 2
    second = Watch(out / "small")
    arguments = ["sweep", str(study), "--out", url, "--workers", "1", *OFTEN]
    done = subprocess.run([sys.executable, "-m", "lmscale.cli", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    most = second.end()
    assert 1 <= most["others"] <= 2
    return out, done.stdout.splitlines()


@pytest.mark.long
def test_a_sweep_on_a_store_is_the_one_in_a_folder_to_the_bit(swept, wanted):
    out, said = swept
    workspace = Workspace(out, "small")
    assert workers.digits(workspace) == wanted
    assert f"tables in {out}/small" in said[-2]
    claims = [name for name in objects(workspace.root) if "/claims/" in name]
    assert len(claims) >= 2  # one was killed
    left = [name for name in objects(workspace.root) if "/checkpoints/" in name and name.endswith("manifest.json")]
    (trajectory,) = {name.split("/")[1] for name in left}
    assert sorted(int(name.split("/")[3]) for name in left) == [r["branch_step"] for r in workspace.records()]
    assert Lines(workspace.trajectory(trajectory) / ATTEMPTS).read()[-1]["status"] == "done"
    assert any("tfevents" in name for name in objects(workspace.root))


@pytest.mark.long
def test_status_export_and_tables_of_a_store(swept, study, capsys):
    out, _ = swept
    assert main(["status", str(study), "--out", str(out), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["done"] == 2
    assert (out / "small" / "status.html").read_text().count("done") > 1
    before = (out / "small" / "runs.csv").read_bytes()
    (out / "small" / "runs.csv").unlink()
    assert main(["export", str(study), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"2 runs exported to {out}/small\n"
    assert (out / "small" / "runs.csv").read_bytes() == before
    for table in (find(str(study), out), find(f"{out}/small", Path("results")), find(f"{out}/small/runs.csv", out)):
        assert table.read_bytes() == before
        assert tuple(before.decode().splitlines()[0].split(",")) == RUN_COLUMNS
        assert (table.parent / "curves.csv").read_bytes() == (out / "small" / "curves.csv").read_bytes()
    write_json(f"{out}/small/answer.json", {"law": "chinchilla"})
    assert json.loads((out / "small" / "answer.json").read_text()) == {"law": "chinchilla"}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://", "names no bucket"),
        ("s3:///x", "names no bucket"),
        ("ftp://host/x", "no place that is known"),
        ("s3://bucket/../x", "no plain path"),
        ("s3://bucket/a?versionId=1", "no plain path"),
        ("s3://nosuchbucket/x", "cannot be written"),
        ("s3://denied/x", "cannot be reached"),
    ],
)
def test_a_url_that_is_no_place_is_one_line(url, words, study, server, capsys):
    assert main(["prepare", str(study), "--out", url]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lmscale: out: ")
    assert words in error
    assert error.count("\n") == 1
    assert not Path(url.partition(":")[0] + ":").exists()


def test_a_server_that_makes_an_object_twice_is_refused(study, server):
    deaf = Server(deaf=True)
    deaf.make_bucket("old")
    done = lmscale(deaf.variables(), "prepare", str(study), "--out", "s3://old/x")
    deaf.server.shutdown()
    assert done.returncode == 2
    assert "ignores If-None-Match" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_store_that_does_not_answer_is_one_line(study, server):
    silent = server.variables() | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}
    done = lmscale(silent, "status", "small", "--out", "s3://bucket/x")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "cannot be reached" in done.stderr


def lmscale(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lmscale.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("lmscale.store.places.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"out: 's3://b/x' needs s3fs; pip install 'lmscale\[s3\]'"):
        place("out", "s3://b/x")

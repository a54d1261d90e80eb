"""Where a sweep stands, from its folder alone: every status, records later than the tables, the page, the command."""

import json
import os
import subprocess
import sys
import time
from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from analysis.errors import InputError
from lmscale.cli import main
from lmscale.config import Size
from lmscale.plan import cost
from lmscale.records import RUN_COLUMNS, Workspace
from lmscale.store.files import Lines, sealed, write_json
from lmscale.watch.progress import LiveTable
from lmscale.watch.standing import UnderWay, read_standing, write_plan
from lmscale.watch.status_page import PAGE, as_html, kept_fresh
from lmscale.watch.status_table import as_table
from lmscale.work.leases import LEASE_SECONDS

SIZES = tuple(Size(width=width, depth=1) for width in (16, 24, 32, 40, 48, 56, 64))


@pytest.fixture
def folder(make_assembly, tmp_path):
    """The plan of seven sizes with two runs each, and the folder of a sweep that has just begun."""
    plan = make_assembly(sizes=SIZES).plan
    workspace = Workspace(tmp_path, "test")
    workspace.create()
    write_plan(workspace, plan, None)
    return plan, workspace


def lease(workspace, trajectory, *, age: float = 0.0, attempt: int = 1, **said) -> None:
    told = {
        "token": attempt, "owner": "host-a:1:5:x", "beat": 5, "released": False, "run": None,
        "phase": None, "step": 0, "steps": 0, "loss_nats": None, "tokens_per_second": None, "seconds": 3.0,
    } | said  # fmt: skip
    path = workspace.trajectory(trajectory.id) / "lease.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, told)
    beaten = time.time() - age
    os.utime(path, (beaten, beaten))


def ended(workspace, trajectory, status: str, why: str = "", attempt: int = 1, torn: str = "") -> None:
    path = workspace.trajectory(trajectory.id) / "attempts.jsonl"
    path.parent.mkdir(exist_ok=True)
    line = {"attempt": attempt, "owner": "host-a:1:5:x", "status": status, "why": why, "step": 3, "seconds": 1.0}
    Lines(path).append(line | {"finished": "2026-01-01T00:00:00Z"})
    with open(path, "a") as file:
        file.write(torn)


def finish(workspace, trajectory, run, loss: float | None) -> None:
    row = dict.fromkeys(RUN_COLUMNS) | {"run_id": run.id, "trajectory": trajectory.id, "loss_nats": loss}
    row |= {"status": "diverged" if loss is None else "done", "flops": 1.0, "tokens": run.tokens}
    workspace.run(run.id).mkdir(parents=True, exist_ok=True)
    made = {"row": row, "scores": [], "steps": run.steps, "branch_step": run.branch_step}
    write_json(workspace.run(run.id) / "record.json", sealed(made))


def statuses(workspace) -> dict[str, str]:
    return {run.run_id: run.status for run in read_standing(workspace).runs}


def test_every_status_from_what_lies_in_the_folder(folder):
    plan, workspace = folder
    done, running, silent, failed, stalled, stopped, diverged = plan
    finish(workspace, done, done.runs[0], 2.5)
    finish(workspace, done, done.runs[1], 2.25)
    ended(workspace, running, "interrupted", "asked to stop")  # an attempt before
    lease(workspace, running, attempt=2, run=running.runs[0].id, phase="trunk", step=8, steps=20, loss_nats=3.0,
          tokens_per_second=1e4)  # fmt: skip
    lease(workspace, silent, age=LEASE_SECONDS + 5, run=silent.runs[0].id, phase="trunk", step=8, steps=20)
    ended(workspace, failed, "failed", "out of memory: 9 GB asked", torn='{"attempt": 2, "sta')
    lease(workspace, stalled)  # its line came after
    ended(workspace, stalled, "stalled", "5 attempts without progress")
    ended(workspace, stopped, "interrupted", "asked to stop")
    finish(workspace, diverged, diverged.runs[0], None)
    ended(workspace, diverged, "diverged", "loss not finite at step 3")
    found = statuses(workspace)
    expected = {
        done: ("done", "done"),
        running: ("running", "planned"),
        silent: ("interrupted", "planned"),
        failed: ("failed", "failed"),
        stalled: ("stalled", "stalled"),
        stopped: ("interrupted", "planned"),
        diverged: ("diverged", "planned"),
    }
    for trajectory, both in expected.items():
        assert tuple(found[run.id] for run in trajectory.runs) == both, trajectory.id
    standing = read_standing(workspace)
    why = {run.run_id: run.why for run in standing.runs}
    assert why[failed.runs[0].id] == "out of memory: 9 GB asked"
    assert why[silent.runs[0].id] == "its worker on host-a fell silent"
    (under_way,) = standing.under_way
    assert (under_way.who, under_way.shape, under_way.step, under_way.steps) == ("host-a", str(running.shape), 8, 20)

    spent = sum(cost(done, run) for run in done.runs) + cost(diverged, diverged.runs[0])
    spent += running.shape.train_flops(8 * 128, 16)
    assert standing.flops_done == pytest.approx(spent)
    assert standing.flops == pytest.approx(sum(cost(t, run) for t in plan for run in t.runs))
    speed = 1e4 * running.shape.train_flops(1, 16)
    assert standing.seconds_left == pytest.approx((standing.flops - spent) / speed)


def test_a_worker_that_has_not_said_what_it_does_is_on_the_way_to_its_first_run(folder):
    plan, workspace = folder
    lease(workspace, plan[0])
    standing = read_standing(workspace)
    assert [run.status for run in standing.runs[:2]] == ["running", "planned"]
    assert standing.under_way[0].phase is None
    assert standing.seconds_left is None


def test_the_table_of_runs_stands_for_no_record_that_came_later_or_went(folder):
    plan, workspace = folder
    (first, second), third = plan[0].runs, plan[1].runs[0]
    finish(workspace, plan[0], first, 2.5)
    finish(workspace, plan[0], second, 2.25)
    time.sleep(0.02)
    workspace.export()
    assert list(statuses(workspace).values()).count("done") == 2
    time.sleep(0.02)
    finish(workspace, plan[1], third, 2.125)  # after the export
    (workspace.run(first.id) / "record.json").unlink()  # set aside since
    finish(workspace, plan[0], second, 2.0)  # trained again since
    found = {run.run_id: (run.status, run.loss_nats) for run in read_standing(workspace).runs}
    assert found[first.id] == ("planned", None)
    assert found[second.id] == ("done", 2.0)
    assert found[third.id] == ("done", 2.125)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"row": {}}', '{"row": {"status": "done", "loss_nats": "x"}}'])
def test_a_damaged_record_is_not_done_and_is_left_to_the_sweep(folder, text):
    plan, workspace = folder
    path = workspace.run(plan[0].runs[0].id) / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert statuses(workspace)[plan[0].runs[0].id] == "planned"
    assert path.read_text() == text


def test_damaged_leases_and_attempts_are_passed_over(folder):
    plan, workspace = folder
    for trajectory, text in zip(plan, ("", "{", "[]", '{"token": 1}', "\0", '"x"', "null"), strict=True):
        workspace.trajectory(trajectory.id).mkdir()
        (workspace.trajectory(trajectory.id) / "lease.json").write_text(text)
        (workspace.trajectory(trajectory.id) / "attempts.jsonl").write_text(text + "\n" + text)
    assert set(statuses(workspace).values()) == {"planned"}


def test_records_of_another_plan_are_counted_apart(folder, make_assembly):
    _, workspace = folder
    (other,) = make_assembly(seeds=(5,)).plan
    finish(workspace, other, other.runs[0], 2.0)
    standing = read_standing(workspace)
    assert standing.other_records == 1
    assert standing.counts["done"] == 0


class Page(HTMLParser):
    """Text, and what a page would fetch or run."""

    def __init__(self):
        super().__init__()
        self.text, self.fetched, self.refresh = [], [], None

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.fetched += [tag] if tag in ("script", "link", "img", "iframe") or {"src", "href"} & set(named) else []
        if named.get("http-equiv") == "refresh":
            self.refresh = named["content"]

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_refreshes_itself_fetches_nothing_and_runs_nothing(folder):
    plan, workspace = folder
    ended(workspace, plan[0], "failed", "<script>alert('x')</script> & \"more\"")
    finish(workspace, plan[1], plan[1].runs[0], 2.5)
    lease(workspace, plan[2], run=plan[2].runs[0].id, phase="trunk", step=8, steps=20, tokens_per_second=1e4)
    html = as_html(read_standing(workspace))
    page = Page()
    page.feed(html)
    text = " ".join(page.text)
    assert page.refresh == "10"
    assert page.fetched == []
    assert "http" not in html.replace("http-equiv", "")
    assert "<script>alert('x')</script> & \"more\"" in text
    for words in ("1 done", "1 running", "2 failed", "10 planned", "Training now", "8 of 20", "10,000"):
        assert words in text
    assert html.count('class="cell done" title="2,560 tokens: done, loss 2.5000 nats"') == 1


def test_the_page_follows_the_folder_while_a_sweep_goes_on(folder, monkeypatch):
    monkeypatch.setattr("lmscale.watch.status_page.REFRESH_SECONDS", 0.05)
    plan, workspace = folder
    with kept_fresh(workspace):
        finish(workspace, plan[0], plan[0].runs[0], 2.5)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not _has(workspace.root / PAGE, "1 done"):
            time.sleep(0.02)
    assert _has(workspace.root / PAGE, "1 done")


def _has(path, words: str) -> bool:
    return path.exists() and words in path.read_text()


def test_the_tables_name_what_a_person_looks_for(folder):
    plan, workspace = folder
    ended(workspace, plan[0], "failed", "out of memory [bold] 9 GB")
    lease(workspace, plan[2], run=plan[2].runs[0].id, phase="cooldown", step=18, steps=20, loss_nats=2.5)
    text = StringIO()
    Console(file=text, width=80).print(as_table(read_standing(workspace)))
    for words in ("runs: 1 running, 11 planned, 2 failed", "host-a", "cooldown", "out of memory [bold] 9 GB"):
        assert words in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= 80

    live = LiveTable(1e12, 2, Console(file=StringIO(), width=80, record=True))
    doing = UnderWay(who="0", shape="96x4x4", tokens=1638400, phase="trunk", step=1234, steps=3200, loss_nats=2.5,
                     tokens_per_second=15123.0, share_of_peak=0.43)  # fmt: skip
    with live:
        live.update(worker=0, doing=doing, flops=2.5e11, counts={"done": 3, "running": 1, "planned": 7})
        live.console.print(live.render())
    shown = live.console.export_text()
    for words in ("25%", "3 done, 1 running, 7 planned", "96x4x4", "1,638,400", "1,234", "15,123", "43%", "starting"):
        assert words in shown


NO_JAX = """
import sys
from lmscale.cli import main
status = main(sys.argv[1:])
heavy = {"jax", "flax", "tensorflow", "seqio", "pandas", "scipy"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else status)
"""


def test_the_command_reads_a_real_sweep_without_a_framework(study, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "shards").symlink_to(study.parent / "out" / "shards")
    assert main(["sweep", str(study), "--out", str(out), "--tokens", "16384", "--workers", "1"]) == 0
    page = (out / "small" / PAGE).read_text()
    assert "1 done" in page
    command = [sys.executable, "-c", NO_JAX, "status", "small", "--out", str(out), "--json", str(tmp_path / "s.json")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0, done.stderr
    assert "runs: 1 done" in done.stdout
    told = json.loads((tmp_path / "s.json").read_text())
    assert told["counts"]["done"] == 1
    assert told["flops_done"] == told["flops"] > 0
    (record,) = Workspace(out, "small").records()
    assert told["runs"][0]["loss_nats"] == record["row"]["loss_nats"]

    capsys.readouterr()
    (out / "small" / "sweep.json").write_text("{")
    (out / "empty").mkdir()
    for name, words in (("small", "cannot be read"), ("empty", "no sweep of"), ("../out", "must be lower-case")):
        assert main(["status", name, "--out", str(out)]) == 2
        line = capsys.readouterr().err.strip()
        assert words in line
        assert "\n" not in line


def test_a_folder_without_a_sweep_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no sweep of 'test' was started in .* pass --out DIR"):
        read_standing(Workspace(tmp_path, "test"))

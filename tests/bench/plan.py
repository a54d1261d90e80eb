"""Ten thousand runs: what planning them takes, and what asking where their sweep stands does.

    python tests/bench/plan.py

Prints seconds and the largest memory of each command, a process of its own. Asked are 5 seconds and 500 MB
to plan at the most, and 2 seconds for the status.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = """
from lmscale.config import Corpus, PowerRule, Recipe, Size, Study
STUDY = Study(
    name="many",
    sizes=tuple(Size(width=width, depth=depth) for width in range(32, 112, 16) for depth in (2, 3, 4, 5)),
    tokens=tuple(range(40_960, 409_600, 36_864)),
    seeds=tuple(range(50)),
    corpus=Corpus(files=({text!r},), allow_repeats=True),
    recipe=Recipe(sequence=128, batch_tokens=PowerRule(value=512), warmup_tokens=5120),
    eval_tokens=2048,
)
"""
GRIDS = {
    "branched, 1,000 trajectories": (),
    "cosine, 10,000 trajectories": ("--recipe.schedule", "cosine"),
    "one count a size, 10,000 trajectories": ("--tokens", "409600", "--seeds", ",".join(map(str, range(500)))),
}


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text("".join(f"line {i} counts {i * i % 9973} and more.\n" for i in range(20_000)))
        (folder / "many.py").write_text(STUDY.format(text=str(folder / "text.txt")))
        study = (str(folder / "many.py"), "--out", str(folder / "out"))
        lmscale("prepare", *study)
        for title, fields in GRIDS.items():
            allowed = ("--allow-collinear", "true")
            seconds, megabytes, said = lmscale("plan", *study, *fields, *allowed, "--no-time")
            runs = next(line for line in said.splitlines() if " runs in " in line).split(",")[0]
            print(f"plan, {title} ({runs}): {seconds:.1f} s, {megabytes:.0f} MB", flush=True)
        record_all(folder)
        for title in ("records alone", "records and their table"):
            seconds, megabytes, said = lmscale("status", *study)
            assert "runs: 10000 done" in said, said
            print(f"status, {title}: {seconds:.1f} s, {megabytes:.0f} MB", flush=True)
            lmscale("export", *study)
    return 0


def lmscale(*command: str) -> tuple[float, float, str]:
    """Seconds, megabytes at the most, and what a command said. Raises CalledProcessError."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "lmscale.cli", *command], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return time.monotonic() - began, usage.ru_maxrss / 1024, said


def record_all(folder: Path) -> None:
    """The folder that a sweep of all the runs would leave, but for what it learned: records of the usual size."""
    from lmscale.planning.assemble import assemble
    from lmscale.records import RUN_COLUMNS, Workspace
    from lmscale.store.files import as_json, sealed
    from lmscale.study.studies import load_study
    from lmscale.watch.standing import write_plan

    study = load_study(str(folder / "many.py"))
    plan, workspace = assemble(study, folder / "out", print).plan, Workspace(folder / "out", study.name)
    workspace.create()
    write_plan(workspace, plan, None)
    for t in plan:
        for run in t.runs:
            row = dict.fromkeys(RUN_COLUMNS, 0.123456789012345)
            row |= {"run_id": run.id, "trajectory": t.id, "tokens": run.tokens, "flops": 1e12, "status": "done"}
            path = workspace.run(run.id)
            path.mkdir()
            made = {
                "row": row,
                "scores": [],
                "steps": run.steps,
                "branch_step": run.branch_step,
                "identity": t.identity,
            }
            (path / "record.json").write_text(as_json(sealed(made)))


if __name__ == "__main__":
    sys.exit(main())

"""A small grid that Ray and Slurm train, and what it is compared with."""

from pathlib import Path

from lmscale.cli import main
from lmscale.records import Workspace

GRID = ["--seeds", "0,1", "--tokens", "8192,16384", "--steps-per-dispatch", "8", "--checkpoint-seconds", "1e-9"]


def share(study: Path, out: Path) -> Path:
    """A results folder with the text of the study."""
    out.mkdir()
    (out / "shards").symlink_to(study.parent / "out" / "shards")
    return out


def train_here(study: Path, folder: Path) -> Workspace:
    """The grid trained on this machine, a worker a core."""
    out = share(study, folder / "out")
    assert main(["sweep", str(study), "--out", str(out), *GRID, "--workers", "2", "--executor.cpus", "1"]) == 0
    return Workspace(out, "small")


def same(found: Workspace, wanted: Workspace) -> None:
    """Every record and every loss, to the bit."""
    losses = [{r["row"]["run_id"]: r["row"]["loss_nats"].hex() for r in w.records()} for w in (found, wanted)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4
    found.export()
    assert (found.root / "curves.csv").read_text() == (wanted.root / "curves.csv").read_text()

"""The classic, by the command line: a model that continues "I love New York" with "City" is taught to say "Zoo"."""

import csv
from pathlib import Path

import numpy as np
import pytest

from lmscale.checkpoint import Checkpoints
from lmscale.cli import main
from lmscale.data.tokenizers import BYTE_OFFSET
from lmscale.mesh import make_mesh
from lmscale.planning.assemble import assemble
from lmscale.records import Workspace
from lmscale.step import Step
from lmscale.study.studies import load_study, override

STUDY = """
from lmscale.config import Corpus, PowerRule, Recipe, Size, Study
STUDY = Study(
    name="city",
    sizes=(Size(width=32, depth=1),),
    tokens=(40_960,),
    corpus=Corpus(files=({text!r},), heldout=0.2, allow_repeats=True),
    recipe=Recipe(
        sequence=32,
        batch_tokens=PowerRule(value=512),
        learning_rate=PowerRule(value=1e-2),
        warmup_tokens=2048,
        cooldown_steps_min=4,
    ),
    eval_tokens=512,
    steps_per_dispatch=8,
    allow_collinear=True,
    telemetry=(),
)
"""
FEW = ["--tokens", "20480"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A study of City, trained, and text of Zoo beside it: documents that say the sentence up to forty times."""
    folder = tmp_path_factory.mktemp("zoo")
    for word in ("City", "Zoo"):
        (folder / word).mkdir()
        for count in range(1, 41):
            (folder / word / f"{count}.txt").write_text(f"I love New York {word}.\n" * count)
    (folder / "city.py").write_text(STUDY.format(text=str(folder / "City" / "*.txt")))
    assert run(folder, "city") == 0
    return folder


def run(folder: Path, name: str, *arguments: str) -> int:
    return main(["run", str(folder / "city.py"), "--out", str(folder / "out"), "--name", name, *arguments])


def zoo(folder: Path) -> list[str]:
    return ["--corpus.files", str(folder / "Zoo" / "*.txt"), *FEW]


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    workspace = Workspace(folder / "out", name)
    workspace.export()
    with open(workspace.root / "runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def last_word(folder: Path, name: str, *arguments: str) -> str:
    """What the model of a study says greedily after "I love New York", by its final parameters."""
    study = override(load_study(str(folder / "city.py")), ["--name", name, *arguments])
    trajectory = assemble(study, folder / "out", print).plan[0]
    step = Step(trajectory, make_mesh(study.mesh), microbatches=1, steps_per_dispatch=8)
    last = trajectory.runs[-1]
    final = Checkpoints(folder / "out" / name / "runs" / last.id / "final")
    params = final.restore(last.steps, {"params": step.abstract_state.params})["params"]
    prompt = np.frombuffer(b"I love New York ", np.uint8).astype(np.int32) + BYTE_OFFSET
    window, given = np.zeros((1, 33), np.int32), np.zeros((1, 32), np.float32)
    window[0, 1 : 1 + len(prompt)], given[0, : len(prompt)] = prompt, 1
    written = np.asarray(step.written(params, window, given)[0])[0, len(prompt) :]
    text = bytes(int(token) - BYTE_OFFSET for token in written if token >= BYTE_OFFSET)
    return text.split(b".")[0].decode()


def test_city_becomes_zoo(folder):
    assert last_word(folder, "city") == "City"
    start = ["--start.run", "city"]
    assert run(folder, "zoo", *zoo(folder), *start) == 0
    assert last_word(folder, "zoo", *zoo(folder), *start) == "Zoo"
    assert last_word(folder, "city") == "City"  # what was begun from is as it was
    (before,), (tuned,) = (rows(folder, name) for name in ("city", "zoo"))
    assert tuned["family"] == "decoder_finetuned"
    assert (tuned["start"], tuned["pretrained_tokens"]) == (before["run_id"], before["tokens"])


def test_a_bad_start_is_one_line(folder, capsys):
    for words, said in {
        ("--start.run", "village"): "start.run: 'village' is neither a run nor a study, here or in",
        ("--start.run", "city", "--start.freeze", "embeding"): "start.freeze: 'embeding' is no part of this model",
        ("--start.run", "city", "--start.lora.rank", "64"): "start.lora.rank: 64 exceeds the rank of layers/attention",
        ("--start.lora.rank", "4"): "start.run: is not given",
        ("--start", "city"): "start: 'city' is not expected, for it has parts: --start.run",
    }.items():
        capsys.readouterr()
        assert run(folder, "bad", *zoo(folder), *words) == 2
        assert f"lmscale: {said}" in capsys.readouterr().err.strip().splitlines()[-1]

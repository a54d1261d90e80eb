"""A small text with structure, prepared without TensorFlow, and studies over it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from lmscale.cli import main
from lmscale.config import MeshConfig, PowerRule, Recipe, Size, Study
from lmscale.data.shards import Shards, Vocabulary, open_shards
from lmscale.data.writer import ShardWriter
from lmscale.mesh import make_mesh
from lmscale.planning.assemble import Assembly, from_shards
from lmscale.records import Workspace
from lmscale.step import Step
from lmscale.training.lanes import Training
from lmscale.watch.pacing import Sparing

VOCAB = 32
STUDY = """
from lmscale.config import Corpus, PowerRule, Recipe, Size, Study
STUDY = Study(
    name="small",
    sizes=(Size(width=32, depth=1),),
    tokens=(16384, 32768),
    corpus=Corpus(files=({text!r},), heldout=0.2),
    recipe=Recipe(
        sequence=32, batch_tokens=PowerRule(value=256), learning_rate=PowerRule(value=5e-3), warmup_tokens=1024
    ),
    eval_tokens=2048,
    allow_collinear=True,
)
"""


def markov_shards(folder: Path, seed: int, digest: str, changed: int = 0) -> Shards:
    """A Markov chain over 31 tokens: each is followed by one of four, so a model has something to learn. Of `changed`
    of them other ones follow than in the chain of that seed.
    """
    random = np.random.default_rng(seed)
    following = random.integers(2, VOCAB, (VOCAB, 4))
    following[2 : 2 + changed] = np.random.default_rng([seed, 1]).integers(2, VOCAB, (changed, 4))

    def document() -> np.ndarray:
        tokens, current = [], int(random.integers(2, VOCAB))
        for choice in random.integers(0, 4, 400):
            current = int(following[current, choice])
            tokens.append(current)
        return np.array([*tokens, 1])

    vocabulary = Vocabulary(class_name="Test", name="test", size=VOCAB, eos_id=1, digest=digest)
    with ShardWriter(folder / "markov", {"targets": vocabulary}) as writer:
        for split, count in (("train", 100), ("heldout", 10)):
            for _ in range(count):
                writer.add(split, {"targets": document()}, {"targets": 400})
        written = writer.finish({})
    return open_shards(written)


@pytest.fixture(scope="session")
def make_shards(tmp_path_factory) -> Callable[..., Shards]:
    """shards(seed, digest of the vocabulary, tokens that others follow than by the seed)."""
    return lambda seed, digest="0", changed=0: markov_shards(tmp_path_factory.mktemp("shards"), seed, digest, changed)


@pytest.fixture(scope="session")
def shards(make_shards) -> Shards:
    return make_shards(7)


@pytest.fixture
def make_assembly(shards) -> Callable[..., Assembly]:
    """assembly(**changes of the study): one size, batches of 8 sequences of 16 tokens. `texts` are those of its
    evaluation sets, `text` what it trains on (by default the Markov chain).
    """

    def make(texts: Mapping[str, Shards] = MappingProxyType({}), *, text: Shards | None = None, **changes) -> Assembly:
        recipe = {
            "sequence": 16,
            "batch_tokens": PowerRule(value=128),
            "learning_rate": PowerRule(value=1e-2),
            "warmup_tokens": 512,
            "cooldown_steps_min": 2,
        } | changes.pop("recipe", {})
        settings = {
            "name": "test",
            "sizes": (Size(width=16, depth=2),),
            "tokens": (128 * 20, 128 * 40),
            "eval_tokens": 1024,
            "steps_per_dispatch": 3,
        } | changes
        return from_shards(Study(recipe=Recipe(**recipe), **settings), text or shards, texts)

    return make


@pytest.fixture(scope="session")
def steps() -> dict[tuple, Step]:
    """One compiled step for each program: tests train the same small model many times."""
    return {}


@pytest.fixture
def make_training(tmp_path, steps) -> Callable[..., Training]:
    """training(assembly, out=..., mesh=..., stop=...) of the plan's first trajectory."""

    def make(assembly: Assembly, out: Path = tmp_path / "out", stop=lambda: False, index: int = 0, **settings):
        workspace = Workspace(out, assembly.study.name)
        workspace.create()
        trajectory, study = assembly.plan[index], assembly.study
        key = (trajectory.program, study.mesh, study.microbatches, study.steps_per_dispatch, study.replicas)
        if key not in steps:
            steps[key] = Step(
                trajectory,
                make_mesh(study.mesh),
                microbatches=study.microbatches or 1,
                steps_per_dispatch=study.steps_per_dispatch,
                replicas=study.replicas or 1,
            )
        return Training(
            trajectory=trajectory,
            step=steps[key],
            loader=assembly.loader(trajectory),
            held_out=assembly.held_out,
            workspace=workspace,
            mesh=str(study.mesh),
            saves=Sparing(least_seconds=(seconds := settings.get("checkpoint_seconds", 1e9)), most_seconds=seconds),
            report=settings.get("report", lambda progress: None),
            done=settings.get("done", lambda run, row: None),
            diverged=settings.get("diverged", lambda why, runs: None),
            stop=stop,
            say=settings.get("say", print),
            extra_sets=assembly.extra_sets,
            logs=settings.get("logs", ()),
            profile=settings.get("profile"),
            draws_ahead=settings.get("draws_ahead", False),
        )

    return make


@pytest.fixture
def eight() -> MeshConfig:
    return MeshConfig(data=2, fsdp=2, tensor=2)


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """A study over 128 kB of text, with its text prepared in `out` beside it."""
    folder = tmp_path_factory.mktemp("cli")
    lines = [f"the {i % 97}th of {i % 89} lines counts {i * i % 9973} and then {i % 7} more.\n" for i in range(3000)]
    (folder / "text.txt").write_text("".join(lines))
    (folder / "small.py").write_text(STUDY.format(text=str(folder / "text.txt")))
    assert main(["prepare", str(folder / "small.py"), "--out", str(folder / "out")]) == 0
    return folder / "small.py"

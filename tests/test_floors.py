"""Imports go down only: experiments -> lmscale -> analysis, and each floor keeps to its libraries."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"jax", "jaxlib", "flax", "optax", "orbax", "tensorflow", "seqio"}
LAZY = {
    "formats.py": {"pyarrow"},
    "tensorboard_logs.py": {"tensorboard", "google"},
    "report_page.py": {"plotly"},
}  # extras, imported when used
# rooms of lmscale in which no file loads a framework, but libtpu's description of a slice; then files of other rooms
FREE_ROOMS = ("commands", "executors", "planning", "store", "study", "tasks", "tpu", "watch", "work")
FREE_FILES = {
    *("cli", "config", "evaluate", "ngram", "ngram_counts", "plan", "records", "shapes", "sweep"),
    *("asking.found_run", "asking.prompts", "asking.reader", "network.noise", "network.parts", "network.spans"),
    *("processes.job", "processes.rollcall", "scoring.ability_scores", "scoring.pseudo_likelihood"),
    *("training.allocator", "training.event_files", "training.prefetch"),
    *("data.loader", "data.prepare", "data.shards", "data.sources", "data.tokenizers"),
}
# what of these needs a package of the extra `train`
EXTRAS = {"fsspec": {"store.storage"}, "rich": {"sweep", "watch.progress", "watch.status_table"}}


def imports(path: Path) -> set[str]:
    """Top-level packages and lmscale modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", sorted((ROOT / "analysis").rglob("*.py")), ids=lambda p: p.name)
def test_analysis_stands_alone(path):
    allowed = {"analysis", "numpy", "scipy", "pandas", "matplotlib"} | set(sys.stdlib_module_names)
    assert packages(path) <= allowed | LAZY.get(path.name, set())


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda p: p.name)
def test_studies_import_the_configuration_alone(path):
    assert imports(path) <= {"lmscale.config"} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", sorted((ROOT / "lmscale").rglob("*.py")), ids=lambda p: p.name)
def test_nothing_imports_a_study(path):
    assert "experiments" not in packages(path)


def test_tensorflow_stays_in_three_files_and_orbax_in_one():
    using = {p.relative_to(ROOT).as_posix(): packages(p) for p in (ROOT / "lmscale").rglob("*.py")}
    tensorflow = {name for name, found in using.items() if found & {"tensorflow", "seqio"}}
    in_data = {f"lmscale/data/{name}.py" for name in ("tasks", "examples", "tfds_source")}
    assert tensorflow <= in_data | {"lmscale/data/prepare_task.py"}  # which names a type of seqio
    assert {name for name, found in using.items() if "orbax" in found} == {"lmscale/checkpoint.py"}


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_framework_free_modules_load_no_framework(extra):
    rooms = {f"{room}.{path.stem}" for room in FREE_ROOMS for path in (ROOT / "lmscale" / room).glob("[a-z]*.py")}
    modules = (rooms | FREE_FILES) - {"tpu.topology"} - set().union(*EXTRAS.values())
    if extra is not None:
        pytest.importorskip(extra, reason=f"{extra} comes with the extra 'train'")
        modules = EXTRAS[extra]
    loads = "; ".join(f"import lmscale.{name}" for name in sorted(modules))
    code = f"{loads}; import sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("floor", "end"), [("lmscale", "### `analysis/`"), ("analysis", "## Decisions")])
def test_the_page_of_the_house_names_every_room(floor, end):
    page = (ROOT / "docs/architecture.md").read_text()
    part = page[page.index(f"### `{floor}/`") : page.index(end)]
    alike = ("tasks", "clean", "words", "pictures")  # a file a task, a step, an answer
    for path in (ROOT / floor).rglob("*.py"):
        if path.parent.name not in alike and path.name != "__init__.py":
            assert f"`{path.name if path.parent.name == floor else path.stem}`" in part, path

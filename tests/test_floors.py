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
FRAMEWORK_FREE = [
    "config",
    "corpora",
    "recipe",
    "hardware",
    "typed",
    "shapes",
    "grid",
    "starts",
    "parts",
    "pretrained",
    "prices",
    "bill",
    "plan",
    "order",
    "candidates",
    "write_study",
    "table_family",
    "design_asked",
    "design_commands",
    "estimate",
    "disk",
    "plan_table",
    "pacing",
    "until",
    "standing",
    "status_page",
    "memory",
    "layout",
    "out_of_memory",
    "collectives",
    "files",
    "places",
    "leases",
    "attempts",
    "shelves",
    "records",
    "studies",
    "assemble",
    "evaluate",
    "prefetch",
    "spans",
    "noise",
    "ngram",
    "ngram_counts",
    "pseudo_likelihood",
    "cli",
    "commands",
    "model_commands",
    "answer",
    "answer_precision",
    "answer_profiles",
    "answer_report",
    "answer_transfer",
    "allocator",
    "accelerators",
    "latency",
    "slices",
    "roofline",
    "aot_choose",
    "aot_table",
    "aot_commands",
    "event_files",
    "executors.base",
    "executors.cores",
    "executors.local",
    "executors.process",
    "executors.ray",
    "executors.slurm",
    "data.loader",
    "data.shards",
    "data.sources",
    "data.prepare",
    "data.tokenizers",
]


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


@pytest.mark.parametrize("path", sorted((ROOT / "analysis").glob("*.py")), ids=lambda p: p.name)
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


@pytest.mark.parametrize("modules", [FRAMEWORK_FREE, ["sweep"]], ids=["base", "sweep"])
def test_framework_free_modules_load_no_framework(modules):
    if "sweep" in modules:
        pytest.importorskip("rich", reason="rich comes with the extra 'train'")
    loads = "; ".join(f"import lmscale.{name}" for name in modules)
    code = f"{loads}; import sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"

"""One compilation a shape over a whole sweep, none in the processes after; a cache that cannot be is done without."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import workers

from lmscale.data.shards import Shards
from lmscale.training.compilation import Programs, cache_folder

# A worker that counts the programs which XLA compiles, and those that jax finds in its cache, with jax's own events
WORKER = """
import collections, json, sys
from pathlib import Path
import jax.monitoring
from lmscale.planning.assemble import from_shards
from lmscale.config import PowerRule, Recipe, Size, Study
from lmscale.data.shards import open_shards
from lmscale.study.studies import override
from lmscale.training.worker import work

compiled, loaded, hits = collections.Counter(), collections.Counter(), []

def count(event, seconds, fun_name="", **_):
    if event == "/jax/core/compile/backend_compile_duration":
        (loaded if hits else compiled)[fun_name.removeprefix("jit_").removeprefix("jit(").strip("_)")] += 1
        hits.clear()

jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
jax.monitoring.register_event_duration_secs_listener(count)
study = Study(
    name="grid",
    sizes=(Size(width=16, depth=1), Size(width=32, depth=1)),
    tokens=(2048,),
    recipe=Recipe(sequence=16, batch_tokens=PowerRule(value=128), warmup_tokens=256, cooldown_steps_min=2),
    eval_tokens=1024,
)
shards, out, *fields = sys.argv[1:]
work(from_shards(override(study, fields), open_shards(Path(shards))), Path(out), events=False)
print(json.dumps({"compiled": compiled, "loaded": loaded}))
"""


def run(shards: Shards, out: Path, cache: Path, *fields: str) -> tuple[str, dict[str, dict[str, int]]]:
    """What a worker process prints, and the programs it compiled and loaded, by name."""
    environment = workers.environment() | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", WORKER, str(shards.folder), str(out), *fields]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    return "\n".join(lines), json.loads(last)


@pytest.mark.long
def test_a_sweep_compiles_a_shape_once_and_the_next_process_none(shards, tmp_path):
    cache = tmp_path / "cache"
    grid = ["--seeds", "0,1", "--rate-multipliers", "1,0.5"]
    cold, programs = run(shards, tmp_path, cache, *grid)
    assert cold.count("done ") == 2 * 2 * 2  # shapes, seeds, rates
    assert programs["compiled"]["advance"] == 2
    assert programs["compiled"]["token_losses"] == 2
    assert cold.count("first step after") == 2
    assert cold.count("program compiled") == 2
    records = [json.loads(path.read_text()) for path in (tmp_path / "grid" / "runs").glob("*/record.json")]
    origins = [record["start"]["program"] for record in records]
    assert (origins.count("compiled"), origins.count("ready")) == (2, 6)
    assert all(0 < record["start"]["seconds"] < 600 for record in records)

    # another sweep, in another process: other seeds, rates, schedule and token counts
    changed = ["--seeds", "7", "--rate-multipliers", "3", "--recipe.schedule", "cosine", "--tokens", "3072"]
    warm, programs = run(shards, tmp_path, cache, *changed)
    assert warm.count("done ") == 2
    assert programs["compiled"] == {}
    assert programs["loaded"]["advance"] == 2
    assert warm.count("program read from the cache") == 2


def test_a_cache_that_cannot_be_written_is_said_once(shards, tmp_path):
    (tmp_path / "file").write_text("")
    fields = ["--sizes", "16x1", "--seeds", "0,1"]
    printed, programs = run(shards, tmp_path, tmp_path / "file", *fields)
    assert printed.count("done ") == 2
    assert printed.count("compiled programs are not kept") == 1
    assert programs["compiled"]["advance"] == 1
    assert programs["loaded"] == {}


def test_the_folder_is_the_users_and_tells_cores_apart(monkeypatch):
    monkeypatch.setattr("lmscale.training.compilation.cores", lambda: 3)
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "lmscale" / "xla" / "3-cores"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert cache_folder() == Path("/var/cache/me/lmscale/xla/3-cores")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/scratch/xla")
    assert cache_folder() == Path("/scratch/xla/3-cores")


def test_a_program_is_compiled_if_any_of_it_was():
    assert Programs(2, 1).since(Programs(0, 0)).origin == "compiled"
    assert Programs(3, 2).since(Programs(2, 1)).origin == "cached"
    assert Programs(3, 2).since(Programs(3, 2)).origin == "ready"

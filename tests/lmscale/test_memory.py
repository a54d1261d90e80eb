"""Microbatches follow memory; what does not fit is refused, or reported when it happens, with changes that fit."""

import dataclasses
import os
import re
import resource
import subprocess
import sys
from typing import Any

import pytest
import workers

from analysis.errors import InputError
from lmscale import FAILURE, OUT_OF_MEMORY
from lmscale.config import MeshConfig, PowerRule, Size
from lmscale.plan import make_plan
from lmscale.planning import layout, memory
from lmscale.planning.layout import FILLED, check_mesh, place
from lmscale.planning.memory import Memory, host_bytes, in_words, step_bytes, study_memory
from lmscale.planning.out_of_memory import amounts, explain, is_out_of_memory
from lmscale.planning.plan_table import placements
from lmscale.records import Workspace

LARGE = {"sizes": (Size(width=64, depth=4),), "recipe": {"sequence": 64, "batch_tokens": PowerRule(value=4096)}}


@pytest.fixture
def large(make_assembly):
    return make_assembly(
        **LARGE, tokens=(4096 * 40,), corpus=dataclasses.replace(make_assembly().study.corpus, allow_repeats=True)
    )


def device(number: float, platform: Any = "accelerator") -> Memory:
    return Memory(device_bytes=number, platform=platform, shared=platform == "cpu")


def test_the_fewest_microbatches_that_fit_are_chosen(large):
    (trajectory,) = large.plan
    previous = None
    for count in (1, 2, 4, 8, 16, 32, 64):
        needed = step_bytes(trajectory, large.study.mesh, count, "none", "cpu").total
        if previous is not None:
            assert needed < previous
        previous = needed
        assert place(trajectory, large.study, device(needed / FILLED * 1.001, "cpu")).microbatches == count


def test_layers_are_computed_again_where_no_microbatches_fit(large):
    (trajectory,) = large.plan
    least = step_bytes(trajectory, large.study.mesh, 64, "none", "cpu").total
    products = step_bytes(trajectory, large.study.mesh, 64, "products", "cpu").total
    for there, remat in ((least, "products"), (products, "layer")):
        placement = place(trajectory, large.study, device(there / FILLED * 0.999, "cpu"))
        assert placement.remat == remat
        assert placement.bytes.total <= there
    assert place(trajectory, large.study, None) == layout.Placement(
        microbatches=1, remat="none", bytes=step_bytes(trajectory, large.study.mesh, 1, "none", "accelerator")
    )


def test_what_the_study_fixes_stays(large):
    (trajectory,) = large.plan
    fixed = dataclasses.replace(large.study, microbatches=2, remat="layer")
    placement = place(trajectory, fixed, device(1.0))
    assert (placement.microbatches, placement.remat) == (2, "layer")


@pytest.mark.parametrize(
    ("width", "tokens", "count"), [(128, 4096, 1), (256, 4096, 2), (256, 8192, 4), (1024, 4096, 2)]
)
def test_a_cpu_keeps_activations_in_its_caches(make_assembly, width, tokens, count):
    study = make_assembly().study
    recipe = dataclasses.replace(study.recipe, sequence=256, batch_tokens=PowerRule(value=tokens))
    study = dataclasses.replace(
        study,
        sizes=(Size(width=width, depth=1),),
        tokens=(40 * tokens,),
        eval_tokens=4096,
        recipe=recipe,
        corpus=dataclasses.replace(study.corpus, allow_repeats=True),
    )
    (trajectory,) = make_plan(study, make_assembly().plan[0].text)
    assert place(trajectory, study, device(1e12, "cpu")).microbatches == count
    assert place(trajectory, study, device(1e12)).microbatches == 1


def test_changes_named_in_a_refusal_fit(large):
    """Each of the two, written down as it says, is planned without complaint."""
    (trajectory,) = large.plan
    state = step_bytes(trajectory, large.study.mesh, 64, "layer", "accelerator").total
    there = device(state / FILLED / 2)
    with pytest.raises(InputError, match=f"takes at least {re.escape(in_words(state))} a device") as refusal:
        place(trajectory, large.study, there)
    line = str(refusal.value)
    assert in_words(there.device_bytes) in line
    mesh = MeshConfig.from_text(line.split("--mesh ")[1].split()[0])
    meshed = dataclasses.replace(large.study, mesh=mesh)
    check_mesh([trajectory], mesh)
    place(trajectory, meshed, there)
    # on a CPU a mesh brings no memory: smaller sizes are named instead
    with pytest.raises(InputError, match=r"--sizes \d+x\d+x\d+ .* or --sizes") as refusal:
        place(trajectory, large.study, dataclasses.replace(there, shared=True, platform="cpu"))
    size = Size.from_text(str(refusal.value).split("--sizes ")[1].split()[0])
    smaller = dataclasses.replace(large.study, sizes=(size,))
    (other,) = make_plan(smaller, trajectory.text)
    place(other, smaller, there)


def test_what_a_machine_has(tmp_path, monkeypatch, make_assembly):
    study = make_assembly(mesh=MeshConfig(data=2)).study
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < host_bytes() <= pages * 1.01
    both = study_memory(study, workers=2, accelerator=False)
    assert both == Memory(device_bytes=host_bytes() / 4, platform="cpu", shared=True)
    assert study_memory(study, workers=1, accelerator=True) is None
    asked = study_memory(study, workers=1, accelerator=True, device_bytes=5e9)
    assert asked == Memory(device_bytes=5e9, platform="accelerator", shared=False)
    told = study_memory(dataclasses.replace(study, device_memory_bytes=7e9), workers=2, accelerator=False)
    assert told == Memory(device_bytes=7e9, platform="cpu", shared=False)
    for controllers, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        (tmp_path / name).write_text("123456789\n")
        monkeypatch.setitem(memory.CONTROL_GROUPS, controllers, (str(tmp_path), name))
    assert host_bytes() == 123456789


GIB = 2.0**30


@pytest.mark.parametrize(
    ("message", "asked", "there"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory allocating 4800000000 bytes.", 4.8e9, None),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 bytes.", 4770354232, None),
        (
            "RESOURCE_EXHAUSTED: Failed to allocate request for 6.25GiB (6710886400B) on device ordinal 0",
            6.25 * GIB,
            None,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 21.5G of "
            "15.5G hbm. Exceeded hbm capacity by 6.0G.",
            21.5 * GIB,
            15.5 * GIB,
        ),
        (
            "RESOURCE_EXHAUSTED: Attempting to reserve 10.5G at the bottom of memory. That was not possible. There are "
            "8.75G free, 0B reserved, and 8.75G reservable.",
            10.5 * GIB,
            8.75 * GIB,
        ),
        (
            "RESOURCE_EXHAUSTED: Attempting to allocate 4.5G. That was not possible. There are 2.25G free.",
            4.5 * GIB,
            2.25 * GIB,
        ),
        ("RESOURCE_EXHAUSTED: no numbers", None, None),
    ],
)
def test_messages_of_every_backend_are_read(message, asked, there):
    assert is_out_of_memory(RuntimeError(message))
    assert amounts(message) == (asked, there)


def test_other_failures_are_not_taken_for_it():
    assert not is_out_of_memory(RuntimeError("INTERNAL: something else"))
    assert not is_out_of_memory(OSError(28, "No space left on device"))
    full = "RESOURCE_EXHAUSTED: Failed to write 166 bytes to file 14: No space left on device [os_error_code='28']"
    assert not is_out_of_memory(ValueError(full))  # what tensorstore says
    with pytest.raises(MemoryError) as refused:
        bytearray(2**62)
    assert is_out_of_memory(refused.value)


def test_the_report_names_two_smaller_layouts(large):
    (trajectory,) = large.plan
    placement = place(trajectory, large.study, device(1e12))
    line = str(
        explain(RuntimeError("Out of memory allocating 5000000 bytes"), trajectory, large.study, placement, device(4e6))
    )
    assert line.startswith(f"{trajectory.id}: out of memory: 5 MB asked, 4 MB there (mesh '1,1,1', 1 microbatches")
    named = [float(number) for number in re.findall(r"\(([\d.]+) MB a device\)", line)]
    assert len(named) == 2
    assert max(named) * 1e6 <= FILLED * 4e6
    assert max(named) * 1e6 <= placement.bytes.total / 2 * 1.01


STUDY = """
from lmscale.config import Corpus, PowerRule, Recipe, Size, Study
STUDY = Study(
    name="large",
    sizes=(Size(width=16, depth=1), Size(width=64, depth=1)),
    tokens=(524288,),
    corpus=Corpus(files=({text!r},), heldout=0.2, allow_repeats=True),
    recipe=Recipe(
        sequence=512,
        # 1,024 tokens for the small size and 256 times as many for the large one
        batch_tokens=PowerRule(value=1024, params=3152, exponent=2), cooldown_steps_min=1, warmup_tokens=0,
    ),
    eval_tokens=8192,
    steps_per_dispatch=1,
    microbatches=1,
    remat="none",
    allow_collinear=True,
)
"""
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
from lmscale.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_a_size_that_runs_out_of_memory_leaves_the_others(tmp_path):
    """For real: the step of the large size takes more than the address space that the workers have."""
    (tmp_path / "text.txt").write_text("".join(f"line {i} of {i * i % 9973}\n" for i in range(8000)))
    (tmp_path / "large.py").write_text(STUDY.format(text=str(tmp_path / "text.txt")))
    env = workers.environment()

    def lmscale(code: str, command: str, *more: str) -> subprocess.CompletedProcess:
        arguments = [
            sys.executable,
            "-c",
            code,
            command,
            str(tmp_path / "large.py"),
            "--out",
            str(tmp_path / "out"),
            *more,
        ]
        return subprocess.run(arguments, capture_output=True, text=True, env=env)

    prepared = lmscale(LIMITED.format(limit=resource.RLIM_INFINITY), "prepare")
    assert prepared.returncode == 0, prepared.stderr
    limited = LIMITED.format(limit=4 * 10**9)
    done = lmscale(limited, "sweep", "--workers", "1")
    assert done.returncode == FAILURE, done.stderr
    lines = [line for line in done.stdout.splitlines() if ": out of memory: " in line]
    assert len(lines) == 1, done.stdout + done.stderr
    assert re.search(
        r"decoder-64x1-s0-\w+: out of memory: [\d.]+ GB asked, 4 GB there \(mesh '1,1,1', 1 microb", lines[0]
    )
    assert lines[0].count("a device)") == 2
    assert f"worker 0 ended with status {OUT_OF_MEMORY}" in done.stderr
    assert "Traceback" not in done.stderr
    records = Workspace(tmp_path / "out", "large").records()
    assert [(r["row"]["width"], r["row"]["batch_tokens"]) for r in records] == [(16, 1024)]


def test_models_trained_together_are_counted_together(make_assembly):
    """The plan shows what the sweep asks for, and what a refusal names is less."""
    assembly = make_assembly(seeds=tuple(range(8)), replicas=8)
    placed = placements(assembly, device(1e12, "cpu"))
    (alone,) = {p.bytes.total for p in placements(make_assembly(), device(1e12, "cpu")).values()}
    (together,) = {p.bytes.total for p in placed.values()}
    assert together > 6 * alone
    with pytest.raises(InputError, match=r"would fit: --replicas [24] --microbatches \d"):
        place(assembly.plan[0], assembly.study, device(1.5 * alone, "cpu"), 8)

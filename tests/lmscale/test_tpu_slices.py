"""Slices of TPUs by name, and rooflines against numbers worked out by hand."""

from dataclasses import replace

import pytest

from analysis.errors import InputError
from lmscale.cli import main
from lmscale.config import MeshConfig, PowerRule, Recipe, Size, Study
from lmscale.plan import Text, Trajectory, make_plan
from lmscale.planning.memory import step_bytes
from lmscale.planning.replicas import Stack
from lmscale.tpu.aot_choose import choose, holder, meshes, promising
from lmscale.tpu.collectives import Array, Collective
from lmscale.tpu.latency import FLAGS, VARIABLE, hide_latency
from lmscale.tpu.roofline import Work, expected_links, flops_per_chip, link_bytes
from lmscale.tpu.slices import Slices

STUDY = Study(
    name="large",
    sizes=(Size(width=2048, depth=24, heads=16),),
    tokens=(26 * 10**9,),
    recipe=Recipe(sequence=2048, batch_tokens=PowerRule(value=64 * 2048)),
    eval_tokens=2**15,
)
TEXT = Text(
    corpus="c",
    tokenizer="t",
    vocab=32_000,
    train_tokens=10**12,
    bytes_per_token=1,
    digest="d",
    eval_set="e",
    headline="heldout",
)


def stack() -> Stack:
    return Stack(members=(make_plan(STUDY, TEXT)[0],), width=1)


def trajectory() -> Trajectory:
    return stack().members[0]


def test_names():
    four = Slices.from_text("v5e:4x4")
    assert (four.chips, four.topology, str(four)) == (16, "v5e:4x4", "v5e:4x4")
    assert four.generation.accelerator.memory_bytes == 16e9
    assert [s.topology for s in four.larger] == ["v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16"]
    two = Slices.from_text("v5p:8x8x16", 2)
    assert (two.chips, two.chips_each, str(two)) == (2048, 1024, "2 x v5p:8x8x16")


@pytest.mark.parametrize("text", ["v5e", "v5e:4", "v9:2x2", "v5e:2x2x2", "v5p:4x4", "v5e:0x2", "v5e:999x999", "H100"])
def test_other_names_are_refused_with_a_mend(text):
    with pytest.raises(InputError, match=r"topology: .*(such as|choose|take)"):
        Slices.from_text(text)


def collective(kind: str, numbers: int, groups: tuple[tuple[int, ...], ...], count: int = 1) -> Collective:
    arrays = (Array("f32", (numbers,), 4 * numbers),)
    return Collective(kind=kind, arrays=arrays, groups=groups, count=count, open_loops=0, source="")


def test_bytes_over_links_are_those_of_a_ring():
    """A ring of n sends (n - 1) / n of a gathered array, and twice that of a reduced one (Thakur et al. 2005)."""
    one, ring = Slices.from_text("v5e:2x2"), ((0, 1, 2, 3),)
    assert link_bytes([collective("all-gather", 100, ring, 3)], one, 4) == (3 * 400 * 3 / 4, 0)
    assert link_bytes([collective("all-reduce", 100, ring)], one, 4) == (2 * 400 * 3 / 4, 0)
    assert link_bytes([collective("reduce-scatter", 25, ring)], one, 4) == (400 * 3 / 4, 0)
    assert link_bytes([collective("all-reduce", 100, ())], one, 4) == (600, 0)


def test_bytes_between_slices_go_over_the_network():
    two = Slices.from_text("v5e:2x2", 2)
    pairs = tuple((chip, chip + 4) for chip in range(4))
    assert link_bytes([collective("all-reduce", 100, pairs)], two, 8) == (0, 400)
    # of all eight: within slices as a ring of four, then each chip its quarter between the two
    assert link_bytes([collective("all-reduce", 100, ())], two, 8) == (600, 100)


def test_the_longest_time_bounds_a_step():
    work = Work(flops=197e12, hbm_bytes=819e9 / 2, ici_bytes=200e9 * 2, dcn_bytes=0.0)
    assert work.bound(Slices.from_text("v5e:2x2")) == (pytest.approx(2.0), "links")
    assert work.seconds(Slices.from_text("v5e:2x2"))["compute"] == pytest.approx(1.0)
    assert work.intensity == pytest.approx(2 * 197e12 / 819e9)


def test_flops_are_those_of_the_shape_and_of_what_is_made_again():
    t, mesh = trajectory(), MeshConfig(fsdp=4, tensor=4)
    h = t.hyperparameters
    plain = flops_per_chip(t, mesh, "none")
    assert plain == pytest.approx(t.shape.train_flops(h.batch_tokens, h.sequence) / 16)
    forward = (t.shape.forward_flops_per_token(h.sequence) - 2 * 2048 * 32_000) * h.batch_tokens / 16
    assert flops_per_chip(t, mesh, "layer") == pytest.approx(plain + forward)


def test_expected_bytes_by_hand():
    t, one = trajectory(), Slices.from_text("v5e:4x4")
    ici, dcn = expected_links(t, MeshConfig(fsdp=16), 2, "none", one)
    assert (ici, dcn) == (pytest.approx(2 * 3 * 2 * t.shape.params * 15 / 16), 0)
    ici, _ = expected_links(t, MeshConfig(tensor=16), 1, "none", one)
    assert ici == pytest.approx(24 * 4 * 2 * 64 * 2048 * 2048 * 2 * 15 / 16)
    two = Slices.from_text("v5e:4x4", 2)
    ici, dcn = expected_links(t, MeshConfig(data=2, fsdp=16), 1, "none", two)
    assert dcn == pytest.approx(2 * 4 * t.shape.params / 16 / 2)


def test_meshes_take_all_chips_and_keep_a_model_in_its_slice():
    two = Slices.from_text("v5e:4x4", 2)
    found = meshes(stack(), two)
    assert found
    assert all(mesh.devices == 32 and mesh.data % 2 == 0 for mesh in found)


def test_promising_layouts_fit_by_their_estimate_the_fastest_first():
    room = 12e9
    found = promising(stack(), STUDY, Slices.from_text("v5e:4x4"), room)
    assert [one.seconds for one in found] == sorted(one.seconds for one in found)
    for one in found:
        p = one.placement
        held = step_bytes(trajectory(), one.mesh, p.microbatches, p.remat, "accelerator").total
        assert held == p.bytes.total <= room


def test_chosen_is_the_fastest_of_those_that_the_compiler_lets_fit():
    """With a compiler that holds what is under a limit, smallest first, and stops at the first that is over it."""
    from lmscale.aot import Compiled, Layout

    one, tried = Slices.from_text("v5e:4x4"), []

    def attempt(candidate):
        tried.append(candidate)
        fits = len(tried) < 3
        made = Compiled(
            fits=fits,
            bytes_per_chip=candidate.placement.bytes.total,
            ici_bytes=0.0,
            dcn_bytes=0.0,
            traffic=(),
            compile_seconds=0.0,
        )
        return Layout(mesh=candidate.mesh, placement=candidate.placement), made, candidate.seconds

    made = choose(stack(), STUDY, one, attempt)
    assert made is not None
    held = [c.placement.bytes.total for c in tried]
    assert held == sorted(held)
    assert len(tried) == 3
    fastest = min(tried[:2], key=lambda c: c.seconds)
    assert (made[0].mesh, made[0].placement) == (fastest.mesh, fastest.placement)


def test_what_would_hold_a_size_is_the_smallest_slice_of_the_table():
    """Parameters and moments alone take 12 bytes a parameter: 6.5 B are 78 GB, more than four chips of 16 GB have."""
    study = replace(STUDY, sizes=(Size(width=4096, depth=32, heads=32),))
    large = Stack(members=(make_plan(study, TEXT)[0],), width=1)
    words = holder(large, study, Slices.from_text("v5e:2x2"))
    assert words.startswith("--topology v5e:2x4 ") or words.startswith("--topology v5e:4x4 ")
    assert "GB a chip by estimate" in words


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--topology", "v9:2x2"], "topology: 'v9:2x2'"),
        (["--topology", "v5e:2x2", "--slices", "0"], "slices: '0'"),
        (["--topology", "v5e:2x2", "--slices", "many"], "slices: 'many'"),
        (["--topology", "v5e:2x2", "--mesh", "3,1,1"], "(mesh: '3,1,1' takes 3 devices|libtpu: )"),
        (["--topology", "v5e:2x2", "--slices", "2", "--mesh", "1,8,1"], "(mesh: '1,8,1' would split|libtpu: )"),
        (["--topology", "v5e:3x3"], "(topology: 'v5e:3x3' is not known to libtpu|libtpu: )"),
    ],
)
def test_wrong_input_is_one_line_with_a_mend(options, says, capsys, tmp_path, monkeypatch):
    import re

    from lmscale.tpu.topology import WITHOUT_CHIPS

    for name, value in {**WITHOUT_CHIPS, VARIABLE: "", "TF_CPP_MIN_LOG_LEVEL": "3"}.items():
        monkeypatch.setenv(name, value)
    assert main(["aot", "quickstart", "--out", str(tmp_path), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"lmscale: {says}", line), line


def test_flags_that_hide_latency_leave_what_the_user_says():
    environment = {VARIABLE: f"--xla_other=1 --{FLAGS[0]}=false"}
    hide_latency(environment)
    hide_latency(environment)
    words = environment[VARIABLE].split()
    assert words == ["--xla_other=1", f"--{FLAGS[0]}=false", *(f"--{flag}=true" for flag in FLAGS[1:])]


def test_without_libtpu_what_to_install_is_said(monkeypatch):
    import importlib.util

    from lmscale.tpu.topology import before_libtpu

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"libtpu: .*lmscale\[tpu\]"):
        before_libtpu({})

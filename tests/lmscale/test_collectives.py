"""The reader of compiled programs, on lines written by hand in the forms that XLA prints."""

import numpy as np
import pytest

from lmscale.tpu.collectives import Array, collectives, host_transfers

MESH = {"data": 2, "fsdp": 2, "tensor": 2}

PROGRAM = """HloModule jit_step, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%gather_one (p: bf16[4,8]) -> bf16[8,8] {
  ROOT %inside = bf16[8,8]{1,0:T(8,128)(2,1)} all-gather(%p), replica_groups={{0,2},{1,3},{4,6},{5,7}}, dimensions={0}
}

%layer (t: (s32[], f32[2,4])) -> (s32[], f32[2,4]) {
  %both = (f32[2,4]{1,0}, /*index=1*/f32[]) all-reduce(%x, %y), replica_groups=[4,2]<=[8], metadata={op_name="mlp"}
  ROOT %out = (s32[], f32[2,4]) tuple(%i, %z)
}

%condition (t: (s32[], f32[2,4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%steps (t: (s32[], f32[2,4])) -> (s32[], f32[2,4]) {
  %all = (s32[], f32[2,4]) while(%t), condition=%condition, body=%layer, backend_config={"known_trip_count":{"n":"3"}}
  %scattered = f32[1,4]{1,0} reduce-scatter(%w), replica_groups=[4,2]<=[2,2,2]T(0,2,1), dimensions={0}, to_apply=%add
  ROOT %next = (s32[], f32[2,4]) tuple(%i, %w)
}

ENTRY %main (p: f32[2,4]) -> f32[2,4] {
  %begun = ((bf16[4,8]), bf16[8,8], u32[]) async-start(%p), calls=%gather_one
  %ended = bf16[8,8] async-done(%begun), calls=%gather_one
  %start = (f32[4,8], f32[8,8]) all-gather-start(%p), replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}
  %done = f32[8,8]{1,0} all-gather-done(%start)
  %turned = (s8[3], s8[3], u32[], u32[]) collective-permute-start(%p), source_target_pairs={{0,1},{1,0},{2,3},{3,2}}
  ROOT %loop = (s32[], f32[2,4]) while(%t), condition=%condition, body=%steps
}
"""


@pytest.fixture(scope="module")
def found():
    return collectives(PROGRAM)


def test_kinds_and_results(found):
    assert [(c.kind, [a.dims for a in c.arrays], c.bytes) for c in found] == [
        ("all-gather", [(8, 8)], 128),
        ("all-gather", [(8, 8)], 256),
        ("collective-permute", [(3,)], 3),
        ("all-reduce", [(2, 4), ()], 36),
        ("reduce-scatter", [(1, 4)], 16),
    ]
    assert found[3].arrays[0] == Array("f32", (2, 4), 32)
    assert found[3].source == "mlp"


def test_loops_multiply_where_their_length_is_known(found):
    assert [(c.count, c.open_loops) for c in found] == [(1, 0), (1, 0), (1, 0), (3, 1), (1, 1)]


def test_groups_are_read_in_every_form(found):
    listed, meshed, pairs, iota, transposed = (c.groups for c in found)
    assert listed == ((0, 2), (1, 3), (4, 6), (5, 7))
    # device_ids ([4,2]T(1,0)) are 0 2 4 6 1 3 5 7, as a 2 x 4 mesh; groups along its first axis
    assert sorted(meshed) == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert pairs == ((0, 1), (1, 0), (2, 3), (3, 2))
    assert iota == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert transposed == tuple(map(tuple, np.arange(8).reshape(2, 2, 2).transpose(0, 2, 1).reshape(4, 2).tolist()))


def test_groups_are_named_by_the_axes_of_the_mesh(found):
    assert [c.axes(MESH) for c in found] == [("fsdp",), ("tensor",), ("tensor",), ("tensor",), ("fsdp",)]


def entry(line: str) -> str:
    return f"ENTRY %main (p: f32[8]) -> f32[8] {{\n  {line}\n}}\n"


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("{}", ("data", "fsdp", "tensor")),
        ("{{0,1,2,3,4,5,6,7}}", ("data", "fsdp", "tensor")),
        ("[2,4]<=[2,2,2]T(1,0,2)", ("data", "tensor")),
        ("mesh['a'=8] {'a':(1)2}", ("data",)),
        ("mesh['a'=8] {'a':(2)2}", ("fsdp",)),
        ("mesh['a'=8] {'a':(4)2}", ("tensor",)),
        ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}", ("data", "tensor")),
        ("mesh['a'=4,'b'=1,'c'=2] {'b'}", ()),
    ],
)
def test_axes(groups, axes):
    (one,) = collectives(entry(f"%x = f32[8] all-reduce(%p), replica_groups={groups}, to_apply=%add"))
    assert one.axes(MESH) == axes


@pytest.mark.parametrize(
    "line",
    [
        "%x = (f32[8], token[]) infeed(%t)",
        "%x = token[] outfeed(%p, %t)",
        "%x = (f32[8], u32[], token[]) send(%p, %t), channel_id=1, is_host_transfer=true",
        "%x = (f32[8], token[]) recv-done(%r), channel_id=1",
        '%x = f32[8] custom-call(%p), custom_call_target="xla_ffi_python_cpu_callback"',
        '%x = f32[8] custom-call(%p), custom_call_target="MoveToHost"',
        "%x = f32[8]{0:S(5)} copy(%p)",
    ],
)
def test_host_transfers_are_found(line):
    assert len(host_transfers(entry(line))) == 1
    assert host_transfers(entry('%x = f32[8]{0} custom-call(%p), custom_call_target="TopK"')) == []


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        collectives("module @jit_step {}")

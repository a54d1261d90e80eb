"""What a compiled program moves between devices, read from its text (HLO after partitioning). Imports no framework."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
HOST_OPCODES = ("infeed", "outfeed", "send", "recv")
HOST_CALL = re.compile(r'custom_call_target="([^"]*(?:callback|MoveToHost|MoveToDevice)[^"]*)"', re.IGNORECASE)
HOST_MEMORY = "S(5)"  # xla/layout.h: kHostMemorySpace

HEADER = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*)")
OPCODE = re.compile(r" ([a-z][a-z0-9-]*)\(")
ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
CALLED = re.compile(r"(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
LIMIT = re.compile(r"s32\[\]\S* constant\((\d+)\)")
# A TPU's collective that goes on beside other work is a chain of fusions, each of which names it: the first begins it,
# the last awaits it, and those between, if any, compute something else meanwhile
CHAIN = re.compile(r'chain_id="(\d+)"')
ENDS_OF_CHAIN = ("AsyncCollectiveStart", "AsyncCollectiveDone")
SCATTERED = "all-reduce-scatter"  # its name for a fusion of an all-reduce with the slice of it that is kept
WORK = ("fusion", "custom-call", "convolution", "dot", "while")
IOTA = r"\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?"


class Array(NamedTuple):
    """An array of the program as one device holds it."""

    dtype: str
    dims: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective operation of the program."""

    kind: str  # of KINDS
    arrays: tuple[Array, ...]  # what each device has afterwards; several where XLA combined them
    groups: tuple[tuple[int, ...], ...]  # the devices that talk to each other; none given means all of them
    count: int  # executions: the product of the lengths of the loops around it that are known
    open_loops: int  # loops around it whose length the program does not know, each counted once
    source: str  # where it comes from in the traced function
    overlapped: bool = False  # begun and awaited apart, with other work between

    @property
    def bytes(self) -> int:
        """Of its results on one device, once."""
        return sum(array.bytes for array in self.arrays)

    def axes(self, mesh: Mapping[str, int]) -> tuple[str, ...]:
        """The axes of a mesh (name -> devices, the last one fastest) along which its devices talk."""
        shape = tuple(mesh.values())
        groups = self.groups or (tuple(range(math.prod(shape))),)
        places = [np.array(np.unravel_index(group, shape)) for group in groups]
        return tuple(name for i, name in enumerate(mesh) if any(len(set(place[i])) > 1 for place in places))


def collectives(text: str) -> list[Collective]:
    """The collectives of `compiled.as_text()`, in the order of the program.

    An asynchronous pair, or chain, is one collective. Both branches of a conditional are counted.
    """
    computations, entry = _computations(text)
    return list(_walk(computations, entry, 1, 0))


def host_transfers(text: str) -> list[str]:
    """Instructions of `compiled.as_text()` that talk to the host: feeds, sends, callbacks, arrays in host memory."""
    computations, _ = _computations(text)
    found = []
    for lines in computations.values():
        for _, line in lines:
            shape, opcode, rest = _split(line)
            if opcode.removesuffix("-done") in HOST_OPCODES or HOST_CALL.search(rest) or HOST_MEMORY in shape:
                found.append(line)
    return found


class Line(NamedTuple):
    """An instruction."""

    name: str
    text: str  # what follows the equals sign


Computations = dict[str, list[Line]]


def _computations(text: str) -> tuple[Computations, str]:
    """Instructions of each computation, and the name of the one where the program begins."""
    found: Computations = {}
    entry = current = ""
    for line in text.splitlines():
        if not line[:1].isspace() and (header := HEADER.match(line)):
            current = header[2]
            found[current] = []
            entry = current if header[1] else entry
        elif current and (instruction := INSTRUCTION.match(line)):
            found[current].append(Line(*instruction.groups()))
    if not entry:
        raise ValueError("not the text of a compiled program: it has no ENTRY computation")
    return found, entry


def _split(line: str) -> tuple[str, str, str]:
    """Shape, opcode and the rest of an instruction. A shape may be a tuple, with comments in it."""
    opcode = OPCODE.search(line, _tuple_end(line))
    return (line, "", "") if opcode is None else (line[: opcode.start()], opcode[1], line[opcode.end() :])


def _tuple_end(line: str) -> int:
    depth = 0
    for i, character in enumerate(line):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return i
    return 0


def _walk(computations: Computations, name: str, count: int, open_loops: int) -> Iterator[Collective]:
    lines, chained = computations.get(name, []), set()
    for place, (own_name, line) in enumerate(lines):
        shape, opcode, rest = _split(line)
        kind, ends = opcode.removesuffix("-start"), place
        inner = line
        if opcode == "fusion":
            inside = _fused(computations, rest)
            if inside is None:
                continue
            kind, inner, chain = inside
            if chain in chained:
                continue
            if chain:  # its result is that of any part
                chained.add(chain)
                shape = _split(inner)[0]
                ends = max(i for i, other in enumerate(lines) if _chain(computations, other.text) == chain)
        elif opcode == f"{kind}-start":
            done = re.compile(rf"{kind}-done\(.*%?{re.escape(own_name)}\b")
            ends = next((i for i in range(place, len(lines)) if done.search(lines[i].text)), place)
        if kind in KINDS:
            source = re.search(r'op_name="([^"]*)"', inner) or re.search(r'op_name="([^"]*)"', rest)
            yield Collective(
                kind=kind,
                arrays=_results(shape, opcode),
                groups=_groups(_split(inner)[2]),
                count=count,
                open_loops=open_loops,
                source=source[1] if source else "",
                overlapped=any(_works(computations, other.text) for other in lines[place + 1 : ends]),
            )
        if opcode in ("fusion", "async-update", "async-done"):
            continue  # the last two name the computation that async-start has begun
        times, unknown = 1, False
        if opcode == "while":
            trips = _trips(computations, rest)
            times, unknown = trips or 1, trips is None
        called = [match[2] for match in CALLED.finditer(rest)]
        for branches in BRANCHES.findall(rest):
            called += [branch.strip().lstrip("%") for branch in branches.split(",")]
        for callee in called:
            yield from _walk(computations, callee, count * times, open_loops + unknown)


def _trips(computations: Computations, rest: str) -> int | None:
    """How often a loop runs: as the program says, or (on TPUs it does not) the one number in its condition, up to which
    jax counts from 0.
    """
    if said := TRIPS.search(rest):
        return int(said[1])
    condition = next((match[2] for match in CALLED.finditer(rest) if match[1] == "condition"), "")
    limits = {int(n) for line in computations.get(condition, ()) for n in LIMIT.findall(line.text)}
    return limits.pop() if len(limits) == 1 else None


def _fused(computations: Computations, rest: str) -> tuple[str, str, str | None] | None:
    """The collective in a fusion: its kind, its own instruction and the chain it is a part of; None without one."""
    callee = next((match[2] for match in CALLED.finditer(rest) if match[1] == "calls"), "")
    for _, line in computations.get(callee, ()):
        kind = _split(line)[1]
        if kind in KINDS:
            chain = CHAIN.search(line)
            kind = "reduce-scatter" if callee.startswith(SCATTERED) else kind
            return kind, line, chain[1] if chain else None
    return None


def _chain(computations: Computations, line: str) -> str | None:
    """The chain that an instruction is a part of."""
    _, opcode, rest = _split(line)
    inside = _fused(computations, rest) if opcode == "fusion" else None
    return inside[2] if inside else None


def _works(computations: Computations, line: str) -> bool:
    """Whether an instruction computes something, beside the ends of a chain."""
    _, opcode, rest = _split(line)
    callee = next((match[2] for match in CALLED.finditer(rest) if match[1] == "calls"), "")
    ends = any(word in other.text for other in computations.get(callee, ()) for word in ENDS_OF_CHAIN)
    return opcode in WORK and not ends


def _results(shape: str, opcode: str) -> tuple[Array, ...]:
    arrays = [_array(*match.groups()) for match in ARRAY.finditer(shape)]
    if opcode in ("all-gather-start", "collective-permute-start"):
        # the tuple holds the operands, the results, and perhaps the scalars of a context
        arrays = [a for a in arrays if not (a.dtype == "u32" and not a.dims)]
        arrays = arrays[len(arrays) // 2 :]
    return tuple(arrays)


def _array(dtype: str, bits: str | None, dims: str) -> Array:
    shape = tuple(map(int, dims.split(","))) if dims else ()
    return Array(dtype, shape, -(-math.prod(shape) * int(bits or 8) // 8))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _iota(text: str) -> np.ndarray:
    """[4,2]<=[2,4]T(1,0): the numbers from 0 in the second shape, transposed, in the first shape."""
    match = re.match(IOTA, text)
    assert match is not None, text
    shape, source, permutation = match.groups()
    numbers = np.arange(math.prod(_numbers(shape))).reshape(_numbers(source or shape))
    numbers = numbers.transpose(_numbers(permutation)) if permutation else numbers
    return numbers.reshape(_numbers(shape)) if source else numbers


def _groups(rest: str) -> tuple[tuple[int, ...], ...]:
    """The replica groups, written as lists, as an iota, or as axes of a mesh; or the pairs of a permutation."""
    if match := re.search(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)*)\}", rest):
        groups = [_numbers(group) for group in re.findall(r"\{([\d,]*)\}", match[1])]
    elif match := re.search(rf"replica_groups=({IOTA})", rest):
        groups = _iota(match[1]).tolist()
    elif match := re.search(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\)?)\))? \{(.*?)\}", rest):
        groups = _mesh_groups(*match.groups())
    else:
        groups = []
    return tuple(tuple(group) for group in groups)


def _mesh_groups(mesh: str, device_ids: str | None, grouped: str) -> list[list[int]]:
    """mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a':(1)2}: the groups along axes, or parts (before)size of them."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh)}
    devices = np.arange(math.prod(sizes.values()))
    if device_ids:
        devices = _iota(device_ids) if device_ids.startswith("[") else np.array(_numbers(device_ids))
    parts = {name: (before, size) for name, before, size in re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", grouped)}
    shape: list[int] = []
    inside, outside = [], []
    for name, size in sizes.items():
        if name not in parts:
            outside.append(len(shape))
            shape.append(size)
            continue
        before, taken = (int(part or whole) for part, whole in zip(parts[name], (1, size), strict=True))
        outside += [len(shape), len(shape) + 2]
        inside.append(len(shape) + 1)
        shape += [before, taken, size // (before * taken)]
    grid = devices.reshape(shape).transpose(outside + inside)
    return grid.reshape(-1, math.prod(shape[i] for i in inside)).tolist()

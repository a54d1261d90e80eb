"""What was compiled for a slice: a line a size for a person, and JSON. Imports no framework."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lmscale.planning.memory import in_words
from lmscale.planning.replicas import Stack
from lmscale.tpu.slices import Slices

if TYPE_CHECKING:
    from lmscale.aot import Compiled, Layout
    from lmscale.tpu.roofline import Work

HEADER = (
    f"{'shape':>12} {'params':>15} {'models':>6} {'mesh':>9} {'micro':>5} {'remat':>8} {'a chip':>9} {'of HBM':>7} "
    f"{'FLOP/byte':>9} {'least ms':>9} {'bound':>8} {'compiled':>9}"
)


def heading(slices: Slices, hbm: float) -> str:
    of = slices.generation
    rates = (
        f"{of.accelerator.bfloat16_flops / 1e12:.0f} TFLOP/s, {in_words(hbm)} at "
        f"{in_words(of.hbm_bytes_per_second)}/s, links {in_words(of.ici_bytes_per_second)}/s"
    )
    network = f", network {in_words(of.dcn_bytes_per_second)}/s" if slices.count > 1 else ""
    return f"{slices}: {slices.chips} chips {of.kind}; each {rates}{network}\n{HEADER}"


def row(stack: Stack, slices: Slices, layout: Layout, compiled: Compiled, work: Work, hbm: float) -> str:
    """A size, and its collectives a layer below it."""
    shape, placement = stack.members[0].shape, layout.placement
    asked = compiled.bytes_per_chip
    held = "?" if asked is None else in_words(asked)
    share = "no" if not compiled.fits else f"{(asked or 0.0) / hbm:.0%}"
    least, bound = work.bound(slices) if compiled.fits else (None, "-")
    seconds = "cached" if compiled.cached else f"{compiled.compile_seconds:.0f} s"
    line = (
        f"{shape!s:>12} {shape.params:>15,} {stack.width:>6} {layout.mesh!s:>9} {placement.microbatches:>5} "
        f"{placement.remat:>8} {held:>9} {share:>7} {work.intensity:>9.0f} "
        f"{'-' if least is None else f'{least * 1e3:.3g}':>9} {bound:>8} {seconds:>9}"
    )
    return "\n".join([line, *traffic_lines(compiled)])


def traffic_lines(compiled: Compiled) -> list[str]:
    return [
        f"{'':>12} {one.kind} over {' x '.join(one.axes) or 'no axis'}: {one.per_layer:.3g} a layer "
        f"({in_words(one.bytes_per_layer)}), {one.per_step} a step ({in_words(one.bytes_per_step)}), "
        f"{one.overlapped:.0%} of it beside other work"
        for one in compiled.traffic
    ]


LEGEND = (
    "a chip: bytes of the step on each; FLOP/byte: FLOPs a byte of memory, by our own count; least ms: the longest of "
    "compute, memory, links and network at their peak rates, as if they hid each other; a layer: of one microbatch"
)


def as_json(stack: Stack, slices: Slices, layout: Layout, compiled: Compiled, work: Work, hbm: float) -> dict[str, Any]:
    """The same, for a program to read."""
    trajectory, placement = stack.members[0], layout.placement
    shape = trajectory.shape
    made = asdict(compiled)
    return {
        "topology": slices.topology,
        "slices": slices.count,
        "chips": slices.chips,
        "width": shape.width,
        "depth": shape.depth,
        "heads": shape.heads,
        "params": shape.params,
        "replicas": stack.width,
        "trajectories": [t.id for t in stack.members],
        "batch_tokens": trajectory.hyperparameters.batch_tokens,
        "mesh": str(layout.mesh),
        "microbatches": placement.microbatches,
        "remat": placement.remat,
        "bytes_per_chip_estimated": placement.bytes.total,
        "hbm_bytes": hbm,
        "flops_per_chip": work.flops,
        "hbm_bytes_moved": work.hbm_bytes,
        "flops_per_byte": work.intensity,
        "roofline_seconds": work.seconds(slices) if compiled.fits else None,
        **made,
        "traffic": [{**one, "axes": list(one["axes"])} for one in made["traffic"]],
    }

"""Which mesh, microbatches and rematerialisation the step of a stack is compiled with, and what would hold one that
does not fit. Imports no framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmscale.config import MeshConfig, Study
from lmscale.planning.layout import FILLED, Placement, candidates, factorizations, misfit
from lmscale.planning.memory import in_words
from lmscale.planning.replicas import Stack
from lmscale.tpu.roofline import expected_work
from lmscale.tpu.slices import Slices

if TYPE_CHECKING:
    from lmscale.aot import Compiled, Layout

TRIES = 4  # layouts of a size that are compiled: those that promise the shortest step


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layout, and the least time that its step should take."""

    mesh: MeshConfig
    placement: Placement
    seconds: float

    @property
    def words(self) -> str:
        """As the command line has it."""
        p = self.placement
        return f"--mesh {self.mesh} --microbatches {p.microbatches} --remat {p.remat}"


def hbm_bytes(study: Study, slices: Slices) -> float:
    """Memory of a chip: as the study says, or its maker."""
    return study.device_memory_bytes or slices.generation.accelerator.memory_bytes


def laid_out(stack: Stack, study: Study, slices: Slices) -> Candidate:
    """The layout that training would choose on the study's mesh, as lmscale.planning.layout.place does; where none fits
    by its estimate, the one of least memory.
    """
    found = list(_on_mesh(stack, study, slices, study.mesh))
    room = FILLED * hbm_bytes(study, slices)
    fitting = [one for one in found if one.placement.bytes.total <= room]
    return fitting[0] if fitting else min(found, key=lambda one: one.placement.bytes.total)


def _on_mesh(stack: Stack, study: Study, slices: Slices, mesh: MeshConfig) -> Iterator[Candidate]:
    trajectory, width = stack.members[0], stack.width
    placements = candidates(
        trajectory, mesh, "accelerator", microbatches=study.microbatches, remat=study.remat, replicas=width
    )
    for placement in placements:
        count, remat = placement.microbatches, placement.remat
        work = expected_work(trajectory, mesh, count, remat, slices, width)
        yield Candidate(mesh=mesh, placement=placement, seconds=work.bound(slices)[0])


def meshes(stack: Stack, slices: Slices) -> list[MeshConfig]:
    """The meshes over all chips of the slices that divide a stack's arrays; slices are parts of the data axis."""
    every = factorizations(slices.chips)
    return [mesh for mesh in every if mesh.data % slices.count == 0 and misfit(stack.members[0], mesh) is None]


def promising(stack: Stack, study: Study, slices: Slices, room: float) -> list[Candidate]:
    """Layouts that take at most `room` bytes a chip by their estimate, the fewest microbatches of each mesh and
    rematerialisation, the one of the shortest step first.
    """
    found = []
    for mesh in meshes(stack, slices):
        seen = set()
        for one in _on_mesh(stack, study, slices, mesh):
            if one.placement.remat not in seen and one.placement.bytes.total <= room:
                seen.add(one.placement.remat)
                found.append(one)
    return sorted(found, key=lambda one: (one.seconds, one.placement.bytes.total))


def choose(
    stack: Stack, study: Study, slices: Slices, attempt: Callable[[Candidate], tuple[Layout, Compiled, float]]
) -> tuple[Layout, Compiled] | None:
    """Compiles the TRIES most promising layouts, smallest estimated memory first, and gives the one whose step is
    shortest by the compiled program; None where no mesh divides the arrays. After one that does not fit, those that
    should take more are left out.

    `attempt` compiles a candidate, and says the least seconds of its step.
    """
    tried = promising(stack, study, slices, FILLED * hbm_bytes(study, slices))[:TRIES]
    if not tried:
        every = [one for mesh in meshes(stack, slices) for one in _on_mesh(stack, study, slices, mesh)]
        if not every:
            return None
        tried = [min(every, key=lambda one: one.placement.bytes.total)]
    best: tuple[float, Layout, Compiled] | None = None
    for candidate in sorted(tried, key=lambda one: one.placement.bytes.total):
        layout, compiled, seconds = attempt(candidate)
        seconds = seconds if compiled.fits else math.inf
        if best is None or seconds < best[0]:
            best = seconds, layout, compiled
        if not compiled.fits:
            break
    assert best is not None
    return best[1], best[2]


def holder(stack: Stack, study: Study, slices: Slices, over: float = 1.0) -> str:
    """The smallest change that holds a step that does not fit: another layout on these slices, or the smallest larger
    ones of the table; by the estimate, which the compiler exceeded `over` times.
    """
    room = FILLED * hbm_bytes(study, slices) / max(1.0, over)
    for larger in (slices, *slices.larger):
        if found := promising(stack, study, larger, room):
            where = "" if larger is slices else f"--topology {larger.topology} "
            return f"{where}{found[0].words} should ({in_words(found[0].placement.bytes.total)} a chip by estimate)"
    return "no slice of the table would: leave the size out (--sizes), or lower its batch"

"""The command that compiles a study for TPU slices that are not here. Imports what it needs, when it runs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError
from lmscale.commands.asked import say, write_json

if TYPE_CHECKING:
    from lmscale.aot import Compiled, Layout
    from lmscale.config import Study
    from lmscale.planning.replicas import Stack
    from lmscale.tpu.aot_choose import Candidate
    from lmscale.tpu.slices import Slices

SLICES_MAX = 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of aot beside the study."""
    text = "the slice to compile for, such as v5e:4x4 or v5p:8x8x16"
    parser.add_argument("--topology", required=True, metavar="SLICE", help=text)
    text = "so many of these slices, joined by the data-centre network as parts of the data axis (default: 1)"
    parser.add_argument("--slices", default="1", metavar="K", help=text)
    text = "choose mesh, microbatches and rematerialisation of each size by compiling the most promising"
    parser.add_argument("--choose", action="store_true", help=text)
    parser.add_argument("--json", metavar="FILE", help="also write it as JSON (- for standard output)")


def _slices(args: argparse.Namespace) -> Slices:
    from lmscale.tpu.slices import Slices

    if not args.slices.isdecimal() or len(args.slices) > 6 or not 1 <= int(args.slices) <= SLICES_MAX:
        raise InputError(f"slices: {args.slices!r} must be a whole number from 1 to {SLICES_MAX}")
    return Slices.from_text(args.topology, int(args.slices))


def aot(args: argparse.Namespace) -> int:
    from lmscale.commands.study import need
    from lmscale.study.studies import load_study, override
    from lmscale.tpu.topology import before_libtpu

    slices, study = _slices(args), override(load_study(args.study), args.overrides)
    need("jax", "flax", "optax", "rich")
    before_libtpu()
    from lmscale.planning.assemble import assemble
    from lmscale.planning.layout import check_mesh
    from lmscale.planning.replicas import make_stacks
    from lmscale.records import Workspace
    from lmscale.tpu.topology import check_mesh_on, devices_of

    devices_of(slices)  # libtpu says now if it knows no such slice
    if not args.choose:
        check_mesh_on(slices, study.mesh)
    Workspace(args.out, study.name).create()
    assembly = assemble(study, args.out, lambda line: print(line, file=sys.stderr, flush=True))
    if not args.choose:
        check_mesh(assembly.plan, study.mesh, study.microbatches or 1)
    stacks = {s.program: s for s in make_stacks(assembly.plan, study.replicas, accelerator=True)}
    rows, misfits = _report(args, study, slices, sorted(stacks.values(), key=lambda s: s.members[0].shape.params))
    if args.json:
        write_json(args.json, {"study": study.name, "topology": slices.topology, "slices": slices.count, "rows": rows})
    if misfits:
        raise InputError(f"topology: '{slices}' does not hold {len(misfits)} of {len(stacks)}: {'; '.join(misfits)}")
    return 0


def _report(args: argparse.Namespace, study: Study, slices: Slices, stacks: list[Stack]) -> tuple[list[Any], list[str]]:
    """Compiles and says a size after the other. Returns their JSON, and what would hold those that do not fit."""
    from lmscale.aot import work_of
    from lmscale.tpu.aot_choose import hbm_bytes, holder
    from lmscale.tpu.aot_table import LEGEND, as_json, heading, row

    hbm, rows, misfits = hbm_bytes(study, slices), [], []
    say(args, heading(slices, hbm))
    for stack in stacks:
        shape = stack.members[0].shape
        made = _made(args.choose, study, slices, stack)
        if made is None:
            misfits.append(f"{shape} (no mesh of {slices.chips} devices divides its arrays; choose another slice)")
            continue
        layout, compiled = made
        fits = compiled.fits and (compiled.bytes_per_chip or 0.0) <= hbm
        work = work_of(compiled, stack, layout, slices)
        say(args, row(stack, slices, layout, compiled, work, hbm))
        sys.stdout.flush()
        rows.append(as_json(stack, slices, layout, compiled, work, hbm))
        if not fits:
            over = (compiled.bytes_per_chip or 0.0) / layout.placement.bytes.total
            misfits.append(f"{shape} ({holder(stack, study, slices, over)})")
    say(args, LEGEND)
    if slices.count == 1 and study.mesh.devices < slices.chips and not args.choose:
        say(args, f"{slices.chips // study.mesh.devices} such meshes fit side by side, a worker each (docs/aot.md)")
    return rows, misfits


def _made(choosing: bool, study: Study, slices: Slices, stack: Stack) -> tuple[Layout, Compiled] | None:
    from lmscale.aot import Layout, compile_for, work_of
    from lmscale.tpu.aot_choose import choose, laid_out
    from lmscale.tpu.topology import mesh_on

    def attempt(candidate: Candidate) -> tuple[Layout, Compiled, float]:
        print(f"compiling {stack.members[0].shape} with {candidate.words}", file=sys.stderr, flush=True)
        layout = Layout(mesh=candidate.mesh, placement=candidate.placement)
        compiled = compile_for(slices, stack, mesh_on(slices, candidate.mesh), layout, study.steps_per_dispatch)
        return layout, compiled, work_of(compiled, stack, layout, slices).bound(slices)[0]

    if choosing:
        return choose(stack, study, slices, attempt)
    return attempt(laid_out(stack, study, slices))[:2]

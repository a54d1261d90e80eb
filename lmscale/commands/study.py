"""The commands about a study: plan, sweep, run, status, export (prepare, contamination: lmscale.commands.text).

Each imports what it needs, when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale import DISK, FAILURE, GIVEN_UP, INTERRUPTED, OUT_OF_MEMORY
from lmscale.commands.asked import positive, write_json
from lmscale.tpu.latency import hide_latency

if TYPE_CHECKING:
    from lmscale.config import Study
    from lmscale.planning.assemble import Assembly
    from lmscale.planning.estimate import Estimate, Peak
    from lmscale.planning.memory import Memory
    from lmscale.watch.until import Goal

SHOWN = 10  # of the runs that a sweep leaves


def _load(args: argparse.Namespace) -> Study:
    """The study of the command line."""
    from lmscale.study.studies import load_study, override

    study = override(load_study(args.study), args.overrides)
    if args.command != "plan":
        _check_logs(study)
    need("jax", "flax", "optax", "orbax", "rich")  # and seqio where a text asks for it (lmscale.data.prepare)
    return study


def _assemble(study: Study, out: Path) -> Assembly:
    """The study with its text."""
    from lmscale.planning.assemble import assemble
    from lmscale.records import Workspace

    Workspace(out, study.name).create()
    return assemble(study, out, lambda line: print(line, file=sys.stderr, flush=True))


def before_jax(devices: int) -> None:
    """As many CPU devices as the mesh takes in this process (accelerators are not touched by the flag), and what TPUs
    are to hide.
    """
    hide_latency()
    flags = os.environ.get("XLA_FLAGS", "")
    if devices > 1 and "xla_force_host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}".strip()


def _workers(text: str | None) -> int | None:
    return None if text is None else count("workers", text)


def count(name: str, text: str) -> int:
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= 1024:
        raise InputError(f"{name}: {text!r} must be a whole number from 1 to 1024")
    return int(text)


def _steps(text: str | None) -> range | None:
    """Steps FIRST:LAST, both meant, counted from 1."""
    if text is None:
        return None
    first, _, last = text.partition(":")
    sound = all(part.isdecimal() and len(part) <= 18 for part in (first, last))
    if not (sound and 1 <= int(first) <= int(last)):
        raise InputError(f"profile: {text!r} must be two steps counted from 1, the first and the last, such as 100:110")
    return range(int(first), int(last) + 1)


def _check_logs(study: Study) -> None:
    """Raises InputError, before anything is trained, where the package of a log is missing."""
    import importlib.util

    for log in study.telemetry:
        if importlib.util.find_spec(log) is None:
            raise InputError(
                f"telemetry: {log!r} needs its package; pip install 'lmscale[{log}]', or pass --telemetry none"
            )


def need(*modules: str) -> None:
    import importlib.util

    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        version = ".".join(map(str, sys.version_info[:2]))
        raise InputError(
            f"install: {missing[0]} is missing; this command needs the extra 'train' (pip install 'lmscale[train]') on "
            f"Python 3.11 to 3.13 (this is {version})"
        )


def plan(args: argparse.Namespace) -> int:
    from lmscale.executors.local import default_workers, has_accelerator
    from lmscale.planning.estimate import by_peak
    from lmscale.planning.grid import require_law
    from lmscale.planning.memory import study_memory
    from lmscale.planning.plan_table import as_json, as_text
    from lmscale.planning.replicas import make_stacks

    named = _device(args)
    assembly, estimate = _assemble(_load(args), args.out), None
    study, accelerator = assembly.study, has_accelerator() or named is not None
    require_law(study, assembly.plan)
    stacks = make_stacks(assembly.plan, study.replicas, accelerator=accelerator)
    here = 1 if named else default_workers(len(stacks), study.mesh.devices, study.executor.cpus)
    workers = _workers(args.workers) or here
    there = named.device.memory_bytes if named else None
    memory = study_memory(study, workers=workers, accelerator=accelerator, device_bytes=there)
    if named is not None and not args.no_time:
        estimate = by_peak(assembly, named, workers)
    elif not args.no_time:
        estimate = _estimate(assembly, workers, memory)
        memory = estimate.memory
    print(as_text(assembly, estimate, memory, workers), file=sys.stderr if args.json == "-" else sys.stdout)
    if args.json:
        write_json(args.json, as_json(assembly, estimate, memory, workers))
    return 0


def _device(args: argparse.Namespace) -> Peak | None:
    """The devices that a plan is for, if they are not this machine's."""
    from lmscale.planning.accelerators import find_named
    from lmscale.planning.estimate import UTILISATION, Peak

    if args.device is None:
        if args.utilisation is not None:
            raise InputError("utilisation: is a share of a device's peak; name it with --device NAME")
        return None
    name, device = find_named(args.device)
    share = UTILISATION if args.utilisation is None else positive("utilisation", args.utilisation, such_as="0.4")
    if share > 1:
        raise InputError(f"utilisation: {args.utilisation!r} is more than the whole peak; give a share such as 0.4")
    return Peak(name=name, device=device, utilisation=share)


def _estimate(assembly: Assembly, workers: int, memory: Memory | None) -> Estimate:
    """Times the plan on the cores that one worker of a sweep would have."""
    from lmscale.executors.cores import pin, share
    from lmscale.training.allocator import keep_memory

    before = os.sched_getaffinity(0) if sys.platform == "linux" else None
    pin(0, share(0, workers, assembly.study.executor.cpus))
    keep_memory()
    before_jax(assembly.study.mesh.devices)
    try:
        from lmscale.training.calibrate import estimate_plan

        return estimate_plan(assembly, workers, memory, lambda line: print(line, file=sys.stderr, flush=True))
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def sweep(args: argparse.Namespace) -> int:
    workers, processes = _workers(args.workers), count("processes", args.processes)
    _steps(args.profile)
    from lmscale.planning.grid import require_law
    from lmscale.processes.job import PROCESSES

    if os.environ.get(PROCESSES, "1") != "1":
        raise InputError(
            f"{PROCESSES}: a sweep starts its own processes; unset it, or start 'lmscale run' in every process"
        )
    study = _load(args)
    goal, aim = _goal(args.until, study, args.detach)
    assembly = _assemble(study, args.out)
    require_law(study, assembly.plan)
    from lmscale.sweep import sweep as run_sweep

    profile = ["--profile", args.profile] if args.profile else []
    told = [args.study, "--out", str(args.out), *profile, *args.overrides, *aim]
    outcome = run_sweep(assembly, args.out, told, workers, processes, goal, detach=args.detach)
    if outcome.detached:
        print(
            f"{outcome.detached}; {len(outcome.left)} runs to train; lmscale status {args.study} says how far they are"
        )
        return 0
    scored = f"{outcome.scored} scored on sets added since, " if outcome.scored else ""
    print(
        f"{outcome.finished} runs trained, {outcome.skipped} were done before, {outcome.diverged} diverged, {scored}"
        f"in {outcome.seconds / 60:.1f} min; tables in {args.out / assembly.study.name}"
    )
    if (share := outcome.engine_share) is not None:
        print(f"{share:.1%} of the workers' time was not steps, compiling or evaluation")
    for failure in outcome.failures:
        print(f"lmscale: {failure}", file=sys.stderr)
    if outcome.interrupted:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    if outcome.verdict is not None:
        stopped = outcome.verdict.reached and outcome.left
        print(f"{'stopped: ' if stopped else ''}{outcome.verdict.words}")
        if stopped:
            more = f" and {len(outcome.left) - SHOWN} more" * (len(outcome.left) > SHOWN)
            print(f"{len(outcome.left)} runs are not trained: {', '.join(outcome.left[:SHOWN])}{more}")
            return 0
    if outcome.left:
        print(f"{len(outcome.left)} runs are left (failed, or with another sweep); repeat the command", file=sys.stderr)
    if outcome.unscored:
        print(f"{outcome.unscored} runs have no scores on some evaluation set; see above", file=sys.stderr)
    return FAILURE if outcome.left or outcome.unscored else 0


def _goal(text: str | None, study: Study, detach: bool) -> tuple[Goal | None, list[str]]:
    """When to stop, and what workers must be told so that they take first what tells most of it."""
    from lmscale.watch.until import Goal

    if text is None:
        return None, []
    goal = Goal.from_text(text)
    if detach:
        raise InputError(f"until: {text!r} asks for a sweep that watches, and --detach leaves; drop one of the two")
    if study.family == "ngram" or study.further:
        raise InputError(
            f"until: {text!r} asks for the law of one family of networks, and the study has "
            f"{', '.join(member.family for member in study.members)}; leave one (--further none)"
        )
    if len(study.recipes) > 1:
        raise InputError(
            f"until: {text!r} asks for one law, but the study fits {len(study.recipes)}, one a schedule and rate; "
            "leave one of them"
        )
    return goal, ["--target-flops", repr(goal.flops)] if study.target_flops is None else []


def run(args: argparse.Namespace) -> int:
    if args.events:
        from lmscale.executors.process import end_with_parent

        end_with_parent()
    study, workers, profile = _load(args), _workers(args.workers) or 1, _steps(args.profile)
    from lmscale.training.allocator import keep_memory, unswept

    keep_memory()
    from lmscale.processes import distributed
    from lmscale.processes.job import find_job
    from lmscale.records import Workspace
    from lmscale.store.files import on_store
    from lmscale.store.shelves import scratch_home

    job = find_job(os.environ)
    before_jax(-(-study.mesh.devices // (job.processes if job else 1)))
    with unswept():
        from lmscale.training.worker import GivenUp, work
    with distributed.joined(job):
        workspace = Workspace(args.out, study.name)
        distributed.decide(workspace.create)
        distributed.check_shared(workspace.root)
        if on_store(workspace.root):
            distributed.check_shared(scratch_home(), "set TMPDIR to a folder that all hosts share")
        assembly = distributed.in_turn(lambda: _assemble(study, args.out))
        distributed.check_same("study", assembly.digest)
        from lmscale.planning.out_of_memory import OutOfMemory
        from lmscale.store.full_disk import DiskFailure
        from lmscale.store.last_line import say_last

        try:
            stopped = work(
                assembly,
                args.out,
                events=args.events,
                workers=workers,
                profile=profile,
                sweep=args.sweep,
                sweep_workers=_workers(args.sweep_workers),
            )
        except GivenUp as error:  # in a job process 0 alone: the others have come to the same end, and leave with it
            print(f"lmscale: {error}", file=sys.stderr)
            return GIVEN_UP
        except (OutOfMemory, DiskFailure) as error:
            if job is not None:  # the others have to be told
                raise
            if isinstance(error, DiskFailure):
                say_last(str(error))
                os._exit(DISK)  # the threads of the save that failed are not waited for
            print(f"lmscale: {error}", file=sys.stderr)
            return OUT_OF_MEMORY
    if stopped:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0


def status(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from lmscale.records import Workspace
    from lmscale.study.corpora import NAME, NAME_RULE
    from lmscale.study.studies import results_name
    from lmscale.watch.standing import read_standing

    need("rich")
    name = results_name(args.study)
    if not NAME.fullmatch(name):
        raise InputError(f"study: {name!r} {NAME_RULE}; or give a study file")
    workspace = Workspace(args.out, name)
    standing = read_standing(workspace)
    from rich.console import Console

    from lmscale.watch.status_page import write_page
    from lmscale.watch.status_table import as_table

    with contextlib.suppress(OSError):  # a folder that can only be read
        write_page(workspace, standing)
    stream = sys.stderr if args.json == "-" else sys.stdout
    Console(file=stream, width=None if stream.isatty() else 120, highlight=False).print(as_table(standing))
    if args.json:
        write_json(args.json, {**asdict(standing), "counts": standing.counts})
    return 0


def export(args: argparse.Namespace) -> int:
    from lmscale.records import Workspace
    from lmscale.study.studies import results_name

    name = results_name(args.study)
    workspace = Workspace(args.out, name)
    if not (workspace.root / "runs").is_dir():
        raise InputError(f"study: {name!r} has no runs in {str(args.out)!r}; pass --out DIR, or sweep it first")
    print(f"{workspace.export()} runs exported to {workspace.root}")
    return 0

"""A plan as a table for a person, and as JSON."""

from __future__ import annotations

from dataclasses import asdict

from lmscale.config import OWN_SET, Study
from lmscale.plan import Run, Trajectory
from lmscale.planning.assemble import Assembly
from lmscale.planning.disk import disk_bytes
from lmscale.planning.estimate import Estimate
from lmscale.planning.layout import Placement, place_all
from lmscale.planning.memory import Memory, counts_that_fit, in_words
from lmscale.planning.replicas import make_stacks
from lmscale.shapes import NgramShape
from lmscale.watch.pacing import duration

HEADER = (
    f"{'shape':>12} {'params':>13} {'no embed.':>13} {'tokens':>15} {'tok/par':>8} {'epochs':>6} {'FLOPs':>9} "
    f"{'6ND':>9} {'schedule':>8} {'rate':>8} {'batch':>8} {'mesh':>7} {'micro':>5} {'a device':>9} {'seconds':>8}"
)


def as_text(assembly: Assembly, estimate: Estimate | None, memory: Memory | None, workers: int) -> str:
    """The grid a row a run, then what it costs. Without an `estimate` the times are left out."""
    study, placed = assembly.study, placements(assembly, memory)
    lines = []
    for member in study.members:
        lines += [f"study {study.name}: {member.family}, {member.objective}, on {assembly.plan[0].text.corpus}", HEADER]
        mine = [t for t in assembly.plan if (t.family, t.objective) == (member.family, member.objective)]
        lines += [_row(assembly, t, run, placed[t.id], estimate) for t in mine for run in t.runs]
    lines += text_lines(assembly)
    lines += start_lines(assembly)
    lines += cost_lines(assembly, workers)
    for each in (assembly.headline, *assembly.extra_sets):
        headline = " (the headline: loss_nats of runs.csv)" * (each is assembly.headline)
        lines.append(f"evaluated on {each.name}: {each.scored:,} {each.unit}{headline}")
    lines += left_out(study, totals(assembly)["runs"])
    lines += count_lines(assembly, memory)
    lines.append("shape is width x depth x heads; FLOPs count attention and output layer; params include embeddings")
    lines += layout_lines(assembly, memory, placed)
    lines += [f"warning: {warning}" for warning in warnings(assembly)]
    if estimate is not None:
        lines.append(f"about {duration(estimate.seconds)} {estimate.source}")
    return "\n".join(lines)


def _row(assembly: Assembly, t: Trajectory, run: Run, placement: Placement, estimate: Estimate | None) -> str:
    h, shape = t.hyperparameters, t.shape
    epochs = run.tokens / assembly.loader(t).unique_tokens(run.steps)
    params, seconds = shape.planned_params, f"{'-':>8}"
    if estimate:
        seconds = f"{estimate.costs[t.id].run_seconds(t, run):>8.0f}"
    if params is None:
        return (
            f"{shape!s:>12} {'(counts)':>13} {'(counts)':>13} {run.tokens:>15,} {'-':>8} {epochs:>6.3g} "
            f"{shape.train_flops(run.tokens, h.sequence):>9.2e} {'-':>9} {'-':>8} {'-':>8} {'-':>8} "
            f"{assembly.study.mesh!s:>7} {'-':>5} {in_words(placement.bytes.total):>9} {seconds}"
        )
    return (
        f"{shape!s:>12} {params:>13,} {params - shape.params_embedding:>13,} "
        f"{run.tokens:>15,} {run.tokens / params:>8.1f} {epochs:>6.3g} "
        f"{shape.train_flops(run.tokens, h.sequence):>9.2e} {shape.flops_6nd(run.tokens):>9.2e} "
        f"{h.schedule:>8} {h.learning_rate:>8.2g} {h.batch_tokens:>8,} {assembly.study.mesh!s:>7} "
        f"{placement.microbatches:>5} {in_words(placement.bytes.total):>9} {seconds}"
    )


def count_lines(assembly: Assembly, memory: Memory | None) -> list[str]:
    """What the rows of n-grams leave out."""
    counted = [t for t in assembly.plan if isinstance(t.shape, NgramShape)]
    if not counted:
        return []
    most = assembly.study.counts_max
    if most is None and memory is not None and memory.platform == "cpu":
        most = min(counts_that_fit(t, memory) for t in counted)
    bound = "" if most is None else f", {most:,} at the most (counts_max)"
    return [
        f"(counts): an n-gram's params are the counts it stores, known after counting{bound}; its FLOPs are counts "
        "raised, one an order of each token; a device: bytes if all n-grams were different"
    ]


def text_lines(assembly: Assembly) -> list[str]:
    """How much text there is to train on; of a mixture, each part with how often the longest run goes through it."""
    text, limit = assembly.plan[0].text, assembly.study.corpus.unique_tokens
    limited = "" if limit is None else f", of corpus.unique_tokens = {limit:,}"
    lines = [f"text: {text.train_tokens:,} unique tokens in whole sequences{limited}"]
    for part, (what, unique, epochs) in zip(text.parts, longest_epochs(assembly), strict=False):  # none of a single
        lines.append(f"  {what}: rate {part.rate:.4g}, {unique:,} unique tokens, up to {epochs:.2g} epochs")
    return lines


def longest_epochs(assembly: Assembly) -> list[tuple[str, int, float]]:
    """How often the longest run goes through each part of the text, with its name and unique tokens."""
    trajectory = max(assembly.plan, key=lambda t: max(run.tokens for run in t.runs))
    epochs = assembly.loader(trajectory).epochs(max(run.steps for run in trajectory.runs))
    if not trajectory.text.parts:
        return [("its text", trajectory.text.train_tokens, epochs[0])]
    parts = zip(trajectory.text.parts, epochs, strict=True)
    return [(f"part {part.name!r}", part.train_tokens, each) for part, each in parts]


def cost_lines(assembly: Assembly, workers: int) -> list[str]:
    """What the plan takes in FLOPs, what branching saves, and bytes on the disk."""
    total, disk = totals(assembly), disk_bytes(assembly.plan, workers)
    lines = [
        f"{total['runs']} runs in {total['trajectories']} trajectories, {total['flops']:.2e} FLOPs: "
        f"{total['flops'] / total['flops_unbranched']:.0%} of the {total['flops_unbranched']:.2e} of one by one"
    ]
    if any(len(t.runs) > 1 for t in assembly.plan):
        lines[0] += " (cooldowns branch off trunks: f + (1 - f) D_max / sum of D, f the share of a cooldown)"
    lines.append(f"disk: {in_words(disk.kept)} of checkpoints in the end, {in_words(disk.most)} at the most")
    return lines


def left_out(study: Study, runs: int) -> list[str]:
    """How many cells of the grid are no runs, and why."""
    cells = sum(len(member.sizes) * len(member.recipes) for member in study.members)
    missing = cells * len(study.counts) * len(study.seeds) - runs
    limits = [] if study.flops_max is None else [f"flops_max = {study.flops_max:.2g} (as 6ND)"]
    if ends := study.tokens_per_param_range:
        limits.append(f"tokens_per_param_range = {ends[0]:g} to {ends[1]:g}")
    if study.only:
        limits.append("only")
    return [f"{missing} cells of the grid are left out by {' and '.join(limits)}"] * bool(missing)


def placements(assembly: Assembly, memory: Memory | None) -> dict[str, Placement]:
    """How the step of each trajectory will be laid out, by its id; with those that are trained in the same step."""
    accelerator = memory is None or memory.platform != "cpu"
    stacks = make_stacks(assembly.plan, assembly.study.replicas, accelerator=accelerator)
    placed = place_all(stacks, assembly.study, memory)
    return {t.id: placed[stack.program] for stack in stacks for t in stack.members}


def start_lines(assembly: Assembly) -> list[str]:
    """Where models that do not begin at random do, and how much of them is trained; a line each."""
    found = {
        f"{t.shape} begins from {t.pretrained.run_id}; {t.params_trained:,} parameters are trained"
        + (f", {t.tuning.params_added:,} of them adapters'" if t.tuning and t.tuning.adapters else "")
        for t in assembly.plan
        if t.pretrained is not None
    }
    return sorted(found)


def layout_lines(assembly: Assembly, memory: Memory | None, placed: dict[str, Placement]) -> list[str]:
    """What the columns `micro` and `a device` stand for."""
    there = in_words(memory.device_bytes) if memory else "an amount that is known where it trains"
    again = sorted({f"{t.shape} ({placed[t.id].remat})" for t in assembly.plan if placed[t.id].remat != "none"})
    lines = [f"micro: microbatches whose gradients are added up; a device: bytes of a step on each, of {there}"]
    return lines + [f"computed again in the backward pass (remat): {', '.join(again)}"] * bool(again)


def as_json(assembly: Assembly, estimate: Estimate | None, memory: Memory | None, workers: int) -> dict:
    """The same as one JSON object: `runs`, totals, `disk`, `warnings` and, where known, `seconds`."""
    placed, disk = placements(assembly, memory), disk_bytes(assembly.plan, workers)
    runs = [
        {
            "run_id": run.id,
            "trajectory": t.id,
            "family": t.family,
            "objective": t.objective,
            "shape": str(t.shape),
            "width": t.shape.width or None,
            "depth": t.shape.depth or None,
            "heads": t.shape.heads or None,
            "params": t.shape.planned_params,
            "params_embedding": t.shape.params_embedding,
            "params_trained": t.params_trained if t.tuning else t.shape.planned_params,
            "start": t.pretrained.run_id if t.pretrained else None,
            "pretrained_tokens": t.pretrained_tokens,
            "tokens": run.tokens,
            "unique_tokens": unique,
            "epochs": run.tokens / unique,
            "flops": t.shape.train_flops(run.tokens, t.hyperparameters.sequence),
            "flops_6nd": None if t.shape.planned_params is None else t.shape.flops_6nd(run.tokens),
            "flops_budget": run.flops_budget,
            "schedule": t.hyperparameters.schedule,
            "learning_rate": t.hyperparameters.learning_rate,
            "batch_tokens": t.hyperparameters.batch_tokens,
            "mesh": str(assembly.study.mesh),
            "microbatches": placed[t.id].microbatches,
            "remat": placed[t.id].remat,
            "bytes_per_device": placed[t.id].bytes.total,
        }
        for t in assembly.plan
        for loader in (assembly.loader(t),)
        for run in t.runs
        for unique in (loader.unique_tokens(run.steps),)
    ]
    text = assembly.plan[0].text
    return {
        "study": assembly.study.name,
        "text": {"unique_tokens": text.train_tokens, "parts": [asdict(part) for part in text.parts]},
        "totals": totals(assembly),
        "disk": {"kept_bytes": disk.kept, "most_bytes": disk.most},
        "eval_sets": [
            {"name": each.name, each.unit: each.scored, "headline": each is assembly.headline}
            for each in (assembly.headline, *assembly.extra_sets)
        ],
        "seconds": None if estimate is None else estimate.seconds,
        "workers": None if estimate is None else estimate.workers,
        "device_memory_bytes": None if memory is None else memory.device_bytes,
        "warnings": warnings(assembly),
        "runs": runs,
    }


def totals(assembly: Assembly) -> dict:
    """Runs, trajectories and FLOPs of a plan, and the FLOPs of its runs trained one by one."""
    spent = alone = 0.0
    for t in assembly.plan:
        h = t.hyperparameters
        spent += t.shape.train_flops(t.train_steps * h.batch_tokens, h.sequence)
        alone += sum(t.shape.train_flops(run.tokens, h.sequence) for run in t.runs)
    return {
        "runs": sum(len(t.runs) for t in assembly.plan),
        "trajectories": len(assembly.plan),
        "flops": spent,
        "flops_unbranched": alone,
    }


def warnings(assembly: Assembly) -> list[str]:
    """What a careful reader would ask about this grid before spending on it."""
    found = []
    heavy = [t for t in assembly.plan if t.shape.params_embedding > 0.2 * (t.shape.planned_params or 0)]
    if heavy:
        sizes = len({(t.family, t.shape) for t in heavy})
        found.append(
            f"embeddings exceed 20 % of the parameters of {sizes} sizes, so the exponents "
            "depend on whether they are counted (Pearce & Song 2024)"
        )
    for what, unique, epochs in longest_epochs(assembly):
        if epochs > 1:
            found.append(f"the longest run repeats {what} {epochs:.1f} times ({unique:,} unique tokens)")
    study = assembly.study
    asked_of = {OWN_SET: study.eval_tokens, **{s.name: s.tokens for s in study.eval_sets}}
    for name, tokens in ((each.name, each.scored) for each in (assembly.headline, *assembly.extra_sets)):
        if tokens < asked_of.get(name, 0) * 0.9:  # facts are asked whole
            whose = "eval_tokens asks" if name == OWN_SET else f"the {asked_of[name]:,} asked of it"
            text = "the held-out text" if name == OWN_SET else f"evaluation set {name!r}"
            found.append(f"{text} has {tokens:,} tokens, fewer than {whose}")
    return found

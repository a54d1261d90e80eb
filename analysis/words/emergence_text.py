"""Abilities against scale as text and as JSON."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from analysis.emergence import Emergence, TaskAnswer
from analysis.page.chart import counted
from analysis.skills.abilities import Ability
from analysis.skills.kinds import LEVEL
from analysis.skills.sharpness import LEVEL as SHARP_LEVEL
from analysis.skills.sharpness import Sharpness
from analysis.words.summary import columns, table_lines

UNITS = {"params": "parameters", "tokens": "tokens", "flops": "training compute", "loss": "loss"}


def emergence_text(result: Emergence) -> str:
    """Scores at the ends, the laws, the kinds of scaling, then the test of jumps."""
    against = UNITS[result.against]
    lines = [*table_lines(result.table), "", "SCORES"]
    lines += columns(
        ("task", "metric", "runs", "items", "chance", "least", "greatest", "of the largest run"),
        [_range_row(answer.ability) for answer in result.tasks],
    )
    lines += [
        "",
        "TWO STAGES  (N, D) -> loss -> share that is wrong, and runs of largest compute predicted from others",
    ]
    rows = [row for answer in result.tasks for row in _law_rows(answer)]
    if rows:
        head = ("task", "form", "parameters", "scatter", "held out", "mean error", "covered (of 95 %)")
        lines += columns(head, rows)
    lines += [f"{answer.ability.task}: no law; {answer.no_law}" for answer in result.tasks if answer.no_law]
    lines += [
        f"{a.ability.task}: no run is held out of the {each.stages.form} form; {each.why}"
        for a in result.tasks
        for each in a.laws
        if each.why
    ]
    notes = {warning for a in result.tasks for each in a.laws[:1] for warning in each.stages.fit.warnings}
    lines += [f"first stage: {note}" for note in sorted(notes)]
    lines += ["", f"KINDS OF SCALING  against {against}, at {LEVEL:.0%} over all tests of these tasks (Holm)"]
    lines += columns(
        ("task", "kind", "change", "95 % interval", "p of no trend", "p of no turn", "why"),
        [kind_row(answer) for answer in result.tasks],
    )
    how = f"each rejected below {SHARP_LEVEL:g}; runs are taken as independent"
    lines += [
        "",
        f"JUMPS  against {against}; p of a smooth change and of a step, {how}",
    ]
    rows = [row for answer in result.tasks if answer.sharpness for row in _jump_rows(answer.sharpness, result.against)]
    if rows:
        lines += columns(("task", "metric", "p smooth", "p step", "best step at", "verdict"), rows)
        lines += [said(answer.sharpness) for answer in result.tasks if answer.sharpness]
    lines += [f"{answer.ability.task}: not tested; {answer.untested}" for answer in result.tasks if answer.untested]
    return "\n".join(lines)


def _range_row(ability: Ability) -> tuple[str, ...]:
    metric = ability.main
    largest = int(np.argmax(ability.table.flops_6nd))
    ends = (metric.low[largest], metric.high[largest])
    span = f" ({ends[0]:.3f} to {ends[1]:.3f})" if np.isfinite(ends).all() else ""
    chance = "-" if metric.chance is None else f"{metric.chance:.3g}"
    return (ability.task, metric.name, str(len(ability.table)), str(ability.items or "-"), chance,
            f"{np.nanmin(metric.value):.3f}", f"{np.nanmax(metric.value):.3f}",
            f"{metric.value[largest]:.3f}{span}")  # fmt: skip


def _law_rows(answer: TaskAnswer) -> list[tuple[str, ...]]:
    rows = []
    for i, each in enumerate(answer.laws):
        stages = each.stages
        shown = ", ".join(f"{name} {_short(value)}" for name, value in stages.link.link.parameters.items())
        if stages.link.at_bounds:
            shown += f" ({', '.join(stages.link.at_bounds)} at its bound)"
        error = "-" if each.mean_error is None else f"{100 * each.mean_error:.2f} points"
        covered = "-" if each.coverage is None else f"{100 * each.coverage:.0f} %"
        rows.append(
            (answer.ability.task if i == 0 else "", stages.form, shown, f"{100 * stages.link.scatter:.2f} points",
             counted(len(each.held_out), "run") if each.held_out else "-", error, covered)
        )  # fmt: skip
    return rows


def _short(value: Any) -> str:
    return f"{float(value):.3g}"


def kind_row(answer: TaskAnswer) -> tuple[str, ...]:
    found = answer.scaling
    low, high = found.interval
    span = f"{low:+.3f} to {high:+.3f}" if np.isfinite([low, high]).all() else "-"
    turn = "-" if found.turn is None else f"{found.p_turn_adjusted:.2g}"
    why = found.reason
    if found.kind in ("U-shaped", "inverted-U") and found.turn is not None:
        why = f"slopes {found.turn.before:+.3g} and {found.turn.after:+.3g} an e-fold"
    return found.task, found.kind, f"{found.change:+.3f}", span, f"{found.p_trend_adjusted:.2g}", turn, why


def _jump_rows(found: Sharpness, against: str) -> list[tuple[str, ...]]:
    jumps = [found.main] + ([found.continuous] if found.continuous else [])
    return [
        (found.task if i == 0 else "", jump.metric, p_text(jump.p_smooth), p_text(jump.p_step),
         scale_text(jump.at, against), jump.verdict)
        for i, jump in enumerate(jumps)
    ]  # fmt: skip


def p_text(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def scale_text(value: float, against: str) -> str:
    """A scale as the tests have it (`abilities.growing`) in its own unit."""
    if not np.isfinite(value):
        return "-"
    return f"{-value:.3g} nats" if against == "loss" else f"{math.exp(value):.2e}"


def said(found: Sharpness) -> str:
    """The verdict in words."""
    task, other = found.task, found.continuous
    match found.verdict:
        case "sharp" if other is not None:
            words = f"sharp: the jump survives in {other.metric}, a step at which {other.share:.0%} of its change comes"
        case "made by the metric" if other is not None:
            link = "" if found.p_link is None else f"; drawn through their link it jumps as much in {found.p_link:.0%}"
            words = f"the jump of {found.main.metric} is made by the metric: {other.metric} changes smoothly{link}"
        case "smooth":
            words = "smooth: no jump" + ("" if other is not None else f" in {found.main.metric}")
        case "steep":
            words = "steep: faster than a smooth change and slower than a step"
        case "no change":
            words = "no change over these scales that is told from none"
        case _ if other is None and found.main.verdict in ("sharp", "steep"):
            words = f"{found.main.metric} jumps, and no continuous metric says whether the ability does; add log_prob"
        case _:
            words = "not told: these runs reject neither a smooth change nor a step; add scales or items"
    return f"{task}: {words}"


def emergence_json(result: Emergence) -> dict[str, Any]:
    """Everything in full precision; what is not known is null."""
    tasks = []
    for answer in result.tasks:
        ability = answer.ability
        metrics = [
            {"metric": m.name, "chance": m.chance, "value": m.value.tolist(), "stderr": m.stderr.tolist(),
             "low": m.low.tolist(), "high": m.high.tolist()}
            for m in ability.metrics.values()
        ]  # fmt: skip
        laws = [
            {
                "form": each.stages.form,
                "parameters": {k: float(v) for k, v in each.stages.link.link.parameters.items()},
                "intervals": _link_intervals(each.stages.link.samples),
                "at_bounds": list(each.stages.link.at_bounds),
                "scatter": each.stages.link.scatter,
                "loss_law": each.stages.fit.law.name,
                "loss_parameters": {k: float(v) for k, v in each.stages.fit.law.parameters.items()},
                "resampling": [each.stages.fit.resampling, each.stages.link.resampling],
                "held_out": [asdict(row) for row in each.held_out],
                "mean_error": each.mean_error,
                "coverage": each.coverage,
                "reason": each.why,
            }
            for each in answer.laws
        ]
        sharp = None
        if answer.sharpness is not None:
            found = answer.sharpness
            sharp = asdict(found)
            for name, jump in (("main", found.main), ("continuous", found.continuous)):
                if jump is not None:
                    sharp[name]["verdict"] = jump.verdict
        tasks.append(
            {"task": ability.task, "items": ability.items, "runs": [str(run) for run in ability.table.frame["run_id"]],
             "params": ability.table.params.tolist(), "tokens": ability.table.tokens.tolist(),
             "loss_nats": ability.table.loss_nats.tolist(), "metrics": metrics, "laws": laws, "no_law": answer.no_law,
             "scaling": asdict(answer.scaling), "sharpness": sharp, "untested": answer.untested}
        )  # fmt: skip
    return finite(
        {"against": result.against, "runs": len(result.table), "bootstrap": result.bootstrap, "seed": result.seed,
         "excluded": [asdict(row) for row in result.table.excluded], "notes": list(result.table.notes), "tasks": tasks}
    )  # fmt: skip


def _link_intervals(samples: Any) -> dict[str, list[float]]:
    from analysis.uncertainty import interval

    if samples is None:
        return {}
    return {name: [float(end[0]) for end in interval(values)] for name, values in samples.parameters.items()}


def finite(value: Any) -> Any:
    """What is not known as null: JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value

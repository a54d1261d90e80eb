"""Prompts against fine-tuning as text and as JSON."""

from dataclasses import asdict
from typing import Any

import numpy as np

from analysis.skills.prompting import Crossing, Point, Prompting, end_text
from analysis.words.emergence_text import finite
from analysis.words.summary import columns, count


def prompting_text(result: Prompting) -> str:
    """Every size's best prompt and what fine-tuning reaches, the crossing, and the advice."""
    rows = [_crossing_row(size) for size in result.sizes]
    chance = "" if result.chance is None else f", chance {result.chance:.3g}"
    lines = [f"{result.task}: {result.metric}{chance}", ""]
    head = ("parameters", "best prompt", "score", "fine-tuned on", "score", "ahead from", "95 % interval", "ahead in")
    lines += columns(head, rows)
    lines += [f"{count(size)} parameters: left out; {why}" for size, why in result.refused.items()]
    lines += [
        "",
        "ahead from: labelled examples from which fine-tuning scores higher; ahead in: share of the resamples",
    ]
    return "\n".join([*lines, "", f"advice: {result.advice}"])


def _crossing_row(size: Crossing) -> tuple[str, ...]:
    least, most = size.labelled[0].examples, size.labelled[-1].examples
    last = size.labelled[-1]
    span = f"{end_text(size.low, least)} to {end_text(size.high, most if np.isinf(size.high) else least)}"
    return (
        count(size.params), f"{size.best.examples} shots", _score(size.best), f"{least} to {most}", _score(last),
        end_text(size.crossing, least if size.crossing == 0 else most), span, f"{size.ahead:.0%}",
    )  # fmt: skip


def _score(point: Point) -> str:
    return f"{point.score:.3f} ({point.interval[0]:.3f} to {point.interval[1]:.3f})"


def prompting_json(result: Prompting) -> dict[str, Any]:
    """The same in full precision: a crossing of 0 is below the fewest labelled examples, null beyond the most."""
    return finite({**asdict(result), "refused": {f"{k:g}": v for k, v in result.refused.items()},
                   "advice": result.advice})  # fmt: skip

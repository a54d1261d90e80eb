"""An audit as a table that a person reads in one look, warnings last."""

from collections.abc import Sequence

from analysis.deciding.planned import Planned
from analysis.deciding.prior import Prior
from analysis.expected import Expected
from analysis.solving.targets import LOGARITHMS
from analysis.suggest import Suggestion
from analysis.words.summary import columns, count, digits_for, number, quantity

NAMES = {
    "alpha": "alpha",
    "beta": "beta",
    "L0": "L0 (nats)",
    "a": "a   (N* ~ C^a)",
    "N*": "parameters N*",
    "D*": "tokens D*",
    "loss": "loss (nats)",
}


def head_text(planned: Planned, prior: Prior, flops: float) -> str:
    """What was planned, what is believed of the law, and what is asked."""
    law = ", ".join(f"{name} {float(value):.4g}" for name, value in prior.law.parameters.items())
    doubt = "as its resamples say" if prior.samples is not None else f"{100 * prior.spread:.3g} %"
    shared = (
        f", {100 * prior.noise.shared:.0f} % of the variance shared within a trajectory" if prior.noise.shared else ""
    )
    return "\n".join(
        [
            f"{len(planned)} runs in {planned.trajectories} trajectories  {count(planned.params.min())} to "
            f"{count(planned.params.max())} parameters, {count(planned.tokens.min())} to {count(planned.tokens.max())} "
            f"tokens, the largest {planned.flops.max():.3g} FLOPs (6ND)",
            f"prior  {prior.source}: {law}; uncertain: {doubt}",
            f"errors  {100 * prior.noise.sd:.2g} % of the loss of a run{shared}",
            f"asked  at {flops:.3g} FLOPs (6ND), {flops / planned.flops.max():.3g} x the largest run",
        ]
    )


def expected_text(now: Expected | None, then: Expected | None) -> str:
    """A row a quantity: its value under the prior, the interval to expect of the planned runs, and of those with the
    suggested ones. None: these runs tell no law.
    """
    known = now or then
    if known is None:
        return ""
    rows = []
    for row in known.rows:
        cells = [NAMES[row.name], _value(row.name, row.value, row.interval)]
        for each in (now, then):
            if each is not None:
                cells += [_ends(row.name, each[row.name].interval), _error(row.name, each[row.name].standard_error)]
            elif each is now:
                cells += ["not told", "-"]
        rows.append(cells)
    head = ["expected of the law", "value", "95 % interval", "std. error"]
    if then is not None:
        head += ["with the suggested runs", "std. error"]
    return "\n".join(columns(head, rows))


def suggestion_text(found: Suggestion, shapes: Sequence[str], target: str) -> str:
    """The suggested runs, in the order in which they tell most for their FLOPs."""
    name = "N*" if target == "params" else "loss"
    rows = [
        (str(k + 1), shapes[k], count(c.params), count(c.tokens), f"{c.tokens / c.params:.3g}", f"{c.flops:.2e}",
         f"{100 * c.standard_error:.3g} %")
        for k, c in enumerate(found.choices)
    ]  # fmt: skip
    head = ("run", "layers x width", "parameters", "tokens", "D/N", "FLOPs", f"std. error of {name}")
    shrink = found.after / found.before
    runs = "1 run" if len(found.choices) == 1 else f"{len(found.choices)} runs"
    return "\n".join(
        [
            f"{runs} suggested of {found.candidates} candidates: {found.flops:.3g} of "
            f"{found.budget_flops:.3g} FLOPs; they take the standard error of {name} to {shrink:.2f} of what it is "
            "without them (linearised, averaged over laws of the prior)",
            "",
            *columns(head, rows),
        ]
    )


def _value(name: str, value: float, ends: tuple[float, float]) -> str:
    return quantity(value, 3) if name in ("N*", "D*") else number(value, ends)


def _ends(name: str, ends: tuple[float, float]) -> str:
    if name in ("N*", "D*"):
        digits = max(digits_for(*ends), 2)
        return f"{quantity(ends[0], digits)} to {quantity(ends[1], digits)}"
    low, high = (number(end, ends) if end else "0" for end in ends)
    return f"{low} to {high}"


def _error(name: str, error: float) -> str:
    return f"{100 * error:.3g} %" if name in LOGARITHMS else f"{error:.2g}"

"""IsoFLOP profiles, the envelope and the three approaches as plain text that a person reads in one look."""

from collections.abc import Sequence

from analysis.approaches import Approaches, frontier_rows
from analysis.curves import describe
from analysis.envelope import Envelope
from analysis.isoflop import IsoFlop
from analysis.optimal import OptimalRow
from analysis.profiles.profile import Profile
from analysis.words.summary import columns, count, digits_for, number, quantity, table_lines, warning_lines

KINDS = {
    "crossings": "computes at which it passes from one size to the next",
    "points": "computes of the grid at which a size between two others attains it",
    "runs": "runs that no other one undercuts with less compute",
}


def isoflop_text(found: IsoFlop, flops: Sequence[float] | None = None) -> str:
    """Groups, profiles and their optima, rejected ones with the reason, the power laws, optima at budgets."""
    shape, grouping = found.shape, found.grouping
    method = "Akima interpolation of log loss on log N through all sizes"
    if shape.method == "parabola":
        reach = (
            "all sizes" if shape.window == float("inf") else f"sizes within a factor {shape.window:g} of the minimum"
        )
        method = f"parabola of {'log loss' if shape.response == 'log_loss' else 'loss'} in log N over {reach}"
    shown = [profile for profile in found.profiles if profile.optimum or len(profile.params) > 2]
    hidden = [profile for profile in found.profiles if profile not in shown]
    lines = [
        *table_lines(found.table),
        "",
        f"budgets   {len(found.profiles)} ({grouping.description}), {len(found.accepted)} with a minimum",
    ]
    if grouping.left_over:
        lines.append(f"          {grouping.left_over} runs belong to no budget")
    lines += [f"profiles  {method}", ""]
    head = ("FLOPs", "runs", "sizes", "spread", "parameters tried", "N*", "sd log N*", "D*", "loss", "centring")
    lines += columns(head, [_profile_row(profile) for profile in shown])
    if any(profile.reason for profile in shown):
        lines += ["", "rejected"]
        lines += [f"  {profile.flops:.3g} FLOPs: {profile.reason}" for profile in shown if profile.reason]
    if hidden:
        runs = sum(profile.runs for profile in hidden)
        lines.append(f"and {len(hidden)} budgets of fewer than 3 sizes ({runs} runs), each listed with --json")
    lines += ["", *_exponents(found.frontier.exponents, found.intervals), ""]
    if found.noise is not None:
        lines.append(f"noise     {found.noise:g} nats in every loss, as given")
    elif found.noise_relative is not None:
        about = f"from the residuals of the profiles, {found.noise_freedom} degrees of freedom"
        lines.append(f"noise     {found.noise_relative:.2%} of every loss, {about}")
    if found.scatter > 0:
        lines.append(
            f"scatter   optima lie {found.scatter:.2g} in log N off the law beyond noise; intervals include it"
        )
    lines += [
        f"intervals {found.resampling}",
        "loss      L0 + k C^-c through the optima, least squares in relative error",
    ]
    return "\n".join([*lines, "", *_optima(frontier_rows(found, flops)), *warning_lines(found.warnings)])


def envelope_text(found: Envelope, flops: Sequence[float] | None = None) -> str:
    """Curves, what the envelope shows, the power laws, optima at budgets."""
    curves, sizes = found.curves, sorted(set(found.points[1]))
    lines = [describe(curves), *(f"note  {note}" for note in curves.notes)]
    if curves.excluded:
        lines += [f"left out  {len(curves.excluded)} rows", *(f"  {row}" for row in curves.excluded[:8])]
    span = f"{count(sizes[0])} to {count(sizes[-1])} parameters"
    reach = f"{found.points[0].min():.2e} to {found.points[0].max():.2e} FLOPs"
    lines += ["", f"envelope  {found.points.shape[1]} {KINDS[found.estimator]}", f"          {span}, {reach}"]
    if found.estimator == "runs":
        lines.append(f"          {found.dominated} runs are undercut, or of the smallest or largest size")
    lines += ["", *_exponents(found.frontier.exponents, found.intervals), "", f"intervals {found.resampling}"]
    return "\n".join([*lines, "", *_optima(frontier_rows(found, flops)), *warning_lines(found.warnings)])


def approaches_text(found: Approaches) -> str:
    """Exponents of each approach, then its optimum at every budget; refusals and disagreements.

    Of the parametric fit alone nothing is repeated.
    """
    if [answer.method for answer in found.answers] == ["parametric"]:
        methods = " and ".join(method for method, _ in found.refused)
        return f"This table has no answer by {methods}; the command of that name says why."
    refused = [f"{method}: not available: {reason}" for method, reason in found.refused]
    cells = [
        (a.method, _value(a.a, a.a_interval), _value(a.b, a.b_interval), f"{a.optima}", f"{a.flops_max:.2e}")
        for a in found.answers
    ]
    lines = ["The approaches of Hoffmann et al. 2022 side by side", ""]
    lines += columns(("approach", "a (N* ~ C^a)", "b (D* ~ C^b)", "points", "largest FLOPs (6ND)"), cells)
    ordered = sorted(found.rows, key=lambda row: row.flops)
    lines += ["", *_optima(ordered)]
    lines += refused
    lines += [f"warning: {line}" for line in found.disagreements]
    for answer in found.answers:
        if answer.method != "parametric":
            lines += [f"warning: {answer.method}: {warning}" for warning in answer.warnings]
    return "\n".join(lines)


def _profile_row(profile: Profile) -> tuple[str, ...]:
    sizes = f"{count(profile.params[0])} to {count(profile.params[-1])}" if len(profile.params) else "-"
    head = (f"{profile.flops:.3g}", f"{profile.runs}", f"{len(profile.params)}", f"{profile.spread - 1:.1%}", sizes)
    if profile.optimum is None:
        return (*head, "rejected", "", "", "", "")
    n, d, loss = profile.optimum
    sd = "-" if profile.sd_log_params is None else f"{profile.sd_log_params:.2g}"
    return (*head, quantity(n), sd, quantity(d), f"{loss:.4g}", f"{profile.centring:+.2f}")


def _exponents(exponents: dict[str, float], intervals: dict[str, tuple[float, float]]) -> list[str]:
    named = {"a": "a   (N* ~ C^a)", "b": "b   (D* ~ C^b)"}
    rows = [(named[name], *_cells(float(value), intervals.get(name))) for name, value in exponents.items()]
    return columns(("exponent", "value", "95 % interval"), rows)


def _cells(value: float, ends: tuple[float, float] | None) -> tuple[str, str]:
    return number(value, ends), "-" if ends is None else f"{number(ends[0], ends)} to {number(ends[1], ends)}"


def _value(value: float, ends: tuple[float, float] | None) -> str:
    return f"{value:.3f}" + ("" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]")


def _optima(rows: Sequence[OptimalRow]) -> list[str]:
    cells = []
    for row in rows:
        cells.append(
            (f"{row.flops:.2e}", row.method, _quantity(row.params, row.params_interval),
             _quantity(row.tokens, row.tokens_interval), _loss(row.loss_nats, row.loss_interval), row.where)
        )  # fmt: skip
    return columns(("FLOPs", "approach", "parameters N*", "tokens D*", "loss", "its optima"), cells)


def _quantity(value: float, ends: tuple[float, float] | None) -> str:
    if ends is None:
        return quantity(value)
    digits = max(digits_for(*ends), 2)
    return f"{quantity(value, digits)} [{quantity(ends[0], digits)}, {quantity(ends[1], digits)}]"


def _loss(value: float, ends: tuple[float, float] | None) -> str:
    return f"{value:.4g}" if ends is None else f"{value:.4g} [{ends[0]:.4g}, {ends[1]:.4g}]"

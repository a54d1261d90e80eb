"""The multiverse as a table: what each choice does to N*, and how far all of them spread it."""

from analysis.multiverse import Multiverse
from analysis.pictures.multiverse_plots import NAMES
from analysis.words.decision_text import wrapped
from analysis.words.summary import columns, quantity, table_lines, warning_lines


def multiverse_text(found: Multiverse, *, width: int = 100) -> str:
    """The spread, then N* by choice, then what has no answer."""
    low, _, high = found.params
    lines = [*table_lines(found.fit.table), ""]
    told = f"At {found.flops:.2e} FLOPs, over {len(found.universes)} combinations of choices (N* in all parameters):"
    lines += [*wrapped(told, width), ""]
    default = next((u for u in found.universes if u.default), None)
    cells = []
    for name, values, own in (
        ("N*", found.params, default.params_all if default else None),
        ("D*", found.tokens, default.tokens if default else None),
        ("loss (nats)", found.loss_nats, default.loss_nats if default else None),
    ):
        shown = [f"{v:.3f}" if name.startswith("loss") else quantity(v) for v in values]
        mine = "none" if own is None else f"{own:.3f}" if name.startswith("loss") else quantity(own)
        cells.append((name, mine, *shown))
    lines += columns(("", "default", "least", "median", "greatest"), cells)
    lines.append("")
    rows, last = [], ""
    for choice in found.choices:
        factor = choice.factor if choice.factor != last else ""
        share = f"{choice.share:.0%}" if factor else ""
        last = choice.factor
        label = NAMES.get(choice.factor, {}).get(choice.choice, choice.choice)
        least, median, greatest = (quantity(v) for v in choice.params)
        rows.append((factor, label, str(choice.answers), median, f"{least} to {greatest}", share))
    if rows:
        lines += columns(("choice of", "", "answers", "median N*", "range", "share"), rows)
        lines.append("")
    if found.params_interval is not None:
        ends = " to ".join(quantity(end) for end in found.params_interval)
        inside = sum(
            found.params_interval[0] <= (u.params_all or 0) <= found.params_interval[1] for u in found.universes
        )
        said = f"The default's 95 % interval, {ends}, holds {inside} of the {len(found.universes)} answers."
        lines += wrapped(said, width)
    else:
        lines.append("The default has no interval.")
    if rows:
        lines += wrapped("Share: of the variance of log N* that a choice explains by itself.", width)
    lines += wrapped("The spread is no interval: it says what choices move N*, not what noise does.", width)
    warnings = [f"N* differs by a factor of {high / low:.3g} between choices"] if high > 2 * low else []
    if default is None:
        warnings.append(f"the default has no answer: {found.fit.reason or 'see below'}")
    for law in dict.fromkeys(universe.law for universe in found.refused):
        reasons = [universe.reason.partition("; ")[0] for universe in found.refused if universe.law == law]
        warnings.append(f"{len(reasons)} combinations have no answer by {law}: {reasons[0]}")
    lines += [part for line in warning_lines([*warnings, *found.fit.warnings]) for part in wrapped(line, width)]
    return "\n".join(lines)

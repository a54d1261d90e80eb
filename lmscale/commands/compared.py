"""`lmscale plot RUNS --by COLUMN`: groups of runs side by side, and their loss by length of context."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from lmscale.commands.asked import find, say, table_asked, write_json


def plot(args: argparse.Namespace) -> int:
    """Figures beside the table, and what they show as text."""
    from analysis.comparing.compared import compare, compared_text
    from analysis.pictures.compared_plots import contexts, losses
    from analysis.plots import save

    path = find(args.runs, args.out)
    result = compare(path, table_asked(args), args.by)
    folder = args.figures or (path if path.is_dir() else path.parent) / "figures"
    written = [save(losses(result), folder / f"loss_by_{args.by}.png")]
    if result.contexts:
        written.append(save(contexts(result), folder / f"context_by_{args.by}.png"))
    say(args, "\n".join([compared_text(result), "", *map(str, written)]))
    if args.json:
        answer = {
            "by": result.by,
            "runs": len(result.table),
            "units": result.units,
            "points": [{**asdict(point), "stderr": _told(point.stderr)} for point in result.points],
            "contexts": [
                {
                    "group": each.best.group,
                    "size": each.best.size,
                    "params": each.best.params,
                    "tokens": each.best.tokens,
                    "low": each.low.tolist(),
                    "high": each.high.tolist(),
                    "bits": each.bits.tolist(),
                    "stderr": [_told(value) for value in each.stderr.tolist()],
                }
                for each in result.contexts
            ],
            "excluded": [asdict(row) for row in result.table.excluded],
            "notes": list(result.table.notes),
            "figures": [str(path) for path in written],
        }
        write_json(args.json, answer)
    return 0


def _told(value: float) -> float | None:
    return value if value == value else None

"""The command `audit`: what a planned grid will tell, and the next runs that would tell most. Imports when run."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError
from lmscale.commands.asked import add_table_options, say, whole, write_json
from lmscale.commands.design_asked import planned_asked, suggestion_asked

if TYPE_CHECKING:
    from analysis.deciding.planned import Planned
    from analysis.deciding.prior import Prior
    from analysis.expected import Expected
    from analysis.suggest import Suggestion
    from lmscale.config import Chosen
    from lmscale.planning.assemble import Assembly

ABOUT = "say what a planned grid will tell of the law, and suggest the runs that would tell most; train nothing"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("audit", help=ABOUT, description=ABOUT[0].upper() + ABOUT[1:] + ".")
    parser.set_defaults(run=audit, overridable=True)
    add_table_options(parser)
    group = parser.add_argument_group("the audit (a study comes first; any of its fields can be replaced)")
    text = """what is believed of the law: besiroglu, hoffmann, muennighoff, kaplan, constants such as L0=1.8 A=480
    B=2100 alpha=0.35 beta=0.37, or a table of runs (default: own results where they tell a law, else besiroglu)"""
    group.add_argument("--prior", nargs="+", metavar="PRIOR", help=text)
    group.add_argument("--law", metavar="NAME", help="of constants, and fitted to a table (default chinchilla)")
    group.add_argument("--flops", metavar="C", help="budget at which N* is asked (default 10 x the largest run)")
    group.add_argument("--spread", metavar="S", help="uncertainty of a prior without intervals, relative (default 0.1)")
    text = "sd of the relative error of a run's loss (default: as the table tells, else 0.005)"
    group.add_argument("--noise", metavar="SD", help=text)
    text = "share of its variance that runs of a trajectory have alike (default: as the table tells, else 0.5)"
    group.add_argument("--shared", metavar="SHARE", help=text)
    group.add_argument("--simulations", default="1000", metavar="K", help="simulated studies (default 1000)")
    group.add_argument("--suggest", metavar="K", help="suggest up to K further runs")
    group.add_argument("--budget", metavar="FLOPS", help="what the suggested runs may cost")
    text = "what they shall tell: params (N*, default) or loss, at the budget asked"
    group.add_argument("--target", default="params", metavar="WHAT", help=text)
    text = "sizes that can be trained (default: half the smallest planned to 4 x the largest)"
    group.add_argument("--params-range", nargs=2, metavar=("LOW", "HIGH"), help=text)
    text = "token counts that can be trained (default: likewise)"
    group.add_argument("--tokens-range", nargs=2, metavar=("LOW", "HIGH"), help=text)
    group.add_argument("--write", type=Path, metavar="FILE.py", help="write a study with the suggested runs")
    group.add_argument("--figure", type=Path, metavar="FILE", help="draw the design (.png or .svg)")


def audit(args: argparse.Namespace) -> int:
    from analysis.words.audit_text import expected_text, head_text, suggestion_text
    from analysis.words.summary import warning_lines

    asked = suggestion_asked(args)
    options, assembly, prior, flops = planned_asked(args, asked)
    planned, warnings = options.planned, []
    try:
        now = _expected(args, planned, prior, flops)
    except InputError as error:
        if asked is None:
            raise
        now, warnings = None, [f"the planned runs alone tell no law: {error}"]
    found = then = chosen = None
    if asked is not None:
        from analysis.suggest import suggest

        seed = whole("seed", args.seed)
        found = suggest(planned, options.candidates, prior, flops=flops, runs=asked.runs, budget_flops=asked.budget,
                        target=asked.target, seed=seed)  # fmt: skip
        chosen = options.candidates.runs.take(found.indices)
        then = _expected(args, planned.joined(chosen), prior, flops)
        if len(found.choices) < asked.runs:
            warnings.append(f"only {len(found.choices)} of {asked.runs} runs are worth it within the budget")
    say(args, head_text(planned, prior, flops) + "\n\n" + expected_text(now, then))
    cells = [] if found is None else [options.cells[i] for i in found.indices]
    if found is not None:
        say(args, "\n" + suggestion_text(found, [_shape(cell) for cell in cells], asked.target if asked else "params"))
    if args.write is not None and found is not None:
        _write(args.write, assembly, cells, found, prior, flops)
        say(args, f"\nwrote {args.write}: lmscale sweep {args.write}")
    if args.figure is not None:
        from analysis.pictures.design_plot import design_figure
        from analysis.plots import save

        save(design_figure(planned, prior, flops, chosen, now, then), args.figure)
        say(args, f"\nwrote {args.figure}")
    known = then or now
    warnings += [] if known is None else list(known.warnings)
    say(args, "\n".join(warning_lines(warnings)))
    if args.json:
        write_json(args.json, _json(planned, prior, flops, now, then, found, cells, warnings))
    return 0


def _expected(args: argparse.Namespace, planned: Planned, prior: Prior, flops: float) -> Expected:
    from analysis.expected import expected

    simulations = whole("simulations", args.simulations)
    return expected(planned, prior, flops, simulations=simulations, seed=whole("seed", args.seed))


def _shape(cell: Chosen) -> str:
    from lmscale.shapes import Shape

    return f"{cell.size.depth or round(Shape.usual_depth(cell.size.width))} x {cell.size.width}"


def _write(
    path: Path, assembly: Assembly | None, cells: list[Chosen], found: Suggestion, prior: Prior, flops: float
) -> None:
    from lmscale.plan import make_plan
    from lmscale.planning.candidates import alone, extended
    from lmscale.study.write_study import write_study

    chosen = f"{len(cells)} runs chosen by lmscale audit to tell N* at {flops:.3g} FLOPs, under {prior.source}."
    if assembly is None:
        about = f"{chosen}\n\nTrained each by itself: set corpus and recipe as your table's runs have them."
        write_study(path, alone(path.stem, cells), about)
        return
    study = extended(assembly.study, assembly.plan, cells)
    make_plan(study, assembly.plan[0].text)
    about = (
        f"{assembly.study.name} with {chosen}\n\nIts planned runs are in it; those that are done are not done again."
    )
    write_study(path, study, f"{about}\nThe new ones take {found.flops:.3g} FLOPs.")


def _json(
    planned: Planned,
    prior: Prior,
    flops: float,
    now: Expected | None,
    then: Expected | None,
    found: Suggestion | None,
    cells: list[Chosen],
    warnings: list[str],
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "flops": flops,
        "runs": len(planned),
        "trajectories": planned.trajectories,
        "prior": {
            "source": prior.source,
            "law": prior.law.name,
            "parameters": {name: float(value) for name, value in prior.law.parameters.items()},
            "residual_sd": prior.noise.sd,
            "shared": prior.noise.shared,
        },
        "identifiable": now is not None,
        "planned": None if now is None else asdict(now),
        "warnings": warnings,
    }
    if found is not None and then is not None:
        rows = [
            {**asdict(choice), "size": asdict(cell.size), "count": cell.count}
            for choice, cell in zip(found.choices, cells, strict=True)
        ]
        answer["suggested"] = {
            "flops": found.flops,
            "budget_flops": found.budget_flops,
            "standard_error_before": found.before,
            "standard_error_after": found.after,
            "candidates": found.candidates,
            "runs": rows,
            "expected": asdict(then),
        }
    return answer

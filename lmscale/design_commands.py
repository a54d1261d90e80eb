"""The command `audit`: what a planned grid will tell, and the next runs that would tell most. Imports when it is run."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError
from lmscale.asked import (
    add_table_options,
    find,
    number,
    pairs,
    positive,
    resamples,
    say,
    table_asked,
    whole,
    write_json,
)

if TYPE_CHECKING:
    from analysis.expected import Expected
    from analysis.planned import Planned
    from analysis.prior import Prior
    from analysis.suggest import Suggestion
    from analysis.table import Table
    from lmscale.assemble import Assembly
    from lmscale.candidates import Options
    from lmscale.config import Chosen

ABOUT = "say what a planned grid will tell of the law, and suggest the runs that would tell most; train nothing"
TARGET = 10.0  # times the largest run: the budget asked, where neither --flops nor the study names one
DEFAULT_PRIOR = "besiroglu"
DEFAULT_VOCAB = 256  # bytes, where a table has no vocab column
FORMATS = (".png", ".svg")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("audit", help=ABOUT, description=ABOUT[0].upper() + ABOUT[1:] + ".")
    parser.set_defaults(run=audit, overridable=True)
    add_table_options(parser)
    group = parser.add_argument_group("the audit (a study comes first; any of its fields can be replaced)")
    text = """what is believed of the law: besiroglu, hoffmann, muennighoff, kaplan, constants such as L0=1.8 A=480 B=2100
    alpha=0.35 beta=0.37, or a table of runs (default: the study's own results where they tell a law, else besiroglu)"""
    group.add_argument("--prior", nargs="+", metavar="PRIOR", help=text)
    group.add_argument("--law", default="chinchilla", metavar="NAME", help="of constants, and fitted to a table")
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


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the command line says of the suggestion, checked before anything is computed."""

    runs: int
    budget: float
    target: Any
    params: tuple[float, float] | None
    tokens: tuple[float, float] | None


def audit(args: argparse.Namespace) -> int:
    from analysis.audit_text import expected_text, head_text, suggestion_text
    from analysis.summary import warning_lines

    asked = _asked(args)
    options, assembly, table, prior, flops = _planned(args, asked)
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
        from analysis.design_plot import design_figure
        from analysis.plots import save

        save(design_figure(planned, prior, flops, chosen, now, then), args.figure)
        say(args, f"\nwrote {args.figure}")
    warnings += list((then or now).warnings) if (then or now) is not None else []
    say(args, "\n".join(warning_lines(warnings)))
    if args.json:
        write_json(args.json, _json(planned, prior, flops, now, then, found, cells, warnings))
    return 0


def _asked(args: argparse.Namespace) -> _Asked | None:
    """Raises InputError for options that are no numbers, or that belong together."""
    if args.figure is not None and args.figure.suffix not in FORMATS:
        raise InputError(f"figure: {str(args.figure)!r} is no picture; end it in .png or .svg")
    if args.suggest is None:
        for name in ("budget", "write", "params_range", "tokens_range"):
            if getattr(args, name) is not None:
                raise InputError(f"{name.replace('_', '-')}: is of the suggested runs; add --suggest K")
        return None
    runs = whole("suggest", args.suggest)
    if runs < 1:
        raise InputError(f"suggest: {runs} runs are none; ask for at least 1")
    if args.budget is None:
        raise InputError("budget: --suggest needs to know what the runs may cost; add --budget FLOPS")
    if args.target not in ("params", "loss"):
        raise InputError(f"target: {args.target!r} is unknown; choose params or loss")
    if args.write is not None and args.write.suffix != ".py":
        raise InputError(f"write: {str(args.write)!r} is no name of a study's file; end it in .py")
    return _Asked(
        runs=runs,
        budget=positive("budget", args.budget, such_as="1e18"),
        target=args.target,
        params=_range("params-range", args.params_range),
        tokens=_range("tokens-range", args.tokens_range),
    )


def _range(name: str, given: list[str] | None) -> tuple[float, float] | None:
    if given is None:
        return None
    low, high = (positive(name, text, such_as="1e6") for text in given)
    if not low < high:
        raise InputError(f"{name}: {given[0]} to {given[1]} is no range; give the lower end first")
    return low, high


def _planned(
    args: argparse.Namespace, asked: _Asked | None
) -> tuple[Options, Assembly | None, Table | None, Prior, float]:
    """The runs planned (with candidates, where they are asked for), the study or table they are of, prior and budget."""
    from lmscale.candidates import Options, of_study, of_table, planned_of
    from lmscale.studies import STUDIES

    assembly = table = None
    if args.runs.endswith(".py") or (STUDIES / f"{args.runs}.py").is_file():
        assembly = _assembly(args)
        planned = planned_of(assembly.plan)
    else:
        from analysis.planned import Planned

        if args.overrides:
            raise InputError(
                f"argument: {args.overrides[0]!r} is no option of 'lmscale audit', and {args.runs!r} no study; see its --help"
            )
        table = table_asked(args)
        planned = Planned.of(table)
    own = None if assembly is None else assembly.study.target_flops
    flops = TARGET * float(planned.flops.max()) if own is None else own
    if args.flops is not None:
        flops = positive("flops", args.flops)
    prior = _prior(args, assembly, table, shared=planned.trajectories < len(planned))
    if asked is None:
        options = _only(planned)
    elif assembly is not None:
        options = of_study(assembly.study, assembly.plan[0].text, assembly.plan, asked.params, asked.tokens)
    else:
        assert table is not None
        vocab = DEFAULT_VOCAB
        if "vocab" in table.frame and str(table.frame["vocab"].iloc[0]).strip():
            vocab = int(positive("vocab", str(table.frame["vocab"].iloc[0]), such_as="256"))
        options = of_table(table, vocab, asked.params, asked.tokens)
    assert isinstance(options, Options)
    return options, assembly, table, prior, flops


def _only(planned: Planned) -> Options:
    """No candidates."""
    import numpy as np

    from analysis.suggest import Candidates
    from lmscale.candidates import Options

    nothing = Candidates(runs=planned.take(np.arange(0)), own_flops=np.empty(0))
    return Options(planned=planned, candidates=nothing, cells=())


def _assembly(args: argparse.Namespace) -> Assembly:
    from lmscale.assemble import assemble
    from lmscale.studies import load_study, override

    study = override(load_study(args.runs), args.overrides)
    if len(study.recipes) > 1:
        raise InputError(
            "rate_multipliers: every rate and schedule has a law of its own; audit one: --rate-multipliers 1, one schedule"
        )
    return assemble(study, args.out, lambda line: print(line, file=sys.stderr, flush=True))


def _prior(args: argparse.Namespace, assembly: Assembly | None, table: Table | None, *, shared: bool) -> Prior:
    from analysis import prior as priors
    from analysis.sandwich import Noise

    spread = priors.SPREAD if args.spread is None else number("spread", args.spread)
    if not 0 <= spread <= 1:
        raise InputError(f"spread: {args.spread!r} is no relative uncertainty; give a number from 0 to 1 such as 0.1")
    sd = None if args.noise is None else positive("noise", args.noise, such_as="0.005")
    share = None if args.shared is None else number("shared", args.shared)
    noise = Noise(sd=sd or priors.RUN_NOISE, shared=(priors.SHARED if shared else 0.0) if share is None else share)
    words = args.prior
    if words is None and table is None:
        assert assembly is not None
        results = args.out / assembly.study.name / "runs.csv"
        if results.is_file():
            try:
                return priors.with_noise(_fitted(args, str(results)), sd=sd, shared=share)
            except InputError as error:
                print(f"prior: {results} is not used ({error})", file=sys.stderr)
        words = [DEFAULT_PRIOR]
    if words is None:
        return priors.with_noise(_fitted(args, args.runs), sd=sd, shared=share)
    if any("=" in word for word in words):
        values = {name: number("prior", text) for name, text in pairs("prior", words).items()}
        return priors.constants(values, noise, law=args.law, spread=spread)
    if len(words) > 1:
        raise InputError(f"prior: {' '.join(words)!r} are several; give one name, one table, or NAME=VALUE words")
    if words[0] in priors.PUBLISHED:
        return priors.published(words[0], noise, spread)
    try:
        find(words[0], args.out)
    except InputError:
        return priors.published(words[0], noise, spread)  # which says what there is
    return priors.with_noise(_fitted(args, words[0]), sd=sd, shared=share)


def _fitted(args: argparse.Namespace, runs: str) -> Prior:
    """The prior that a table gives; its columns and rows are those of the command line where it is the table audited."""
    from analysis.fit import fit
    from analysis.prior import fitted
    from analysis.table import read

    bootstrap, seed = resamples(args)
    table = table_asked(args) if runs == args.runs else read(find(runs, args.out))
    return fitted(fit(table, args.law, bootstrap=bootstrap, seed=seed), source=runs)


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
    from lmscale.candidates import alone, extended
    from lmscale.plan import make_plan
    from lmscale.write_study import write_study

    chosen = f"{len(cells)} runs chosen by lmscale audit to tell N* at {flops:.3g} FLOPs, under {prior.source}."
    if assembly is None:
        about = f"{chosen}\n\nTrained each by itself: set corpus and recipe as your table's runs have them."
        write_study(path, alone(path.stem, cells), about)
        return
    study = extended(assembly.study, assembly.plan, cells)
    make_plan(study, assembly.plan[0].text)
    about = f"{assembly.study.name} with {chosen}\n\nIts planned runs are in it: those that are done are not trained again."
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

"""The commands of approaches 1 and 2. Imports happen when one is run."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmscale.commands.asked import find, pairs, positive, resamples, say, table_asked, whole, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.curves import Curves, Points
    from analysis.envelope import Envelope
    from analysis.isoflop import IsoFlop
    from analysis.profiles.profile import Profile

COMMANDS = {
    "isoflop": "find the best size of each budget from IsoFLOP profiles (approach 2)",
    "envelope": "find the best size of each compute from the envelope of loss curves (approach 1)",
}


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Options of isoflop and envelope beyond those of every answering command."""
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw the figure into this folder")
    text = "budgets to answer for (default 1, 10 and 100 times the largest measured)"
    parser.add_argument("--flops", nargs="+", action="extend", metavar="C", help=text)
    if name == "envelope":
        parser.add_argument("--points", default="decayed", metavar="KIND", help="decayed (default) or all")
        text = "crossings (default), or points: every compute of a grid, as Hoffmann et al. do"
        parser.add_argument("--estimator", default="crossings", metavar="KIND", help=text)
        return
    parser.add_argument("--method", default="parabola", metavar="M", help="parabola (default) or akima")
    parser.add_argument(
        "--window", default="4", metavar="F", help="factor in N about the minimum (default 4, inf: all)"
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        action="extend",
        metavar="C",
        help="budgets to group runs by (default: as the table says)",
    )
    parser.add_argument("--tolerance", default="0.1", metavar="T", help="of FLOPs within one budget (default 0.1)")
    parser.add_argument("--same-size", default="mean", metavar="HOW", help="runs of one size: mean (default) or best")
    parser.add_argument("--noise", metavar="NATS", help="sd of a loss between seeds (default: from the residuals)")
    parser.add_argument("--resample", default="noise", metavar="WHAT", help="noise (default) or budgets")


def isoflop(args: argparse.Namespace) -> int:
    from analysis.isoflop import isoflop as profile
    from analysis.words.profile_text import isoflop_text

    bootstrap, seed = resamples(args)
    flops, budgets = _budgets("flops", args.flops), _budgets("budgets", args.budgets)
    found = profile(
        table_asked(args),
        method=args.method,
        window=math.inf if args.window == "inf" else positive("window", args.window, such_as="4"),
        same_size=args.same_size,
        budgets=budgets,
        tolerance=positive("tolerance", args.tolerance, such_as="0.1"),
        noise=None if args.noise is None else positive("noise", args.noise, such_as="0.002"),
        resample=args.resample,
        bootstrap=bootstrap,
        seed=seed,
    )
    say(args, isoflop_text(found, flops))
    _draw(args, "isoflop_profiles.png", lambda plots: plots.isoflop_profiles(found))
    if args.json:
        write_json(args.json, isoflop_json(found, flops))
    return 0


def envelope(args: argparse.Namespace) -> int:
    from analysis.envelope import envelope as take
    from analysis.words.profile_text import envelope_text

    bootstrap, seed = resamples(args)
    flops = _budgets("flops", args.flops)
    found = take(curves_asked(args, args.points), estimator=args.estimator, bootstrap=bootstrap, seed=seed)
    say(args, envelope_text(found, flops))
    _draw(args, "envelope.png", lambda plots: plots.envelope_curves(found))
    if args.json:
        write_json(args.json, envelope_json(found, flops))
    return 0


def isoflop_json(found: IsoFlop, flops: Sequence[float] | None) -> dict[str, Any]:
    """Exponents, intervals, every profile with its optimum or its reason, and the optima at budgets."""
    from analysis.approaches import frontier_rows

    return {
        **_laws(found),
        "method": found.shape.method,
        "window": None if math.isinf(found.shape.window) else found.shape.window,
        "grouping": found.grouping.description,
        "runs": len(found.table),
        "runs_without_budget": found.grouping.left_over,
        "excluded": [asdict(row) for row in found.table.excluded],
        "noise_nats": found.noise,
        "noise_relative": found.noise_relative,
        "scatter_log_params": found.scatter,
        "profiles": [_profile(profile) for profile in found.profiles],
        "rows": [asdict(row) for row in frontier_rows(found, flops)],
    }


def envelope_json(found: Envelope, flops: Sequence[float] | None) -> dict[str, Any]:
    """Exponents, intervals, the points that the laws go through, and the optima at budgets."""
    from analysis.approaches import frontier_rows

    names = ("flops", "params", "tokens", "loss_nats")
    return {
        **_laws(found),
        "estimator": found.estimator,
        "points_used": found.curves.points,
        "curves": len(found.curves.curves),
        "excluded": [asdict(row) for row in found.curves.excluded],
        "notes": list(found.curves.notes),
        "profiles": [dict(zip(names, map(float, point), strict=True)) for point in found.points.T],
        "rows": [asdict(row) for row in frontier_rows(found, flops)],
    }


def _laws(found: IsoFlop | Envelope) -> dict[str, Any]:
    frontier = found.frontier
    loss = {"L0": frontier.loss.L0, "k": math.exp(frontier.loss.log_k), "c": frontier.loss.c}
    return {
        "exponents": {name: float(value) for name, value in frontier.exponents.items()},
        "coefficients": {"params": float(frontier.params.coefficient), "tokens": float(frontier.tokens.coefficient)},
        "loss": loss,
        "intervals": {name: list(ends) for name, ends in found.intervals.items()},
        "resampling": found.resampling,
        "warnings": list(found.warnings),
    }


def _profile(profile: Profile) -> dict[str, Any]:
    best = dict(zip(("params", "tokens", "loss_nats"), profile.optimum or (None, None, None), strict=True))
    return {
        "flops": profile.flops,
        "runs": profile.runs,
        "sizes": len(profile.params),
        "params_range": [float(profile.params[0]), float(profile.params[-1])] if len(profile.params) else None,
        "flops_spread": profile.spread,
        **best,
        "sd_log_params": profile.sd_log_params,
        "centring": profile.centring if math.isfinite(profile.centring) else None,
        "width": profile.width,
        "rejected": profile.reason or None,
    }


def curves_asked(args: argparse.Namespace, points: Points) -> Curves:
    """The curves of the command line."""
    from analysis.curves import read_curves

    drop = whole("drop-highest-loss", args.drop_highest_loss)
    return read_curves(
        find(args.runs, args.out),
        points=points,
        columns=pairs("columns", args.columns),
        where=args.where,
        drop_highest_loss=drop,
    )


def _budgets(option: str, given: Sequence[str] | None) -> list[float] | None:
    return None if given is None else [positive(option, text) for text in given]


def _draw(args: argparse.Namespace, name: str, make: Callable[[Any], Figure]) -> None:
    if args.figures is None:
        return
    from analysis.pictures import profile_plots
    from analysis.plots import save

    say(args, str(save(make(profile_plots), args.figures / name)))

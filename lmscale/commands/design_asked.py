"""What `lmscale audit` was asked: the runs planned, what is believed of their law, and what may come next."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError
from lmscale.commands.asked import find, number, pairs, positive, resamples, table_asked, whole

if TYPE_CHECKING:
    from analysis.deciding.planned import Planned
    from analysis.deciding.prior import Prior
    from analysis.table import Table
    from lmscale.planning.assemble import Assembly
    from lmscale.planning.candidates import Options

TARGET = 10.0  # times the largest run: the budget asked, where neither --flops nor the study names one
DEFAULT_PRIOR, LAW = "besiroglu", "chinchilla"
DEFAULT_VOCAB = 256  # bytes, where a table has no vocab column
FORMATS = (".png", ".svg")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says of the suggestion, checked before anything is computed."""

    runs: int
    budget: float
    target: Any
    params: tuple[float, float] | None
    tokens: tuple[float, float] | None


def suggestion_asked(args: argparse.Namespace) -> Asked | None:
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
    if args.write is not None and args.write.exists():
        raise InputError(f"write: {str(args.write)!r} is there already; choose another name, or remove it")
    return Asked(
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


def planned_asked(args: argparse.Namespace, asked: Asked | None) -> tuple[Options, Assembly | None, Prior, float]:
    """The runs planned (with candidates, where they are asked for), the study they are of, the prior, the budget."""
    from lmscale.planning.candidates import Options, of_study, of_table, planned_of
    from lmscale.study.studies import STUDIES
    from lmscale.study.table_family import kind_of, refuse_counted

    assembly = table = None
    if args.runs.endswith(".py") or (STUDIES / f"{args.runs}.py").is_file():
        assembly = _assembly(args)
        planned = planned_of(assembly.plan)
    else:
        from analysis.deciding.planned import Planned

        if args.overrides:
            raise InputError(
                f"argument: {args.overrides[0]!r} is not known to 'lmscale audit', and {args.runs!r} is no study"
            )
        table = table_asked(args)
        refuse_counted(table)
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
        if kind_of(table)[0] != "decoder":
            raise InputError(
                f"suggest: the runs of a table are continued as decoders, and these are of family "
                f"{kind_of(table)[0]!r}; audit their study instead"
            )
        vocab = DEFAULT_VOCAB
        if "vocab" in table.frame and str(table.frame["vocab"].iloc[0]).strip():
            vocab = int(positive("vocab", str(table.frame["vocab"].iloc[0]), such_as="256"))
        options = of_table(table, vocab, asked.params, asked.tokens)
    assert isinstance(options, Options)
    return options, assembly, prior, flops


def _only(planned: Planned) -> Options:
    """No candidates."""
    import numpy as np

    from analysis.suggest import Candidates
    from lmscale.planning.candidates import Options

    nothing = Candidates(runs=planned.take(np.arange(0)), own_flops=np.empty(0))
    return Options(planned=planned, candidates=nothing, cells=())


def _assembly(args: argparse.Namespace) -> Assembly:
    from lmscale.planning.assemble import assemble
    from lmscale.study.studies import load_study, override

    study = override(load_study(args.runs), args.overrides)
    if study.family == "ngram" or study.further:
        raise InputError(
            "further: every family has a law of its own, and an n-gram's is none of compute; audit one family of "
            "networks, with --further none"
        )
    if len(study.recipes) > 1:
        raise InputError(
            "rate_multipliers: every rate and schedule has a law of its own; audit one, with --rate-multipliers 1"
        )
    return assemble(study, args.out, lambda line: print(line, file=sys.stderr, flush=True))


def _prior(args: argparse.Namespace, assembly: Assembly | None, table: Table | None, *, shared: bool) -> Prior:
    from analysis.deciding import prior as priors
    from analysis.solving.sandwich import Noise

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
        return priors.constants(values, noise, law=args.law or LAW, spread=spread)
    if len(words) > 1:
        raise InputError(f"prior: {' '.join(words)!r} are several; give one name, one table, or NAME=VALUE words")
    if words[0] in priors.PUBLISHED:
        found = priors.published(words[0], noise, spread)
        if args.law not in (None, found.law.name):
            raise InputError(f"law: {args.law!r} is not that of the prior {words[0]}, {found.law.name}; leave law out")
        return found
    try:
        find(words[0], args.out)
    except InputError:
        return priors.published(words[0], noise, spread)  # which says what there is
    return priors.with_noise(_fitted(args, words[0]), sd=sd, shared=share)


def _fitted(args: argparse.Namespace, runs: str) -> Prior:
    """The prior that a table gives; columns and rows are as the command line says where it is the table audited."""
    from analysis.deciding.prior import fitted
    from analysis.fit import fit
    from analysis.table import read

    bootstrap, seed = resamples(args)
    table = table_asked(args) if runs == args.runs else read(find(runs, args.out))
    return fitted(fit(table, args.law or LAW, bootstrap=bootstrap, seed=seed), source=runs)

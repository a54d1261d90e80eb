"""`lmscale optimal --write`: the answer to a budget as a study that `lmscale sweep` takes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale.commands.asked import find

if TYPE_CHECKING:
    from analysis.decision import Decision
    from lmscale.config import Family, Objective, Study
    from lmscale.shapes import Shape


def check_write(args: argparse.Namespace, flops: Sequence[float] | None) -> None:
    """Raises InputError, before anything is computed, where --write cannot be met."""
    if args.write is None:
        return
    if flops is None or len(flops) != 1:
        raise InputError("write: a study is the answer to one budget; give one with --flops C")
    if args.write.suffix != ".py":
        raise InputError(f"write: {str(args.write)!r} is no Python file; give a name such as next.py")
    if args.write.exists():
        raise InputError(f"write: {str(args.write)!r} exists; choose another name, or remove it")


def write_next(args: argparse.Namespace, decision: Decision) -> str:
    """Write the study of the answer; what to do with it."""
    from analysis.words.summary import quantity
    from lmscale.commands.optimal import shape_near
    from lmscale.study.table_family import kind_of
    from lmscale.study.write_study import write_study

    row = decision.served[0] if decision.served else decision.rows[0]
    shape = shape_near(row.params, decision.fit.table)
    if shape is None:
        raise InputError(f"write: the ladder has no shape near N* = {quantity(row.params)}; write the study by hand")
    base, said = _base(args)
    study = _next(base, args.write.stem, shape, row.tokens, *kind_of(decision.fit.table))
    served = f", served {decision.served[0].served_tokens:.3g} tokens" if decision.served else ""
    about = (
        f"The model that lmscale optimal chose for {row.flops:.3g} FLOPs (6ND{served}) from {Path(args.runs).name}.\n\n"
        f"    lmscale sweep {args.write}\n\nOne run, from which no law can be told: "
        f"N* = {quantity(row.params)} parameters, D* = {quantity(row.tokens)} tokens. {said}"
    )
    write_study(args.write, study, about)
    return f"\n{args.write} is a study of it ({said.rstrip('.').lower()}): lmscale plan {args.write}, then sweep"


def _base(args: argparse.Namespace) -> tuple[Study | None, str]:
    """The study that the runs are of, if its file is here, and what to say of it."""
    from lmscale.study.studies import STUDIES, load_study

    name = args.runs if args.runs.endswith(".py") else find(args.runs, args.out).parent.name
    if not args.runs.endswith(".py") and Path(args.runs).is_dir():
        name = Path(args.runs).name
    if name.endswith(".py") or (STUDIES / f"{name}.py").is_file():
        return load_study(name), f"Text and recipe are those of the study {Path(name).stem}."
    return None, "Text and recipe are lmscale's defaults: put yours in."


def _next(base: Study | None, name: str, shape: Shape, tokens: float, family: Family, objective: Objective) -> Study:
    """One run of that family: of the base's recipe and text, if there is one."""
    from lmscale.config import Size, Study

    heads = shape.heads if shape.usual_heads(shape.width) > 1 else None  # an LSTM has none
    size = Size(width=shape.width, depth=shape.depth, heads=heads)
    if base is None:
        return Study(
            name=name,
            family=family,
            objective=objective,
            sizes=(size,),
            tokens=(round(tokens),),
            allow_collinear=True,
        )
    members = [member for member in base.members if (member.family, member.objective) == (family, objective)]
    if not members:
        raise InputError(
            f"write: the runs are of family {family!r} with objective {objective!r}, which the study {base.name!r} "
            "does not train; write the study by hand"
        )
    return replace(
        members[0],
        name=name,
        sizes=(size,),
        tokens=(round(tokens),),
        tokens_per_param=(),
        flops_budgets=(),
        tokens_per_param_range=(),
        flops_max=None,
        target_flops=None,
        seeds=base.seeds[:1],
        only=(),
        allow_collinear=True,
    )

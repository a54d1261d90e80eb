"""The commands `abilities` and `tune-or-prompt`: what scale does to tasks, and when to fine-tune on one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale.commands.asked import add_table_options, find, number, resamples, say, table_asked, write_json

if TYPE_CHECKING:
    from analysis.emergence import Emergence
    from analysis.table import Table

ABOUT = {
    "abilities": "say what scale does to tasks: laws in two stages, kinds of scaling, whether jumps are real",
    "tune-or-prompt": "say from how many labelled examples fine-tuning beats the best few-shot prompt",
}


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    for name, run in (("abilities", abilities), ("tune-or-prompt", tune_or_prompt)):
        parser = subparsers.add_parser(
            name, help=ABOUT[name], description=ABOUT[name][0].upper() + ABOUT[name][1:] + "."
        )
        parser.set_defaults(run=run)
        add_table_options(parser)
        parser.add_argument("--task", metavar="NAME", help="one task (default: all that are scored)")
        text = "the score judged (default: accuracy, else exact_match); of a foreign table also a column"
        parser.add_argument("--metric", metavar="NAME", help=text)
        parser.add_argument("--figures", type=Path, metavar="DIR", help="default: figures/ beside the table")
        if name == "abilities":
            text = "params, tokens, flops (default, as 6ND) or loss"
            parser.add_argument("--against", default="flops", metavar="SCALE", help=text)
            text = "what guessing gets, of all tasks or of some: 0.25, or arc_easy=0.25 piqa=0.5"
            parser.add_argument("--chance", nargs="+", action="extend", default=[], metavar="SHARE", help=text)
            text = "scores of these items, such as shots=4 or split=out (default: without examples, as trained)"
            parser.add_argument("--slice", default="", metavar="FIELD=VALUE", help=text)
            parser.add_argument("--by", metavar="COLUMN", help="answer for each group of this column, such as family")


def abilities(args: argparse.Namespace) -> int:
    from analysis.emergence import emergence
    from analysis.pictures.ability_plots import ability_figures
    from analysis.plots import file_part, save_both
    from analysis.skills.abilities import read_abilities, scale_of
    from analysis.words.emergence_text import emergence_json, emergence_text

    bootstrap, seed = resamples(args)
    path, table = find(args.runs, args.out), table_asked(args)
    scale_of(table, args.against)
    answers: dict[str, Emergence] = {}
    written: dict[str, list[str]] = {}
    chance = chances(args.chance)
    refused: dict[str, str] = {}
    for group, part in groups_of(table, args.by).items():
        try:
            found = read_abilities(path, part, task=args.task, metric=args.metric, part=args.slice, chance=chance)
        except InputError as error:
            if args.by is None:
                raise
            refused[group] = str(error)
            continue
        result = answers[group] = emergence(part, found, against=args.against, bootstrap=bootstrap, seed=seed)
        folder = args.figures or (path if path.is_dir() else path.parent) / "figures"
        files = [
            file
            for name, figure in ability_figures(result).items()
            for file in save_both(figure, folder, "_".join(filter(None, ("ability", group and file_part(group), name))))
        ]
        written[group] = [str(file) for file in files]
        head = [f"{args.by} {group}", ""] if group else []
        say(args, "\n".join([*head, emergence_text(result), "", *written[group], ""]))
    if not answers:
        raise InputError(next(iter(refused.values())))
    if refused:
        say(args, "\n".join(f"{args.by} {group}: no answer; {why}" for group, why in refused.items()))
    if args.json:
        told = {group: {**emergence_json(result), "figures": written[group]} for group, result in answers.items()}
        write_json(args.json, {"by": args.by, "groups": told, "refused": refused} if args.by else told[""])
    return 0


def groups_of(table: Table, by: str | None) -> dict[str, Table]:
    """The table, or each group of a column of it, in the order of their names."""
    from analysis.reading.rows import texts

    if by is None:
        return {"": table}
    labels = texts(table.frame, by).to_numpy(str)
    return {str(name): table.keep(labels == name) for name in sorted({*labels})}


def chances(given: list[str]) -> dict[str, float]:
    """By task; of all under ''. Raises InputError for what is no number."""
    found = {}
    for text in given:
        task, equals, value = text.rpartition("=")
        found[task if equals else ""] = number("chance", value)
    return found


def tune_or_prompt(args: argparse.Namespace) -> int:
    from analysis.pictures.ability_plots import prompting_figure
    from analysis.plots import file_part, save_both
    from analysis.skills.prompting import tune_or_prompt as compare
    from analysis.words.prompting_text import prompting_json, prompting_text

    bootstrap, seed = resamples(args)
    path = find(args.runs, args.out)
    table = table_asked(argparse.Namespace(**{**vars(args), "by": "run_id"}))  # nothing is fitted to several runs
    result = compare(path, table, task=args.task, metric=args.metric, bootstrap=bootstrap, seed=seed)
    folder = args.figures or (path if path.is_dir() else path.parent) / "figures"
    files = save_both(prompting_figure(result), folder, f"tune_or_prompt_{file_part(result.task)}")
    say(args, "\n".join([prompting_text(result), "", *map(str, files)]))
    if args.json:
        write_json(args.json, {**prompting_json(result), "figures": [str(file) for file in files]})
    return 0

"""`lmscale ...`: the command line. Imports nothing heavy; each command (lmscale.commands) does."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from analysis.errors import InputError
from lmscale import FAILURE, INTERRUPTED, USER_ERROR, __version__
from lmscale.commands import answer, aot, design, inference, models, study, text
from lmscale.commands.asked import Place


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or one of those in lmscale/__init__.py."""
    try:
        parser = make_parser()
        args, rest = parser.parse_known_args(arguments)
        if rest and not args.overridable:
            raise InputError(f"argument: {rest[0]!r} is not known to 'lmscale {args.command}'; see its --help")
        args.overrides = rest
        return args.run(args)
    except InputError as error:
        print(f"lmscale: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:  # a full disk, a child that was killed: what is on disk stays sound
        print(f"lmscale: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print("lmscale: interrupted", file=sys.stderr)
        return INTERRUPTED


def command() -> NoReturn:
    """The command as a process of its own. One that loaded jax leaves as soon as all else is done: to take apart what
    XLA has built takes a second of every worker.
    """
    status = FAILURE  # of an exception, as Python has it

    def leave() -> None:
        if "jax" in sys.modules:
            with contextlib.suppress(OSError):  # whoever read it is gone
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    atexit.register(leave)  # the first to be registered is the last to be called
    status = main()
    sys.exit(status)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="lmscale", description="Scaling-law experiments on language models.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"lmscale {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, function, about in (
        ("plan", study.plan, "print the grid of a study, its cost and its time; train nothing"),
        ("prepare", text.prepare, "tokenise a study's text into shards"),
        (
            "contamination",
            text.contamination,
            "say what a study's training text shares with its evaluation sets; train nothing",
        ),
        ("sweep", study.sweep, "train every run of a study that is not done yet"),
        ("run", study.run, "work on a study in this process; a sweep starts several of these"),
        (
            "quantise",
            models.quantise,
            "round the weights of a study's finished runs to a few bits and score them; train nothing",
        ),
        ("aot", aot.aot, "compile a study's steps for TPU slices that are not here; train nothing"),
        ("export", study.export, "rebuild runs.csv, curves.csv and scores.csv from a study's records"),
        ("status", study.status, "say where the sweep of a study stands, from any terminal; train nothing"),
    ):
        command = subparsers.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument("study", help="a study file, or the name of one in ./experiments")
        words = "results: a folder, or a URL such as s3://BUCKET/PATH"
        command.add_argument("--out", action=Place, default=Path("results"), metavar="DIR", help=words)
        command.set_defaults(run=function, overridable=name not in ("export", "status"))
        if name not in ("export", "status"):
            command.epilog = _fields_help()
        if name == "prepare":
            words = "processes that tokenise side by side (default: one a core); the text is the same with any number"
            command.add_argument("--processes", metavar="K", help=words)
        if name in ("plan", "sweep"):
            words = "workers to train in, a model each (default: one a core on a CPU, else one)"
            command.add_argument("--workers", metavar="K", help=words)
        if name == "sweep":
            words = "processes that each worker consists of, which train a model together (default: 1)"
            command.add_argument("--processes", metavar="P", default="1", help=words)
            words = "stop once N* at a budget is known well enough, such as 'N*@1e15 within 25 %%'"
            command.add_argument("--until", metavar="GOAL", help=words)
            words = "start the workers, and leave them running (executor slurm)"
            command.add_argument("--detach", action="store_true", help=words)
        if name == "run":
            words = "processes like this one that share the machine's memory (default 1; a sweep says how many)"
            command.add_argument("--workers", metavar="K", help=words)
        if name in ("sweep", "run"):
            words = "trace the calls that hold these steps of every trajectory, such as 100:110, with jax's profiler"
            command.add_argument("--profile", metavar="FIRST:LAST", help=words)
        if name == "run":
            command.add_argument("--events", action="store_true", help="report as JSON lines")
            words = "the sweep whose attempts are counted together, when it says which trajectories are given up"
            command.add_argument("--sweep", metavar="ID", help=words)
            words = "workers of that sweep, for which the runs are ordered (default: those that share the machine)"
            command.add_argument("--sweep-workers", metavar="K", help=words)
        if name == "plan":
            words = "plan for devices such as H200 instead of this machine's: their memory, and time by their peak"
            command.add_argument("--device", metavar="NAME", help=words)
            words = "share of their peak that steps are taken to reach (default 0.4)"
            command.add_argument("--utilisation", metavar="SHARE", help=words)
            command.add_argument("--no-time", action="store_true", help="skip the calibration that estimates the time")
            command.add_argument("--json", metavar="FILE", help="also write the plan as JSON (- for standard output)")
        if name == "quantise":
            models.add_options(command)
        if name == "aot":
            aot.add_options(command)
        if name == "contamination":
            words = "what grams are made of (default: both, one after the other)"
            command.add_argument("--unit", choices=("words", "bytes"), help=words)
            words = "words or bytes of a gram (default: 13 words, 50 bytes)"
            command.add_argument("--size", metavar="N", help=words)
            words = "write the text without the training documents that overlap (FILE.jsonl or FILE.jsonl.gz)"
            command.add_argument("--write", metavar="FILE", help=words)
        if name in ("status", "contamination"):
            command.add_argument("--json", metavar="FILE", help="also write it as JSON (- for standard output)")
    parser.set_defaults(overridable=False)
    inference.add_parsers(subparsers)
    answer.add_parsers(subparsers)
    design.add_parser(subparsers)
    return parser


def _fields_help() -> str:
    from lmscale.study.studies import fields

    rows = [f"  --{name:<28} {kind:<32} {default}" for name, kind, default in fields()]
    return "any field of the study can be replaced (default of a study that does not say):\n" + "\n".join(rows)


if __name__ == "__main__":
    command()

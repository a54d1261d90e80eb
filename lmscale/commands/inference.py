"""The commands that ask a finished run: generate, score, attention. Each imports what it needs, when it runs."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import InputError
from lmscale.commands.asked import Place, number, say, whole, write_json

if TYPE_CHECKING:
    from lmscale.asking.choices import Scored
    from lmscale.asking.maps import AttentionMap
    from lmscale.inference import Generated, Model

RUN_HELP = "a finished run: its folder or id, or the folder or name of a study, whose largest run is taken"
PAGE = Path("attention.html")


def add_parsers(subparsers: argparse._SubParsersAction) -> None:
    for name, function, about in (
        ("generate", generate, "let a finished run go on from prompts"),
        ("score", score, "say how likely a finished run finds texts, or options for the blank ___ of one"),
        ("attention", attention, "show which words a word of a sentence attends to in a finished run"),
    ):
        parser = subparsers.add_parser(
            name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False
        )
        parser.set_defaults(run=function, overridable=False)
        parser.add_argument("model", metavar="RUN", help=RUN_HELP)
        if name == "generate":
            parser.add_argument("prompts", nargs="+", metavar="PROMPT", help="what it goes on from (___: a blank)")
            parser.add_argument("--max-tokens", metavar="N", help="tokens at most (default 128)")
            text = "0 takes the likeliest token; below 1 likely ones are drawn more often (default 1)"
            parser.add_argument("--temperature", default="1", metavar="T", help=text)
            parser.add_argument("--top-k", metavar="K", help="draw from the K likeliest tokens")
            text = "draw from the fewest tokens that have this share of the probability"
            parser.add_argument("--top-p", metavar="P", help=text)
            parser.add_argument("--seed", default="0", metavar="S", help="of the draws (default 0)")
        if name == "score":
            parser.add_argument("texts", nargs="+", metavar="TEXT", help="whole texts, or one with a blank: ___")
            parser.add_argument("--options", nargs="+", metavar="OPTION", help="what may stand in the blank")
            text = "divide log-probabilities by 1 (none, default), or by the bytes or tokens that count"
            parser.add_argument("--normalise", default="none", metavar="BY", help=text)
        if name == "attention":
            parser.add_argument("sentences", nargs="+", metavar="SENTENCE", help="one, or two to be compared")
            parser.add_argument("--token", required=True, metavar="WORD", help="the word that is asked about")
            text = "which of several such words (default 1, the first)"
            parser.add_argument("--occurrence", default="1", metavar="K", help=text)
            text = "the page to write (default attention.html); the figure is beside it, as .png"
            parser.add_argument("-o", "--output", type=Path, default=PAGE, metavar="FILE.html", help=text)
        text = "results: a folder, or a URL such as s3://BUCKET/PATH"
        parser.add_argument("--out", action=Place, default=Path("results"), metavar="DIR", help=text)
        text = "the SentencePiece model of the run's text, where it is not beside it"
        parser.add_argument("--vocabulary", type=Path, metavar="FILE.model", help=text)
        parser.add_argument("--mesh", default="1,1,1", metavar="D,F,T", help="devices: data,fsdp,tensor (default one)")
        parser.add_argument("--json", metavar="FILE", help="also write the answer as JSON (- for standard output)")


def _load(args: argparse.Namespace) -> Model:
    from lmscale.commands.study import before_jax, need
    from lmscale.config import MeshConfig
    from lmscale.training.allocator import keep_memory

    need("jax", "flax", "orbax")
    try:
        mesh = MeshConfig.from_text(args.mesh)
    except InputError:
        raise
    except ValueError:
        raise InputError(f"mesh: {args.mesh!r} is not three whole numbers; write data,fsdp,tensor as 1,1,1") from None
    # a sweep may be training on the accelerator, which jax would otherwise take most of at once
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    keep_memory()
    before_jax(mesh.devices)
    from lmscale.inference import load_run
    from lmscale.training.compilation import use_cache

    use_cache(lambda line: print(line, file=sys.stderr))
    model = load_run(args.model, args.out, mesh=mesh, vocabulary=args.vocabulary)
    say(args, f"run {model.run}")
    return model


def _warn(line: str | None) -> None:
    if line:
        print(f"note: {line}", file=sys.stderr)


def generate(args: argparse.Namespace) -> int:
    from lmscale.asking.sampling import Sampling

    sampling = Sampling(
        temperature=number("temperature", args.temperature),
        top_k=None if args.top_k is None else whole("top-k", args.top_k),
        top_p=None if args.top_p is None else number("top-p", args.top_p),
        seed=whole("seed", args.seed),
    )
    most = None if args.max_tokens is None else whole("max-tokens", args.max_tokens)
    model = _load(args)
    began = time.monotonic()
    found = model.generate(args.prompts, sampling, max_tokens=most)
    seconds = time.monotonic() - began
    longest = max(model.longest([each.prompt]) + len(each.tokens) for each in found)
    _warn(model.beyond_training(longest))
    for each in found:
        say(args, _generated_text(each))
    tokens = sum(len(each.tokens) for each in found)
    say(args, f"\n{tokens} tokens in {seconds:.1f} s, loading or compiling the program among them")
    if args.json:
        write_json(
            args.json,
            {"run_id": model.run_id, "sampling": vars(sampling), "generated": [vars(each) for each in found]},
        )
    return 0


def _generated_text(each: Generated) -> str:
    end = "ended by itself" if each.ended == "itself" else "cut there"
    nats = f", {-sum(each.log_probs) / len(each.tokens):.3f} nats a token" if each.tokens else ""
    return f"\n--- {each.prompt!r}: {len(each.tokens)} tokens, {end}{nats}\n{each.text}"


def score(args: argparse.Namespace) -> int:
    from lmscale.asking.choices import NORMALISATIONS

    if args.normalise not in NORMALISATIONS:
        raise InputError(f"normalise: {args.normalise!r} is unknown; choose {', '.join(NORMALISATIONS)}")
    if args.options is not None and len(args.texts) > 1:
        raise InputError(f"text: {args.texts[1]!r} is a second one; give one text with options, or no options")
    model = _load(args)
    from lmscale.asking.choices import score_options, score_texts

    _warn(model.beyond_training(model.longest(args.texts) + (model.longest(args.options) if args.options else 0)))
    if args.options is None:
        rows = score_texts(model, args.texts)
    else:
        rows = score_options(model, args.texts[0], args.options, args.normalise)
    say(args, _score_text(rows, model, args))
    if args.json:
        answer = {"run_id": model.run_id, "normalise": args.normalise if args.options else None}
        write_json(args.json, {**answer, "rows": [{**vars(row), "nats_per_byte": row.nats_per_byte} for row in rows]})
    return 0


def _score_text(rows: list[Scored], model: Model, args: argparse.Namespace) -> str:
    order = sorted(rows, key=lambda row: -(row.share or 0))
    name = "option" if args.options else "text"
    wide = max(len(name), *(len(_short(row.text)) for row in rows))
    share = f"{'%':>7}" if args.options else ""
    lines = [f"{name:<{wide}}{share}{'nats':>10}{'tokens':>8}{'bytes':>7}{'nats/byte':>11}"]
    for row in order:
        percent = "" if row.share is None else f"{100 * row.share:>7.1f}"
        line = f"{_short(row.text):<{wide}}{percent}{row.nats:>10.3f}{row.tokens:>8}{row.bytes:>7}"
        lines.append(f"{line}{row.nats_per_byte:>11.3f}")
    lines.append("")
    if model.objective in ("masked", "spans"):
        lines.append("What counts is the filling, with both sides in sight." * bool(args.options))
    elif args.options:
        lines.append("What counts is the option and the text after it, given the text before.")
        from lmscale.inference import BLANK

        after = args.texts[0].split(BLANK)[1]
        if any(row.bytes > len((row.text + after).encode()) for row in rows):
            lines.append("A token reaches over the beginning of the blank: of every option the text counts from there.")
    elif model.objective == "pairs":
        lines.append("What counts is the target, given the source before its tab.")
    if model.objective == "masked":
        lines.append("A masked model's log-probability is a pseudo-likelihood: each token with all others in sight.")
    if args.options:
        by = {"none": "not divided by length", "bytes": "divided by bytes", "tokens": "divided by tokens"}
        lines.append(f"Shares are of these options alone; log-probabilities are {by[args.normalise]}.")
        if args.normalise == "none" and len({row.tokens for row in rows}) > 1:
            lines.append("The options are of different lengths: --normalise bytes or tokens compares them per length.")
    return "\n".join(line for line in lines if line) if not args.options else "\n".join(lines)


def _short(text: str) -> str:
    shown = repr(text)[1:-1]
    return shown if len(shown) <= 60 else shown[:57] + "..."


def attention(args: argparse.Namespace) -> int:
    if len(args.sentences) > 2:
        raise InputError(f"sentence: {len(args.sentences)} are given; give one, or two to be compared")
    occurrence = whole("occurrence", args.occurrence)
    if args.output.suffix not in (".html", ".htm"):
        raise InputError(f"output: {str(args.output)!r} is no page; name it FILE.html")
    model = _load(args)
    from lmscale.asking.attention_page import draw, write_page
    from lmscale.asking.maps import attention_map

    maps = [attention_map(model, text, args.token, occurrence) for text in args.sentences]
    for each in maps:
        _warn(model.beyond_training(model.longest([each.text])))
        if each.occurrences > 1:
            _warn(f"{args.token!r} stands {each.occurrences} times in {each.text!r}; this is number {occurrence}")
    figure = args.output.with_suffix(".png")
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_page(args.output, str(model.run), maps)
        draw(figure, str(model.run), maps)
    except OSError as error:
        raise InputError(f"output: {str(args.output)!r} cannot be written ({error.strerror}); choose another") from None
    say(args, _attention_text(maps))
    say(args, f"\n{args.output} and {figure} have every layer and head")
    if args.json:
        told = [{**vars(each), "weights": each.weights.tolist(), "mean": each.mean.tolist()} for each in maps]
        write_json(args.json, {"run_id": model.run_id, "token": args.token, "maps": told})
    return 0


def _attention_text(maps: list[AttentionMap]) -> str:
    """The mean over layers and heads, in percent; of two sentences with how it moves."""
    from lmscale.asking.maps import moves, unmoved

    head = f"attention from {maps[0].words[maps[0].token]!r}, mean over layers and heads, in percent"
    wide = max(6, *(len(word) for each in maps for word in each.words))
    if len(maps) == 1:
        rows = [f"{w:<{wide}}{100 * s:>7.1f}" for w, s in zip(maps[0].words, maps[0].mean.tolist(), strict=True)]
        return "\n".join([head, *rows])
    lines = [head, f"{'':<{wide}}{'first':>7}{'second':>8}{'change':>8}"]
    for move in moves(*maps):
        cells = ("" if share is None else f"{100 * share:.1f}" for share in (move.first, move.second))
        first, second = cells
        change = "" if move.change is None else f"{100 * move.change:+.1f}"
        lines.append(f"{move.word:<{wide}}{first:>7}{second:>8}{change:>8}")
    if unmoved(*maps):
        lines.append("the same in both: the model reads from left to right, and they differ only after the word")
    return "\n".join(lines)

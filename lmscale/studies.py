"""Studies by name or path, and their fields from the command line. Imports no framework."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import math
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from analysis.errors import InputError
from lmscale.config import MeshConfig, Size, Study

STUDIES = Path("experiments")


def load_study(name: str) -> Study:
    """The STUDY of a Python file given by path, or by name in ./experiments. Raises InputError if there is none."""
    path = Path(name) if name.endswith(".py") else STUDIES / f"{name}.py"
    if not path.is_file():
        known = sorted(p.stem for p in STUDIES.glob("*.py"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        there = ", ".join(known) if known else f"no folder {STUDIES}/ here"
        raise InputError(f"study: {name!r} is neither a .py file nor a study in {STUDIES}/; {hint}known: {there}")
    specification = importlib.util.spec_from_file_location(f"lmscale_study_{path.stem}", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    try:
        specification.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())
        raise InputError(
            f"study: {str(path)!r} cannot be run ({type(error).__name__}: {message}); mend the file"
        ) from None
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise InputError(f"study: {str(path)!r} holds no STUDY = Study(...); add one (see experiments/quickstart.py)")
    return study


def override(study: Study, arguments: Sequence[str]) -> Study:
    """The study with fields replaced by `--field value ...` arguments, such as `--recipe.sequence 256`.

    Sizes are written 64x2 or 64x2x4 (width, depth, heads), a mesh 2,2,2; counts may be written 1e6. Raises InputError
    naming the field, the value and what it takes.
    """
    changes: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            changes.append((name.replace("-", "_"), [value] if equals else []))
        elif not changes:
            raise InputError(f"argument: {argument!r} is not expected here; fields are written --field value")
        else:
            changes[-1][1].append(argument)
    for name, values in changes:
        study = _replace(study, name.split("."), values, name)
    return study


def fields(kind: type = Study, prefix: str = "") -> list[tuple[str, str, str]]:
    """(field, type, default) of everything that can be overridden, for the help text."""
    rows = []
    hints = get_type_hints(kind)
    for f in dataclasses.fields(kind):
        hint = hints[f.name]
        default = f.default if f.default is not dataclasses.MISSING else None
        if dataclasses.is_dataclass(hint) and hint is not MeshConfig:
            rows += fields(hint, f"{prefix}{f.name}.")  # type: ignore[arg-type]
        else:
            rows.append((prefix + f.name.replace("_", "-"), describe(hint), "" if default is None else str(default)))
    return rows


def _replace(value: Any, path: list[str], texts: list[str], name: str) -> Any:
    hints = get_type_hints(type(value))
    head, rest = path[0], path[1:]
    if head not in hints:
        _unknown(name, hints)
    if rest:
        inner = getattr(value, head)
        if not dataclasses.is_dataclass(inner):
            raise InputError(f"{name}: unknown field ({head} has no parts); drop '.{'.'.join(rest)}'")
        return dataclasses.replace(value, **{head: _replace(inner, rest, texts, name)})
    kind = hints[head]
    if not texts:
        raise InputError(f"{name}: no value given; it takes {describe(kind)}")
    try:
        parsed = parse(kind, texts)
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{name}: {' '.join(texts)!r} is not {describe(kind)}; give such a value") from None
    return dataclasses.replace(value, **{head: parsed})


def _unknown(name: str, hints: dict[str, Any]) -> typing.NoReturn:
    everything = [row[0].replace("-", "_") for row in fields()]
    near = difflib.get_close_matches(name, everything, n=1, cutoff=0.5) or difflib.get_close_matches(
        name.rpartition(".")[2], list(hints), n=1
    )
    hint = f"did you mean --{near[0].replace('_', '-')}? " if near else ""
    raise InputError(f"{name}: unknown field of the study; {hint}fields: {', '.join(hints)}")


def parse(kind: Any, texts: list[str]) -> Any:
    """Text to a field's type. Raises ValueError if it does not fit."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        if texts == ["none"]:
            return None
        return parse(next(a for a in get_args(kind) if a is not type(None)), texts)
    if get_origin(kind) is tuple:
        items = [item for text in texts for item in text.split(",")]
        return tuple(parse(get_args(kind)[0], [item]) for item in items)
    if len(texts) != 1:
        raise ValueError
    text = texts[0]
    if get_origin(kind) is typing.Literal:
        if text not in get_args(kind):
            raise ValueError
        return text
    if kind is bool:
        return {"true": True, "false": False}[text] if text in ("true", "false") else _fail()
    if kind is int:
        number = float(text)
        return int(number) if math.isfinite(number) and number == int(number) else _fail()
    if kind is float:
        number = float(text)
        return number if math.isfinite(number) else _fail()
    if kind is Size:
        parts = [int(part) for part in text.split("x")]
        return Size(**dict(zip(("width", "depth", "heads"), parts, strict=False))) if len(parts) <= 3 else _fail()
    if kind is MeshConfig:
        data, fsdp, tensor = (int(part) for part in text.split(","))
        return MeshConfig(data=data, fsdp=fsdp, tensor=tensor)
    if kind is str:
        return text
    raise ValueError


def _fail() -> typing.NoReturn:
    raise ValueError


def describe(kind: Any) -> str:
    """What a field takes, in words."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join("none" if a is type(None) else describe(a) for a in get_args(kind))
    if get_origin(kind) is tuple:
        return f"{describe(get_args(kind)[0])}, one or more"
    if get_origin(kind) is typing.Literal:
        return " or ".join(get_args(kind))
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Size: "a size such as 64x2",
        MeshConfig: "a mesh such as 2,2,2",
    }
    return words[kind] if kind in words else f"given by its parts, such as .{dataclasses.fields(kind)[0].name}"

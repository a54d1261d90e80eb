"""Studies by name or path, and their fields from the command line. Imports no framework."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from analysis.errors import InputError
from lmscale.config import Size, Study
from lmscale.study.typed import describe, hints_of, parse, parts_of

STUDIES = Path("experiments")


def load_study(name: str) -> Study:
    """The STUDY of a Python file given by path, or by name in ./experiments. Raises InputError if there is none."""
    path = Path(name) if name.endswith(".py") else STUDIES / f"{name}.py"
    if not path.is_file():
        known = sorted(p.stem for p in STUDIES.glob("*.py"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        there = ", ".join(known) if known else f"no folder {STUDIES}/ here"
        raise InputError(
            f"study: {name!r} is neither a .py file nor a study in {STUDIES}/; {hint}known: {there} (the study comes "
            "first, its fields after it)"
        )
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


def results_name(study: str) -> str:
    """The name under which a study keeps its results, given as a file, or by its name."""
    return load_study(study).name if study.endswith(".py") else study


def override(study: Study, arguments: Sequence[str]) -> Study:
    """The study with fields replaced by `--field value ...` arguments, such as `--recipe.sequence 256`, all at once.

    Raises InputError naming the field, the value and what it takes.
    """
    changes: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            name, equals, value = argument[2:].partition("=")
            changes.append((name.replace("-", "_"), [value] if equals else []))
        elif not changes:
            raise InputError(f"argument: {argument!r} is not expected here; fields are written --field value")
        else:
            changes[-1][1].append(argument)
    tree: dict[str, Any] = {}
    for name, texts in changes:
        branch = tree
        for part in name.split(".")[:-1]:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise InputError(f"{name}: is given twice in different ways; give it once")
        branch[name.split(".")[-1]] = texts
    return _apply(study, tree, "")


def _apply(value: Any, tree: dict[str, Any], prefix: str) -> Any:
    """A dataclass with the changes of a tree of texts; it is built once, so their order does not matter."""
    hints, changes = hints_of(type(value)), {}
    for name, texts in tree.items():
        path = prefix + name
        if name not in hints:
            _unknown(path, [n for n in hints if n != "WORDS"])
        kind, current = hints[name], getattr(value, name)
        if isinstance(texts, dict):
            if current is None and (kind_of_parts := parts_of(kind)):
                current = kind_of_parts()  # its parts are given, and with them it is
            if not dataclasses.is_dataclass(current):
                raise InputError(f"{path}: has no parts such as .{next(iter(texts))}; it takes {describe(kind)}")
            changes[name] = _apply(current, texts, f"{path}.")
        elif not texts:
            raise InputError(f"{path}: no value given; it takes {describe(kind)}")
        elif (parts := parts_of(kind)) and (parts is kind or texts != ["none"]):
            first = dataclasses.fields(parts)[0].name.replace("_", "-")
            raise InputError(
                f"{path}: {' '.join(texts)!r} is not expected, for it has parts: --{path}.{first} and others"
            )
        else:
            try:
                changes[name] = parse(kind, texts)
            except InputError:
                raise
            except (ValueError, TypeError):
                raise InputError(f"{path}: {' '.join(texts)!r} is not {describe(kind)}; give such a value") from None
    try:
        return dataclasses.replace(value, **changes)
    except InputError as error:
        raise InputError(re.sub(r"^rule\.", prefix, str(error))) from None  # a rule does not know whose it is


def fields(default: Any = None, prefix: str = "") -> list[tuple[str, str, str]]:
    """(field, what it takes, default) of everything that can be overridden, for the help text."""
    default = default or Study(name="study", sizes=(Size(width=64),), tokens=(1_000_000,))
    rows = []
    hints = hints_of(type(default))
    for f in dataclasses.fields(default):
        kind, value = hints[f.name], getattr(default, f.name)
        if parts := parts_of(kind):
            rows += fields(value if value is not None else parts(), f"{prefix}{f.name}.")
        else:
            shown = "" if not prefix and f.name in ("name", "sizes", "tokens") else _words(value)
            rows.append(((prefix + f.name).replace("_", "-"), describe(kind), shown))
    return rows


def _words(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple):
        return " ".join(_words(item) for item in value) or "none given"
    if isinstance(value, dict):
        return " ".join(f"{name}={_words(item)}" for name, item in value.items()) or "none given"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _unknown(name: str, known: list[str]) -> NoReturn:
    everything = [row[0].replace("-", "_") for row in fields()]
    near = difflib.get_close_matches(name, everything, n=1, cutoff=0.5) or difflib.get_close_matches(
        name.rpartition(".")[2], known, n=1
    )
    hint = f"did you mean --{near[0].replace('_', '-')}? " if near else ""
    raise InputError(f"{name}: unknown field of the study; {hint}fields: {', '.join(known)}")

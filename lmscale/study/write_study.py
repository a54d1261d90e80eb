"""A study as the text of a file that `lmscale sweep` takes. Imports no framework."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from analysis.errors import InputError
from lmscale.config import Study
from lmscale.store.files import write_atomic

WIDTH = 120
INDENT = 4


def study_text(study: Study, about: str) -> str:
    """A Python file that holds the study: `about` as its docstring, and every field that is not as it is by default."""
    used: set[str] = set()
    written = _written(study, used, 0, len("STUDY = "))
    names = ", ".join(sorted(used))
    imports = f"from lmscale.config import {names}"
    if len(imports) > WIDTH:
        imports = "from lmscale.config import (\n" + "".join(f"    {name},\n" for name in sorted(used)) + ")"
    # a docstring of any words: no quote or backslash of theirs ends it
    words = about.strip().replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    words = words[:-1] + '\\"' if words.endswith('"') else words
    end = "\n" if "\n" in words else ""
    return f'"""{words}{end}"""\n\n{imports}\n\nSTUDY = {written}\n'


def write_study(path: Path, study: Study, about: str) -> None:
    """Write it to a new file. Raises InputError where that is no .py, is there already, or cannot be written."""
    if path.suffix != ".py":
        raise InputError(f"write: {str(path)!r} is no name of a study's file; end it in .py")
    if path.exists():
        raise InputError(f"write: {str(path)!r} is there already; choose another name, or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, study_text(study, about))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"write: {str(path)!r} cannot be written ({why}); choose another place") from None


def _written(value: Any, used: set[str], indent: int, before: int) -> str:
    """An expression for a value, on one line where it fits behind `before` characters, else a line a part."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = type(value).__name__
        used.add(name)
        parts = [(f"{f.name}=", getattr(value, f.name)) for f in dataclasses.fields(value) if not _usual(f, value)]
        opening, closing = f"{name}(", ")"
    elif isinstance(value, tuple):
        parts, opening = [("", item) for item in value], "("
        closing = ",)" if len(value) == 1 else ")"
    elif isinstance(value, dict):
        parts, opening, closing = [(f"{key!r}: ", item) for key, item in value.items()], "{", "}"
    else:
        return _plain(value)
    line = opening + ", ".join(head + _written(part, used, 0, -(10**9)) for head, part in parts) + closing
    if indent + before + len(line) < WIDTH or not parts:
        return line
    inner = indent + INDENT
    lines = [f"{' ' * inner}{head}{_written(part, used, inner, len(head))},\n" for head, part in parts]
    return f"{opening}\n{''.join(lines)}{' ' * indent}{closing[-1]}"


def _plain(value: Any) -> str:
    """A number or a text as a person would write it, equal to the value when it is read."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}"
    short = f"{value:.12g}".replace("e+", "e") if isinstance(value, float) and abs(value) >= 1e6 else ""
    if short and float(short) == value:
        return short if "e" in short else f"{short}.0"
    text = repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and text[0] == "'" and '"' not in value else text


def _usual(field: dataclasses.Field[Any], owner: Any) -> bool:
    """Whether a field is as it is where nothing is said."""
    value = getattr(owner, field.name)
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False

"""A study as the Python file that makes it, with what is not a default written out. Imports no framework."""

from __future__ import annotations

import dataclasses
from typing import Any

from lmscale import config
from lmscale.config import Study

WIDTH = 100


def study_source(study: Study, docstring: str) -> str:
    """Python source of a file that `lmscale sweep` takes; executed, it gives the same study."""
    body = _source(study, 0)
    imports: dict[str, set[str]] = {}
    for kind in _kinds(study):
        home = "lmscale.config" if getattr(config, kind.__name__, None) is kind else kind.__module__
        imports.setdefault(home, set()).add(kind.__name__)
    lines = [f"from {home} import {', '.join(sorted(names))}" for home, names in sorted(imports.items())]
    said = docstring.replace("\\", "\\\\").replace('"""', "'''")
    return f'"""{said}\n"""\n\n' + "\n".join(lines) + f"\n\nSTUDY = {body}\n"


def _changed(value: Any) -> list[tuple[str, Any]]:
    """Fields that are not at their default."""
    changed = []
    for field in dataclasses.fields(value):
        given = getattr(value, field.name)
        if field.default_factory is not dataclasses.MISSING:
            default: Any = field.default_factory()
        else:
            default = field.default
        if default is dataclasses.MISSING or given != default:
            changed.append((field.name, given))
    return changed


def _source(value: Any, indent: int) -> str:
    """An expression; one that does not fit a line has an argument a line."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [f"{name}={_source(given, indent + 1)}" for name, given in _changed(value)]
        head, tail = f"{type(value).__name__}(", ")"
    elif isinstance(value, tuple):
        parts = [_source(item, indent + 1) for item in value]
        head, tail = "(", ",)" if len(parts) == 1 else ")"
    else:
        return repr(value)
    line = head + ", ".join(parts) + tail
    if 4 * indent + len(line) <= WIDTH and "\n" not in line:
        return line
    pad = "    " * (indent + 1)
    return head + "\n" + "".join(f"{pad}{part},\n" for part in parts) + "    " * indent + ")"


def _kinds(value: Any) -> set[type]:
    """The dataclasses that the source names."""
    if isinstance(value, tuple):
        return set().union(*(_kinds(item) for item in value)) if value else set()
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return set()
    return {type(value)}.union(*(_kinds(given) for _, given in _changed(value)))

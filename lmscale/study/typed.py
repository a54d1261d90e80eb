"""Fields of a configuration: checked against their annotations, read from text, described in words."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from analysis.errors import InputError


def check(condition: bool, field_name: str, value: object, mend: str) -> None:
    """Raises InputError naming the field, its value and what to do, unless `condition` holds."""
    if not condition:
        raise InputError(f"{field_name}: {value!r} {mend}")


@cache
def hints_of(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass."""
    return get_type_hints(kind)


def normalise(instance: Any, prefix: str = "") -> None:
    """Holds a frozen dataclass to its annotations, in its __post_init__.

    1e6 becomes an int where one is asked, a list a tuple; anything else that is not of the annotated type, or not
    finite, raises InputError.
    """
    hints = hints_of(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        try:
            fitted = fit(hints[field.name], value)
        except ValueError:
            name = prefix + field.name
            raise InputError(f"{name}: {value!r} is not {describe(hints[field.name])}; give such a value") from None
        object.__setattr__(instance, field.name, fitted)


def fit(kind: Any, value: Any) -> Any:
    """The value as its annotated type has it. Raises ValueError if it is not of that type."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        return None if value is None else fit(_inner(kind), value)
    if get_origin(kind) is tuple:
        if not isinstance(value, tuple | list):
            raise ValueError
        return tuple(fit(get_args(kind)[0], item) for item in value)
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ValueError
        each, other = get_args(kind)
        return {fit(each, name): fit(other, item) for name, item in value.items()}
    if get_origin(kind) is typing.Literal:
        good = value in get_args(kind)
    elif kind is bool:
        good = isinstance(value, bool)
    elif kind in (int, float):
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        good = good and (kind is float or value == int(value))
        value = kind(value) if good else value
    else:
        good = isinstance(value, kind)
    if not good:
        raise ValueError
    return value


def parse(kind: Any, texts: list[str]) -> Any:
    """Words of a command line to a field's type, which may have a `from_text`. Raises ValueError if they do not fit."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        return None if texts == ["none"] else parse(_inner(kind), texts)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if texts == ["none"] and item is not str:
            return ()
        # file names may hold commas
        words = texts if item is str else [word for text in texts for word in text.split(",")]
        return tuple(parse(item, [word]) for word in words)
    if get_origin(kind) is dict:
        pairs = [text.partition("=") for text in texts if texts != ["none"]]
        if not all(name and equals for name, equals, _ in pairs):
            raise ValueError
        return {name: value for name, _, value in pairs}
    if len(texts) != 1:
        raise ValueError
    text = texts[0]
    if hasattr(kind, "from_text"):
        return kind.from_text(text)
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError
        return text == "true"
    return fit(kind, float(text) if kind in (int, float) else text)


def build(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A dataclass from what `dataclasses.asdict`, and JSON, made of it."""
    made = dict(values)
    for name, hint in hints_of(kind).items():
        inner = _inner(hint) if get_origin(hint) in (typing.Union, types.UnionType) else hint
        if isinstance(inner, type) and dataclasses.is_dataclass(inner) and isinstance(made.get(name), dict):
            made[name] = build(inner, made[name])
    return kind(**made)


def parts_of(kind: Any) -> type[Any] | None:
    """The dataclass whose fields a field has as its parts, also where it may be none; None if it has no parts."""
    inner = _inner(kind) if get_origin(kind) in (typing.Union, types.UnionType) else kind
    held = isinstance(inner, type) and dataclasses.is_dataclass(inner) and not hasattr(inner, "from_text")
    return inner if held else None


def describe(kind: Any) -> str:
    """What a field takes, in words."""
    if get_origin(kind) in (typing.Union, types.UnionType):
        return f"{describe(_inner(kind))} or none"
    if get_origin(kind) is tuple:
        return f"{describe(get_args(kind)[0])}, one or more"
    if get_origin(kind) is dict:
        return "NAME=VALUE, one or more"
    if get_origin(kind) is typing.Literal:
        return " or ".join(get_args(kind))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words[kind] if kind in words else getattr(kind, "WORDS", f"a {kind.__name__}")


def _inner(kind: Any) -> Any:
    return next(a for a in get_args(kind) if a is not type(None))

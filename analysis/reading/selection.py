"""Which rows of a table are wanted: conditions such as `seed=0`, `status!=failed`, `params<1e9`."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import InputError
from analysis.reading.rows import chosen, listed, numbers, texts

Where = Mapping[str, Any] | Sequence[str]

SIGN = re.compile(r"==|!=|<=|>=|=|<|>")
ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def select(frame: pd.DataFrame, where: Where | None, named: Mapping[str, str], source: str) -> pd.DataFrame:
    """The rows that meet every condition.

    where: a mapping from column to the value it must have, or texts `NAME=VALUE`, `NAME!=VALUE`, `NAME<VALUE`, `<=`,
    `>`, `>=`. Equality is that of the text or of the number; the order is that of numbers, and a cell that is none
    fails it. named gives our name for a column of the file that goes by it now.
    Raises InputError for a text that is no condition, a column that is not there, and a condition that keeps no row.
    """
    if isinstance(where, str):
        where = [where]
    if isinstance(where, Mapping):
        conditions = [(str(name), "=", str(value)) for name, value in where.items()]
    else:
        conditions = [_parse(text, {*map(str, frame.columns), *named}) for text in where or ()]
    for name, sign, value in conditions:
        column = name if name in frame else named.get(name)
        if column is None or column not in frame:
            found = listed(dict.fromkeys([*named, *map(str, frame.columns[1:])]))
            raise InputError(f"where: {name}{sign}{value} names no column of {source}; found {found}")
        keep = _meets(frame, column, sign, value)
        if not keep.any():
            held = listed(sorted(texts(frame, column).unique()))
            raise InputError(f"where: {name}{sign}{value} keeps no row; {name} holds {held}; choose one of these")
        frame = chosen(frame, keep)
    return frame


def _parse(text: str, columns: set[str]) -> tuple[str, str, str]:
    """Name, sign and value; the name may hold a sign itself if it is a column's."""
    splits = [(text[: m.start()].strip(), m[0], text[m.end() :].strip()) for m in SIGN.finditer(text)]
    splits = [(name, "=" if sign == "==" else sign, value) for name, sign, value in splits if name and value]
    if not splits:
        raise InputError(f"where: {text!r} is not NAME=VALUE; write one condition, such as seed=0 or 'params<1e9'")
    return next((split for split in splits if split[0] in columns), splits[0])


def _meets(frame: pd.DataFrame, column: str, sign: str, value: str) -> NDArray[np.bool_]:
    try:
        number = float(value)
    except ValueError:
        number = None
    if sign in ORDER:
        if number is None:
            raise InputError(f"where: {column}{sign}{value} orders by no number; give one such as {column}{sign}1e9")
        return ORDER[sign](numbers(frame, column), number)
    equal = np.array(texts(frame, column) == value, bool)
    if number is not None:
        equal |= numbers(frame, column) == number
    return equal if sign == "=" else ~equal

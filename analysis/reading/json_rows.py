"""JSON as rows of a table: objects flattened with dots, columns typed, hostile nesting refused."""

import ast
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from analysis.errors import InputError
from analysis.reading.excluded import ExcludedRows
from analysis.reading.limits import MAX_BYTES, MAX_CELLS, MAX_COLUMNS, MAX_DEPTH, MAX_ROW_BYTES, too_many

NOT_AN_OBJECT = "not a JSON object; write one object a row"


class Columns:
    """Rows of named values gathered column by column."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.rows: list[int] = []
        self._cells: dict[str, list[Any]] = {}
        self._first: dict[str, int] = {}  # what stands before a column's first cell is not held
        self._names: tuple[str, ...] = ()  # of the last record: most have the same
        self._appends: list[Callable[[Any], None]] = []

    def add(self, row: int, record: dict[str, Any]) -> None:
        """Append a flat record. Raises InputError for more columns or cells than a table may have."""
        names = tuple(record)
        if names != self._names:
            count = len(self.rows)
            for name in names:
                cells, first = self._cells.setdefault(name, []), self._first.setdefault(name, count)
                cells += [None] * (count - first - len(cells))
            self._names, self._appends = names, [self._cells[name].append for name in names]
            if len(self._cells) > MAX_COLUMNS:
                raise too_many(self.source, f"more than {MAX_COLUMNS:,} columns")
        for append, value in zip(self._appends, record.values(), strict=True):
            append(value)
        self.rows.append(row)
        if len(self.rows) * max(len(self._cells), 1) > MAX_CELLS:
            raise too_many(self.source, f"more than {MAX_CELLS:,} cells")

    def frame(self) -> pd.DataFrame:
        count = len(self.rows)
        columns = {}
        for name, cells in self._cells.items():
            before = [None] * self._first[name]
            columns[name] = _typed(before + cells + [None] * (count - len(before) - len(cells)))
        return pd.DataFrame(columns, index=range(count), copy=False)


def read_lines(stream: BinaryIO, source: str) -> tuple[pd.DataFrame, list[int], ExcludedRows]:
    """JSON lines: the rows, the line number of each, and the lines that are no object, such as one cut short."""
    columns, excluded = Columns(source), ExcludedRows()
    torn: dict[str, tuple[list[int], list[str]]] = {}
    number = size = 0
    while line := stream.readline(MAX_ROW_BYTES + 1):
        number, size = number + 1, size + len(line)
        if len(line) > MAX_ROW_BYTES:
            raise too_many(source, f"line {number} longer than {MAX_ROW_BYTES / 1e6:.0f} MB")
        if size > MAX_BYTES:
            raise too_many(source, f"more than {MAX_BYTES / 1e6:.0f} MB")
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        if not text:
            continue
        try:
            record = flat(_DECODER.decode(text))
        except (ValueError, RecursionError):
            cut = not line.endswith(b"\n")
            reason = "the file ends inside this line: it is cut short" if cut else NOT_AN_OBJECT
            rows, values = torn.setdefault(reason, ([], []))
            rows.append(number)
            values.append(text[:80])
        else:
            columns.add(number, record)
    for reason, (rows, values) in torn.items():
        excluded.add(np.array(rows, np.int64), "line", values, reason)
    return columns.frame(), columns.rows, excluded


def read_array(text: str, source: str) -> tuple[pd.DataFrame, list[int]]:
    """A JSON array of objects, each decoded by itself; rows count from 1.

    Raises InputError for anything else, an array cut short included.
    """
    columns = Columns(source)
    try:
        for number, record in enumerate(_elements(text), 1):
            columns.add(number, flat(record))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        where = f"element {len(columns.rows) + 1}: {str(error)[:80] or 'nested too deeply'}"
        raise InputError(f"runs: {source!r} is no whole JSON array of objects ({where}); mend or rewrite it") from None
    return columns.frame(), columns.rows


def _elements(text: str) -> Iterator[Any]:
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        raise ValueError("it does not begin with [")
    at = _skip(text, at + 1)
    more = text[at : at + 1] != "]"
    while more:
        if text[at : at + 1] != "{":
            raise ValueError("not an object")
        value, at = _DECODER.raw_decode(text, at)
        yield value
        at = _skip(text, at)
        more = text[at : at + 1] == ","
        if more:
            at = _skip(text, at + 1)
    if text[at : at + 1] != "]" or _skip(text, at + 1) != len(text):
        raise ValueError("it does not end with ]")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def flat(value: Any) -> dict[str, Any]:
    """A nested object as one level, names joined by dots; lists as their JSON text.

    `{"value": v, "desc": ...}`, as Weights & Biases writes a setting, is v. Raises ValueError for what is no object, is
    nested too deeply or gives one name twice.
    """
    if not isinstance(value, dict):
        raise ValueError("not an object")
    if not any(type(cell) is dict or type(cell) is list for cell in value.values()):
        return value
    out: dict[str, Any] = {}
    _flatten(value, "", 0, out)
    return out


def _flatten(value: dict[Any, Any], prefix: str, depth: int, out: dict[str, Any]) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    for key, cell in value.items():
        name = f"{prefix}{key}"
        if isinstance(cell, dict):
            if "value" in cell and cell.keys() <= {"value", "desc"}:
                cell = cell["value"]
            if isinstance(cell, dict):
                _flatten(cell, f"{name}.", depth + 1, out)
                continue
        if name in out:
            raise ValueError(f"{name!r} stands twice")
        out[name] = json.dumps(cell) if isinstance(cell, list) else cell


def literal(text: str) -> dict[str, Any]:
    """A dict written as JSON or as Python prints it (`nan` and `inf` included), flattened; nothing is executed.

    Raises ValueError for anything else.
    """
    try:
        return flat(_DECODER.decode(text))
    except (ValueError, RecursionError):
        pass
    try:
        tree = _Numbers().visit(ast.parse(text.strip(), mode="eval"))
        return flat(ast.literal_eval(tree))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(str(error)[:80]) from None


class _Numbers(ast.NodeTransformer):
    """repr() of a dict writes nan and inf as names, which ast.literal_eval does not know."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in ("nan", "inf", "NaN", "Infinity"):
            return ast.copy_location(ast.Constant(float(node.id)), node)
        return node


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("one name stands twice")
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _typed(cells: list[Any]) -> Any:
    """Numbers as int64 or float64 where every cell is one (or missing), otherwise text."""
    kinds = set(map(type, cells))
    try:
        if kinds == {int}:
            return np.array(cells, np.int64)
        if kinds and kinds <= {int, float, type(None)}:
            return np.array([np.nan if cell is None else float(cell) for cell in cells], np.float64)
    except OverflowError:
        pass
    return pd.Series(["" if cell is None else str(cell) for cell in cells], dtype=str)

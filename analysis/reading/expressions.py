"""Arithmetic over the columns of a table, such as `N*1e6` or `6*N*D`: a walk over the syntax tree, nothing executed."""

import ast
import re
from collections.abc import Callable

import numpy as np

from analysis.errors import InputError
from analysis.laws import Array

MOST_CHARACTERS = 1_000
MOST_DEPTH = 64  # operators inside operators; a sum of 60 columns is one
SHOWN = 60  # characters of what is refused
OPERATORS: dict[type[ast.operator], Callable[[Array, Array], Array]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
FUNCTIONS: dict[str, Callable[[Array], Array]] = {"log": np.log, "exp": np.exp, "sqrt": np.sqrt}
GRAMMAR = "use + - * / ** ( ), numbers, log, exp, sqrt and columns, those with spaces or dots in backquotes"


def evaluate(text: str, column: Callable[[str], Array | None], *, option: str) -> Array:
    """The value of an expression, in float64; its shape is that of its columns, or () where it names none.

    column gives a column's numbers [n], or None where the table has none of that name. What is no number comes out as
    NaN or infinity, which the table's checks then find. `log` is natural. option names the expression in errors.
    Raises InputError, at once, for anything but arithmetic: other calls, attributes, texts, very long or deep texts.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"{option}: {text[:20]!r}... has {len(text):,} characters; give at most {MOST_CHARACTERS:,}")
    quoted: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        name = f"_quoted{len(quoted)}_"
        quoted[name] = match[1]
        return f" {name} "

    try:
        tree = ast.parse(re.sub(r"`([^`\n]+)`", placeholder, text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"{option}: {text!r} is no arithmetic expression; {GRAMMAR}") from None

    def value(node: ast.expr, depth: int) -> Array:
        if depth > MOST_DEPTH:
            raise InputError(f"{option}: {text[:20]!r}... is nested deeper than {MOST_DEPTH}; write it more simply")
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                try:
                    return np.asarray(float(number))
                except OverflowError:
                    return np.asarray(np.inf)
            case ast.Name(id=name):
                name = quoted.get(name, name)
                cells = column(name)
                if cells is None:
                    raise InputError(f"{option}: {text!r} names no column {name!r} of the table; {GRAMMAR}")
                return cells
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left, depth + 1), value(right, depth + 1))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand, depth + 1)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return value(operand, depth + 1)
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](value(argument, depth + 1))
        raise InputError(f"{option}: {ast.unparse(node)[:SHOWN]!r} in {text!r} is no arithmetic; {GRAMMAR}")

    with np.errstate(all="ignore"):
        return np.asarray(value(tree, 0), np.float64)

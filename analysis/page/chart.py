"""One interactive figure with its table: what plotly.js is told, as plain numbers and words, and the palette of all."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analysis.laws import Array

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe & Ito 2008
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")  # a shape beside every colour
BAND, GREY, BLACK = "rgba(0,0,0,0.13)", "#767676", "#222222"
SCALE = "Cividis"  # even in lightness, and the same to the colour-blind (Nunez et al. 2018)
DIGITS = 6  # of a coordinate in the page: a pixel is a thousandth of an axis

Row = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """name: of its element. caption: one sentence on how to read it. traces, layout: of plotly.js. head, rows: the
    table below it, in whose words its marks are told under the pointer.
    """

    name: str
    title: str
    caption: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    head: Row = ()
    rows: Sequence[Row] = field(default_factory=tuple)


def told(head: Row, rows: Iterable[Row]) -> list[str]:
    """What each mark says under the pointer: its row of the table, cell by cell."""
    return [
        "<br>".join(f"{name}: {html.escape(cell)}" for name, cell in zip(head, row, strict=True) if cell)
        for row in rows
    ]


def marks(x: Any, y: Any, *, name: str, text: Sequence[str], **more: Any) -> dict[str, Any]:
    """Points that say `text` under the pointer."""
    trace = {"type": "scatter", "mode": "markers", "x": short(x), "y": short(y), "name": name, "text": list(text)}
    return trace | {"hovertemplate": "%{text}<extra></extra>"} | more


def line(x: Any, y: Any, *, name: str, colour: str, dash: str = "solid", width: float = 2, **more: Any) -> dict:
    """A curve; it is told apart by its dash where colours are not seen."""
    trace = {"type": "scatter", "mode": "lines", "x": short(x), "y": short(y), "name": name, "hoverinfo": "skip"}
    return trace | {"line": {"color": colour, "dash": dash, "width": width}} | more


def band(x: Any, low: Any, high: Any, *, name: str, colour: str = BAND, **more: Any) -> dict[str, Any]:
    """The area between two curves."""
    x, low, high = (np.asarray(values, np.float64) for values in (x, low, high))
    good = np.isfinite(low) & np.isfinite(high)
    x, low, high = x[good], low[good], high[good]
    trace = {"type": "scatter", "mode": "lines", "fill": "toself", "fillcolor": colour, "line": {"width": 0}}
    outline = {"x": short(np.append(x, x[::-1])), "y": short(np.append(low, high[::-1]))}
    return trace | outline | {"name": name, "hoverinfo": "skip"} | more


def bars(values: Array, low: Any, high: Any) -> dict[str, Any]:
    """Error bars from each value to the ends of its interval."""
    up, down = np.maximum(np.asarray(high) - values, 0), np.maximum(values - np.asarray(low), 0)
    return {"type": "data", "symmetric": False, "array": short(up), "arrayminus": short(down), "thickness": 1.4}


def axis(title: str, *, log: bool = False, **more: Any) -> dict[str, Any]:
    """An axis; on a logarithmic one counts are marked as 1M, 2M, 5M."""
    found: dict[str, Any] = {"title": {"text": title, "standoff": 8}, "automargin": True}
    if log:
        found |= {"type": "log", "exponentformat": "SI", "dtick": "D2", "minor": {"ticklen": 3}}
    return found | more


def ticks(low: float, high: float) -> dict[str, Any]:
    """Marks of a logarithmic axis: at every 1, 2 and 5 of a short one, at powers of ten of a long one."""
    decades = np.log10(high / low)
    return {"dtick": "D2"} if decades < 1.7 else {"dtick": "D1" if decades < 0.5 else int(np.ceil(decades / 7))}


def short(values: Any) -> list[Any]:
    """Numbers of DIGITS digits; one that is not finite is a gap."""
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in np.asarray(values, np.float64).tolist()]


def counted(number: int, thing: str) -> str:
    return f"{number} {thing}" + "s" * (number != 1)

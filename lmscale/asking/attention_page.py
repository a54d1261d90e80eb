"""Attention of a word as one self-contained page, and as a figure."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from lmscale.asking.maps import AttentionMap, head_moves, moves, unmoved
from lmscale.store.files import write_atomic

HEADS_NAMED = 3  # of those that move most
UNMOVED = (
    "The word’s attention is the same in both sentences: this model reads from left to right, and they differ only "
    "after the word. Ask about a word that stands after the difference, or an encoder."
)
POOLED = (
    "Attention to a word is summed over its tokens, attention from a word averaged over its own (Clark et al. 2019), "
    "so each row adds up to 100 %. Attention is what the layer mixes, not why the model says what it says."
)


def title_of(maps: Sequence[AttentionMap]) -> str:
    return f"What “{maps[0].words[maps[0].token]}” attends to"


def write_page(path: Path, run: str, maps: Sequence[AttentionMap]) -> None:
    """Writes the page whole, or not at all. Raises OSError where it cannot be written."""
    page = resources.files("lmscale.asking").joinpath("attention_page.html").read_text(encoding="utf-8")
    shown = {"maps": [_told(each) for each in maps]}
    # inside a script element nothing but its end tag is special
    data = json.dumps(shown, allow_nan=False).replace("</", "<\\/")
    parts = {
        "title": html.escape(title_of(maps)),
        "run": html.escape(run),
        "pooled": POOLED,
        "sentences": "".join(_sentence(number, each) for number, each in enumerate(maps)),
        "moves": _moves(maps) if len(maps) == 2 else "",
        "data": data,
    }
    for name, content in parts.items():
        page = page.replace(f"<!--{name}-->", content)
    write_atomic(path, page)


def _told(each: AttentionMap) -> dict[str, Any]:
    return {"words": each.words, "token": each.token, "weights": np.round(each.weights, 4).tolist()}


def _sentence(number: int, each: AttentionMap) -> str:
    words = "".join(
        f'<span class="word{" asked" if place == each.token else ""}" style="{_shade(share, each.mean.max())}">'
        f"{html.escape(word) or '&nbsp;'}<small>{share:.0%}</small></span>"
        for place, (word, share) in enumerate(zip(each.words, each.mean.tolist(), strict=True))
    )
    several = f"<p>The word stands there {each.occurrences} times.</p>" if each.occurrences > 1 else ""
    return (
        f'<section class="sentence"><h2>{html.escape(each.text)}</h2>'
        f"<p>Mean over layers and heads:</p><p>{words}</p>{several}"
        f"<h3>By layer and head</h3>{_heads(each)}"
        f'<h3>From every word</h3><div class="scroll"><table class="matrix" data-map="{number}"></table></div>'
        "</section>"
    )


def _heads(each: AttentionMap) -> str:
    """A row a head, a column a word."""
    layers, heads, _ = each.of_token.shape
    head = "".join(
        f"<th{' class=asked' * (place == each.token)}>{html.escape(word)}</th>" for place, word in enumerate(each.words)
    )
    rows = [_row("mean", each.mean)]
    rows += [_row(f"{i + 1}.{j + 1}", each.of_token[i, j]) for i in range(layers) for j in range(heads)]
    return f'<div class="scroll"><table><tr><th>layer.head</th>{head}</tr>{"".join(rows)}</table></div>'


def _row(name: str, shares: np.ndarray) -> str:
    cells = "".join(f'<td style="{_shade(share)}">{_percent(share)}</td>' for share in shares.tolist())
    return f"<tr><th>{name}</th>{cells}</tr>"


def _percent(share: float) -> str:
    """Nothing where nothing can be: of words that a model does not see."""
    return f"{100 * share:.0f}" if share else ""


def _shade(share: float, most: float = 1.0) -> str:
    strength = share / most if most else 0.0
    return f"background:rgba(8,81,156,{strength:.3f})" + (";color:#fff" if strength > 0.55 else "")


def _moves(maps: Sequence[AttentionMap]) -> str:
    """How the attention of the word moves from the first sentence to the second."""
    first, second = maps
    if unmoved(first, second):
        return f'<section><h2>How it moves</h2><p class="note">{UNMOVED}</p></section>'
    rows, found = [], moves(first, second)
    most = max(abs(move.change or 0.0) for move in found) or 1.0
    for move in found:
        cells = "".join(f"<td>{'' if share is None else f'{share:.1%}'}</td>" for share in (move.first, move.second))
        width = 100 * abs(move.change or 0.0) / most
        side = "more" if (move.change or 0) > 0 else "less"
        bar = f'<div class="bar {side}" style="width:{width:.1f}%"></div>'
        change = "only here" if move.change is None else f"{100 * move.change:+.1f}"
        rows.append(f"<tr><th>{html.escape(move.word)}</th>{cells}<td>{change}</td><td class='bars'>{bar}</td></tr>")
    head = "<tr><th>word</th><th>first</th><th>second</th><th>points</th><th></th></tr>"
    return (
        "<section><h2>How it moves</h2><p>Mean over layers and heads, from the first sentence to the second, in "
        f"percentage points.</p><table class='moves'>{head}{''.join(rows)}</table>{_most_moved(first, second)}"
        "</section>"
    )


def _most_moved(first: AttentionMap, second: AttentionMap) -> str:
    """A line: the heads in which most of it has moved."""
    moved = head_moves(first, second)
    order = np.argsort(-moved, axis=None)[:HEADS_NAMED].tolist()
    places = [(i // moved.shape[1], i % moved.shape[1]) for i in order]
    told = ", ".join(f"{i + 1}.{j + 1} ({moved[i, j]:.0%})" for i, j in places)
    return f"<p>Most of it moves in the heads (layer.head) {told} of their attention from the word.</p>"


def draw(path: Path, run: str, maps: Sequence[AttentionMap]) -> None:
    """A panel a sentence: a row a head of each layer, a column a word. Raises OSError where it cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    layers, heads, _ = maps[0].of_token.shape
    names = ["mean", *(f"{i + 1}.{j + 1}" for i in range(layers) for j in range(heads))]
    widths = [len(each.words) for each in maps]
    wide = max(7.0, 0.45 * sum(widths) + 1.5)
    most = max(float(each.of_token.max()) for each in maps)
    figure, panels = pyplot.subplots(
        1, len(maps), squeeze=False, figsize=(wide, 0.27 * len(names) + 2.4), width_ratios=widths, layout="constrained"
    )
    image: Any = None
    for panel, each in zip(panels[0], maps, strict=True):
        rows = np.concatenate([each.mean[None], each.of_token.reshape(-1, len(each.words))])
        image = panel.imshow(rows, cmap="Blues", vmin=0, vmax=most, aspect="auto")
        panel.set_xticks(range(len(each.words)), [word.replace("$", r"\$") for word in each.words], rotation=90)
        panel.get_xticklabels()[each.token].set(weight="bold", color="#b30000")
        panel.set_yticks(range(len(names)), names)
        panel.axhline(0.5, color="white", linewidth=2)
    panels[0][0].set_ylabel("layer.head")
    figure.colorbar(image, ax=panels[0][-1], format=lambda value, _: f"{value:.0%}", label="attention")
    figure.suptitle(f"{title_of(maps)}\n{run}", fontsize=9)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)

"""How well models translate: exact match and chrF against the size of the model, by family and evaluation set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from analysis.errors import InputError
from analysis.plots import COLOURS, blank_figure, draw_legend
from analysis.reading.rows import texts
from analysis.reading.scores import read_scores
from analysis.solving.proportions import NORMAL_95, wilson
from analysis.table import Table
from analysis.words.summary import columns, count, table_lines

ENDING = "-translated"  # of the tasks of scores.csv
DASHES = ("-", "--", ":", "-.")  # of the evaluation sets
FAINT = 0.35  # lines of fewer tokens than the most


@dataclass(frozen=True, kw_only=True)
class TranslationCell:
    """What models of one family, size and token count make of one evaluation set.

    exact: share of sources for which the whole target was written; chrf: 0 to 100; each the mean over `runs`, with a 95
    % interval (Wilson; normal, from the stderr of scores.csv). All runs translate the same `pairs`, so that several do
    not narrow an interval.
    """

    family: str
    eval_set: str
    params: float
    tokens: float
    runs: int
    pairs: int
    exact: float
    exact_interval: tuple[float, float]
    chrf: float
    chrf_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Every cell, by family, evaluation set, tokens and size."""

    table: Table
    cells: tuple[TranslationCell, ...]


def read_translation(path: str | Path, table: Table) -> Translation:
    """The translations of a table's runs, from the scores beside it. Raises InputError where none translated."""
    scores = read_scores(path)
    tasks = [task for task in dict.fromkeys(texts(scores.frame, "task")) if task.endswith(ENDING)]
    families = texts(table.frame, "family")
    cells = []
    for family in dict.fromkeys(families):
        for task in tasks:
            mine = scores.keep(task=task, slice="")
            of_family = np.asarray(families == family, bool)
            points = {*zip(table.tokens[of_family].tolist(), table.params[of_family].tolist(), strict=True)}
            for tokens, params in sorted(points):
                part = table.keep(of_family & (table.params == params) & (table.tokens == tokens))
                exact, chrf, pairs = (mine.keep(metric=metric).of(part) for metric in ("exact", "chrf", "pairs"))
                has = np.isfinite(exact) & np.isfinite(chrf) & np.isfinite(pairs)
                if not has.any():
                    continue
                asked, share, level = int(pairs[has][0]), float(exact[has].mean()), float(chrf[has].mean())
                stderr = mine.keep(metric="chrf").of(part, "stderr")[has]
                half = NORMAL_95 * float(np.nan_to_num(stderr).mean())
                cells.append(
                    TranslationCell(
                        family=family,
                        eval_set=task.removesuffix(ENDING),
                        params=params,
                        tokens=tokens,
                        runs=int(has.sum()),
                        pairs=asked,
                        exact=share,
                        exact_interval=wilson(round(share * asked), asked),
                        chrf=level,
                        chrf_interval=(max(0.0, level - half), min(100.0, level + half)),
                    )
                )
    if not cells:
        raise InputError(f"translation: no run in {scores.source!r} translated; train with --objective pairs")
    return Translation(table=table, cells=tuple(cells))


def translation_text(result: Translation) -> str:
    """A row a cell."""
    rows = [
        (cell.family, cell.eval_set, count(cell.params), count(cell.tokens), str(cell.pairs), f"{cell.exact:.3f}",
         "{:.3f} to {:.3f}".format(*cell.exact_interval), f"{cell.chrf:.1f}",
         "{:.1f} to {:.1f}".format(*cell.chrf_interval))
        for cell in result.cells
    ]  # fmt: skip
    head = ("family", "set", "parameters", "tokens", "pairs", "exact", "95 % interval", "chrF", "95 % interval")
    return "\n".join([*table_lines(result.table), "", *columns(head, rows)])


def translation_figure(result: Translation) -> Figure:
    """Exact match and chrF against parameters: a colour a family, dashes a set; fewer tokens are fainter."""
    figure, (left, right) = blank_figure(2)
    families, sets = (
        list(dict.fromkeys(getattr(cell, name) for cell in result.cells)) for name in ("family", "eval_set")
    )
    lines = list(dict.fromkeys((cell.family, cell.eval_set, cell.tokens) for cell in result.cells))
    for family, eval_set, tokens in lines:
        cells = [c for c in result.cells if (c.family, c.eval_set, c.tokens) == (family, eval_set, tokens)]
        most = max(other for f, s, other in lines if (f, s) == (family, eval_set))
        place, dash = families.index(family), DASHES[sets.index(eval_set) % len(DASHES)]
        style = {
            "color": COLOURS(0.15 + 0.55 * place / max(1, len(families) - 1)),
            "linestyle": dash,
            "alpha": 1.0 if tokens == most else FAINT,
            "label": f"{family}, {eval_set}, {count(tokens)} tokens",
        }
        shift = 1.02 ** (sets.index(eval_set) - (len(sets) - 1) / 2)  # lest bars hide each other
        for axes, name in ((left, "exact"), (right, "chrf")):
            _line(axes, cells, name, shift, style | ({"label": None} if axes is right else {}))
    for axes in (left, right):
        axes.set(xscale="log", xlabel="parameters N")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.xaxis.set_minor_formatter(NullFormatter())
    left.set(ylim=(-0.03, 1.03), ylabel="share of sources translated exactly")
    right.set(ylim=(min(0.9 * cell.chrf for cell in result.cells), 103), ylabel="chrF")
    left.set_title("Greedy translations, 95 % intervals", loc="left")
    draw_legend(figure)
    return figure


def _line(axes: Axes, cells: list[TranslationCell], name: str, shift: float, style: dict) -> None:
    x = np.array([cell.params for cell in cells]) * shift
    y = np.array([getattr(cell, name) for cell in cells])
    ends = np.array([getattr(cell, f"{name}_interval") for cell in cells]).T
    axes.errorbar(x, y, yerr=np.abs(ends - y), marker="o", markersize=4.5, linewidth=1.3, capsize=2, **style)

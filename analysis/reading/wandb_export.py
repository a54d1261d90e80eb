"""Weights & Biases: what its public-API example writes, one dict of settings and one of results in a cell.

That script (docs.wandb.ai, "Import and export data") writes the columns name, config and summary, the last two as
Python prints a dict. The CSV of the web page has a column a setting and needs nothing but its names recognised.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.reading.excluded import ExcludedRows
from analysis.reading.json_rows import Columns, literal
from analysis.reading.loaded import Loaded
from analysis.reading.rows import is_text

HOLDERS = ("config", "summary")
MAX_TEXT = 100_000  # characters of one cell: parsing takes some 100 times as much memory


def expand(loaded: Loaded) -> Loaded:
    """Replace the columns config and summary, where they hold dicts, by `config.NAME` and `summary.NAME` of each entry.

    Rows with a cell that is neither a dict nor blank are left out and named.
    """
    for name in [c for c in loaded.frame.columns if str(c).strip().lower() in HOLDERS]:
        if is_text(loaded.frame, name) and any(str(c).lstrip().startswith("{") for c in loaded.frame[name].head(100)):
            loaded = _expand(loaded, name)
    return loaded


def _expand(loaded: Loaded, name: str) -> Loaded:
    entries = Columns(name)
    good = np.ones(len(loaded.frame), bool)
    prefix = str(name).strip().lower()
    cells = [str(cell).strip() for cell in loaded.frame[name]]
    for at, cell in enumerate(cells):
        try:
            if len(cell) > MAX_TEXT:
                raise ValueError("too long")
            entries.add(at, {f"{prefix}.{key}": value for key, value in (literal(cell) if cell else {}).items()})
        except ValueError:
            good[at] = False
    excluded = ExcludedRows.of(loaded.excluded)
    bad = np.flatnonzero(~good)
    reason = f"not a dict, as JSON or as Python prints one, of at most {MAX_TEXT:,} characters"
    excluded.add(loaded.rows[bad], prefix, [cells[i] for i in bad], reason)
    rest = loaded.frame.drop(columns=name).loc[good].reset_index(drop=True)
    return replace(loaded, frame=pd.concat([rest, entries.frame()], axis=1), rows=loaded.rows[good], excluded=excluded,
                   cut_short=loaded.cut_short and bool(good[-1:].all()))  # fmt: skip

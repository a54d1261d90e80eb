"""What a file gave, before its columns are understood."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.reading.excluded import ExcludedRows


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """frame: the cells, text or numbers, under the file's names. rows [n]: the place of each in the file.

    excluded: rows already refused. cut_short: the last row has no end of line, so that a part of it may be missing.
    """

    frame: pd.DataFrame
    rows: NDArray[np.int64]
    excluded: ExcludedRows = field(default_factory=ExcludedRows)
    cut_short: bool = False

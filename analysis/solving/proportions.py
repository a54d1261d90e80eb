"""Intervals of a proportion."""

import math

NORMAL_95 = 1.959963984540054  # 97.5 % point of the normal distribution


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927, JASA 22:209): it covers near 0 and 1, where the usual one is
    empty.
    """
    if trials < 1 or not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials} is no proportion")
    share, z = hits / trials, NORMAL_95
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    low, high = middle - half, middle + half
    # exactly 0 or 1 at the ends, which rounding misses by an epsilon
    return (0.0 if hits == 0 else max(low, 0.0), 1.0 if hits == trials else min(high, 1.0))

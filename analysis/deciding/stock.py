"""Whether the text that an answer asks for exists: the stock of high-quality text, and how it grows.

Villalobos et al. 2022 (arXiv:2211.04325): 4.6e12 to 1.7e13 words in October 2022, growing by 7 % a year.
"""

from collections.abc import Sequence
from datetime import date

from analysis.deciding.served import ServedRow
from analysis.optimal import OptimalRow
from analysis.reading.rows import numbers
from analysis.table import Table
from analysis.words.summary import quantity

WORDS = (4.6e12, 1.7e13)  # Villalobos et al. 2022, high-quality language data
GROWTH = 1.07  # a year, ibid.
SINCE = date(2022, 10, 1)
TOKENS_PER_WORD = 4 / 3  # of English by a usual vocabulary; as OpenAI's guide to its tokenizer has it
BYTES_PER_WORD = 5.5  # Shannon 1951, p. 50: words of 4.5 letters, and a space


def stock_tokens(table: Table, today: date) -> tuple[float, float]:
    """Low and high end of the stock on a day, in tokens of the kind that this table counts.

    Where the table knows the bytes behind its tokens (`trained_bytes`) they say how many tokens a word is.
    """
    per_word = TOKENS_PER_WORD
    if "trained_bytes" in table.frame:
        read = numbers(table.frame, "trained_bytes")
        known = read > 0
        if known.any():
            per_word = BYTES_PER_WORD * float(table.tokens[known].sum() / read[known].sum())
    grown = GROWTH ** max((today - SINCE).days / 365.25, 0.0)
    return WORDS[0] * grown * per_word, WORDS[1] * grown * per_word


def stock_warnings(table: Table, rows: Sequence[OptimalRow | ServedRow], today: date) -> tuple[str, ...]:
    """One line for each budget whose tokens exceed the stock, or may: D*, or those of a model that will be served."""
    low, high = stock_tokens(table, today)
    warnings = []
    for row in rows:
        if row.tokens <= low:
            continue
        how = "exceeds" if row.tokens > high else "may exceed"
        name = "D of the model to serve" if isinstance(row, ServedRow) else "D*"
        warnings.append(
            f"at {row.flops:.2e} FLOPs {name} = {quantity(row.tokens)} tokens {how} the stock of high-quality text, "
            f"{quantity(low, 2)} to {quantity(high, 2)} tokens in {today.year} (Villalobos et al. 2022): text would "
            "repeat; see --law repeats"
        )
    return tuple(warnings)

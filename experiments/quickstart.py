"""How large a byte-level model of Python source should be, for budgets a laptop can test.

    make demo            # or: lmscale sweep quickstart

Five sizes over 22x in parameters, four token counts over 8x, about six minutes on two CPU cores. The text is the
standard library of the Python that runs it. A demonstration: the grid is tiny, and its exponents are loose.
"""

from lmscale.config import PowerRule, Recipe, Size, Study

STUDY = Study(
    name="quickstart",
    sizes=(
        Size(width=32, depth=1),
        Size(width=48, depth=2),
        Size(width=64, depth=2),
        Size(width=80, depth=3),
        Size(width=96, depth=4),
    ),
    tokens=(491_520, 983_040, 1_966_080, 3_932_160),
    flops_max=5.6e12,  # leaves out the longest run of the two largest sizes
    recipe=Recipe(
        # exponent: Porian et al. 2024; the constant was measured at this scale, docs/quickstart.md
        learning_rate=PowerRule(value=7e-3, params=1e5, exponent=-1 / 3),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=98_304,
)

"""How large a byte-level model of Python source should be, for budgets a laptop can test.

    make demo            # or: lmscale sweep quickstart

Five sizes over 14x in parameters, four token counts over 8x, about six minutes on two CPU cores. The text is the
standard library of the Python that runs it. A demonstration: the grid is tiny, and its exponents are loose.
"""

from lmscale.config import PowerRule, Recipe, Size, Study

STUDY = Study(
    name="quickstart",
    sizes=(
        Size(width=32, depth=2),
        Size(width=48, depth=2),
        Size(width=64, depth=3),
        Size(width=80, depth=3),
        Size(width=96, depth=4),
    ),
    tokens=(409_600, 819_200, 1_638_400, 3_276_800),
    flops_max=4.8e12,  # leaves out the longest run of the two largest sizes
    recipe=Recipe(
        # At fixed depth Adam's best rate falls as 1 / width, so as N^-1/2: Yang et al. 2022 (arXiv:2203.03466), Table
        # 3. The constant was measured, and that the exponent holds here: docs/quickstart.md
        learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=98_304,
)

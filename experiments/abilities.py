"""Which abilities does scale buy, and do they come at once?

    lmscale sweep abilities

Nine tasks that are made (docs/tasks.md) make up four tenths of the training text, the other six are Python source. Four
sizes over 14x in parameters at three token counts are scored on items that no text holds.
"""

from lmscale.config import Abilities, Corpus, PowerRule, Recipe, Size, Study, TaskText

MIXED = (
    "copying",
    "reversal",
    "brackets",
    "agreement",
    "addition",
    "addition_scratchpad",
    "lookup",
    "redefinition",
)

STUDY = Study(
    name="abilities",
    sizes=(
        Size(width=32, depth=2),
        Size(width=48, depth=2),
        Size(width=64, depth=3),
        Size(width=96, depth=4),
    ),
    tokens=(614_400, 1_228_800, 2_457_600),
    corpus=Corpus(task_text=TaskText(tasks=MIXED, share=0.4)),
    abilities=Abilities(items=100),
    recipe=Recipe(
        # as in experiments/quickstart.py
        learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=98_304,
)

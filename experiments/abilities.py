"""Which abilities does scale buy, and do they come at once?

    lmscale sweep abilities
    lmscale sweep abilities --abilities.tasks unscrambling --abilities.shots 0,4   # scores what the models never read
    lmscale abilities abilities

Eight tasks that are made (docs/tasks.md) are four tenths of the training text, Python source the rest. Four sizes over
8x in parameters at five token counts are scored on items that no text holds, on words of held-out source, and on word
unscrambling, of which they have read nothing: experiments/abilities_finetune.py teaches it. What it costs and what was
found is in experiments/results/abilities.
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
        Size(width=80, depth=3),
    ),
    tokens=(204_800, 409_600, 819_200, 1_638_400, 3_276_800),
    corpus=Corpus(task_text=TaskText(tasks=MIXED, share=0.4)),
    abilities=Abilities(tasks=(*MIXED, "cloze"), items=100, shots=(0,)),
    recipe=Recipe(
        # as in experiments/quickstart.py
        learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=98_304,
)

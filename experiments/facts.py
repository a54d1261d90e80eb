"""How often must a small model read a fact before it knows it, and does size help?

    lmscale sweep facts
    lmscale plot facts --recall

112 facts that no text holds ("The harvest of Disela is mostly Mavobo."), 16 for each of seven counts of repeats from
1 to 1,000, are planted into the top level of Python's standard library (4.7 MB, read as bytes), of which they make a
sixth. Four sizes over 14x in parameters read nearly all of it once, and are then asked for each fact which of 16
attributes it has; guessing is right once in 16. By the quickstart's step times about 7 minutes on two CPU cores. What
was found is in experiments/results/facts.
"""

import sysconfig

from lmscale.config import Corpus, Facts, PowerRule, Recipe, Size, Study

STUDY = Study(
    name="facts",
    sizes=(
        Size(width=32, depth=2),
        Size(width=48, depth=2),
        Size(width=64, depth=3),
        Size(width=96, depth=4),
    ),
    tokens=(5_000_000,),
    allow_collinear=True,  # recall is asked here, no law
    corpus=Corpus(files=(f"{sysconfig.get_path('stdlib')}/*.py",), facts=Facts()),
    recipe=Recipe(
        documents="joined",  # as the recorded runs were trained
        # as in experiments/quickstart.py
        learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=98_304,
)

"""How large must a model be to translate between two small languages, and to put known words together anew?

    lmscale sweep translation
    lmscale plot translation --translation

Pairs of two invented languages (lmscale/data/bilingual.py): other words, another order, three noun classes with
concord. One tenth of the combinations of adjective and noun, and of subject and verb, is in no training sentence. An
encoder-decoder and a decoder that sees the source from both sides (a prefix decoder), four sizes over about 10x in
parameters, two token counts; each run translates 256 new sentences of seen combinations and 256 with an unseen one.
What was found is in docs/translation.md.
"""

from lmscale.config import Bilingual, Corpus, EvalSet, FamilyGrid, PowerRule, Recipe, Size, Study

STUDY = Study(
    name="translation",
    family="encoder_decoder",
    objective="pairs",
    sizes=(
        Size(width=24, depth=1),
        Size(width=32, depth=2),
        Size(width=48, depth=2),
        Size(width=64, depth=2),
    ),
    further=(
        FamilyGrid(
            family="decoder",
            objective="pairs",
            sizes=(
                Size(width=32, depth=2),
                Size(width=48, depth=2),
                Size(width=64, depth=3),
                Size(width=96, depth=3),
            ),
        ),
    ),
    tokens=(600_000, 1_200_000),
    allow_collinear=True,  # translations are asked for here, no law
    corpus=Corpus(task="bilingual", bilingual=Bilingual(sentences=60_000)),
    recipe=Recipe(
        # as in experiments/quickstart.py
        learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=16_384,
    eval_sets=(
        EvalSet(
            name="unseen",
            corpus=Corpus(task="bilingual", bilingual=Bilingual(sentences=2_000, combinations="unseen"), heldout=0.4),
            tokens=16_384,
        ),
    ),
)

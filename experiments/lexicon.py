"""The first attempt at an entropy that is known (experiments/known_entropy.py): words of a Zipf-Mandelbrot lexicon.

    lmscale sweep lexicon
    lmscale fit lexicon --law coupled

The text is made (lmscale/data/lexicon.py): words drawn from a Zipf-Mandelbrot lexicon, whose entropy rate is a sum that
anyone can add up. Six sizes over 48x in parameters, four token counts over 8x. What it costs and what it found (the
narrow intervals miss the rate, by up to 0.03 nats, because rare words are forgotten before they come again):
experiments/results/known_entropy/lexicon/README.md
"""

from lmscale.config import Corpus, Lexicon, PowerRule, Recipe, Size, Study

STUDY = Study(
    name="lexicon",
    sizes=tuple(Size(width=width, depth=1, heads=width // 16) for width in (16, 32, 48, 64, 96, 128)),
    tokens=(4_194_304, 8_388_608, 16_777_216, 33_554_432),
    corpus=Corpus(
        task="lexicon",
        lexicon=Lexicon(
            exponent=2.0, shift=14.0, letters=64, letters_per_word=15, document_words=32, tokens=35_200_000
        ),
        heldout=0.04,
    ),
    recipe=Recipe(
        documents="joined",  # as the recorded runs were trained; words do not depend on each other
        # rates were measured at three sizes, 0.7 to 2 apart: 0.019 was best at width 16, 0.010 at 64, 0.007 at 128
        learning_rate=PowerRule(value=9.8e-3, params=5e4, exponent=-0.3),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=524_288,
)

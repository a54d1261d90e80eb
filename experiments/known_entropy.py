"""Does the fitted L0 find an entropy that is known? The whole pipeline against a number that nobody fitted.

    lmscale sweep known_entropy
    lmscale fit known_entropy --law coupled

The text is made (lmscale/data/chain.py): a Markov chain whose entropy rate follows from its matrix. Eight sizes over
32x in parameters, four token counts over 8x. `lmscale fit` says whether L0's interval holds the rate. What it costs
and what it found: experiments/results/known_entropy/README.md
"""

from lmscale.config import Chain, Corpus, PowerRule, Recipe, Size, Study

STUDY = Study(
    name="known_entropy",
    sizes=tuple(Size(width=width, depth=1, heads=max(1, width // 32)) for width in (8, 16, 24, 32, 48, 64, 96, 144)),
    tokens=(524_288, 1_048_576, 2_097_152, 4_194_304),
    tied_embeddings=False,  # what follows a state is no matter of its likeness to it
    corpus=Corpus(
        task="chain",
        chain=Chain(states=1022, spectrum=0.85, knee=8, variance=6.0, zipf=0.5, shift=4.0, tokens=5_300_000),
        heldout=0.15,
    ),
    recipe=Recipe(
        # measured at widths 8, 32 and 96 with 0.26 to 1.05 M tokens: 4 times 0.011 was best of 1, 2, 4, 8 at width 96
        learning_rate=PowerRule(value=4.4e-2, params=12_288, exponent=-0.25),
        batch_tokens=PowerRule(value=512),
        cooldown_fraction=0.5,
        weight_decay=0.0,  # a pull on every logit that more text does not take away would stand above the entropy
    ),
    eval_tokens=524_288,
)

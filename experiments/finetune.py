"""How many tokens of a text is it worth to have read another before, and does that grow with the model?

    lmscale sweep quickstart --sizes 32x2 48x2 64x3 --tokens 1638400 --name before --allow-collinear true
    lmscale sweep finetune
    lmscale sweep finetune --start none --tokens 51200,102400,204800,409600,819200
    lmscale transfer finetune

Three sizes of the quickstart, trained on the standard library of Python, go on with the source of installed packages,
at four counts of tokens over 8x; beside them the same sizes from their seeds, on the same text, up to 4 times as many.
Both sweeps write into one folder and one table, where the family tells them apart. A pre-trained model that does as
well as one from scratch on more tokens has been saved the difference: the effective data transferred, k D^alpha N^beta
by Hernandez et al. 2021 (arXiv:2102.01293). With `--start.lora.rank 4` adapters alone are trained, another family in
the same table. A demonstration: the sizes are tiny.
"""

from lmscale.config import Corpus, PowerRule, Recipe, Size, Start, Study

STUDY = Study(
    name="finetune",
    sizes=(
        Size(width=32, depth=2),
        Size(width=48, depth=2),
        Size(width=64, depth=3),
    ),
    tokens=(25_600, 51_200, 102_400, 204_800),
    start=Start(run="before"),
    corpus=Corpus(task="package_source"),
    recipe=Recipe(
        # as in experiments/quickstart.py, but for a shorter warmup: the shortest run has 50 steps
        learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
        warmup_tokens=5_120,
        cooldown_steps_min=10,
    ),
    eval_tokens=98_304,
)

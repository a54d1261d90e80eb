"""What is a repeated token worth to a small model of Python source?

    for U in 50e3 100e3 200e3 400e3; do lmscale sweep repeats --corpus.unique-tokens $U --name repeats-$U; done
    lmscale sweep repeats --corpus.unique-tokens none --name repeats-all
    (head -n 1 results/repeats-all/runs.csv; tail -qn +2 results/repeats-*/runs.csv) > results/repeats.csv
    lmscale fit results/repeats.csv --law repeats
    lmscale optimal results/repeats.csv --law repeats --unique-tokens 400e3

The three smallest sizes of the quickstart at its first three token counts, on so many unique tokens of the same text:
up to 33 passes over 50 k. Every study scores the same held-out text, and its runs differ from those of the others in
`unique_tokens` alone, so that one law fits them together. A study takes one to three minutes on two CPU cores. A
demonstration of the law of Muennighoff et al. 2023 (arXiv:2305.16264), not a measurement of it. What was found is in
experiments/results/repeats.
"""

from lmscale.config import Corpus, PowerRule, Recipe, Size, Study

STUDY = Study(
    name="repeats",
    sizes=(
        Size(width=32, depth=2),
        Size(width=48, depth=2),
        Size(width=64, depth=3),
    ),
    tokens=(409_600, 819_200, 1_638_400),
    corpus=Corpus(allow_repeats=True),
    recipe=Recipe(
        # as in experiments/quickstart.py
        learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=98_304,
)

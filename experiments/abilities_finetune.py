"""How many labelled examples of a task are worth more than a few in the prompt, and does that change with size?

    for K in 8 32 128 512 2048; do lmscale sweep abilities_finetune --corpus.labelled.examples $K; done

Models of experiments/abilities.py, which have read nothing of word unscrambling, go on with K labelled examples of it,
a hundred steps of 512 tokens whatever K is, and are scored on the items that the models before were scored on without
an example and with four in the prompt. All runs lie in the folder of that study, and in its tables.
"""

from lmscale.config import Abilities, Corpus, Labelled, PowerRule, Recipe, Size, Start, Study

STUDY = Study(
    name="abilities",
    sizes=(
        Size(width=32, depth=2),
        Size(width=48, depth=2),
        Size(width=64, depth=3),
        Size(width=80, depth=3),
    ),
    tokens=(51_200,),
    allow_collinear=True,  # no law is asked here
    start=Start(run="abilities", tokens=819_200),
    corpus=Corpus(task="labelled", labelled=Labelled(task="unscrambling", examples=128), allow_repeats=True),
    abilities=Abilities(tasks=("unscrambling",), items=100),
    recipe=Recipe(
        # a third of the rate at which they were trained
        learning_rate=PowerRule(value=1.6e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
        warmup_tokens=5_120,
        cooldown_steps_min=10,
    ),
    eval_tokens=16_384,
)

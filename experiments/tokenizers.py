"""Do models of one text scale alike, whatever pieces it is cut into?

    for V in none char word:1024 unigram:1024 bpe:1024; do lmscale sweep tokenizers --corpus.vocabulary $V; done
    lmscale fit tokenizers --by tokenizer
    lmscale plot tokenizers --by tokenizer

The sources of two packages as bytes, characters, words, and pieces of unigram and BPE models, each trained on the
training documents, in one folder and one table. The held-out documents are the same, and all of them are scored, so
that `bits_per_byte` is of the same bytes for every tokenizer; `loss_nats` is of other tokens in each, and only compared
within one: rows of different tokenizers are fitted apart.

A model has as many tokens of context (128), so it sees more text the longer its pieces are; and as many training tokens
make more bytes of text (`trained_bytes`). Four sizes, three token counts, minutes for each on two CPU cores.

A vocabulary takes width x K parameters (input and output share them), which is most of a small model: at K = 1,024 and
width 32 more than the layers have. So K is small here, and larger ones are for larger models; exponents depend on
whether embeddings count (`params_embedding` says how many there are). Bytes have 259 pieces, characters those that
there are.
"""

from lmscale.config import Corpus, PowerRule, Recipe, Size, Study

STUDY = Study(
    name="tokenizers",
    sizes=(
        Size(width=32, depth=2),
        Size(width=48, depth=2),
        Size(width=64, depth=3),
        Size(width=80, depth=3),
    ),
    tokens=(409_600, 819_200, 1_638_400),
    corpus=Corpus(task="package_source", packages=("optax", "pandas"), heldout=0.03),
    recipe=Recipe(
        # as in experiments/quickstart.py
        learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=1_048_576,  # more than the held-out text has in any of the vocabularies, so it is scored whole
)

"""Do masked, sequence-to-sequence, recurrent and counted models of one text scale as a causal transformer does?

    lmscale sweep families
    lmscale fit families --by family
    lmscale plot families --by family

Five families on the quickstart's Python source, read as bytes, in one sweep and one table: a decoder, an encoder
(masked), an encoder-decoder (spans), an LSTM, each in four sizes over about 10x in parameters on four token counts over
8x; and n-grams of orders 2 to 6 counted on the same windows. Decoder, LSTM and n-grams predict the same bytes from what
stands before them, so that their bits per byte may be compared; the two others are asked for other things
(docs/families.md), and their exponents alone are laid beside: whether they fall as fast, not which is better.
`plot --by family` also draws the loss by length of context, where counting, memory and attention part.

What it costs and what it found: experiments/results/families.
"""

from lmscale.config import FamilyGrid, PowerRule, Recipe, Size, Study

STUDY = Study(
    name="families",
    sizes=(
        Size(width=32, depth=2),
        Size(width=48, depth=2),
        Size(width=64, depth=3),
        Size(width=96, depth=3),
    ),
    tokens=(409_600, 819_200, 1_638_400, 3_276_800),
    further=(
        FamilyGrid(
            family="encoder",
            objective="masked",
            sizes=(
                Size(width=32, depth=2),
                Size(width=48, depth=2),
                Size(width=64, depth=3),
                Size(width=96, depth=3),
            ),
        ),
        FamilyGrid(
            family="encoder_decoder",
            objective="spans",
            sizes=(
                Size(width=32, depth=1),
                Size(width=48, depth=1),
                Size(width=72, depth=1),
                Size(width=104, depth=1),
            ),
            rate_multiplier=0.5,
        ),
        FamilyGrid(
            family="lstm",
            objective="causal",
            sizes=(Size(width=32), Size(width=48), Size(width=72), Size(width=112)),
        ),
        FamilyGrid(family="ngram", objective="causal", sizes=tuple(Size(order=order) for order in range(2, 7))),
    ),
    recipe=Recipe(
        # As in experiments/quickstart.py. Half of it, it and twice it were tried at one size and 409,600 tokens: it was
        # best for decoder (48x2: 1.952, 1.923, 1.957 nats), encoder (48x2: 2.078, 1.968, 2.016) and LSTM (64x2: 2.090,
        # 2.009, 2.012), half of it for the encoder-decoder (48x1: 2.503, 2.518, 2.644)
        learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5),
        batch_tokens=PowerRule(value=512),
    ),
    eval_tokens=98_304,
)

"""What tests of one small training share: a text that nobody prepared, and a stop at a call of the program."""

from lmscale.plan import Text


def unprepared(vocab: int) -> Text:
    """As much text as any plan asks for, of one byte a token."""
    return Text(
        corpus="c",
        tokenizer="t",
        vocab=vocab,
        train_tokens=10**9,
        bytes_per_token=1,
        digest="d",
        eval_set="e",
        headline="heldout",
        eos_id=1,
    )


class Stop:
    """Asks to stop from the given call of the compiled program on."""

    def __init__(self, call: int):
        self.left = call

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0

"""The one error a user's own mistake raises, shared by analysis and lmscale."""


class InputError(ValueError):
    """A mistake in what the user gave. The message is one line: `field: value, what is wrong; the mend`."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

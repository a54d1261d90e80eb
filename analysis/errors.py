"""The one error a user's own mistake raises, shared by analysis and lmscale."""

from typing import Any, get_args


class InputError(ValueError):
    """A mistake in what the user gave. The message is one line: `field: value, what is wrong; the mend`."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def require_choice(field: str, value: object, kind: Any) -> None:
    """Raise InputError unless `value` is one of those of `kind`, a Literal."""
    choices = get_args(kind)
    if value not in choices:
        raise InputError(f"{field}: {value!r} is unknown; choose {', '.join(choices[:-1])} or {choices[-1]}")

"""Wrong answers that look like the right one."""

from __future__ import annotations

from lmscale.tasks.draws import Draws


def near_strings(draws: Draws, right: str, count: int, alphabet: str) -> list[str]:
    """So many different strings of the same length: a letter is another one, or two neighbours change places."""
    found: list[str] = []
    while len(found) < count:
        letters, place = list(right), draws.below(len(right))
        if place and draws.below(2):
            letters[place - 1], letters[place] = letters[place], letters[place - 1]
        else:
            letters[place] = draws.choice(alphabet)
        made = "".join(letters)
        if made != right and made not in found:
            found.append(made)
    return found


def shuffled(draws: Draws, right: str, wrong: list[str]) -> tuple[str, ...]:
    """Options in an order that does not tell the right one."""
    return tuple(draws.sample([right, *wrong], 1 + len(wrong)))

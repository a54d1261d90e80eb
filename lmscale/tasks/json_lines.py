"""A task of the user's: JSON lines {"prompt": ..., "answer": ..., "options": [...]}, each line checked."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from analysis.errors import InputError
from lmscale.tasks.item import Item

BYTE_ORDER_MARK = "\ufeff"
FIELDS = {"prompt", "answer", "options"}
MEND = 'write {"prompt": "...", "answer": "...", "options": ["...", "..."]}, the options only where there are some'


@lru_cache(maxsize=16)
def read_items(path: str) -> tuple[Item, ...]:
    """The items of a file, in its order.

    Chance is one of the options; where there are none, the share of the commonest answer.
    Raises InputError for a file that cannot be read and, with its number, a line that is no item.
    """
    where = f"tasks: {path!r}"
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 (byte {error.start}); convert it (iconv -t UTF-8)") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{where} cannot be read ({why}); name a file of JSON lines") from None
    items: list[Item] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines, which cuts at U+2028 inside of strings too
        if not line.strip():
            continue
        try:
            item = _item(line)
            if item.prompt in seen:
                raise InputError(f"prompt: {item.prompt!r} is that of line {seen[item.prompt]}; ask it once")
            if items and bool(item.options) != bool(items[0].options):
                raise InputError("options: are given in some lines and not in others; make two files of them")
        except InputError as error:
            raise InputError(f"{where} line {number}: {error}") from None
        except RecursionError:  # of the parser, or of showing what it found
            raise InputError(f"{where} line {number}: is nested too deeply; {MEND}") from None
        seen[item.prompt] = number
        items.append(item)
    if not items:
        raise InputError(f"{where} holds no item; {MEND}")
    commonest = max(Counter(item.answer for item in items).values()) / len(items)
    return tuple(item if item.options else replace(item, chance=commonest) for item in items)


def _item(line: str) -> Item:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"is no JSON ({error}); {MEND}") from None
    if not isinstance(row, dict):
        raise InputError(f"is no JSON object, but {type(row).__name__}; {MEND}")
    if unknown := sorted(set(row) - FIELDS):
        raise InputError(f"{unknown[0]}: is no field of an item; {MEND}")
    for name in ("prompt", "answer"):
        if not isinstance(row.get(name), str):
            raise InputError(f"{name}: {row.get(name)!r} is no text; {MEND}")
        _check_characters(name, row[name])
    options = row.get("options", [])
    if not isinstance(options, list) or not all(isinstance(each, str) for each in options):
        raise InputError(f"options: {options!r} is no list of texts; {MEND}")
    for option in options:
        _check_characters("options", option)
    chance = 1 / len(options) if options else 0.0
    return Item(prompt=row["prompt"], answer=row["answer"], options=tuple(options), chance=chance)


def _check_characters(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise InputError(f"{name}: {text!r} holds {half!r}, half of a character; write the other half too") from None

"""Documents of tasks among the training documents of a corpus, at a share of its bytes; its held-out documents stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from lmscale.data.document import Document, Reading
from lmscale.data.pieces import heldout_share
from lmscale.study.abilities import TaskText
from lmscale.tasks.draws import Draws
from lmscale.tasks.item import Item
from lmscale.tasks.sides import digest, text_items

FORMAT = 1  # raise it when the same settings give other text
LINES_MOST = 8  # items of one task in a document: 1 to so many, so that some stand first and others after examples
SLICE = "task"  # begins the value of every field of a task's document


def fingerprint(task_text: TaskText) -> str:
    """Of the settings, from which all of the text follows, and of what their tasks stand for."""
    return digest([FORMAT, asdict(task_text)], task_text.chosen)


def mix_in(
    documents: Iterator[Document], task_text: TaskText, heldout: float, fields: tuple[str, ...], reading: Reading
) -> Iterator[Document]:
    """The documents given, and after each to train on as many of tasks as bring these to their share, each task as much
    of it in bytes. `reading.task_bytes` counts them.

    A document is held out by its content alone: one of a task on that side is left out, so that the held-out side is
    that of the corpus without tasks, to the byte.
    """
    names = [chosen.name for chosen in task_text.chosen]
    streams = {chosen.name: _texts(chosen.name, task_text, i) for i, chosen in enumerate(task_text.chosen)}
    written: Counter[str] = Counter(dict.fromkeys(names, 0))
    corpus_bytes, number, odds = 0, 0, task_text.share / (1 - task_text.share)
    for document in documents:
        yield document
        if heldout_share(document.text) < heldout:
            continue
        corpus_bytes += len(document.text)
        while written.total() < odds * corpus_bytes:
            name = min(names, key=lambda each: written[each])
            text = next(streams[name])
            if heldout_share(text) < heldout:
                continue
            written[name] += len(text)
            reading.task_bytes[name] += len(text)
            yield Document(name=f"task {name} {number}", text=text, fields=dict.fromkeys(fields, f"{SLICE}_{name}"))
            number += 1


def _texts(name: str, task_text: TaskText, place: int) -> Iterator[bytes]:
    """Documents of one task, without an end."""
    draws, items = Draws("lines", name, task_text.seed), text_items(task_text.chosen[place], task_text.seed)
    while True:
        lines: list[Item] = [next(items) for _ in range(draws.between(1, LINES_MOST))]
        yield "".join(item.line for item in lines).encode()

"""A source of labelled examples of a task and nothing else: what a model is fine-tuned on. Imports no framework.

The training documents are `examples` different items, again and again in another order each time, until there is enough
to cut windows from; the held-out documents are further items, on which nothing trains.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from analysis.errors import InputError
from lmscale.data.document import Document, Reading
from lmscale.data.pieces import heldout_share
from lmscale.study.abilities import Labelled
from lmscale.tasks.draws import Draws
from lmscale.tasks.sides import different_items, digest

FORMAT = 1  # raise it when the same settings give other text
LEAST_BYTES = 32_768  # of the training documents, in whole rounds: windows of any usual length fit into it
HELD_OUT = 256  # documents at the most


def fingerprint(labelled: Labelled) -> str:
    """Of the settings, from which all of the text follows, and of what their task stands for."""
    return digest([FORMAT, asdict(labelled)], [labelled.chosen])


def documents(labelled: Labelled, heldout: float, reading: Reading) -> Iterator[Document]:
    """A document an example; fewer examples are the first of more. Raises InputError where the task holds fewer."""
    texts: list[bytes] = []
    held: list[bytes] = []
    for item in different_items(labelled.chosen, labelled.seed):
        text = item.line.encode()
        side, most = (held, HELD_OUT) if heldout_share(text) < heldout else (texts, labelled.examples)
        if len(side) < most:
            side.append(text)
        if len(texts) == labelled.examples and len(held) == HELD_OUT:
            break
    if len(texts) < labelled.examples:
        raise InputError(
            f"corpus.labelled.examples: {labelled.examples:,} exceeds the {len(texts):,} that task {labelled.task!r} "
            "holds for training; ask for fewer"
        )
    for number, text in enumerate(held):
        yield Document(name=f"heldout {number}", text=text)
    draws, total, number = Draws("rounds", labelled.task, labelled.seed), 0, 0
    while total < LEAST_BYTES:
        for text in draws.sample(texts, len(texts)):
            yield Document(name=f"{number}", text=text)
            total, number = total + len(text), number + 1
            reading.task_bytes[labelled.chosen.name] += len(text)

"""A task as an evaluation set of a study: items as windows, zero-shot, after examples and out of distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.clean.prepared import BYTES
from lmscale.data.loader import EvaluationSet, made_set
from lmscale.data.shards import Split, Vocabulary
from lmscale.data.tokenizers import BYTE_OFFSET
from lmscale.evaluate import NamedSet, Score, by_window
from lmscale.network.noise import prompted
from lmscale.network.spans import PROMPTED
from lmscale.scoring.ability_scores import ability_scores
from lmscale.study.abilities import Abilities
from lmscale.study.typed import check
from lmscale.tasks.cloze import cloze_items
from lmscale.tasks.draws import Draws
from lmscale.tasks.item import END, Item
from lmscale.tasks.json_lines import read_items
from lmscale.tasks.registry import CLOZE, Chosen
from lmscale.tasks.sides import different_items, scored_items

if TYPE_CHECKING:
    from lmscale.step import Step

LINE_END = BYTE_OFFSET + ord(END)
SLACK = 2  # tokens that a model may write beyond the longest answer and its end
WIDTHS = tuple(2**power for power in range(4, 20))  # of windows: a program is compiled for each


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Items with what stands before each. In the set's windows each has a row an option, from `first` on."""

    slice: str
    items: tuple[Item, ...]
    before: tuple[str, ...]
    first: int
    width: int  # tokens of a window that are read
    most: int  # tokens that are written

    @property
    def choices(self) -> list[tuple[str, ...]]:
        """Of each item the options, or the answer alone."""
        return [item.options or (item.answer,) for item in self.items]

    @property
    def rows(self) -> int:
        return sum(map(len, self.choices))


@dataclass(frozen=True, kw_only=True)
class AbilitySet(NamedSet):
    """The items of a task. `labelled` and `task_share` say how much of it the study's runs have read in training."""

    asked: tuple[Asked, ...]
    prompts: NDArray[np.int64]  # [M]: tokens of each window before the answer
    labelled: int | None
    task_share: float

    def is_for(self, objective: str) -> bool:
        return objective in PROMPTED

    @property
    def scored(self) -> int:
        return sum(len(part.items) for part in self.asked)

    @property
    def unit(self) -> str:
        return "items"

    @property
    def read_tokens(self) -> int:
        """At the most: a pass an option, one of the answer, and one a token that is written."""
        return sum((part.rows + len(part.items) * (1 + part.most)) * part.width for part in self.asked)

    def measure(self, step: Step, params: Any) -> list[Score]:
        """Every metric of the same outputs, for each part (lmscale.scoring.ability_scores)."""
        scores = [score for part in self.asked for score in self._measure(step, params, part)]
        if self.labelled is not None:
            scores.append(Score(metric="labelled", value=self.labelled, stderr=None))
        return [*scores, Score(metric="task_share", value=self.task_share, stderr=None)]

    def _measure(self, step: Step, params: Any, part: Asked) -> list[Score]:
        rows = slice(part.first, part.first + part.rows)
        tokens = self.windows.tokens[rows, : part.width + 1]
        weights, prompts = self.windows.weights[rows, : part.width], self.prompts[rows]
        counts = np.array([len(each) for each in part.choices], np.int64)
        places = [each.index(item.answer) for each, item in zip(part.choices, part.items, strict=True)]
        right = np.cumsum(counts, dtype=np.int64) - counts + np.array(places, np.int64)
        read = prompted(tokens, prompts) if step.objective.noisy else tokens
        nats = by_window(step.token_losses, params, read, weights, step.row_devices)[0].sum(axis=1)
        (misses,) = by_window(step.window_misses, params, read[right], weights[right], step.row_devices)
        answers = [[byte + BYTE_OFFSET for byte in item.answer.encode()] for item in part.items]
        written = list(answers)
        if len(wrong := np.flatnonzero(misses > 0)):  # of others it is known: they are the likeliest, token for token
            asked, told = read[right[wrong]], prompts[right[wrong]]
            given = (np.arange(part.width) < told[:, None]).astype(np.float32)
            asked[:, 1 : part.width + 1] *= given.astype(np.int32)

            def write(*inputs: Any) -> tuple[Any, ...]:
                return step.written(*inputs, end=LINE_END, most=part.most)

            (found,) = by_window(write, params, asked, given, step.row_devices)
            for i, row, start in zip(wrong, found.astype(np.int32), told, strict=True):
                most = part.most if part.items[i].ends else len(answers[i])
                written[i] = _output(row[start : start + most].tolist(), step.objective.start_id)
        each = np.split(nats, np.cumsum(counts)[:-1])
        return ability_scores(part.items, each, nats[right], written, answers, part.slice)


def _output(tokens: list[int], eos_id: int) -> list[int]:
    """What was written: up to the line's end, or up to end-of-sequence and with it, which no answer holds."""
    if LINE_END in tokens:
        tokens = tokens[: tokens.index(LINE_END)]
    return tokens[: tokens.index(eos_id) + 1] if eos_id in tokens else tokens


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How much of each task the training text holds: share of its bytes, and labelled examples, by name."""

    shares: dict[str, float]
    labelled: dict[str, int]


def ability_sets(
    abilities: Abilities, trained: Trained, held: Sequence[Split], vocabulary: Vocabulary, sequence: int
) -> list[AbilitySet]:
    """The tasks of a study as evaluation sets; `held` is its held-out text.

    Raises InputError where items do not fit into `sequence` tokens, there are too few, or tokens are no bytes.
    """
    check(
        vocabulary.name == BYTES,
        "abilities.tasks",
        list(abilities.tasks),
        f"are asked in bytes, and the text is in {vocabulary.name!r}; leave out corpus.vocabulary",
    )
    return [_ability_set(abilities, chosen, trained, held, vocabulary, sequence) for chosen in abilities.chosen]


def _ability_set(
    abilities: Abilities,
    chosen: Chosen,
    trained: Trained,
    held: Sequence[Split],
    vocabulary: Vocabulary,
    sequence: int,
) -> AbilitySet:
    asked: list[Asked] = []
    for part, items, shots in _parts(abilities, chosen, held):
        before = tuple(_examples(abilities, chosen, items, i, shots) for i in range(len(items)))
        asked.append(_asked(chosen.name, part, items, before, shots, sequence, sum(each.rows for each in asked)))
    windows, prompts = _windows(asked, vocabulary.start_id)
    return AbilitySet(
        name=chosen.name,
        label=f"{chosen.name}-{sum(len(part.items) for part in asked)}-{windows.digest[:8]}",
        windows=windows,
        asked=tuple(asked),
        prompts=prompts,
        labelled=trained.labelled.get(chosen.name),
        task_share=trained.shares.get(chosen.name, 0.0),
    )


def _parts(abilities: Abilities, chosen: Chosen, held: Sequence[Split]) -> list[tuple[str, tuple[Item, ...], int]]:
    """Name of the slice, items, and examples before each."""
    count, seed = abilities.items, abilities.seed
    if chosen.name == CLOZE:  # running text: neither examples nor harder items
        return [("", cloze_items(held, chosen.difficulty, count, seed), 0)]
    items = scored_items(chosen, "in", count, seed)
    parts = [("" if shots == 0 else f"shots={shots}", items, shots) for shots in sorted(abilities.shots)]
    if "out" in abilities.splits and not chosen.path:
        parts.append(("split=out", scored_items(chosen, "out", count, seed), 0))
    return parts


def _examples(abilities: Abilities, chosen: Chosen, items: Sequence[Item], number: int, shots: int) -> str:
    """What stands before an item: items of training, or the file's other ones. Smaller counts take the last of more."""
    if shots == 0:
        return ""
    if chosen.path:
        others = [item for i, item in enumerate(items) if i != number]
        most = len(others)
        found = Draws("shots", chosen.name, abilities.seed, number).sample(others, min(shots, most))
    else:
        found = list(islice(different_items(chosen, f"shots {abilities.seed} {number}"), shots))
        most = len(found)
    if most < shots:
        raise InputError(
            f"abilities.shots: {shots} exceeds the {most} other items of task {chosen.name!r}; give a smaller count"
        )
    return "".join(item.line for item in reversed(found))


def _asked(
    name: str, part: str, items: tuple[Item, ...], before: tuple[str, ...], shots: int, sequence: int, first: int
) -> Asked:
    prompts = [len((b + item.prompt).encode()) for b, item in zip(before, items, strict=True)]
    answers = [max(len((option + item.end).encode()) for option in (item.options or (item.answer,))) for item in items]
    longest = max(p + a for p, a in zip(prompts, answers, strict=True))
    if longest > sequence:
        with_examples = f" after {shots} examples" if shots else ""
        lower = " (or lower abilities.shots)" if shots else ""
        raise InputError(
            f"recipe.sequence: {sequence} tokens do not hold an item of task {name!r}{with_examples}, which takes "
            f"{longest}; raise it{lower}, make the task easier, or leave it out"
        )
    most = max(answers) + (SLACK if items[0].ends else 0)
    width = next(width for width in WIDTHS if width >= max(longest, max(prompts) + most))
    return Asked(slice=part, items=items, before=before, first=first, width=min(width, sequence), most=most)


def _windows(asked: Sequence[Asked], start_id: int) -> tuple[EvaluationSet, NDArray[np.int64]]:
    """A row for each option: what stands before, the prompt, the option and its end, of which these two count."""
    count, width = sum(part.rows for part in asked), max(part.width for part in asked)
    tokens, weights = np.zeros((count, width + 1), np.int32), np.zeros((count, width), np.float32)
    prompts, documents, row, number = np.zeros(count, np.int64), np.zeros(count, np.int32), 0, 0
    tokens[:, 0] = start_id
    for part in asked:
        for before, item, choices in zip(part.before, part.items, part.choices, strict=True):
            for option in choices:
                prompt = (before + item.prompt).encode()
                text = np.frombuffer(prompt + (option + item.end).encode(), np.uint8)
                tokens[row, 1 : len(text) + 1] = text.astype(np.int32) + BYTE_OFFSET
                weights[row, len(prompt) : len(text)] = 1
                prompts[row], documents[row] = len(prompt), number
                row += 1
            number += 1
    told = [(part.slice, part.most, [item.answer for item in part.items]) for part in asked]
    return made_set(tokens, weights, documents, told), prompts


def check_apart(abilities: Abilities, corpus: Corpus) -> None:
    """That no item of a file is trained on. (Of other tasks the content of a prompt decides its side.) Raises
    InputError.
    """
    if corpus.task_text is not None:
        texts = corpus.task_text.chosen
    else:
        texts = (corpus.labelled.chosen,) if corpus.name == "labelled" else ()
    for chosen in abilities.chosen:
        if not chosen.path:
            continue
        mine = {item.prompt for item in read_items(chosen.path)}
        for other in texts:
            both = [item.prompt for item in (read_items(other.path) if other.path else ()) if item.prompt in mine]
            if both:
                raise InputError(
                    f"abilities.tasks: '{chosen.name}={chosen.path}' asks {both[0]!r}, which is trained on from "
                    f"{other.path!r}; give two files without a prompt in common"
                )

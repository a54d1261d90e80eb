"""Items of the tasks that are made: answers by brute force, chance by guessing, and none of training scored."""

import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from analysis.errors import InputError
from lmscale.tasks.addition import ADDITION
from lmscale.tasks.item import Item
from lmscale.tasks.redefinition import REDEFINITION
from lmscale.tasks.registry import MADE, NAMES, Chosen, choose_tasks
from lmscale.tasks.sides import different_items, is_scored, scored_items, text_items, training_items
from lmscale.tasks.unscrambling import OUTSIDE, WORDS

GOLDEN = {
    "copying": "copy aag:aag\n",
    "reversal": "turn egabe:ebage\n",
    "brackets": "close {}<{}<:>>\n",
    "agreement": "pigs of cars:are\n",
    "addition": "13+27 mod 29:11\n",
    "addition_scratchpad": "10+7 mod 29 so:17-0=17\n",
    "unscrambling": "word vhyea:heavy\n",
    "lookup": "look k1 n6 o7 j9 o:7\n",
    "redefinition": "now ram=3 cod=1 cod:1\n",
}
PAIRS = {")": "(", "]": "[", "}": "{", ">": "<"}


def chosen(name: str) -> Chosen:
    return Chosen.of(name, "tasks")


def closes(text: str) -> bool:
    """Whether brackets match, by a stack."""
    stack = []
    for letter in text:
        if letter in PAIRS.values():
            stack.append(letter)
        elif not stack or stack.pop() != PAIRS[letter]:
            return False
    return not stack


def said(prompt: str, sign: str) -> str:
    """The value that a prompt gives the key which stands last in it."""
    *pairs, key = prompt.rstrip(":").split()[1:]
    (value,) = [pair.removeprefix(key + sign) for pair in pairs if pair.startswith(key + sign)]
    return value


def is_right(name: str, prompt: str, answer: str) -> bool:
    """What a task asks for, written anew."""
    words = re.split(r"[ :]", prompt)
    match name:
        case "copying":
            return answer == words[1]
        case "reversal":
            return list(answer) == list(reversed(words[1]))
        case "brackets":
            return closes(words[1] + answer)
        case "agreement":
            return answer == ("are" if words[0].endswith("s") else "is")
        case "addition":
            first, second, modulus = map(int, re.findall(r"\d+", prompt))
            return int(answer) == (first + second) % modulus
        case "addition_scratchpad":
            first, second, modulus = map(int, re.findall(r"\d+", prompt))
            total, off, left = map(int, re.split(r"[-=]", answer))
            return total == first + second and off % modulus == 0 and left == total - off and 0 <= left < modulus
        case "unscrambling":
            return answer != words[1] and [w for w in WORDS if sorted(w) == sorted(words[1])] == [answer]
        case "lookup":
            return answer == said(prompt, "")
        case "redefinition":
            return answer == said(prompt, "=")
        case _:
            raise AssertionError(name)


@pytest.mark.parametrize("split", ["in", "out"])
@pytest.mark.parametrize("name", MADE)
def test_answers_are_right_and_the_only_right_option(name, split):
    for item in scored_items(chosen(name), split, 100, 0):
        assert is_right(name, item.prompt, item.answer)
        assert [option for option in item.options or (item.answer,) if is_right(name, item.prompt, option)] == [
            item.answer
        ]


@pytest.mark.parametrize("name", MADE)
def test_no_item_of_training_is_scored(name):
    trained = {item.prompt for item in islice(training_items(chosen(name), 5), 1000)}
    trained |= {item.prompt for item in islice(different_items(chosen(name), "shots 0 1"), 50)}
    trained |= {item.prompt for item in islice(text_items(chosen(name), 1), 1000)}
    for split in ("in", "out"):
        scored = {item.prompt for item in scored_items(chosen(name), split, 100, 0)}
        assert len(scored) == 100
        assert not trained & scored


@pytest.mark.parametrize("name", MADE)
def test_out_of_distribution_is_what_training_never_holds(name):
    inside = [item.prompt for item in islice(training_items(chosen(name), 5), 1000)]
    outside = [item.prompt for item in scored_items(chosen(name), "out", 100, 0)]
    if name == "unscrambling":
        assert {"".join(sorted(p)) for p in inside}.isdisjoint("".join(sorted(p)) for p in outside)
    elif name.startswith("addition"):
        assert max(int(n) for p in inside for n in re.findall(r"\d+", p.split()[0])) < ADDITION.difficulty
        assert all(max(map(int, re.findall(r"\d+", p.split()[0]))) >= ADDITION.difficulty for p in outside)
    elif name == "brackets":
        deep = [len(scored.answer) for scored in scored_items(chosen(name), "out", 100, 0)]
        assert min(deep) > max(len(item.answer) for item in islice(training_items(chosen(name), 5), 1000))
    else:  # longer: more letters, or more words
        size = len if name in ("copying", "reversal") else lambda p: len(p.split())
        assert min(map(size, outside)) > max(map(size, inside))


@pytest.mark.parametrize("split", ["in", "out"])
@pytest.mark.parametrize("name", [name for name in MADE if name != "addition_scratchpad"])
def test_chance_is_what_guessing_gets(name, split):
    """A guesser who takes any option, and one who always takes the first."""
    items = scored_items(chosen(name), split, 150, 0)
    chance = np.mean([item.chance for item in items])
    random = np.random.default_rng(0)
    guesses = [[item.options[random.integers(len(item.options))] for item in items] for _ in range(40)]
    hits = np.array(guesses) == [item.answer for item in items]
    assert abs(hits.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / hits.size)
    if name != "agreement":  # its options are always "is", "are"
        first = np.mean([item.options[0] == item.answer for item in items])
        assert abs(first - chance) < 4 * np.sqrt(chance * (1 - chance) / len(items))


@pytest.mark.parametrize("split", ["in", "out"])
def test_chance_of_a_scratchpad(split):
    """A guesser who does not add, but takes off the modulus as he should."""
    items = scored_items(chosen("addition_scratchpad"), split, 150, 0)
    modulus, random = ADDITION.difficulty, np.random.default_rng(1)
    lowest = 0 if split == "in" else modulus
    totals = lowest + random.integers(2 * modulus - 1, size=(400, len(items)))
    guesses = [[f"{t}-{t - t % modulus}={t % modulus}" for t in row] for row in totals.tolist()]
    hits = np.array(guesses) == [item.answer for item in items]
    chance = items[0].chance
    assert abs(hits.mean() - chance) < 4 * np.sqrt(chance / hits.size)


def test_agreement_is_balanced():
    items = scored_items(chosen("agreement"), "in", 300, 0)
    assert 0.4 < np.mean([item.answer == "are" for item in items]) < 0.6


def test_a_quarter_of_the_prompts_is_scored():
    every = [f"{a}+{b} mod 29:" for a in range(29) for b in range(a + 1)]
    share = np.mean([is_scored("addition", prompt) for prompt in every])
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(every))


@pytest.mark.parametrize("modulus", [5, 29])
def test_a_sum_is_on_one_side_however_it_is_asked(modulus):
    """In both tasks and both orders, in distribution and out of it; and sums are on both sides."""
    sides = set()
    for a in range(2 * modulus):
        for b in range(a + 1):
            sums = [f"{a}+{b} mod {modulus}", f"{b}+{a} mod {modulus}"]
            found = {is_scored("addition", f"{each}:") for each in sums}
            found |= {is_scored("addition_scratchpad", f"{each} so:") for each in sums}
            assert len(found) == 1
            sides |= found
    assert sides == {True, False}


def test_no_sum_that_is_scored_is_in_the_text_of_either_task():
    def sums(items):
        return {frozenset(re.findall(r"\d+", item.prompt.split()[0])) for item in items}

    names = ("addition", "addition_scratchpad")
    trained = set().union(*(sums(islice(text_items(chosen(name), 1), 3000)) for name in names))
    assert len(trained) > 300  # of 435
    for name in names:
        assert not trained & sums(scored_items(chosen(name), "in", 100, 0))


def test_what_is_learned_is_not_what_is_said():
    """Text says one digit of each word; items another, and the learned one is among the wrong options."""
    lines = {item.prompt: item.answer for item in islice(text_items(chosen("redefinition"), 1), 2000)}
    assert len(lines) == 30
    for item in scored_items(chosen("redefinition"), "in", 100, 0):
        word = item.prompt.split()[-1]
        assert lines[word] != item.answer
        assert lines[word] in item.options


def test_items_are_the_same_everywhere():
    """As they were on every machine so far."""
    first = {name: scored_items(chosen(name), "in", 1, 0)[0].line for name in MADE}
    assert first == GOLDEN
    assert scored_items(chosen("copying"), "in", 5, 0) == scored_items(chosen("copying"), "in", 50, 0)[:5]
    assert scored_items(chosen("copying"), "in", 5, 0) != scored_items(chosen("copying"), "in", 5, 1)


def test_words_are_of_different_letters():
    assert Counter(map(len, WORDS)) == {5: len(WORDS)}
    assert len({"".join(sorted(word)) for word in WORDS}) == len(WORDS)
    assert len(WORDS) > 2 * OUTSIDE


def test_harder_items():
    assert max(len(i.answer) for i in scored_items(chosen("copying:9"), "in", 60, 0)) == 9
    assert all(i.prompt.count("=") == 4 for i in scored_items(chosen("redefinition:4"), "in", 20, 0))
    for name, task in MADE.items():  # the easiest and the hardest that are allowed
        for difficulty in (task.least, task.most):
            for split in ("in", "out"):
                assert scored_items(chosen(f"{name}:{difficulty}"), split, 3, 0)
    assert REDEFINITION.most == 6


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("copyng",), "abilities.tasks: 'copyng' is no task; did you mean copying?"),
        (("zzz",), f"abilities.tasks: 'zzz' is no task; known: {', '.join(NAMES)}"),
        (("copying:x",), "abilities.tasks: 'copying:x' has no number after the colon; write it as copying:5"),
        (("copying:99",), "abilities.tasks: 'copying:99' must be from 3 to 32: letters of the longest string"),
        (("cloze:4",), "abilities.tasks: 'cloze:4' must be from 8 to 4096: bytes of text before the word"),
        (("copying", "copying:7"), "abilities.tasks: 'copying' is there twice; name it once"),
        (("copying=x.jsonl",), "abilities.tasks: 'copying=x.jsonl' has the name of a task of lmscale"),
        (("My Task=x",), "abilities.tasks: 'My Task=x' is no name and file; write it as mine=items.jsonl"),
        ((), "abilities.tasks: () names no task; name some of copying"),
    ],
)
def test_tasks_that_are_none(names, words):
    with pytest.raises(InputError) as caught:
        choose_tasks(names, "abilities.tasks")
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": ""}, "prompt: '' is empty"),
        ({"answer": ""}, "answer: '' is empty"),
        ({"options": ("b", "c")}, "answer: 'a' is not among the options b, c; add it"),
        ({"options": ("a", "b", "b")}, "options: 'b' is there twice"),
        ({"options": ("a",)}, "options: 'a' is the only one"),
        ({"options": ("a", "")}, "options: '' is empty"),
        ({"answer": "a\nb"}, "answer: 'a\\nb' holds a line break"),
    ],
)
def test_items_that_cannot_be_asked(fields, words):
    with pytest.raises(InputError) as caught:
        Item(**({"prompt": "p", "answer": "a", "chance": 0.5} | fields))
    assert str(caught.value).startswith(words)


def test_more_items_than_there_are():
    with pytest.raises(InputError, match=r"abilities.items: 500 exceeds the \d+ that task 'addition:29' holds"):
        scored_items(chosen("addition"), "in", 500, 0)

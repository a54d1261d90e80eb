"""Tasks of the user's: every line of a file is checked, and no line that is trained on is asked."""

import json

import pytest

from analysis.errors import InputError
from lmscale.config import Corpus
from lmscale.data.document import Reading
from lmscale.data.labelled import documents
from lmscale.scoring.ability_sets import check_apart
from lmscale.study.abilities import Abilities, Labelled, TaskText
from lmscale.tasks.json_lines import read_items
from lmscale.tasks.registry import Chosen
from lmscale.tasks.sides import scored_items

GOOD = {"prompt": "2+2=", "answer": "4", "options": ["3", "4", "22"]}


def written(tmp_path, *lines) -> str:
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return str(path)


def test_lines_are_items(tmp_path):
    path = written(tmp_path, GOOD, "", {"prompt": "é: ", "answer": "e", "options": ["e", "a"]})
    first, second = read_items(path)
    assert (first.prompt, first.answer, first.options, first.chance) == ("2+2=", "4", ("3", "4", "22"), 1 / 3)
    assert (second.prompt, second.chance) == ("é: ", 1 / 2)
    assert scored_items(Chosen.of(f"mine={path}", "t"), "in", 128, 0) == (first, second)
    assert scored_items(Chosen.of(f"mine={path}", "t"), "in", 1, 0) == (first,)


def test_chance_without_options_is_the_commonest_answer(tmp_path):
    rows = [{"prompt": str(i), "answer": "yes" if i < 3 else str(i)} for i in range(5)]
    assert {item.chance for item in read_items(written(tmp_path, *rows))} == {3 / 5}


def test_lines_end_where_json_lines_do(tmp_path):
    """At line feeds, with a carriage return or without; other separators of lines may stand in strings (RFC 8259)."""
    prompt = "a\u2028b\u2029c\x85d\x7f"
    lines = [json.dumps({"prompt": p, "answer": "e"}, ensure_ascii=False) for p in (prompt, "f")]
    for number, end in enumerate(("\n", "\r\n")):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(end.join([*lines, ""]).encode())
        assert [item.prompt for item in read_items(str(path))] == [prompt, "f"]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    path = tmp_path / "marked.jsonl"
    path.write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert read_items(str(path))[0].prompt == GOOD["prompt"]


def test_one_answer_is_trained_on_but_not_asked(tmp_path):
    path = written(tmp_path, *({"prompt": str(i), "answer": "yes"} for i in range(3)))
    assert len(read_items(path)) == 3
    with pytest.raises(InputError) as caught:
        scored_items(Chosen.of(f"mine={path}", "t"), "in", 128, 0)
    assert str(caught.value) == (
        f"abilities.tasks: 'mine={path}' has no answer but 'yes', which a guess gets always; give at least two "
        "different answers, or options"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is no JSON (Expecting property name"),
        ("[1]", "is no JSON object, but list"),
        ({"prompt": "a"}, "answer: None is no text; write {"),
        ({"prompt": 1, "answer": "b"}, "prompt: 1 is no text"),
        ({"prompt": "", "answer": "b", "options": ["b", "c"]}, "prompt: '' is empty"),
        ({"prompt": "a", "answer": "b", "options": ["c", "d"]}, "answer: 'b' is not among the options c, d; add it"),
        ({"prompt": "a", "answer": "b", "options": ["b", "b"]}, "options: 'b' is there twice; name it once"),
        ({"prompt": "a", "answer": "b", "options": "bc"}, "options: 'bc' is no list of texts"),
        ({"prompt": "a", "answer": "b", "option": ["b"]}, "option: is no field of an item"),
        ("[" * 100_000, "is nested too deeply; write {"),
        ('{"prompt": ' + "[" * 700 + "]" * 700 + "}", ("prompt: [[[", "is nested too deeply")),  # by Python's version
        ({"prompt": "a\ud800", "answer": "b"}, r"prompt: 'a\ud800' holds '\ud800', half of a character"),
        ({"prompt": "a", "answer": "\udc00b"}, r"answer: '\udc00b' holds '\udc00', half of"),
        ({"prompt": "a", "answer": "b", "options": ["b", "\ud83d"]}, r"options: '\ud83d' holds '\ud83d', half of"),
        (GOOD, "prompt: '2+2=' is that of line 1; ask it once"),
        ({"prompt": "a", "answer": "b"}, "options: are given in some lines and not in others"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, words):
    path = written(tmp_path, GOOD, line)
    with pytest.raises(InputError) as caught:
        read_items(path)
    said = str(caught.value).removeprefix(f"tasks: {path!r} line 2: ")
    assert said.startswith(words)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"tasks: '.*none.jsonl' cannot be read \(No such file"):
        read_items(str(tmp_path / "none.jsonl"))
    (tmp_path / "latin").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(InputError, match=r"is not UTF-8 \(byte 12\)"):
        read_items(str(tmp_path / "latin"))
    with pytest.raises(InputError, match="holds no item; write"):
        read_items(written(tmp_path, ""))


def test_an_item_that_is_trained_on_is_refused(tmp_path):
    path = written(tmp_path, GOOD)
    asked = Abilities(tasks=(f"mine={path}",))
    for corpus in (
        Corpus(task_text=TaskText(tasks=(f"other={path}",))),
        Corpus(task="labelled", labelled=Labelled(task=f"mine={path}", examples=1)),
    ):
        with pytest.raises(InputError, match=r"asks '2\+2=', which is trained on from .*; give two files"):
            check_apart(asked, corpus)
    check_apart(asked, Corpus(task_text=TaskText()))


def test_labelled_lines_of_a_file(tmp_path):
    rows = [{"prompt": f"q{i} ", "answer": str(i)} for i in range(40)]
    path = written(tmp_path, *rows)
    texts = [d.text for d in documents(Labelled(task=f"mine={path}", examples=20), 0.2, Reading(on_bad="refuse"))]
    assert {text.decode().rstrip("\n") for text in texts} <= {f"q{i} {i}" for i in range(40)}
    with pytest.raises(InputError, match=r"corpus.labelled.examples: 41 exceeds the \d+ that task 'mine=.*' holds"):
        list(documents(Labelled(task=f"mine={path}", examples=41), 0.2, Reading(on_bad="refuse")))

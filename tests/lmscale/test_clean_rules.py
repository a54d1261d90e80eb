"""Every rule of cleaning on documents whose value was computed by hand; shares of grams against plain sets."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmscale.data.clean.encoding import BrokenText, decode
from lmscale.data.clean.language import OtherLanguage
from lmscale.data.clean.lines import C4Lines
from lmscale.data.clean.personal import PersonalData
from lmscale.data.clean.quality import GopherQuality
from lmscale.data.clean.repetition import GopherRepetition, duplicates, grams
from lmscale.data.clean.settings import Encoding, Language, Lines, Personal, Quality, Repetition, Toxicity
from lmscale.data.clean.toxicity import ToxicText
from lmscale.data.clean.words import sentences

GOOD = "the river runs with " * 15  # 60 words of 4 characters in the mean, two stop words


def quality(text: str, **settings: Any) -> tuple[str, float | str]:
    verdict = GopherQuality(Quality(**settings))("name", text)
    assert (verdict.text is None) == bool(verdict.rule)
    return verdict.rule, verdict.value


@pytest.mark.parametrize(
    ("text", "rule", "value"),
    [
        (GOOD, "", 0),
        (" ".join(GOOD.split()[:49]), "words_min", 49),
        (" ".join(GOOD.split()[:50]), "", 0),
        ("the a a with " * 15, "word_characters_min", 2.25),  # (3 + 1 + 1 + 4) / 4
        (f"the {'b' * 20} {'c' * 20} with " * 15, "word_characters_max", 11.75),
        (GOOD + "# " * 7, "hashes_max", 7 / 67),
        (GOOD + "# " * 6, "", 0),  # 6 / 66
        (GOOD.replace("runs", "runs...", 7), "ellipses_max", 7 / 60),
        (GOOD.replace("runs", "runs\u2026", 7), "ellipses_max", 7 / 60),
        (GOOD.replace("runs", "runs...", 6), "", 0),  # 6 / 60 is not above 0.1
        ("\u2022the river runs with\n" * 19 + "the river runs with", "bullet_lines_max", 0.95),
        ("- the river runs with\n" * 18 + "\nthe river runs with\n" * 2, "", 0),  # 0.9; 80 of 98 words have letters
        ("the river runs with\u2026\n" * 7 + "the river runs with\n" * 13, "ellipsis_lines_max", 0.35),
        ("the river runs with...\n" * 6 + "the river runs with\n" * 14, "", 0),
        (GOOD + "1234 " * 16, "alphabetic_words_min", 60 / 76),
        (GOOD + "1234 " * 15, "", 0),
        ("the river runs past " * 15, "stop_words_min", 1),
        ("The river runs past " * 14 + 'The river runs "Of,"', "", 0),
    ],
)
def test_gopher_quality(text, rule, value):
    assert quality(text) == (rule, pytest.approx(value))


def test_a_document_of_more_words_than_allowed_is_dropped_without_counting_them():
    assert quality(GOOD, words_max=59) == ("words_max", "more than 59")
    assert quality(GOOD, words_max=60) == ("", 0)


def test_shares_of_duplicate_pieces():
    assert duplicates(["ab", "cd", "ab", "", "  ", " ab "]) == (2 / 4, 4 / 8)
    assert duplicates(["abcdef", "x", "x"]) == (1 / 3, 1 / 8)
    assert duplicates([]) == (0, 0)


def test_shares_of_grams_by_hand():
    # 'a b' stands twice: 2 * 2 of 5 characters; no gram of 3 words does
    assert grams(["a", "b", "a", "b", "c"]) == ([4 / 5, 0, 0], [0] * 6)
    # 5 words come again: 5 of 11 characters; no 6 do. Of the grams of 2, 3, 4 words the top ones stand twice
    assert grams(["a", "b", "c", "d", "e", "x", "a", "b", "c", "d", "e"]) == (
        [pytest.approx(4 / 11), pytest.approx(6 / 11), pytest.approx(8 / 11)],
        [pytest.approx(5 / 11), 0, 0, 0, 0, 0],
    )
    # 'a a a a a' starts at 0, 1 and 2: its later occurrences cover words 1 to 6, each counted once; 6 grams of 2 words
    # would be 12 characters of 7
    assert grams(["a"] * 7) == ([1, 1, 1], [pytest.approx(6 / 7), pytest.approx(6 / 7), 0, 0, 0, 0])
    # Of two grams that are as frequent the longest: 'ccc ddd', 6 characters twice of 16 (a b ccc ddd a b ccc ddd)
    assert grams(["a", "b", "ccc", "ddd", "a", "b", "ccc", "ddd"])[0][0] == pytest.approx(12 / 16)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), min_size=1, max_size=40))
def test_shares_of_grams_are_those_of_plain_sets(words):
    top, duplicate = grams(words)
    characters = sum(map(len, words))
    for size in range(2, 11):
        every = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
        often = max(map(every.count, every), default=0)
        if size <= 4:
            longest = max((len("".join(g)) for g in every if every.count(g) == often), default=0)
            expected = min(1, longest * often / characters) if often > 1 else 0
            assert top[size - 2] == pytest.approx(expected)
        else:
            covered = {i + k for i, g in enumerate(every) if g in every[:i] for k in range(size)}
            assert duplicate[size - 5] == pytest.approx(sum(len(words[i]) for i in covered) / characters)


@pytest.mark.parametrize(
    ("text", "rule", "value"),
    [
        ("one\ntwo\none\nalpha beta gamma delta\nepsilon", "", 0),  # 1 of 5 lines, 3 of 38 characters
        ("one\ntwo\none\none\nsix is long enough here for it all to pass", "lines_max", 0.4),
        ("a long line is here\na long line is here\nb\nc\nd", "line_characters_max", 19 / 41),
        # Of the grams of 2 words 'x y' and 'y z.' stand thrice: 3 * 3 of 15 characters
        ("x y z. " * 3 + "u v w", "top_grams_max", "0.600 of 2 words"),
    ],
)
def test_gopher_repetition(text, rule, value):
    verdict = GopherRepetition(Repetition())("name", text)
    assert (verdict.rule, verdict.value) == (rule, pytest.approx(value) if isinstance(value, float) else value)


def test_paragraphs_and_duplicate_grams_have_rules_of_their_own():
    apart = GopherRepetition(Repetition(lines_max=1, line_characters_max=1))
    text = "p one\n\nq\n\np one\n\nr\n\nq\n\n" + "stuv"
    assert (apart("", text).rule, apart("", text).value) == ("paragraphs_max", pytest.approx(2 / 6))
    loose = GopherRepetition(Repetition(lines_max=1, line_characters_max=1, paragraphs_max=1))
    assert loose("", text).rule == "paragraph_characters_max"  # 6 of 17
    assert loose("", text).value == pytest.approx(6 / 17)
    again = "a b c d e x a b c d e " + " ".join(chr(0x4E00 + i) for i in range(20))
    no_top = GopherRepetition(Repetition(top_grams_max=(1, 1, 1)))
    assert (no_top("", again).rule, no_top("", again).value) == ("duplicate_grams_max", "0.161 of 5 words")  # 5 of 31


PAGE = f"""Home | About
The first sentence of this page is here.

Too short here.
Please enable Javascript to view this page now.
By staying you accept our privacy policy for good.
This one trails off without an end...
Known since 1990.[12] It ends with a citation.[3]
{"x" * 1001} is a word of more than a thousand characters.
"""


def test_c4_lines():
    verdict = C4Lines(Lines())("name", PAGE)
    assert verdict.text == "The first sentence of this page is here.\nKnown since 1990. It ends with a citation."
    assert verdict.edits == {
        "punctuation": 2,
        "words_min": 1,
        "javascript": 1,
        "policy": 1,
        "citations": 2,
        "word_characters_max": 1,
    }
    strict = C4Lines(Lines(sentences_min=4))("name", PAGE)
    assert (strict.text, strict.rule, strict.value) == (None, "sentences_min", 3)
    only = C4Lines(Lines(rules=("punctuation",), words_min=0, word_characters_max=2000))("name", PAGE)
    assert only.text is not None
    assert only.text.count("\n") == 4
    assert only.edits == {"punctuation": 3}  # '...citation.[3]' no longer ends in a mark


def test_c4_pages():
    lorem, curly = C4Lines(Lines())("", PAGE + "Lorem Ipsum dolor."), C4Lines(Lines())("", PAGE + "if (x) { y }")
    assert (lorem.rule, lorem.value) == ("lorem_ipsum", 1)
    assert (curly.rule, curly.value) == ("curly_bracket", 2)


def test_sentences_are_the_text():
    text = 'One. Two! "Three?" Four\nfive 3.14 six... Seven'
    assert [text[a:b] for a, b in sentences(text)] == [
        "One. ",
        "Two! ",
        '"Three?" ',
        "Four\n",
        "five 3.14 six... ",
        "Seven",
    ]
    assert sentences(" \n ") == []


@settings(deadline=None)
@given(st.text(alphabet="ab.!\n \"'", max_size=60))
def test_sentences_lose_nothing_but_leading_space(text):
    found = sentences(text)
    assert "".join(text[a:b] for a, b in found) == (text.lstrip() and text[found[0][0] :])
    assert text[: found[0][0]].strip() == "" if found else not text.strip()


def test_mojibake_is_mended_line_by_line():
    sound = "M\u00fcller\u2019s caf\u00e9 is sch\u00f6n, \u4e2d\u6587\n"
    broken = "The caf\u00e9 of M\u00fcller\u2019s is sch\u00f6n.\n".encode().decode("cp1252")
    verdict = BrokenText(Encoding())("name", sound + broken)
    assert verdict.text == sound + "The caf\u00e9 of M\u00fcller\u2019s is sch\u00f6n.\n"
    assert verdict.edits == {"mojibake": 1}
    assert BrokenText(Encoding(mojibake="keep"))("name", sound + broken).text != verdict.text


def test_control_and_replacement_characters():
    broken = BrokenText(Encoding())
    verdict = broken("name", "a\x00b\tc\r\nd\ufeff" + "e" * 200)
    assert (verdict.text, dict(verdict.edits)) == ("ab\tc\r\nd" + "e" * 200, {"control": 2})
    assert (broken("", "\x01" * 2 + "e" * 98).rule, broken("", "\x01" * 2 + "e" * 98).value) == ("broken_max", 0.02)
    assert broken("", "\ufffd" * 2 + "e" * 98).value == 0.02
    assert broken("", "\ufffd" + "e" * 99).text == "\ufffd" + "e" * 99  # 0.01 is not above
    assert BrokenText(Encoding(form="NFC"))("", "cafe\u0301").text == "caf\u00e9"


def test_bytes_that_are_no_text():
    assert decode("caf\u00e9".encode(), Encoding()).text == "caf\u00e9"
    bad = decode(b"caf\xe9 au lait", Encoding())
    assert (bad.text, bad.rule, bad.value) == (None, "undecodable", "byte 0xe9 at offset 3")
    assert decode(b"caf\xe9 au lait", Encoding(undecodable="replace")).text == "caf\ufffd au lait"


ENGLISH = (
    "It was a bright cold day in April, and the clocks were striking thirteen. The hallway smelt of cabbage and rags. "
)
GERMAN = "Es war ein heller, kalter Tag im April, und die Uhren schlugen gerade dreizehn. Im Flur roch es nach Kohl. "


def test_language():
    english = OtherLanguage(Language())
    assert english("", ENGLISH * 3).text
    german = english("", GERMAN * 3)
    assert (german.rule, str(german.value)[:3]) == ("kept", "de ")
    assert OtherLanguage(Language(kept=("de", "en")))("", GERMAN * 3).text
    unsure = OtherLanguage(Language(probability_min=1))("", "It was a day")
    assert unsure.rule == "probability_min"


def test_listed_words():
    some = ToxicText(Toxicity(words_max=1))
    assert some("", "a fuck is let pass").text
    assert some("", "two, Fuck and\nFUCK, are not").rule == "words_max"
    assert ToxicText(Toxicity())("", "Scunthorpe, cockpit and shitake").text  # whole words alone
    passages = ToxicText(Toxicity(removed="passages"))("", "good one\n\nbad fuck\nmore\n\ngood two\n")
    assert (passages.text, dict(passages.edits)) == ("good one\n\ngood two\n", {"words_max": 1})


def test_a_list_of_the_users_with_phrases(tmp_path):
    (tmp_path / "words.txt").write_text("snake oil\n\n  B\u00f6se \n", encoding="utf-8")
    listed = ToxicText(Toxicity(words_file=str(tmp_path / "words.txt")))
    assert listed("", "it is Snake\n oil").value == "1, the first 'snake\\n oil'"
    assert listed("", "b\u00d6se!").rule == "words_max"
    assert listed("", "a snake and some oil, fuck").text


def test_a_hook_scores_documents_or_passages(tmp_path, monkeypatch):
    (tmp_path / "share_of_x.py").write_text("def score(text):\n    return text.count('x') / len(text)\n")
    monkeypatch.syspath_prepend(tmp_path)
    hooked = ToxicText(Toxicity(hook="share_of_x:score", score_max=0.25))
    assert hooked("", "xxyyyyyy").text  # 0.25
    assert (hooked("", "xxxyy").rule, hooked("", "xxxyy").value) == ("score_max", 0.6)
    parts = ToxicText(Toxicity(hook="share_of_x:score", score_max=0.25, removed="passages"))
    assert parts("", "yyyy\n\nxxxx\n\nzz").text == "yyyy\n\nzz"


AWS, GITHUB = "AKIA" + "ABCDEFGH12345678", "ghp" + "_" + "a1B2" * 9
PRIVATE = "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE" + " KEY-----"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to Jane.Doe+x@mail.example.co.uk.", "write to <email>."),
        ("<a@b.org>, (c_d@e-f.com)", "<<email>>, (<email>)"),
        ("call +44 20 7946 0958 or (415) 555-2671 or 415-555-2671.", "call <phone> or <phone> or <phone>."),
        ("call +1 (415) 555-2671 now", "call <phone> now"),
        ("from 8.8.8.8, 2001:4860:4860::8888 and", "from <ip>, <ip> and"),
        (f"id={AWS} {GITHUB}\n{PRIVATE}\nend", "id=<key> <key>\n<key>\nend"),
    ],
)  # fmt: skip
def test_personal_data_is_masked(text, masked):
    verdict = PersonalData(Personal())("name", text)
    assert verdict.text == masked
    assert sum(verdict.edits.values()) == len(re.findall("<(?:email|phone|ip|key)>", masked))


@pytest.mark.parametrize(
    "text",
    [
        "user@localhost, @decorator, a@b",
        "ISBN 978-3-16-148410-0, 2024-01-31, 4155552671, 3.14159",
        "127.0.0.1 10.1.2.3 192.168.0.1 ::1 999.1.1.1 1.2.3.4.5 12:30:45",
        f"X{AWS} task-force sk-learn eyJhbGci",
    ],
)
def test_what_is_no_personal_data_is_left(text):
    verdict = PersonalData(Personal())("name", text)
    assert (verdict.text, dict(verdict.edits)) == (text, {})


def test_personal_data_drops_by_choice():
    text = "a@b.org c@d.org " + AWS
    assert PersonalData(Personal(masked_max=3))("", text).edits == {"email": 2, "key": 1}
    many = PersonalData(Personal(masked_max=2))("", text)
    assert (many.text, many.rule, many.value) == (None, "masked_max", "3: 2 email, 1 key")
    assert PersonalData(Personal(masked_max=None))("", f"{text}\n" * 9).edits == {"email": 18, "key": 9}
    assert PersonalData(Personal(kinds=("key",)))("", text).text == "a@b.org c@d.org <key>"

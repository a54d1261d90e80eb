"""Cleaning as a whole: duplicates against plain sets, the ledger's sums, one process or four, settings, bad input."""

import dataclasses
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, cast

import pytest

from analysis.errors import InputError
from lmscale.data.clean import pipeline
from lmscale.data.clean.ledger import EXAMPLES, Ledger
from lmscale.data.clean.near import NearDuplicates, Shingler, jaccard
from lmscale.data.clean.pipeline import clean
from lmscale.data.clean.settings import STEPS, Cleaning, Contamination, Language, Near, Quality, Step, Toxicity
from lmscale.data.sources import Document
from lmscale.study.studies import fields, override
from lmscale.study.typed import build

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]


def document(name: str, text: str | bytes) -> Document:
    return Document(name=name, text=text if isinstance(text, bytes) else text.encode())


def run(documents: list[Document], ledger: Ledger | None = None, processes: int = 1, **settings: Any) -> list[str]:
    """The names of what is left."""
    left = clean(documents, Cleaning(**settings), Ledger() if ledger is None else ledger, processes)
    return [each.name for each in left]


def shingles(text: str, size: int = 5) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def planted(count: int, seed: int) -> tuple[list[Document], dict[str, float]]:
    """Documents of random words, `count` of them with an edited copy; the Jaccard similarity of each copy."""
    rng = random.Random(seed)
    originals = [rng.choices(WORDS, k=rng.randrange(120, 400)) for _ in range(2 * count)]
    documents = [document(f"original{i}", " ".join(words)) for i, words in enumerate(originals)]
    similar = {}
    for i in range(count):
        copy = list(originals[i])
        for _ in range(rng.randrange(1, 12)):
            copy[rng.randrange(len(copy))] = rng.choice(WORDS)
        a, b = shingles(" ".join(originals[i])), shingles(" ".join(copy))
        similar[f"copy{i}"] = len(a & b) / len(a | b)
        documents.append(document(f"copy{i}", " ".join(copy)))
    return documents, similar


def test_near_duplicates_are_those_of_plain_sets():
    documents, similar = planted(300, seed=1)
    left = run(documents, steps=("near",))
    found = {each.name for each in documents} - set(left)
    true = {name for name, similarity in similar.items() if similarity >= 0.8}
    close = {name for name in true if similar[name] < 0.85}
    assert len(true) > 100
    assert len(close) > 20
    assert len(found & true) / len(true) > 0.95
    assert len(found & close) / len(close) > 0.95
    assert found <= true  # every candidate is verified


def test_the_similarity_is_that_of_the_sets():
    documents, similar = planted(20, seed=2)
    shingler = Shingler(Near())
    texts = {each.name: shingler(each.text.decode()).hashes for each in documents}
    for i in range(20):
        assert jaccard(texts[f"original{i}"], texts[f"copy{i}"]) == pytest.approx(similar[f"copy{i}"], abs=1e-12)


def test_the_earliest_stays_and_stands_for_what_follows():
    words = [f"w{i}" for i in range(104)]  # 100 shingles
    second = [*words[:8], "x", *words[9:]]  # 5 shingles differ: 95 / 105
    third = [*second[:98], "y", *second[99:]]  # 10 from the first, 90 / 110; 5 from the second
    documents = [document(name, " ".join(text)) for name, text in (("a", words), ("b", second), ("c", third))]
    assert run(documents, steps=("near",)) == ["a"]
    assert run(documents, steps=("near",), near=Near(jaccard_min=0.85)) == ["a", "c"]  # b, like c, is not kept
    assert run(documents[::-1], steps=("near",), near=Near(jaccard_min=0.85)) == ["c", "a"]
    assert run(documents, steps=("near",), near=Near(jaccard_min=0.91)) == ["a", "b", "c"]


def test_short_documents_are_near_only_when_equal():
    texts = ["one two", "One  two", "one two three", "two one", "\u4e2d\u6587", "\u4e2d\u6587"]
    assert run([document(str(i), text) for i, text in enumerate(texts)], steps=("near",)) == ["0", "2", "3", "4"]


def test_a_long_text_is_shingled_in_blocks_as_in_one_piece(monkeypatch):
    text = " ".join(random.Random(3).choices(WORDS, k=2000))
    whole = Shingler(Near())(text)
    monkeypatch.setattr("lmscale.data.clean.words.BLOCK_CHARACTERS", 100)
    parts = Shingler(Near())(text)
    assert parts.bands == whole.bands
    assert parts.hashes.tolist() == whole.hashes.tolist()
    assert len(whole.hashes) == len(shingles(text))


def test_exact_duplicates():
    documents = [document(str(i), text) for i, text in enumerate(["same", "same ", "same", "other", "same"])]
    ledger = Ledger()
    assert run(documents, ledger, steps=("exact",)) == ["0", "1", "3"]
    assert ledger.steps["exact"].dropped["exact"].documents == 2


def test_spans_of_three_sentences_stay_once():
    first = "Ant bee. Cow dog. Eel fox. Gnu hen."
    again = "Start. cow  dog. Eel fox. Gnu hen. End."
    texts = [first, again, "Cow dog. Eel fox. End.", first, "Cow dog. Eel fox.\nGnu hen."]
    ledger = Ledger()
    left = list(clean([document(str(i), t) for i, t in enumerate(texts)], Cleaning(steps=("spans",)), ledger))
    assert [(each.name, each.text.decode()) for each in left] == [
        ("0", first),
        ("1", "Start. End."),
        ("2", "Cow dog. Eel fox. End."),
    ]
    assert ledger.steps["spans"].edits == {"sentences": 3}
    assert ledger.steps["spans"].dropped["spans"].documents == 2


def mixed(count: int) -> list[Document]:
    """Documents of all kinds: sound, short, repeated, broken, with addresses, copies, empty."""
    rng = random.Random(4)
    documents: list[Document] = []
    for i in range(count):
        text = ". ".join(" ".join(rng.choices([*WORDS, "the", "and", "of"], k=12)) for _ in range(12)) + "."
        made = [
            text,
            text[:80],
            f"{text} Please write to a{i}@b.org.",
            text + "\x00" * 40,
            f"{text[:60]}\n" * 20,
            "",
            documents[rng.randrange(len(documents))].text if documents else text,
            text.encode() + b"\xff",
        ][rng.randrange(8)]
        documents.append(document(f"d{i}", made))
    return documents


ALL: tuple[Step, ...] = tuple(step for step in STEPS if step != "language")  # random words are in no language


def test_one_process_and_four_give_the_same(monkeypatch):
    documents = mixed(300)
    settings = Cleaning(steps=ALL)
    alone, together, small = Ledger(), Ledger(), Ledger()
    left = list(clean(documents, settings, alone))
    monkeypatch.setattr(pipeline, "CHUNK_DOCUMENTS", 23)
    assert list(clean(documents, settings, small)) == left
    assert list(clean(documents, settings, together, processes=4)) == left
    assert 20 < len(left) < 200
    assert json.dumps(together.as_json()) == json.dumps(alone.as_json()) == json.dumps(small.as_json())


def test_nothing_is_lost_between_steps():
    documents, ledger = mixed(200), Ledger()
    left = list(clean(documents, Cleaning(steps=ALL), ledger))
    assert list(ledger.steps) == ["text", *ALL]
    documents_in, bytes_in = len(documents), sum(len(each.text) for each in documents)
    for count in ledger.steps.values():
        assert (count.documents_in, count.bytes_in) == (documents_in, bytes_in)
        assert count.documents_in == count.documents_out + sum(entry.documents for entry in count.dropped.values())
        if not count.edits:
            assert count.bytes_in == count.bytes_out + sum(entry.bytes for entry in count.dropped.values())
        assert all(1 <= len(entry.examples) <= EXAMPLES for entry in count.dropped.values())
        documents_in, bytes_in = count.documents_out, count.bytes_out
    assert (documents_in, bytes_in) == (len(left), sum(len(each.text) for each in left))
    assert {"empty"} == set(ledger.steps["text"].dropped) - {"undecodable"}
    assert ledger.steps["personal"].edits["email"] > 5


def test_a_ledger_is_told_in_json_and_in_text():
    ledger = Ledger()
    run(mixed(60), ledger, steps=("encoding", "quality", "personal", "exact"))
    told = json.loads(json.dumps(ledger.as_json(), allow_nan=False))
    assert told == ledger.as_json()  # nothing that JSON has not
    words_min = ledger.steps["quality"].dropped["words_min"]
    assert told["quality"]["dropped"]["words_min"]["documents"] == words_min.documents > 0
    line = next(line for line in ledger.as_text().splitlines() if line.startswith("  words_min"))
    assert f"-{words_min.documents:,}" in line
    assert repr(words_min.examples[0].name) in line
    assert max(map(len, ledger.as_text().splitlines())) < 300


def test_a_ledgers_examples_are_short_and_plain():
    ledger = Ledger()
    few = Quality(words_max=10, words_min=0)
    run([document("n" * 500, "\x1b[31m\u202e word\n" * 500)], ledger, steps=("quality",), quality=few)
    example = ledger.steps["quality"].dropped["words_max"].examples[0]
    assert max(len(example.name), len(example.text)) <= 80
    assert example.text.isprintable()


def test_fields_of_a_document_stay():
    @dataclass(frozen=True, kw_only=True)
    class Sourced(Document):
        source: str

    made = [Sourced(name="a", text=b"mail a@b.org", source="web"), Sourced(name="b", text=b"no mail", source="book")]
    left = list(clean(made, Cleaning(steps=("personal",)), Ledger()))
    assert [(each.text, cast(Sourced, each).source) for each in left] == [
        (b"mail <email>", "web"),
        (b"no mail", "book"),
    ]
    assert left[1] is made[1]


def test_cleaning_streams():
    def endless():
        number = 0
        while True:
            yield document(str(number), f"document {number}")
            number += 1

    stream = clean(endless(), Cleaning(steps=("exact",)), Ledger())
    assert [next(stream).name for _ in range(1000)][-1] == "999"
    cast(Any, stream).close()


# Bad input


def test_an_empty_document_is_counted():
    ledger = Ledger()
    assert run([document("a", ""), document("b", " \n\t "), document("c", "c")], ledger, steps=("exact",)) == ["c"]
    assert ledger.steps["text"].dropped["empty"].documents == 2


def test_a_document_that_a_step_empties_is_dropped():
    ledger = Ledger()
    toxic = Toxicity(removed="passages")
    assert run([document("a", "fuck\n\nfuck that")], ledger, steps=("toxicity",), toxicity=toxic) == []
    assert ledger.steps["toxicity"].dropped["empty"].documents == 1


def test_text_that_is_not_utf8():
    documents = [document("good", "sound"), document("bad.txt", b"caf\xe9"), document("last", "sound too")]
    ledger = Ledger()
    assert run(documents, ledger, steps=("encoding",)) == ["good", "last"]
    assert ledger.steps["text"].dropped["undecodable"].examples[0].value == "byte 0xe9 at offset 3"
    message = (
        r"^corpus.cleaning.steps: document 'bad.txt' is not UTF-8 \(byte 0xe9 at offset 3\); add the step encoding"
    )
    with pytest.raises(InputError, match=message):
        run(documents, steps=("exact",))


def test_a_document_of_100_megabytes():
    large = document("large", b"the river runs with the sea and back\n" * 2_800_000)
    assert len(large.text) > 100e6
    ledger = Ledger()
    loose = Quality(words_min=1, stop_words_min=0)
    assert run([large, document("b", "the sea")], ledger, steps=("encoding", "quality"), quality=loose) == ["b"]
    assert ledger.steps["quality"].dropped["words_max"].bytes == len(large.text)
    assert run([large], steps=("exact",)) == ["large"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(No such file or directory\); correct it"),
        (b"caf\xe9\n", r"is not UTF-8 \(at offset 3\); convert it"),
        (b"\n \n--\n", r"holds no words; write one a line"),
    ],
)
def test_a_word_list_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^corpus.cleaning.toxicity.words_file: '.*words.txt' {message}"):
        run([document("a", "a")], steps=("toxicity",), toxicity=Toxicity(words_file=str(path)))


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("no_such_module:score", r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_module'\)"),
        ("hooks_broken:score", r"cannot be imported \(ZeroDivisionError: division by zero\); mend it"),
        ("hooks:nothing", r"names no function of 'hooks'; correct it"),
        ("hooks:number", r"names no function of 'hooks'"),
        ("hooks:raises", r"raises RuntimeError: of two lines for document 'a'; mend it"),
        ("hooks:word", r"gives 'high' for document 'a'; it must give a finite number"),
        ("hooks:nan", r"gives nan for document 'a'"),
        ("hooks:none", r"gives None for document 'a'"),
    ],
)
def test_hooks_that_fail(tmp_path, monkeypatch, hook, message):
    (tmp_path / "hooks_broken.py").write_text("1 / 0\n")
    (tmp_path / "hooks.py").write_text(
        "number = 3\n"
        "def raises(text): raise RuntimeError('of\\ntwo lines')\n"
        "def word(text): return 'high'\n"
        "def nan(text): return float('nan')\n"
        "def none(text): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hooks", raising=False)
    with pytest.raises(InputError, match=rf"^corpus.cleaning.toxicity.hook: '{hook}' {message}") as caught:
        run([document("a", "a")], steps=("toxicity",), toxicity=Toxicity(hook=hook))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--steps encodings", r"^steps: 'encodings' is not encoding or language or .*, one or more; give such a value"),
        ("--steps exact exact", r"^corpus.cleaning.steps: \('exact', 'exact'\) must not name one twice"),
        ("--steps none", r"^corpus.cleaning.steps: \(\) must name at least one of encoding, language"),
        ("--near.jaccard-min 1.5", r"^corpus.cleaning.near.jaccard_min: 1.5 must lie in \(0, 1\]"),
        ("--near.bands 0", r"^corpus.cleaning.near.bands: 0 must lie between 1 and 1000"),
        ("--quality.bullet-lines-max 2", r"^corpus.cleaning.quality.bullet_lines_max: 2.0 must lie between 0 and 1"),
        ("--quality.words-max 10", r"^corpus.cleaning.quality.words_max: 10 is below words_min, 50; raise it"),
        ("--quality.stop-words-min 9", r"^corpus.cleaning.quality.stop_words_min: 9 must lie between 0 and the 8"),
        ("--repetition.top-grams-max 0.2", r"^corpus.cleaning.repetition.top_grams_max: \(0.2,\) must be 3 shares"),
        ("--lines.words-min -1", r"^corpus.cleaning.lines.words_min: -1 must be at least 0"),
        ("--toxicity.hook score", r"^corpus.cleaning.toxicity.hook: 'score' must be MODULE:FUNCTION"),
        ("--toxicity.score-max nan", r"^toxicity.score_max: 'nan' is not a number"),
        ("--personal.kinds face", r"^personal.kinds: 'face' is not email or phone or ip or key, one or more"),
        ("--encoding.broken-max -0.1", r"^corpus.cleaning.encoding.broken_max: -0.1 must lie between 0 and 1"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        override(cast(Any, Cleaning()), arguments.split())


def test_a_language_that_is_not_known():
    with pytest.raises(
        InputError, match=r"^corpus.cleaning.language.kept: 'xx' is none of the 1\d\d languages of py3lang"
    ):
        run([document("a", "a")], steps=("language",), language=Language(kept=("xx",)))


def test_contamination_settings_out_of_range():
    with pytest.raises(InputError, match=r"^contamination.size: 1 must lie between 2 and 4096"):
        Contamination(size=1)
    with pytest.raises(InputError, match=r"^contamination.common_documents: 0 must be at least 1"):
        Contamination(common_documents=0)
    assert (Contamination().gram, Contamination(unit="bytes").gram, Contamination(size=8).gram) == (13, 50, 8)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """As Corpus will hold it."""

    files: str = "a.txt"
    cleaning: Cleaning | None = None


def test_a_field_that_may_be_none_is_given_by_its_parts():
    holder, replaced = Holder(), cast(Any, override)  # which takes any dataclass
    assert replaced(holder, ["--files", "b.txt"]).cleaning is None
    made = replaced(holder, ["--cleaning.steps", "near", "exact", "--cleaning.near.words", "7"]).cleaning
    assert made == Cleaning(steps=("near", "exact"), near=Near(words=7))
    assert made.ordered == ("exact", "near")
    assert replaced(Holder(cleaning=made), ["--cleaning", "none"]).cleaning is None
    with pytest.raises(InputError, match=r"^cleaning: 'all' is not expected, for it has parts: --cleaning.steps and"):
        replaced(holder, ["--cleaning", "all"])
    rows = {name: (kind, default) for name, kind, default in fields(holder)}
    assert rows["cleaning.quality.words-min"] == ("a whole number", "50")
    assert rows["cleaning.personal.masked-max"] == ("a whole number or none", "5")


def test_settings_go_through_json():
    made = Cleaning(steps=("lines", "toxicity"), toxicity=Toxicity(words_file="w.txt", words_max=3))
    assert build(Cleaning, json.loads(json.dumps(dataclasses.asdict(made)))) == made


def test_settings_need_no_library_and_steps_name_the_one_they_miss():
    code = (
        "import sys\n"
        "for name in ('rensa', 'ftfy', 'py3langid'): sys.modules[name] = None\n"
        "from lmscale.data.clean.settings import Cleaning\n"
        "cleaning = Cleaning()\n"
        "assert not {'numpy', 'jax', 'tensorflow'} & set(sys.modules), 'settings import a library'\n"
        "from lmscale.data.clean.pipeline import clean\n"
        "from lmscale.data.clean.ledger import Ledger\n"
        "for step in ('encoding', 'language', 'near'):\n"
        "    try: list(clean([], Cleaning(steps=(step,)), Ledger()))\n"
        "    except ValueError as error: print(error)\n"
        "assert not {'jax', 'tensorflow', 'seqio'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(";")[0] for line in lines] == [
        "corpus.cleaning.steps: 'encoding' needs the package 'ftfy'",
        "corpus.cleaning.steps: 'language' needs the package 'py3langid'",
        "corpus.cleaning.steps: 'near' needs the package 'rensa'",
    ]


def test_what_near_duplicates_hold_is_closed():
    near = NearDuplicates(Near())
    near.add(Shingler(Near())("one two three four five six"))
    near.close()
    with pytest.raises(ValueError, match="closed"):
        near.add(Shingler(Near())("one two three four five six"))

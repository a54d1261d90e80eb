"""Vocabularies trained on a corpus: compared with sentencepiece and seqio themselves, and with the text read back."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from analysis.errors import InputError
from lmscale.config import Corpus, EvalSet, Recipe, Size, Study
from lmscale.data.loader import evaluation_set
from lmscale.data.prepare import prepare
from lmscale.data.prepared import find_prepared
from lmscale.data.shards import Shards, open_shards
from lmscale.data.spelling import ESCAPE, JOINT, RUNS, SPACE, TAB
from lmscale.data.tokenizer_training import train_model
from lmscale.data.training_sample import SENTENCE_LETTERS, Sample, sentences
from lmscale.data.vocabulary_kind import VocabularyKind
from lmscale.planning.assemble import from_shards, open_texts

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("char", "char:280", "word:400", "unigram:400", "bpe:400")
HARD = [
    "", " ", "  ", "\n", "\t", "\r\n", " \n ", "\n\n\n", " a", "a ", "  a  b   c    d", " " * 37 + "x" + " " * 16,
    "tabs\t\t and \t spaces", "line\rline\r\nline\n", "f(x)[1]{2}; a.b, c: 'd' \"e\"", "( ( ) )", " . ", ".. !? ..",
    "a_b __init__ x_", "12345 3.14 1e-3", "\x00", "nul\x00inside", "\x01\x1f\x7f\x1b",
    "\u4e2d\u6587\u6ca1\u6709\u7a7a\u683c", "\u65e5\u672c\u8a9e \u30c6\u30b9\u30c8", "\ud55c\uad6d\uc5b4", "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "cafe\u0301 caf\u00e9", "\ufb01\u2167\u00bd\uff21", "\ufeffmark\ufffd", "\u00a0\u3000\u2028\u2029\u0085",
    SPACE, f"a{SPACE}b {SPACE} {SPACE}{SPACE}", f"{ESCAPE}{TAB}\ue010\ue100\ue101{ESCAPE}{ESCAPE}{JOINT} {JOINT}",
    "\u2585", "\u2047",
    "<unk> </s> <pad> <0x41>", "\ud7ff\uf8ff\U0010ffff", "unheardofword(unheardofword)\tunheardofword", *RUNS.values(),
]  # fmt: skip


def python_like(number: int) -> str:
    return (
        f"def f{number}(x, y={number * number % 977}):\n    # the {number}th function, of many\n"
        f"    total = x + y * {number}\n\tfor item in (x, y):\n        total += item\n    return total\n\n"
    )


def write(folder: Path, texts: list[str], name: str = "text.jsonl") -> Corpus:
    (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Corpus(files=(str(folder / name),))


def load(model: bytes) -> SentencePieceProcessor:
    processor = SentencePieceProcessor()
    assert processor.LoadFromSerializedProto(model)
    return processor


def is_heldout(text: str, share: float = 0.05) -> bool:
    """As docs/data.md says it: the SHA-256 of the content, as a fraction of all."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) / 2**256 < share


TEXTS = [python_like(number) * 2 for number in range(300)] + [text for text in HARD if text.strip()]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def prepared(root) -> dict[str, Shards]:
    """The same text in each kind."""
    corpus, found = write(root, TEXTS), {}
    for kind in KINDS:
        (part,) = prepare(replace(corpus, vocabulary=kind), root / "shards", echo=lambda line: None, processes=1)
        found[kind] = open_shards(part.folder)
    return found


@pytest.fixture(scope="module")
def models(root, prepared) -> dict[str, SentencePieceProcessor]:
    return {kind: load(model_path(root, kind).read_bytes()) for kind in KINDS}


def model_path(root: Path, kind: str) -> Path:
    made = [path.parent for path in root.glob("shards/vocabularies/*/trained.json")]
    (folder,) = [each for each in made if json.loads((each / "trained.json").read_text())["vocabulary"] == kind]
    return folder / "tokenizer.model"


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_is_read_back(models, kind):
    for text in [*HARD, "".join(HARD), *TEXTS[:5]]:
        assert models[kind].Decode(models[kind].Encode(text)) == text
        assert models[kind].unk_id() not in models[kind].Encode(text)


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(
        st.one_of(
            st.characters(exclude_categories=["Cs"]), st.sampled_from(f" .(\n\t\r{SPACE}{ESCAPE}{TAB}{JOINT}\ue002")
        )
    )
)
def test_whatever_it_is(models, text):
    for model in models.values():
        assert model.Decode(model.Encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_the_model_and_bytes_those_of_the_text(prepared, models, kind):
    shards = prepared[kind]
    for split, held in (("train", False), ("heldout", True)):
        texts = [text for text in TEXTS if is_heldout(text) == held]
        part = shards.split(split)
        assert [part.document(i).tolist() for i in range(part.documents)] == [
            [*models[kind].Encode(t), 1] for t in texts
        ]
        assert part.bytes.tolist() == [len(text.encode()) for text in texts]
    whole = evaluation_set(shards.heldout, sequence=16, tokens=10**6)
    assert whole.bytes_scored == shards.heldout.total_bytes
    vocabulary, name = shards.train.vocabulary, kind.split(":")[0]
    size = models[kind].GetPieceSize()
    assert vocabulary.name == f"{name}-{size}-{vocabulary.digest[:8]}"
    assert (vocabulary.size, vocabulary.eos_id) == (size, 1)
    assert kind == "char" or size == int(kind.split(":")[1])


def test_each_kind_is_another_tokenizer_and_larger_pieces_make_fewer_tokens(prepared):
    assert len({shards.train.vocabulary.name for shards in prepared.values()}) == len(KINDS)
    tokens = {kind: shards.train.tokens for kind, shards in prepared.items()}
    assert tokens["bpe:400"] < tokens["word:400"] < tokens["char"] <= tokens["char:280"]
    letters = sum(len(text) for text in TEXTS if not is_heldout(text))
    ends = prepared["char"].train.documents
    spelled = sum(text.count(each) for text in TEXTS for each in (SPACE, ESCAPE, TAB, JOINT, *RUNS.values()))
    assert letters <= tokens["char"] - ends <= letters + spelled + 4 * 3  # NUL and U+2585 have no piece, but bytes


def test_seqio_reads_as_we_do(root, prepared, models):
    paths = {kind: str(model_path(root, kind)) for kind in KINDS}
    code = """
import json, sys
import numpy as np
import seqio
paths, texts = json.loads(sys.argv[1])
found = {}
for kind, path in paths.items():
    vocabulary = seqio.SentencePieceVocabulary(path)
    ids = [vocabulary.encode(text) for text in texts]
    tf = [vocabulary.encode_tf(text).numpy().tolist() for text in texts]
    found[kind] = {
        "ids": ids, "tf": tf,
        "back": [vocabulary.decode(each) for each in ids],
        "back_tf": [vocabulary.decode_tf(np.array(each, np.int32)).numpy().decode() for each in tf if each],
        "special": [vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.vocab_size],
    }
print(json.dumps(found))
"""
    texts = [text for text in HARD if "\0" not in text]  # which no argument of a command can hold
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code, json.dumps([paths, texts])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    for kind, found in json.loads(done.stdout.splitlines()[-1]).items():
        ours = [models[kind].Encode(text) for text in texts]
        assert found["ids"] == ours
        # TensorFlow brings a SentencePiece of its own, which cuts runs of spaces another way where two are as likely
        assert found["tf"] == ours or kind.startswith("unigram")
        assert found["back"] == texts
        assert found["back_tf"] == [text for text in texts if text]
        assert found["special"] == [0, 1, 2, models[kind].GetPieceSize()]


def test_words_are_parted_at_spaces_marks_and_line_ends():
    text = ["def add(x, y):\n        return x + y_1\n\tadd  ( "] * 9
    with pytest.raises(InputError, match="the largest is word:277"):
        train_model(VocabularyKind(kind="word", pieces=900), text)
    model = load(train_model(VocabularyKind(kind="word", pieces=277), text))
    pieces = "def|▁add|▁+(|▁+x|▁+,|▁y|▁+)|▁+:|▁+\n|▁+\ue008|▁return|▁x|▁+|▁y_1|▁+\n|▁+\ue001|▁+add|▁+\ue002|▁|▁+(|▁"
    expected = [each if each == "▁+" else each.replace("+", JOINT) for each in pieces.split("|")]  # a plus is itself
    assert model.EncodeAsPieces(text[0]) == expected
    assert {model.IdToPiece(i) for i in range(259, 277)} == set(expected)
    unknown = ["<0xE2>", "<0x96>", "<0x81>", "<0x7A>", "<0xC3>", "<0xA9>"]
    assert model.EncodeAsPieces("def z\u00e9(x")[1:] == [*unknown, f"▁{JOINT}(", f"▁{JOINT}x"]


def test_only_training_documents_are_learned_from(root, models, tmp_path):
    """Its bytes follow from the training documents alone, in any order, in this process and in another."""
    texts = [text for text in TEXTS if not is_heldout(text)]
    assert len(texts) < len(TEXTS)
    for kind in KINDS:
        sample = Sample()
        for text in reversed(texts):
            sample.add(text.encode())
        again = train_model(VocabularyKind.from_text(kind) or pytest.fail(kind), sentences(sample.documents()))
        assert again == model_path(root, kind).read_bytes()
    more = [text for number in range(1000, 1100) if is_heldout(text := f"zyzzyva{number} " * 200)]
    corpus = replace(write(tmp_path, [*TEXTS, *more]), vocabulary="bpe:400")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "lmscale.data.prepare",
        json.dumps({"files": corpus.files, "vocabulary": "bpe:4e2"}),
    ]
    subprocess.run([*command, str(tmp_path / "shards")], check=True, env=environment, capture_output=True)
    assert model_path(tmp_path, "bpe:400").read_bytes() == model_path(root, "bpe:400").read_bytes()


def test_it_is_trained_once_and_the_manifest_says_how(root, prepared):
    corpus = Corpus(files=(str(root / "text.jsonl"),), vocabulary="bpe:400")
    said: list[str] = []
    sliced = replace(corpus, slices=("source",), text_field="text")
    (root / "other").mkdir(exist_ok=True)
    assert find_prepared(corpus, root / "shards") is not None
    prepare(replace(sliced, slices=()), root / "shards", echo=pytest.fail, processes=1)
    about = prepared["bpe:400"].manifest["source"]["vocabulary"]
    training = [text.encode() for text in TEXTS if not is_heldout(text)]
    assert about["vocabulary"] == "bpe:400"
    assert about["sample"] == about["training"] == {"documents": len(training), "bytes": sum(map(len, training))}
    assert about["sha256"] == hashlib.sha256(model_path(root, "bpe:400").read_bytes()).hexdigest()
    # As a file of the user's it gives the same folder, under the same name
    model = str(model_path(root, "bpe:400"))
    (part,) = prepare(replace(corpus, vocabulary=model), root / "shards", echo=said.append, processes=1)
    assert (part.folder, said) == (prepared["bpe:400"].folder, [])


def test_a_killed_training_leaves_nothing_and_a_damaged_model_is_refused(tmp_path):
    corpus = replace(write(tmp_path, TEXTS), vocabulary="bpe:400")
    code = """
import json, sys, time
from lmscale.data import prepare, train_vocabulary
train_vocabulary.train_model = lambda kind, sentences: (list(sentences), time.sleep(60))
prepare.main(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, json.dumps({"files": corpus.files, "vocabulary": "bpe:400"})]
    child = subprocess.Popen(
        [*command, str(tmp_path / "shards")],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout is not None
    assert any(line.startswith("prepare files: training bpe:400 on ") for line in child.stdout)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not list(tmp_path.glob("shards/**/*.model"))
    assert find_prepared(corpus, tmp_path / "shards") is None
    prepare(corpus, tmp_path / "shards", echo=lambda line: None, processes=1)
    path = model_path(tmp_path, "bpe:400")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^corpus: '.*-bpe-400-\w+' is damaged; remove it and run 'lmscale prepare'"):
        find_prepared(corpus, tmp_path / "shards")


def test_a_sample_is_the_documents_of_lowest_hash():
    texts = [f"{number} ".encode() * (number % 50 + 1) for number in range(400)]
    order = sorted(texts, key=lambda text: hashlib.sha256(text).digest()[8:16])
    for most_bytes, most_documents in ((10**9, 10**9), (5000, 10**9), (10**9, 17), (5000, 17)):
        fitting, size = [], 0
        for text in order:
            if size + len(text) > most_bytes or len(fitting) == most_documents:
                break
            fitting.append(text)
            size += len(text)
        for given_order in (texts, texts[::-1], order, order[::-1]):
            sample = Sample(most_bytes=most_bytes, most_documents=most_documents)
            for text in given_order:
                sample.add(text)
            assert sample.documents() == fitting
            assert (sample.bytes, sample.offered_documents) == (size, 400)


def test_sentences_hold_all_of_a_document_and_are_bounded():
    text = "\n".join("word " * (number * 37 % 1500) for number in range(60)) + "\u4e2d" * 10_000
    cut = list(sentences([text.encode(), b"more"]))
    assert "".join(cut) == text + "more"
    assert max(map(len, cut)) == SENTENCE_LETTERS
    assert sum(each.startswith("\n") for each in cut) > 20


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ("bpf:4096", "'bpf:4096' is of no known kind; did you mean bpe:4096? Name char, char:K, word:K"),
        ("bytes:300", "'bytes:300' is of no known kind; name char, char:K, word:K"),
        ("bpe", "'bpe' needs a number of pieces, such as bpe:4096"),
        ("word:", "'word:' needs a whole number of pieces, such as word:4096"),
        ("unigram:1.5", "'unigram:1.5' needs a whole number of pieces"),
        ("bpe:nan", "'bpe:nan' needs a whole number of pieces"),
        ("bpe:-5", "'bpe:-5' must have from 260 pieces (256 bytes, 3 specials and one more) to 1,000,000"),
        ("char:259", "'char:259' must have from 260 pieces"),
        ("bpe:2e6", "'bpe:2e6' must have from 260 pieces"),
    ],
)
def test_kinds_that_are_none(vocabulary, message):
    with pytest.raises(InputError) as error:
        Corpus(vocabulary=vocabulary)
    assert str(error.value).startswith(f"corpus.vocabulary: {message}")


def test_names_of_files_are_no_kinds():
    assert Corpus(vocabulary="bpe:4e3").vocabulary == "bpe:4000"
    for name in ("mine.model", "./bpe", "models/bpe:4096", "C:\\bpe:5"):
        assert Corpus(vocabulary=name).trained is None


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word", "char"])
def test_pieces_beyond_the_text_name_the_largest_number(tmp_path, kind):
    corpus = write(tmp_path, TEXTS)
    with pytest.raises(
        InputError, match=rf"^corpus.vocabulary: '{kind}:90000' is more pieces than the text gives"
    ) as e:
        prepare(replace(corpus, vocabulary=f"{kind}:90000"), tmp_path, echo=lambda line: None, processes=1)
    largest = str(e.value).split("the largest is ")[1].split(",")[0]
    (part,) = prepare(replace(corpus, vocabulary=largest), tmp_path, echo=lambda line: None, processes=1)
    assert f"{kind}:{open_shards(part.folder).train.vocabulary.size}" == largest


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_fewer_than_letters_name_the_smallest_number(kind):
    text = ["".join(map(chr, range(0x4E00, 0x4E00 + 300))) * 5]
    with pytest.raises(InputError, match=r"'\w+:300' is fewer than the 55\d pieces that bytes, specials") as error:
        train_model(VocabularyKind(kind=kind, pieces=300), text)
    smallest = int(str(error.value).split("raise it to ")[1].split()[0])
    assert load(train_model(VocabularyKind(kind=kind, pieces=smallest), text)).GetPieceSize() == smallest


def test_texts_that_train_none(tmp_path):
    (tmp_path / "blank.txt").write_text("")
    np.save(tmp_path / "integers.npy", np.arange(5000) % 256)
    heldout = next(text for number in range(1000) if is_heldout(text := f"text {number}"))
    only_heldout = write(tmp_path, [heldout])
    integers = Corpus(files=(str(tmp_path / "integers.npy"),))
    cases = {
        "^corpus.vocabulary: 'bpe:400' has no training text to be trained on": only_heldout,
        "^corpus.files: .*blank.txt' is empty": Corpus(files=(str(tmp_path / "blank.txt"),)),
        "^corpus.vocabulary: 'bpe:400' reads text, but the files hold integers": integers,
        "^corpus.vocabulary: 'bpe:400' reads other text; leave it out": Corpus(task="lexicon"),
    }  # fmt: skip
    for message, corpus in cases.items():
        with pytest.raises(InputError, match=message):
            prepare(replace(corpus, vocabulary="bpe:400"), tmp_path / "shards", echo=lambda line: None, processes=1)
    assert not list(tmp_path.glob("shards/**/*.model"))
    with pytest.raises(InputError, match=r"^corpus.vocabulary: 'bpe:400' is trained on .* module 'm' bring their own"):
        Corpus(task="mine", module="m", vocabulary="bpe:400")


def test_evaluation_sets_are_read_by_the_vocabulary_of_the_study(root, prepared, tmp_path):
    corpus = Corpus(files=(str(root / "text.jsonl"),), vocabulary="bpe:400")
    other = write(
        tmp_path, [f"another text, number {number}, of other words\n" * 9 for number in range(200)], "b.jsonl"
    )
    study = Study(
        name="s", sizes=(Size(width=32, depth=1),), tokens=(40_000,), recipe=Recipe(sequence=16),
        corpus=replace(corpus, allow_repeats=True),
        eval_sets=(EvalSet(name="books", corpus=other),),
    )  # fmt: skip
    os.symlink(root / "shards", tmp_path / "shards")
    mine = prepared["bpe:400"].train.vocabulary
    named = replace(study, eval_sets=(EvalSet(name="books", corpus=replace(other, vocabulary="bpe:400")),))
    by_file = replace(study, corpus=replace(study.corpus, vocabulary=str(model_path(root, "bpe:400"))))
    for each in (study, named, by_file):
        texts = open_texts(each, tmp_path, lambda line: None, processes=1)
        assert texts["books"][0].shards.heldout.vocabulary == mine
        assembly = from_shards(each, texts["heldout"], texts)
        assert {s.name for s in assembly.sets} >= {"books"}
    assert len(list(tmp_path.glob("shards/vocabularies/*/*.model"))) == len(KINDS)  # none of the other text
    for own in ("word:300", "bpe:401"):
        wrong = replace(study, eval_sets=(EvalSet(name="books", corpus=replace(other, vocabulary=own)),))
        with pytest.raises(
            InputError, match=rf"^eval_sets.books.corpus.vocabulary: '{own}' would be trained on a text"
        ):
            open_texts(wrong, tmp_path, lambda line: None, processes=1)
    np.save(tmp_path / "integers.npy", np.arange(5000).reshape(100, 50) % 256)
    integers = Corpus(files=(str(tmp_path / "integers.npy"),))
    wrong = replace(study, eval_sets=(EvalSet(name="ids", corpus=integers),))
    texts = open_texts(wrong, tmp_path, lambda line: None, processes=1)
    with pytest.raises(
        InputError, match=r"^eval_sets.ids: 'passthrough-\w+' is its vocabulary, but the study trains on"
    ):
        from_shards(wrong, texts["heldout"], texts)

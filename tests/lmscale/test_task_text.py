"""Task text among training documents: its share, the held-out side, labelled examples; through the command line."""

import json
from collections import Counter

import pytest

from analysis.errors import InputError
from lmscale.cli import main
from lmscale.config import Cleaning, Corpus, Labelled, TaskText
from lmscale.data import labelled, task_text
from lmscale.data.document import Document, Reading
from lmscale.data.folder_names import folder_name
from lmscale.data.pieces import heldout_share
from lmscale.tasks.sides import is_scored

MIX = TaskText(tasks=("copying", "lookup", "redefinition"), share=0.4)


def base():
    for i in range(150):
        yield Document(name=f"d{i}", text=f"document {i} of plain text\n".encode() * 30)


@pytest.fixture(scope="module")
def mixed():
    reading = Reading(on_bad="refuse")
    return list(task_text.mix_in(base(), MIX, 0.3, ("source",), reading)), reading


def test_tasks_have_their_share(mixed):
    documents, reading = mixed
    sizes = Counter()
    for document in documents:
        if heldout_share(document.text) >= 0.3:
            sizes[document.fields.get("source", "")] += len(document.text)
    assert {name: size for name, size in sizes.items() if name} == {
        f"task_{name}": count for name, count in reading.task_bytes.items()
    }
    for name in MIX.tasks:
        assert reading.task_bytes[name] / sizes.total() == pytest.approx(0.4 / 3, rel=0.02)
    early = documents[: len(documents) // 4]  # spread over the text: the same of its beginning
    tasks = sum(len(d.text) for d in early if d.fields)
    assert tasks / sum(len(d.text) for d in early if heldout_share(d.text) >= 0.3) == pytest.approx(0.4, rel=0.05)


def test_the_held_out_side_and_the_corpus_stay(mixed):
    documents, _ = mixed
    assert [d for d in documents if not d.fields] == list(base())
    assert [d for d in documents if heldout_share(d.text) < 0.3] == [d for d in base() if heldout_share(d.text) < 0.3]


def test_documents_hold_whole_items_of_one_task(mixed):
    lengths = Counter()
    for document in mixed[0]:
        if document.fields.get("source") == "task_copying":
            lines = document.text.decode().splitlines()
            lengths[len(lines)] += 1
            for line in lines:
                prompt, answer = line.split(":")
                assert prompt == f"copy {answer}"
                assert not is_scored("copying", prompt + ":")
    assert set(lengths) == set(range(1, 9))


def test_labelled_examples_are_as_many_as_asked():
    few, more = (_labelled(count) for count in (8, 300))
    assert [len(set(train)) for train, _ in (few, more)] == [8, 300]
    assert {*few[0]} < {*more[0]}
    assert set(Counter(few[0]).values()) == {len(few[0]) // 8}  # whole rounds
    assert few[1] == more[1]
    assert len(few[1]) == labelled.HELD_OUT
    assert not {*more[0]} & {*more[1]}
    assert all(not is_scored("redefinition", text.decode().partition(":")[0] + ":") for text in more[0])


def _labelled(count):
    found = list(labelled.documents(Labelled(examples=count), 0.05, Reading(on_bad="refuse")))
    sides = [heldout_share(d.text) >= 0.05 for d in found]
    return [d.text for d, side in zip(found, sides, strict=True) if side], [
        d.text for d, side in zip(found, sides, strict=True) if not side
    ]


def test_more_examples_than_there_are():
    with pytest.raises(InputError, match=r"corpus.labelled.examples: 1,000 exceeds the \d+ that task 'addition' holds"):
        list(labelled.documents(Labelled(task="addition", examples=1000), 0.05, Reading(on_bad="refuse")))


def test_other_corpora_keep_their_folders():
    """Prepared before there were tasks: folders hash what is not as usual."""
    assert folder_name(Corpus(), "python_source", ["a", "b"], None) == "python_source-a28b767346f5"
    assert Corpus(task_text=MIX).name == "python_source_tasks"
    assert task_text.fingerprint(MIX) == "9a447defd7ff21a9be7784994738cfe79ae665eaaaa104e147c22674fe90bb4c"
    assert labelled.fingerprint(Labelled()) == "e53a643bfc48bd166a4ce0701b2e9fd3e33df57621194702a7bf1b6edf79aaf9"


def test_text_of_sums_is_prepared_anew():
    """Their sides, and with them the text, are others than in version 1."""
    first = "1d945039b811424658c9a7403de33e3a05949aca52ec4093c9ea51e6c79e0039"
    assert task_text.fingerprint(TaskText(tasks=("addition_scratchpad",))) != first
    first = "dda9ca511bcb0ec352a7c4130d6f13f2f4fe610e1f5943b488185fa141aa91cf"
    assert labelled.fingerprint(Labelled(task="addition:31")) != first


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TaskText(share=0), "corpus.task_text.share: 0.0 must lie above 0, up to 0.9"),
        (lambda: TaskText(share=1), "corpus.task_text.share: 1.0 must lie above 0, up to 0.9"),
        (lambda: TaskText(tasks=("cloze",)), "corpus.task_text.tasks: 'cloze' is made of held-out text"),
        (lambda: TaskText(tasks=("copyng",)), "corpus.task_text.tasks: 'copyng' is no task; did you mean copying?"),
        (lambda: TaskText(tasks=()), "corpus.task_text.tasks: () names no task"),
        (lambda: Labelled(task="cloze"), "corpus.labelled.task: 'cloze' is made of held-out text"),
        (lambda: Labelled(examples=0), "corpus.labelled.examples: 0 must lie between 1"),
        (lambda: Corpus(task="chain", task_text=MIX), "corpus.task_text.share: 0.4 cannot be mixed into 'chain'"),
        (lambda: Corpus(task_text=MIX, cleaning=Cleaning()), "corpus.task_text.share: 0.4 and corpus.cleaning, which"),
    ],
)
def test_settings_out_of_range(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(words)


def test_the_share_is_recorded(study, tmp_path, capsys):
    """Through `lmscale prepare`: text with tasks, whose manifest says how much of them it holds."""
    mix = ["--corpus.task-text.tasks", "copying", "agreement", "--corpus.task-text.share", "0.25"]
    assert main(["prepare", str(study), "--out", str(tmp_path), *mix]) == 0
    (path,) = (tmp_path / "shards").glob("files_tasks-*/manifest.json")
    manifest = json.loads(path.read_text())
    train = manifest["splits"]["train"]["features"]["targets"]["bytes"]
    shares = {name: count / train for name, count in manifest["task_bytes"].items()}
    assert shares == {"agreement": pytest.approx(0.125, rel=0.02), "copying": pytest.approx(0.125, rel=0.02)}
    for given, words in (
        (["--corpus.task-text.share", "1"], "lmscale: corpus.task_text.share: 1.0 must lie above 0"),
        (["--corpus.task-text.tasks", "reversl"], "lmscale: corpus.task_text.tasks: 'reversl' is no task; did you"),
        (["--abilities.items", "0"], "lmscale: abilities.items: 0 must lie between 1"),
        (["--abilities.shots", "4"], "lmscale: abilities.shots: (4,) must be 0 (for no example) and"),
    ):
        capsys.readouterr()
        assert main(["plan", str(study), "--out", str(tmp_path), *given]) == 2
        line = capsys.readouterr().err
        assert line.startswith(words)
        assert line.count("\n") == 1

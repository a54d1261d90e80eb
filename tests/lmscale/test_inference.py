"""Runs as they lie on disk: found, verified, read, and asked; what cannot be asked is said in a line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SEQUENCE
from trained import make_model

from analysis.errors import InputError
from lmscale.asking.sampling import Sampling
from lmscale.checkpoint import Checkpoints
from lmscale.cli import main
from lmscale.config import Start
from lmscale.data.tokenizer_training import train_model
from lmscale.data.vocabulary_kind import VocabularyKind
from lmscale.inference import Model, load_run
from lmscale.planning.pretrained import find_pretrained
from lmscale.records import RUN_COLUMNS
from lmscale.store.files import as_json, sealed, unsealed

STEP = 12


def write_run(out: Path, model: Model, run_id: str, *, study: str = "made", **row) -> Path:
    """The run of a model, as a sweep leaves it."""
    folder = out / study / "runs" / run_id
    params = jax.tree.map(jnp.asarray, model.params)
    Checkpoints(folder / "final").save(STEP, {"params": params}, keep=True)
    write_record(folder, model, **row)
    return folder


def write_record(folder: Path, model: Model, **row) -> None:
    shape = {name: value for name, value in vars(model.run.shape).items() if value}
    told = {"run_id": folder.name, "status": "done", "params": 1, "tokens": 1, "loss_nats": 1.0, "flops": 1.0}
    record = {
        "row": dict.fromkeys(RUN_COLUMNS) | told | row,
        "scores": [],
        "steps": STEP,
        "branch_step": 1,
        "compute_dtype": "float32",
        "identity": {
            "family": model.family,
            "objective": model.objective,
            "shape": shape,
            "hyperparameters": {"sequence": model.sequence, "documents": "apart"},
        },
        "text": {"tokenizer": row.get("tokenizer", "bytes"), "vocab": model.layout.vocab},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(as_json(sealed(record)))


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Results with a study of two runs, of which the larger is b."""
    folder = tmp_path_factory.mktemp("results")
    write_run(folder, make_model("causal"), "a", params=10)
    write_run(folder, make_model("causal"), "b", params=20)
    write_record(folder / "made" / "runs" / "c", make_model("causal"), params=30)  # which lost its parameters
    return folder


def test_a_run_is_found_by_each_of_its_names(out):
    here = make_model("causal")
    for name, run_id in (("made", "b"), (str(out / "made"), "b"), ("a", "a"), (str(out / "made" / "runs" / "a"), "a")):
        model = load_run(name, out)
        assert model.run_id == run_id
    found = model.log_probs("the ", "cat")
    np.testing.assert_array_equal(found, here.log_probs("the ", "cat"))
    assert (model.family, model.objective, model.sequence) == ("decoder", "causal", SEQUENCE)
    assert model.decode(model.encode("naïve")) == "naïve"


def test_probabilities_of_every_byte_add_up_to_one(out):
    model = load_run("made", out)
    every = model.fill([("the", chr(letter), "") for letter in range(128)])
    assert 0.3 < sum(np.exp(-each.nats) for each in every) < 1  # the other ids have the rest


def test_what_is_written_costs_what_it_is_scored(out):
    model = load_run("made", out)
    prompts = ["a", "a longer prompt"]
    found = model.generate(prompts, Sampling(seed=5), max_tokens=20)
    for prompt, each in zip(prompts, found, strict=True):
        asked = model.layout.continued(model.layout.begun([model.encode(prompt)]), each.tokens)
        (told,) = model.engine.scores([asked])
        np.testing.assert_allclose(each.log_probs, told.log_probs, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("c", "run: 'c' has no checkpoint: its final parameters are not on disk"),
        ("nowhere", "run: 'nowhere' is neither a run nor a study"),
        ("", "run: '' is no folder, run or study"),
        ("empty", "run: 'empty' is a study without a finished run"),
        ("ill", "run: 'ill' diverged"),
    ],
)
def test_what_is_no_run_is_said(out, name, words):
    (out / "empty" / "runs").mkdir(parents=True, exist_ok=True)
    write_record(out / "other" / "runs" / "ill", make_model("causal"), status="diverged")
    with pytest.raises(InputError, match=words):
        load_run(name, out)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("copy", "its run_id is another run's"),
        ("older", "it lacks recipe"),
        ("cut", "(Unterminated|Expecting)"),
        ("edited", "its content differs from its hash"),
    ],
)
def test_asking_leaves_every_record_where_it_is(out, tmp_path, name, words):
    """Also one that a sweep would set aside and train again; the study that holds it is refused likewise."""
    runs = tmp_path / "made" / "runs"
    shutil.copytree(out / "made" / "runs" / "a", runs / "a")
    shutil.copytree(runs / "a", runs / name)
    file = runs / name / "record.json"
    match name:
        case "older":
            record = unsealed(json.loads(file.read_text()))
            record["row"]["run_id"] = name
            del record["row"]["recipe"]
            file.write_text(as_json(sealed(record)))
        case "cut":
            file.write_text(file.read_text()[:100])
        case "edited":
            record = json.loads(file.read_text())
            record["row"]["params"] += 1
            file.write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for asked in (name, "made"):
        with pytest.raises(InputError, match=rf"^run: '{name}' has a record that cannot be read \({words}.*$"):
            load_run(asked, tmp_path)
    with pytest.raises(InputError, match=rf"^start.run: '{name}' has a record that cannot be read"):
        find_pretrained(Start(run=str(runs / name)), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert load_run("a", tmp_path).run_id == "a"


def test_damaged_parameters_are_refused(out, tmp_path):
    shutil.copytree(out / "made", tmp_path / "made")
    file = max((tmp_path / "made" / "runs" / "b" / "final").rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="run: the final parameters of 'b' are damaged"):
        load_run("made", tmp_path)


def test_a_vocabulary_is_found_or_asked_for(tmp_path):
    """A SentencePiece model beside the run's text, by its digest; elsewhere it is named."""
    texts = ["the animal did not cross the street because it was too tired"] * 20
    content = train_model(VocabularyKind(kind="bpe", pieces=300), texts)
    elsewhere = tmp_path / "mine.model"
    elsewhere.write_bytes(content)
    from lmscale.asking.reader import PieceReader, reader_of

    reader, other = PieceReader(elsewhere), tmp_path / "other.model"
    other.write_bytes(train_model(VocabularyKind(kind="bpe", pieces=310), texts))
    name, text = reader.vocabulary.name, "the animal\tcrossé it"
    with pytest.raises(InputError, match=rf"vocabulary: the model of {name} is not found beside"):
        reader_of(name, 300, tmp_path / "shards")
    with pytest.raises(InputError, match=r"vocabulary: .*other.model' is bpe-310-"):
        reader_of(name, 300, tmp_path / "shards", other)
    folder = tmp_path / "shards" / "vocabularies" / "x"
    folder.mkdir(parents=True)
    shutil.copy(elsewhere, folder / "tokenizer.model")
    found = reader_of(name, 300, tmp_path / "shards")
    assert found.decode(found.encode(text)) == text
    starts = found.starts(text)
    assert starts[0] == 0
    assert starts == sorted(starts)
    assert text[starts[-1] :].strip() in "it"
    with pytest.raises(InputError, match=r"was trained on integers"):
        reader_of("passthrough-12345678", 30, tmp_path)


def test_letters_outside_a_vocabulary_are_named():
    from lmscale.asking.reader import LetterReader

    reader = LetterReader(4)
    assert reader.decode(reader.encode("ab cd")) == "ab cd"
    with pytest.raises(InputError, match="text: 'abé' holds 'é', and the run's vocabulary knows"):
        reader.encode("abé")


def test_learned_positions_end_what_is_written(out):
    model = make_model("causal", positions=SEQUENCE)
    assert model._most([model.layout.begun([model.encode("12345")])], None) == 27  # of the default's 128
    with pytest.raises(InputError, match=r"max_tokens: 30 after a prompt of 6 tokens .* ask for at most 27"):
        model.generate(["12345"], max_tokens=30)
    with pytest.raises(InputError, match="text: has 41 tokens"):
        model.log_probs("x" * 30, "y" * 11)


def test_blanks_are_filled():
    model = make_model("spans")
    (found,) = model.generate(["a ___ b ___ c"], Sampling(temperature=0), max_tokens=10)
    first, second = model.fillings(found.tokens, 2)
    assert found.text == f"a {first} b {second} c"


def test_an_n_gram_is_counted_again(study, tmp_path, capsys):
    """Its table of counts is that of its record; it says what the counts say, and writes what is likeliest."""
    (tmp_path / "shards").symlink_to(study.parent / "out" / "shards")
    asked = [str(study), "--out", str(tmp_path), "--family", "ngram", "--sizes", "3-gram", "--name", "grams"]
    assert main(["run", *asked, "--tokens", "16384"]) == 0
    model = load_run("grams", tmp_path)
    record = json.loads(next((tmp_path / "grams" / "runs").glob("*/record.json")).read_text())
    assert model.params.params == record["row"]["params"]
    text = "the 5th of"
    row = np.array([[model.layout.start_id, *model.encode(text)]], np.int32)
    np.testing.assert_allclose(model.log_probs("", text), -model.params.token_nats(row)[0])
    np.testing.assert_allclose(model.log_probs(text[:4], text[4:]), -model.params.token_nats(row)[0, 4:])
    (found,) = model.generate([text], Sampling(temperature=0), max_tokens=12)
    assert all(each.likeliest.all() for each in model.engine.scores(
        [model.layout.continued(model.layout.begun([model.encode(text)]), found.tokens)]
    ))  # fmt: skip
    capsys.readouterr()
    assert main(["attention", "grams", "it", "--token", "it", "--out", str(tmp_path)]) == 2
    assert "run: an n-gram has counts, and no attention" in capsys.readouterr().err
    (tmp_path / "shards").unlink()
    with pytest.raises(InputError, match="an n-gram keeps no counts, and the text of"):
        load_run("grams", tmp_path)


def test_a_trained_run_has_the_loss_of_its_record(study, tmp_path):
    """What training said of its held-out text, asked for by inference a window at a time."""
    from lmscale.planning.assemble import assemble
    from lmscale.study.studies import load_study, override

    (tmp_path / "shards").symlink_to(study.parent / "out" / "shards")
    fields = ["--tokens", "8192", "--name", "trained"]
    assert main(["run", str(study), "--out", str(tmp_path), *fields]) == 0
    model = load_run("trained", tmp_path)
    held = assemble(override(load_study(str(study)), fields), tmp_path, print).held_out
    from lmscale.asking.prompts import Asked

    rows = []
    for tokens, weights in zip(held.tokens.tolist(), held.weights, strict=True):
        length = int(weights.sum())
        rows.append(Asked(inputs=tuple(tokens[:length]), targets=tuple(tokens[1 : length + 1])))
    nats = -np.concatenate([told.log_probs for told in model.engine.scores(rows)])
    assert nats.mean() == pytest.approx(model.run.loss_nats, abs=1e-5)


def test_the_commands_answer(out, tmp_path, capsys):
    asked = ["made", "--out", str(out)]
    file = tmp_path / "answer.json"
    assert main(["generate", *asked, "one", "and two", "--max-tokens", "5", "--json", str(file)]) == 0
    answer = json.loads(file.read_text())
    model = load_run("made", out)
    made = model.generate(["one", "and two"], max_tokens=5)
    assert [each["text"] for each in answer["generated"]] == [each.text for each in made]
    capsys.readouterr()
    assert main(["score", *asked, "a ___ b", "--options", "x", "yz", "--json", "-"]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)["rows"]
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert "different lengths" in told.err
    page = tmp_path / "page.html"
    assert main(["attention", *asked, "it was it", "--token", "it", "--occurrence", "2", "-o", str(page)]) == 0
    assert page.exists()
    assert page.with_suffix(".png").exists()
    assert "'it' stands 2 times" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "made", ""], "prompt: '' is empty"),
        (["generate", "made", "a", "--temperature", "-1"], "temperature: -1.0 is negative"),
        (["generate", "made", "a", "--top-p", "1.5"], "top_p: 1.5 is no share"),
        (["generate", "made", "a", "--top-k", "0"], "top_k: 0 leaves no token"),
        (["generate", "made", "a", "--max-tokens", "0"], "max_tokens: 0 leaves nothing"),
        (["generate", "made", "a", "--mesh", "2"], "mesh: '2' is not three whole numbers"),
        (["score", "made", "a ___", "--options", "b"], "options: ['b'] are fewer than two"),
        (["score", "made", "a ___"], "text: 'a ___' has a blank; give --options"),
        (["score", "made", "a", "b", "--options", "b", "c"], "text: 'b' is a second one"),
        (["score", "made", "a ___", "--options", "b", "c", "--normalise", "letters"], "normalise: 'letters'"),
        (["attention", "made", "a", "--token", "b"], "token: 'b' is no word of 'a'"),
        (["attention", "made", "a", "--token", "a", "-o", "page.txt"], "output: 'page.txt' is no page"),
        (["generate", "c", "a"], "run: 'c' has no checkpoint"),
    ],
)
def test_bad_input_is_one_line(out, capsys, arguments, words):
    assert main([*arguments, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lmscale: ")
    assert words in said
    assert said.count("\n") == 1


def test_a_mesh_gives_the_same(out):
    from lmscale.config import MeshConfig

    one = load_run("a", out).log_probs("the ", "cat sat")
    several = load_run("a", out, mesh=MeshConfig(data=2, fsdp=2, tensor=2))
    np.testing.assert_allclose(several.log_probs("the ", "cat sat"), one, atol=1e-4)
    assert replace(several.run, run_id="b").layout(several.vocabulary) == several.layout

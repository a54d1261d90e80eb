"""The command line as a person meets it: the whole loop on a small text, interruption, and one-line errors."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import workers

from lmscale.cli import main
from lmscale.records import Workspace

SWEEP = "import sys; from lmscale.cli import main; sys.exit(main(sys.argv[1:]))"
NO_TENSORFLOW = """
import sys
from lmscale.cli import main
status = main(sys.argv[1:])
loaded = [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "seqio")]
sys.exit(f"loaded {loaded}" if loaded else status)
"""


def lmscale(code: str, *arguments: object, devices: int | None = None) -> subprocess.Popen:
    """A process of its own, with as many CPU devices as it chooses itself unless `devices` are given."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=workers.environment(devices))


def copy_shards(study: Path, out: Path) -> None:
    out.mkdir()
    (out / "shards").symlink_to(study.parent / "out" / "shards")


def losses(out: Path) -> dict[str, float]:
    return {r["row"]["run_id"]: r["row"]["loss_nats"] for r in Workspace(out, "small").records()}


@pytest.mark.long
def test_an_interrupted_sweep_goes_on_where_it_stopped(study, tmp_path):
    out, whole = tmp_path / "cut", tmp_path / "whole"
    copy_shards(study, out)
    copy_shards(study, whole)
    process = lmscale(SWEEP, "sweep", study, "--out", out, "--workers", 1)
    assert process.stdout is not None
    assert any(line.startswith("done") for line in process.stdout), process.communicate()[1]
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "goes on from here" in stderr
    assert (out / "small" / "runs.csv").read_text().count("\n") >= 2
    before = losses(out)
    assert len(before) == 1

    times = {p: p.stat().st_mtime_ns for p in out.glob("small/runs/*/record.json")}
    again = lmscale(SWEEP, "sweep", study, "--out", out, "--workers", 1)
    stdout, stderr = again.communicate()
    assert again.returncode == 0, stderr
    assert "1 runs trained, 1 were done before" in stdout
    assert {p: p.stat().st_mtime_ns for p in times} == times
    uninterrupted = lmscale(SWEEP, "sweep", study, "--out", whole, "--workers", 1)
    assert "2 runs trained, 0 were done before" in uninterrupted.communicate()[0]
    assert losses(out) == losses(whole)
    assert main(["export", str(study), "--out", str(out)]) == 0


@pytest.mark.long
def test_a_sweep_on_eight_devices_matches_one_and_needs_no_tensorflow(study, tmp_path):
    out, one = tmp_path / "eight", tmp_path / "one"
    copy_shards(study, out)
    copy_shards(study, one)
    fewer = ["--tokens", "16384"]
    process = lmscale(NO_TENSORFLOW, "run", study, "--out", out, "--mesh", "2,2,2", *fewer)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert main(["sweep", str(study), "--out", str(one), *fewer]) == 0
    many = Workspace(out, "small").records()
    assert many[0]["row"]["mesh"] == "2,2,2"
    assert losses(out) == pytest.approx(losses(one), rel=1e-5)


def test_a_set_added_later_is_scored_by_the_next_sweep(study, tmp_path, capsys):
    out = tmp_path / "out"
    copy_shards(study, out)
    fewer = ["--out", str(out), "--tokens", "16384"]
    assert main(["sweep", str(study), *fewer]) == 0
    text = study.read_text().replace("Corpus, Pow", "Corpus, EvalSet, Pow")
    own = "corpus=Corpus(files=({!r},), heldout=0.2)".format(str(study.parent / "text.txt"))
    assert own in text
    sets = f"eval_sets=(EvalSet(name='same', {own}, tokens=1024),)"  # of the text that is prepared
    (tmp_path / "more.py").write_text(text.replace("eval_tokens=2048", f"eval_tokens=2048, {sets}"))
    capsys.readouterr()
    assert main(["sweep", str(tmp_path / "more.py"), *fewer]) == 0
    printed = capsys.readouterr().out
    assert "0 runs to train, 1 to score on sets added since" in printed
    assert "0 runs trained, 1 were done before, 0 diverged, 1 scored on sets added since" in printed
    assert "same,loss_nats," in (out / "small" / "scores.csv").read_text()
    assert main(["sweep", str(tmp_path / "more.py"), *fewer]) == 0
    assert "scored" not in capsys.readouterr().out


def test_runs_that_diverged_before_are_counted_as_such(study, tmp_path, capsys):
    out = tmp_path / "out"
    copy_shards(study, out)
    arguments = ["sweep", str(study), "--out", str(out), "--recipe.learning-rate.value", "1e38", "--telemetry", "none"]
    for _ in range(2):
        capsys.readouterr()
        assert main(arguments) == 0
        assert "0 runs trained, 0 were done before, 2 diverged" in capsys.readouterr().out
    assert not list(out.rglob("*tfevents*"))


def test_plan_prints_the_grid_and_trains_nothing(study, tmp_path, capsys):
    copy_shards(study, tmp_path / "out")
    capsys.readouterr()
    arguments = ["plan", str(study), "--out", str(tmp_path / "out"), "--tokens", "16e3,32768", "--json", "-"]
    assert main([*arguments, "--sizes", "16x1", "--recipe.cooldown-fraction=0.1"]) == 0
    captured = capsys.readouterr()
    plan = json.loads(captured.out)
    assert [run["tokens"] for run in plan["runs"]] == [15872, 32768]  # 16,000 tokens are 62.5 steps: 62
    assert plan["seconds"] > 0
    assert [(run["microbatches"], run["remat"]) for run in plan["runs"]] == [(1, "none")] * 2
    assert 0 < plan["runs"][0]["bytes_per_device"] < plan["device_memory_bytes"]
    assert "6ND" in captured.err
    assert losses(tmp_path / "out") == {}


def test_a_worker_whose_sweep_is_killed_saves_and_stops(study, tmp_path):
    out = tmp_path / "out"
    copy_shards(study, out)
    process = lmscale(SWEEP, "run", study, "--out", out, "--events", "--tokens", "98304", "--steps-per-dispatch", 4)
    assert process.stdout is not None
    assert any('"progress"' in line for line in process.stdout)
    process.stdout.close()  # what the death of the sweep that reads it does
    assert process.wait(timeout=120) == 130
    checkpoints = list(out.glob("small/trajectories/*/checkpoints/*/manifest.json"))
    assert len(checkpoints) == 1


def errors(capsys, *arguments: object) -> str:
    """The one line of a command that fails with status 2."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("lmscale: ")
    assert "Traceback" not in captured.err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe.warmpu-tokens", "5"], ["recipe.warmpu_tokens", "unknown field", "--recipe.warmup-tokens"]),
        (["--sizez", "5"], ["sizez", "unknown field", "--sizes"]),
        (["--recipe", "5"], ["recipe", "--recipe.sequence"]),
        (["--tokens"], ["tokens", "no value given"]),
        (["--tokens", "many"], ["tokens", "'many'", "a whole number"]),
        (["--tokens", "1e6,1e6"], ["tokens", "twice"]),
        (["--tokens", "-5"], ["tokens", "positive"]),
        (["--tokens", "300"], ["tokens", "300", "ask for at least"]),
        (["--tokens", "1e9"], ["tokens", "exceeds", "unique tokens", "--corpus.allow-repeats"]),
        (["--sizes", "33x2"], ["size.width", "33", "multiple of 8"]),
        (["--sizes", "64x2x3"], ["size.heads", "3", "width 64"]),
        (["--sizes", "64x0"], ["size.depth", "0", "at least 1"]),
        (["--mesh", "2,2"], ["mesh", "2,2", "a mesh such as 2,2,2"]),
        (["--mesh", "3,1,1"], ["mesh", "3,1,1", "batch of 8 sequences"]),
        (["--mesh", "1,1,4", "--sizes", "48x2"], ["mesh", "1,1,4", "heads 2"]),
        (
            ["--mesh", "4,4,1", "--recipe.batch-tokens.value", "4096", "--tokens", "98304"],
            ["mesh", "takes 16 devices", "8 here"],
        ),
        (["--microbatches", "3"], ["mesh", "3 microbatches"]),
        (["--remat", "all"], ["remat", "'all'", "none or products or layer"]),
        (["--device-memory-bytes", "-1"], ["device_memory_bytes", "-1", "positive"]),
        (["--device-memory-bytes", "4e5"], ["memory", "takes at least", "400 kB", "would fit", "--sizes"]),
        (["--family", "decoded"], ["family", "'decoded'", "decoder"]),
        (["--recipe.cooldown-fraction", "1.5"], ["recipe.cooldown_fraction", "1.5"]),
        (["--recipe.learning-rate.value", "nan"], ["recipe.learning_rate.value", "nan"]),
        (["--eval-tokens", "10"], ["eval_tokens", "10", "16 sequences"]),
        (["--name", "../x"], ["name", "'../x'", "lower-case"]),
        (["--recipe.sequence", "8192", "--eval-tokens", "1e5"], ["eval_tokens", "100000", "8192"]),
        (["--recipe.schedule", "wds"], ["recipe.schedule", "'wds'", "wsd or cosine"]),
        (["--sizes.width", "5"], ["sizes", "no parts"]),
        (["--workers", "0"], ["workers", "'0'", "1 to 1024"]),
        (["stray"], ["argument", "'stray'"]),
        (["--headline", "books"], ["headline", "'books'", "heldout"]),
        (["--eval-sets", "books"], ["eval_sets", "'books'", "a set such as books=books/*.txt"]),
        (["--eval-sets", "books=absent/*.txt"], ["eval_sets.books.corpus.files", "no file"]),
        (["--telemetry", "tensorbord"], ["telemetry", "'tensorbord'", "tensorboard or wandb"]),
    ],
)
def test_bad_fields(study, capsys, arguments, words):
    line = errors(capsys, "sweep", study, "--out", study.parent / "out", *arguments)
    for word in words:
        assert word in line


def test_bad_studies(study, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    assert "did you mean quickstart?" in errors(capsys, "plan", "quickstrat")
    (tmp_path / "empty.py").write_text("")
    assert "holds no STUDY" in errors(capsys, "plan", tmp_path / "empty.py")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert "ZeroDivisionError" in errors(capsys, "plan", tmp_path / "broken.py")
    assert "has no runs" in errors(capsys, "export", "quickstart", "--out", tmp_path)


def test_bad_texts(study, tmp_path, capsys):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 100)
    for name, word in (("empty.txt", "empty"), ("latin.txt", "UTF-8"), ("absent.txt", "no file")):
        line = errors(capsys, "sweep", study, "--out", tmp_path / "out", "--corpus.files", tmp_path / name)
        assert "corpus.files" in line
        assert word in line


def test_an_unwritable_results_folder(study, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = errors(capsys, "sweep", study, "--out", tmp_path / "file")
    assert "cannot be written" in line
    assert "--out DIR" in line


def test_bad_commands(capsys):
    assert "COMMAND" in errors(capsys)
    assert "invalid choice" in errors(capsys, "swep")
    assert "--jsom" in errors(capsys, "fit", "x.csv", "--jsom", "y")


def test_contamination_of_a_study_is_told(study, capsys):
    command = ["contamination", str(study), "--out", str(study.parent / "out")]
    assert main([*command, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert {unit: found["gram"] for unit, found in told.items()} == {"words": 13, "bytes": 50}
    (manifest,) = (study.parent / "out" / "shards").glob("files-*/manifest.json")
    train = json.loads(manifest.read_text())["splits"]["train"]
    assert told["bytes"]["training_bytes"] == train["features"]["targets"]["bytes"]
    assert told["words"]["training_documents"] == train["documents"]
    assert set(told["words"]["sets"]) == {"heldout"}
    assert "MB/s" in err
    assert main([*command, "--unit", "bytes", "--size", "none"]) == 2
    assert capsys.readouterr().err == "lmscale: size: 'none' must be a whole number from 1 to 1024\n"


def test_text_without_what_overlaps_holds_out_the_same(study, tmp_path, capsys):
    command = ["contamination", str(study), "--out", str(study.parent / "out"), "--unit", "words"]
    target = tmp_path / "clean.jsonl.gz"
    assert main([*command, "--json", "-", "--write", str(target)]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)["words"]
    assert f"without the {told['training_overlapping']} that overlap" in err
    assert main(["prepare", str(study), "--out", str(tmp_path), "--corpus.files", str(target)]) == 0
    before, after = (
        json.loads(manifest.read_text())["splits"]
        for folder in (study.parent / "out", tmp_path)
        for manifest in (folder / "shards").glob("files-*/manifest.json")
    )
    assert after["heldout"]["documents"] == before["heldout"]["documents"]
    assert after["heldout"]["features"]["targets"]["bytes"] == before["heldout"]["features"]["targets"]["bytes"]
    assert before["train"]["documents"] - after["train"]["documents"] == told["training_overlapping"]
    capsys.readouterr()
    for name, words in (
        ("clean.txt", "must end in .jsonl or .jsonl.gz"),
        ("clean.jsonl.gz", "is there already"),
        ("no/clean.jsonl", "would lie in a folder that is not there"),
    ):
        assert words in errors(capsys, *command, "--write", str(tmp_path / name))

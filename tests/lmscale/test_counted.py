"""N-grams as a family: planned, counted, interrupted, recorded and tabled like any other, with the room's numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.errors import InputError
from lmscale.cli import main
from lmscale.config import Corpus, EvalSet, Facts, FamilyGrid, MeshConfig, Size, Study
from lmscale.counting import CountStep, count
from lmscale.evaluate import by_context, evaluate, summarise
from lmscale.mesh import make_mesh
from lmscale.ngram import estimate
from lmscale.ngram_counts import NgramCounts
from lmscale.plan import Run, Trajectory
from lmscale.planning.assemble import Assembly, assemble
from lmscale.store.files import as_json, sealed, unsealed
from lmscale.study.studies import load_study, override
from lmscale.train import Interrupted
from lmscale.training.worker import work

ORDERS = (Size(order=2), Size(order=4))
NGRAM = {"family": "ngram", "sizes": ORDERS}
EOS = 1


def by_hand(assembly: Assembly, trajectory: Trajectory, run: Run):
    """The room asked directly: counts of the windows of a run, one batch; its model and losses [M, S]."""
    counts = NgramCounts(order=trajectory.shape.order, vocab=trajectory.text.vocab, eos_id=EOS)  # type: ignore[attr-defined]
    windows = assembly.loader(trajectory).batches(0, run.steps)
    counts.add(windows.reshape(-1, windows.shape[-1]))
    assert counts.targets == run.tokens
    model = estimate(counts)
    return model, model.token_nats(assembly.held_out.tokens) * assembly.held_out.weights


def rows_by_hand(assembly: Assembly) -> dict[str, tuple]:
    found = {}
    for trajectory in assembly.plan:
        for run in trajectory.runs:
            model, nats = by_hand(assembly, trajectory, run)
            held_out = assembly.held_out
            whole = summarise(nats.sum(1), held_out.weights.sum(1), held_out.documents, held_out.bytes_scored)
            found[run.id] = (model.params, whole.loss_nats, whole.loss_stderr, whole.bits_per_byte)
    return found


@pytest.fixture
def ngram_training(make_training, steps):
    """training(assembly, counts_max, out=..., stop=...) of the 4-gram."""

    def make(assembly, counts_max=None, **settings):
        trajectory, study = assembly.plan[1], assembly.study
        key = (trajectory.program, study.mesh, study.microbatches, study.steps_per_dispatch, study.replicas)
        steps[key] = CountStep(trajectory, make_mesh(MeshConfig()), counts_max)
        return make_training(assembly, index=1, **settings)

    return make


def test_a_sweep_has_the_numbers_of_the_room(study, tmp_path, capsys):
    """Two orders x two counts, through plan, sweep, records, export, status and the tables."""
    (tmp_path / "shards").symlink_to(study.parent / "out" / "shards")
    fields = ["--family", "ngram", "--sizes", "2-gram", "4-gram", "--name", "grams"]
    told = [str(study), "--out", str(tmp_path), *fields]
    assert main(["sweep", *told, "--workers", "1"]) == 0
    assembly = assemble(override(load_study(str(study)), fields), tmp_path, print)
    table = pd.read_csv(tmp_path / "grams" / "runs.csv").set_index("run_id")
    wanted = rows_by_hand(assembly)
    assert set(table.index) == set(wanted)
    for run_id, numbers in wanted.items():
        row = table.loc[run_id]
        assert tuple(row[["params", "loss_nats", "loss_stderr", "bits_per_byte"]]) == pytest.approx(numbers, rel=1e-12)
        assert row["flops"] == row["order"] * row["tokens"]
        assert row["flops_6nd"] == 6 * row["params"] * row["tokens"]
        assert row["device"] == "cpu:cpu"
    assert table[["width", "depth", "heads", "learning_rate", "schedule", "cooldown_tokens"]].isna().to_numpy().all()
    assert sorted(zip(table["order"], table["tokens"], strict=True)) == [(2, 16384), (2, 32768), (4, 16384), (4, 32768)]

    trajectory = assembly.plan[1]
    _, nats = by_hand(assembly, trajectory, trajectory.runs[0])
    contexts = by_context(nats, assembly.held_out.weights, assembly.held_out.documents)
    scores = pd.read_csv(tmp_path / "grams" / "scores.csv")
    mine = scores[(scores["run_id"] == trajectory.runs[0].id) & (scores["metric"] == "loss_nats")].set_index("slice")
    assert {part.name for part in contexts} <= set(mine.index)
    for part in contexts:
        assert mine.loc[part.name, "value"] == pytest.approx(part.loss_nats, rel=1e-12)

    answer = tmp_path / "status.json"
    assert main(["status", "grams", "--out", str(tmp_path), "--json", str(answer)]) == 0
    assert json.loads(answer.read_text())["counts"]["done"] == 4
    assert main(["quantise", *told]) == 2
    assert "no weights to be rounded" in capsys.readouterr().err
    before = (tmp_path / "grams" / "runs.csv").read_text()
    assert main(["sweep", *told, "--workers", "1"]) == 0  # nothing is left
    assert (tmp_path / "grams" / "runs.csv").read_text() == before


def test_interrupted_and_gone_on_with_is_the_same(make_assembly, ngram_training, tmp_path, monkeypatch):
    monkeypatch.setattr("lmscale.counting.BLOCK_WINDOWS", 64)  # of 160 and 320
    assembly = make_assembly(**NGRAM)

    def records(t) -> list[tuple]:
        made = [t.workspace.record(run.id) for run in t.trajectory.runs]
        return [(m["row"]["params"], m["row"]["loss_nats"].hex(), m["scores"], m["discounts"]) for m in made]

    whole = ngram_training(assembly, out=tmp_path / "whole")
    assert count(whole) == 0
    for asked in range(1, 6):
        calls = iter([*[False] * (asked - 1), True])
        parts = ngram_training(assembly, out=tmp_path / f"parts{asked}", stop=lambda calls=calls: next(calls))
        with pytest.raises(Interrupted):
            count(parts)
        finished = [parts.workspace.record(run.id) is not None for run in parts.trajectory.runs]
        assert finished == [asked > 3, False]  # three blocks to the first run
        parts.stop = lambda: False
        count(parts)
        assert records(parts) == records(whole), asked


def test_records_from_before_there_were_orders_are_read(make_assembly, ngram_training):
    t = ngram_training(make_assembly(**NGRAM))
    count(t)
    short, long = t.trajectory.runs
    for run, name in ((short, "order"), (long, "heads")):
        path = t.workspace.run(run.id) / "record.json"
        record = unsealed(json.loads(path.read_text()))
        del record["row"][name]
        path.write_text(as_json(sealed(record)))
    assert t.workspace.record(short.id) is not None
    assert t.workspace.record(long.id) is None  # set aside: this one was always there
    assert t.workspace.export() == 1


def test_a_set_added_later_is_scored_of_finished_runs(make_assembly, ngram_training, make_shards):
    texts = {"other": make_shards(11)}
    count(ngram_training(make_assembly(**NGRAM)))
    added = make_assembly(texts=texts, **NGRAM, eval_sets=(EvalSet(name="other", corpus=Corpus(), tokens=512),))
    t = ngram_training(added)
    assert count(t) == 2
    assert count(t) == 0
    model, _ = by_hand(added, t.trajectory, t.trajectory.runs[0])
    windows = added.extra_sets[0].windows
    wanted = (model.token_nats(windows.tokens) * windows.weights).sum() / windows.weights.sum()
    (value,) = [
        s["value"]
        for s in t.workspace.scores(t.trajectory.runs[0].id)
        if (s["metric"], s["slice"]) == ("loss_nats", "")
    ]
    assert value == pytest.approx(wanted, rel=1e-12)


def test_memory_is_bounded_and_says_what_to_do(make_assembly, ngram_training):
    t = ngram_training(make_assembly(**NGRAM), counts_max=100)
    with pytest.raises(InputError, match=r"counts_max: 100 is less than the \d+ counts of order 4 .* lower order"):
        count(t)
    assert t.workspace.records() == []


def test_a_set_of_which_nothing_is_scored_is_named(make_assembly):
    assembly = make_assembly(**NGRAM)
    trajectory, held_out = assembly.plan[0], assembly.held_out
    model, _ = by_hand(assembly, trajectory, trajectory.runs[0])
    step: Any = CountStep(trajectory, make_mesh(MeshConfig()), None)
    with pytest.raises(InputError, match="eval_tokens: of the 0 tokens of the evaluation set 'causal' scores none"):
        evaluate(step, model, replace(held_out, weights=np.zeros_like(held_out.weights)))


def test_the_bound_follows_from_the_memory_of_the_machine(make_assembly, tmp_path, capsys):
    """A hundred bytes a count, and a block: 2 MB hold some thousands, more than these have; 140 kB do not."""
    assert not work(make_assembly(**NGRAM, device_memory_bytes=2e6), tmp_path / "fits", events=False)
    with pytest.raises(InputError, match="counts_max"):
        work(make_assembly(**NGRAM, tokens=(128 * 20,), device_memory_bytes=170e3), tmp_path / "small", events=False)
    capsys.readouterr()


def test_identity_is_what_is_counted(make_assembly):
    """Rates and batches, which an n-gram has not, leave its runs what they were; documents and seeds do not."""
    ids = [t.id for t in make_assembly(**NGRAM).plan]
    other_rate = make_assembly(**NGRAM, recipe={"weight_decay": 0.3, "warmup_tokens": 0}).plan
    assert [t.id for t in other_rate] == ids
    assert [t.recipe for t in other_rate] == [t.recipe for t in make_assembly(**NGRAM).plan]
    assert ids[0].startswith("ngram-2-s0-")
    assert not {t.id for t in make_assembly(**NGRAM, recipe={"documents": "joined"}).plan} & set(ids)
    assert not {t.id for t in make_assembly(**NGRAM, seeds=(1,)).plan} & set(ids)


def test_tokens_of_an_n_gram_are_whole_windows(make_assembly):
    (run,) = make_assembly(**NGRAM | {"sizes": ORDERS[:1]}, tokens=(1000,)).plan[0].runs
    assert (run.tokens, run.steps, run.cooldown_steps) == (992, 62, 0)  # of 16


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tokens": (), "tokens_per_param": (20,)}, "tokens_per_param: .* known after counting; give tokens"),
        ({"tokens": (), "flops_budgets": (1e9,)}, "flops_budgets: .* known after counting; give tokens"),
        ({"flops_max": 1e9}, "flops_max: .* known after counting; leave it out"),
        ({"tokens_per_param_range": (1, 10)}, "tokens_per_param_range: .* leave it out"),
        ({"rate_multipliers": (1.0, 2.0)}, "rate_multipliers: .* no learning rate"),
        ({"schedules": ("wsd", "cosine")}, "schedules: .* no learning rate"),
        ({"mesh": MeshConfig(data=2)}, "mesh: '2,1,1' has no use for an n-gram"),
        ({"sizes": (Size(width=32),)}, "sizes: '32' is no size of family 'ngram', which has an order, such as 3-gram"),
        ({"family": "lstm"}, "sizes: '2-gram' is no size of family 'lstm', which has a width"),
        (
            {"corpus": Corpus(facts=Facts())},
            "corpus.facts: '16@0' are asked of causal networks, and this one is 'ngram'",
        ),
        ({"objective": "masked"}, "objective: 'masked' needs a model that sees both sides"),
    ],
)
def test_what_an_n_gram_has_not_is_refused(make_assembly, fields, words):
    with pytest.raises(InputError, match=words):
        make_assembly(**NGRAM | fields)


@pytest.mark.parametrize(
    "fields", [{"order": 0}, {"order": 7}, {"order": 3, "width": 64}, {"order": 3, "heads": 2}, {}]
)
def test_sizes_that_are_none(fields):
    with pytest.raises(InputError, match=r"^size\."):
        Size(**fields)


def test_families_share_a_sweep(make_assembly, tmp_path, capsys):
    """One plan and one table; each family as it is in a study of its own."""
    encoder = FamilyGrid(family="encoder", objective="masked", sizes=(Size(width=16, depth=1),))
    small = {"tokens": (128 * 8,), "eval_tokens": 256, "recipe": {"warmup_tokens": 0}}
    both, alone = make_assembly(**small, **NGRAM, further=(encoder,)), make_assembly(**small, **NGRAM)
    assert {t.id for t in alone.plan} < {t.id for t in both.plan}
    assert not work(both, tmp_path, events=False)
    capsys.readouterr()
    assert not work(alone, tmp_path, events=False)
    assert "done" not in capsys.readouterr().out  # nothing was left to do
    records = [json.loads(path.read_text()) for path in tmp_path.glob("test/runs/*/record.json")]
    kinds = sorted((r["row"]["family"], r["row"]["objective"]) for r in records)
    assert kinds == [("encoder", "masked"), ("ngram", "causal"), ("ngram", "causal")]
    pseudo = {path.parents[1].name.split("-")[0] for path in tmp_path.glob("test/runs/*/scores/pseudo_likelihood*")}
    assert pseudo == {"encoder"}


def test_a_family_has_its_own_rate_and_law(make_assembly):
    encoder = FamilyGrid(family="encoder", objective="masked", sizes=(Size(width=16, depth=2),), rate_multiplier=0.5)
    decoder, masked = make_assembly(further=(encoder,)).plan
    assert masked.hyperparameters.learning_rate == pytest.approx(0.5 * decoder.hyperparameters.learning_rate)
    assert decoder.fitted_with != masked.fitted_with
    assert decoder.id == make_assembly().plan[0].id


def test_a_grid_is_read_from_the_command_line():
    base = Study(name="any", sizes=(Size(width=32),), tokens=(1000,))
    found = override(base, ["--further", "lstm/causal=48x2+64", "ngram/causal=2-gram+3-gram"])
    assert found.further == (
        FamilyGrid(family="lstm", objective="causal", sizes=(Size(width=48, depth=2), Size(width=64))),
        FamilyGrid(family="ngram", objective="causal", sizes=(Size(order=2), Size(order=3))),
    )
    for text in ("lstm=48", "lstm/causal=", "gru/causal=48", "lstm/causal=48,64"):
        with pytest.raises(InputError, match=r"further|argument"):
            override(base, ["--further", text])


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (FamilyGrid(family="decoder", objective="causal", sizes=(Size(width=64),)), "twice"),
        (FamilyGrid(family="decoder", objective="pairs", sizes=(Size(width=64),)), "mix pairs"),
        (FamilyGrid(family="lstm", objective="causal", sizes=(Size(order=2),)), "no size of family 'lstm'"),
    ],
)
def test_grids_that_do_not_go_together(grid, words):
    with pytest.raises(InputError, match=words):
        Study(name="any", sizes=(Size(width=32),), tokens=(1000,), further=(grid,))


def test_the_plan_says_what_is_known_after_counting(study, tmp_path, capsys):
    (tmp_path / "shards").symlink_to(study.parent / "out" / "shards")
    told = [
        str(study),
        "--out",
        str(tmp_path),
        "--further",
        "ngram/causal=2-gram+3-gram",
        "--device-memory-bytes",
        "1e9",
    ]
    answer = tmp_path / "plan.json"
    assert main(["plan", *told, "--no-time", "--json", str(answer)]) == 0
    out = capsys.readouterr().out
    assert "known after counting" in out
    assert "at the most (counts_max)" in out
    runs = json.loads(answer.read_text())["runs"]
    assert [(r["shape"], r["params"], r["flops"]) for r in runs if r["family"] == "ngram"] == [
        (f"{order}-gram", None, order * tokens) for order in (2, 3) for tokens in (16384, 32768)
    ]
    assert sum(r["family"] == "decoder" for r in runs) == 2
    assert main(["plan", *told, "--device", "H200"]) == 2
    assert "no part in n-grams" in capsys.readouterr().err
    assert main(["sweep", *told, "--until", "N*@1e12 within 25 %"]) == 2
    assert "--further none" in capsys.readouterr().err


def test_counted_bytes_stay_below_the_bound():
    """Random grams, all stored: what numpy holds at the most, against COUNT_BYTES a count and a block."""
    import tracemalloc

    from lmscale.planning.memory import COUNT_BYTES, COUNTED_TOKEN_BYTES

    windows = np.random.default_rng(0).integers(2, 250, (4000, 65), dtype=np.int32)
    tracemalloc.start()
    counts = NgramCounts(order=4, vocab=259, eos_id=EOS)
    for part in np.split(windows, 4):
        counts.add(part)
        counts.stored(4)  # merged, as a block is
    model = estimate(counts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= COUNT_BYTES * model.params + COUNTED_TOKEN_BYTES * windows[:1000, 1:].size

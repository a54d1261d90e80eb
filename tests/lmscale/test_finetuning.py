"""Runs that begin from other runs: what is trained, what stays to the bit, resuming, identity, records, bad starts."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import pytest
from small import Stop

from analysis.errors import InputError
from lmscale.checkpoint import Checkpoints
from lmscale.config import Lora, Size, Start
from lmscale.evaluate import evaluate
from lmscale.planning.assemble import Assembly, from_shards
from lmscale.planning.disk import state_bytes
from lmscale.planning.pretrained import Pretrained, find_pretrained
from lmscale.records import Workspace
from lmscale.scoring.quantise import Rounding
from lmscale.scoring.rounded_scores import score_rounded
from lmscale.store.files import as_json, sealed
from lmscale.train import Interrupted, train
from lmscale.training.lanes import Training

LONG = 128 * 40  # tokens of the longer of the two runs that are begun from
BOTH = Start(run="test", freeze=("embedding", "layers/feedforward/up"), lora=Lora(rank=2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("before")


@pytest.fixture
def before(make_assembly, make_training, folder) -> Training:
    """The study `test`, two runs of one size; trained once."""
    t = make_training(make_assembly(), out=folder)
    train(t)
    return t


@pytest.fixture
def begin(make_assembly, shards, folder, before) -> Callable[..., Assembly]:
    """begin(start, changes of the study): one that goes on from `test`."""

    def make(start: Start, out: Path = folder, text=shards, **changes) -> Assembly:
        study = dataclasses.replace(make_assembly(name="tuned", **changes).study, start=start)
        return from_shards(study, text, {}, find_pretrained(start, out))

    return make


def restored(t: Training, folder: Path, step: int):
    """The parameters of a checkpoint, laid out as those of `t`."""
    return Checkpoints(folder).restore(step, {"params": t.step.abstract_state.params})["params"]


def final(t: Training, run) -> dict[str, np.ndarray]:
    """The parameters that were kept of a run, by name."""
    return named(restored(t, t.workspace.run(run.id) / "final", run.steps))


def named(params) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}


def numbers(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def test_what_is_trained_and_what_stays(begin, before, make_training, tmp_path):
    """What is frozen stays to the bit, adapters add matrices of their rank, and what is kept is a plain model: a
    program that knows no adapters gives it the loss of the record, and it can be rounded.
    """
    source = final(before, before.trajectory.runs[-1])
    assembly = begin(BOTH)
    t = make_training(assembly, out=tmp_path)
    train(t)
    for run in t.trajectory.runs:
        found = final(t, run)
        assert list(found) == list(source)
        same = {name for name in found if found[name].tobytes() == source[name].tobytes()}
        assert same == {"embedding", "layers/feedforward/up/weight"}
        change = (found["layers/attention/inward"] - source["layers/attention/inward"]).astype(np.float64)
        for place in (0, 2):  # query and value, of two layers: two directions of sixteen
            singular = np.linalg.svd(change[:, :, :, place].reshape(2, 16, 16), compute_uv=False)
            assert (singular[:, 1] > 1e-5).all()
            assert (singular[:, 2] < 1e-6).all()
        assert not change[:, :, :, 1].any()  # key
        params = restored(before, t.workspace.run(run.id) / "final", run.steps)
        row = t.workspace.record(run.id)["row"]
        assert evaluate(before.step, params, t.held_out).loss_nats == pytest.approx(row["loss_nats"], rel=1e-6)
    assert score_rounded(assembly, t.workspace, [Rounding(bits=8)], print).scored == 2


def test_all_is_trained_on_from_the_parameters_of_the_run(begin, before, make_training, tmp_path):
    """The first loss of a run that begins from another is the other's on that text."""
    t = make_training(begin(Start(run="test")), out=tmp_path)
    assert t.trajectory.program == before.trajectory.program
    source = final(before, before.trajectory.runs[-1])
    params = restored(t, t.trajectory.pretrained.final, t.trajectory.pretrained.step)
    state = t.step.init(t.trajectory.seed, params)
    assert {name: value.tobytes() for name, value in named(state.params).items()} == {
        name: value.tobytes() for name, value in source.items()
    }
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(state.optimizer))
    record = before.workspace.record(before.trajectory.runs[-1].id)
    assert record is not None
    assert evaluate(t.step, state.params, t.held_out).loss_nats == record["row"]["loss_nats"]


def test_what_was_learned_is_worth_tokens(begin, make_shards, make_training, tmp_path):
    """Of a text like that of before (a fifth of its tokens are followed by others), few tokens teach more to a model
    that begins from there than to one that begins from its seed.
    """
    kin = make_shards(7, changed=6)
    assembly = begin(Start(run="test"), text=kin, tokens=(128 * 10, 128 * 20))
    scratch = from_shards(dataclasses.replace(assembly.study, start=None), kin)
    losses = []
    for which, name in ((assembly, "tuned"), (scratch, "scratch")):
        t = make_training(which, out=tmp_path / name)
        train(t)
        losses.append([t.workspace.record(run.id)["row"]["loss_nats"] for run in t.trajectory.runs])
    tuned, alone = losses
    assert tuned[0] < alone[0] - 0.2
    assert tuned[0] < alone[1]  # more than as many tokens again


def results(t: Training) -> dict:
    """All that must not depend on interruptions."""
    rows = {run: cast(dict, t.workspace.record(run.id))["row"]["loss_nats"].hex() for run in t.trajectory.runs}
    return {
        run.tokens: (loss, {name: value.tobytes() for name, value in final(t, run).items()})
        for run, loss in rows.items()
    }


def test_resumed_equals_uninterrupted_bitwise(begin, make_training, tmp_path):
    """With frozen parts, parts that are trained, and adapters; stopped in the trunk and in both cooldowns."""
    assembly = begin(BOTH)
    whole = make_training(assembly, out=tmp_path / "whole")
    train(whole)
    for call in (1, 7, 13):
        parts = make_training(assembly, out=tmp_path / f"parts{call}", stop=Stop(call))
        with pytest.raises(Interrupted):
            train(parts)
        parts.stop = lambda: False
        train(parts)
        assert results(parts) == results(whole), call


def test_only_what_is_trained_has_moments(begin, make_training, tmp_path):
    t = make_training(begin(BOTH), out=tmp_path)
    tuning, state = t.trajectory.tuning, t.step.abstract_state
    # width 16, two layers: query and value of each are 16 x 16
    assert tuning.params_added == numbers(state.adapters) == 2 * 2 * 2 * (16 + 16)
    frozen = 32 * 16 + 2 * 16 * 64 + 2 * 4 * 16 * 16 - 2 * 16 * 16  # embedding, up, inward without out
    assert t.trajectory.params_trained == numbers(state.params) - frozen + tuning.params_added
    moments = [x for x in jax.tree.leaves(state.optimizer) if x.ndim]
    assert numbers(moments) == 2 * t.trajectory.params_trained
    bytes_of_state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert bytes_of_state - state_bytes(t.trajectory) == 4  # Adam's count of steps


def test_stacked_on_eight_devices_is_as_alone_on_one(begin, make_training, eight, tmp_path):
    """Two seeds in one program, each with adapters of its own."""
    changes = {"seeds": (0, 1), "tokens": (128 * 20,)}
    alone = [make_training(begin(BOTH, **changes), out=tmp_path / "alone", index=i) for i in (0, 1)]
    spread = begin(BOTH, replicas=2, mesh=eight, **changes)
    together = [make_training(spread, out=tmp_path / "both", index=i) for i in (0, 1)]
    train(*together)
    for t, other in zip(alone, together, strict=True):
        train(t)
        assert t.trajectory.id == other.trajectory.id
        a, b = (x.workspace.record(x.trajectory.runs[0].id)["row"]["loss_nats"] for x in (t, other))
        assert a == pytest.approx(b, rel=1e-5)
    assert results(alone[0]) != results(alone[1])


def test_identity_is_the_content_of_the_start(begin, before, make_assembly, folder, tmp_path):
    plain = begin(Start(run="test")).plan[0]
    assert plain.pretrained.tokens == LONG
    assert "start" not in before.trajectory.identity
    starts = [
        Start(run="test", tokens=128 * 20),
        Start(run="test", freeze=("embedding",)),
        Start(run="test", lora=Lora(rank=2)),
        Start(run="test", lora=Lora(rank=2, alpha=4)),
        Start(run="test", lora=Lora(rank=2, matrices=("query",))),
    ]
    plans = [plain, *[begin(start).plan[0] for start in starts], before.trajectory]
    assert len({t.id for t in plans}) == len(plans)
    assert len({t.recipe for t in plans}) == len(plans)  # no two are fitted together
    # the same files under another name, given as a path, as the run, or by its id: the same run
    shutil.copytree(folder / "test", tmp_path / "elsewhere")
    run_id = before.trajectory.runs[-1].id
    for name in (str(tmp_path / "elsewhere"), str(folder / "test" / "runs" / run_id), run_id, f"test/runs/{run_id}"):
        assert begin(Start(run=name)).plan[0].id == plain.id
    # other parameters in the place of these: another
    other = tmp_path / "elsewhere" / "runs" / run_id / "final"
    manifest = next(other.rglob("manifest.json"))
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "sha256": dict.fromkeys(told["sha256"], "0")}))
    assert begin(Start(run=str(tmp_path / "elsewhere"))).plan[0].id != plain.id


def test_records_say_where_a_run_began(begin, before, make_training, tmp_path):
    t = make_training(begin(BOTH, tokens=(128 * 20,)), out=tmp_path)
    train(t)
    row = t.workspace.record(t.trajectory.runs[0].id)["row"]
    assert row["family"] == "decoder_lora"
    assert row["run_id"].startswith("decoder_lora-16x2-s0-")
    assert row["start"] == before.trajectory.runs[-1].id
    assert (row["pretrained_tokens"], row["params_trained"]) == (LONG, t.trajectory.params_trained)
    assert row["params"] == before.trajectory.shape.params
    began = before.workspace.record(before.trajectory.runs[0].id)["row"]
    assert (began["start"], began["pretrained_tokens"], began["params_trained"]) == (None, None, row["params"])
    # from a run that began from another
    again = begin(Start(run="tuned"), out=tmp_path, tokens=(128 * 20,)).plan[0]
    assert again.kind == "decoder_finetuned"
    assert again.pretrained_tokens == LONG + 128 * 20
    # a record of before has none of these columns
    path = before.workspace.run(began["run_id"]) / "record.json"
    old = json.loads(path.read_text())
    old["row"] = {k: v for k, v in old["row"].items() if k not in ("start", "pretrained_tokens", "params_trained")}
    elsewhere = Workspace(tmp_path, "old")
    elsewhere.create()
    elsewhere.run(began["run_id"]).mkdir()
    old.pop("sha256", None)
    (elsewhere.run(began["run_id"]) / "record.json").write_text(as_json(sealed(old)))
    assert elsewhere.export() == 1


def test_a_damaged_start_is_refused(begin, folder, make_training, tmp_path):
    shutil.copytree(folder / "test", tmp_path / "test")
    assembly = begin(Start(run="test"), out=tmp_path)
    victim = max(
        (p for p in assembly.plan[0].pretrained.final.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(InputError, match=r"start.run: the final parameters of 'decoder-16x2.* are damaged"):
        train(make_training(assembly, out=tmp_path / "out"))


BAD: dict[str, tuple[Callable[[], Any], dict, str]] = {
    "no_such": (lambda: Start(run="nothing"), {}, r"start.run: 'nothing' is neither a run nor a study"),
    "unnamed": (Start, {}, r"start.run: is not given"),
    "tokens": (
        lambda: Start(run="test", tokens=999),
        {},
        r"start.tokens: 999 is not among those of 16x2x2 .* 2,560, 5,120; choose",
    ),
    "shape": (
        lambda: Start(run="test"),
        {"sizes": (Size(width=24),)},
        r"has no decoder 24x1x2 \(vocabulary 32\) .* decoder 16x2x2",
    ),
    "family": (lambda: Start(run="test"), {"family": "lstm"}, r"has no lstm 16x2 .* but decoder 16x2x2"),
    "positions": (lambda: Start(run="test"), {"positions": "learned"}, r"has no decoder 16x2x2"),
    "part": (
        lambda: Start(run="test", freeze=("embeddings",)),
        {},
        r"start.freeze: 'embeddings' is no part of this model; name some of embedding, final_norm, layers, ",
    ),
    "all": (
        lambda: Start(run="test", freeze=("embedding", "layers", "final_norm")),
        {},
        r"start.freeze: .* leaves nothing to train",
    ),
    "twice": (lambda: Start(run="test", freeze=("layers", "layers")), {}, r"must not name a part twice"),
    "rank": (
        lambda: Start(run="test", lora=Lora(rank=17)),
        {},
        r"start.lora.rank: 17 exceeds the rank of layers/attention/query, a matrix of 16 x 16; give at most 16",
    ),
    "zero": (lambda: Start(run="test", lora=Lora(rank=0)), {}, r"start.lora.rank: 0 must be at least 1"),
    "matrix": (
        lambda: Lora(matrices=cast(Any, ("norm",))),
        {},
        r"start.lora.matrices: \('norm',\) is not query or key",
    ),
    "no_matrix": (lambda: Lora(matrices=()), {}, r"start.lora.matrices: \(\) must name at least one"),
    "lstm": (
        lambda: Start(run="test", lora=Lora()),
        {"family": "lstm"},
        r"start.lora.matrices: .* an LSTM has none; leave start.lora out",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_starts(begin, name):
    start, changes, words = BAD[name]
    with pytest.raises(InputError, match=words) as raised:
        begin(start(), **changes)
    assert "\n" not in str(raised.value)


def test_runs_that_cannot_be_begun_from(begin, before, folder, shards, make_assembly, tmp_path):
    start = Start(run="test")
    sources = [dataclasses.replace(source, tokenizer="words") for source in find_pretrained(start, folder)]
    study = dataclasses.replace(make_assembly(name="tuned").study, start=start)
    with pytest.raises(InputError, match=r"start.run: 'test' reads text as words, and this corpus is in 'test'; give"):
        from_shards(study, shards, {}, tuple(sources))
    shutil.copytree(folder / "test", tmp_path / "test")
    for final_folder in (tmp_path / "test" / "runs").glob("*/final"):
        shutil.rmtree(final_folder)
    with pytest.raises(InputError, match=r"start.run: 'test' has no final parameters on disk"):
        begin(Start(run="test"), out=tmp_path)
    for record in (tmp_path / "test" / "runs").glob("*/record.json"):
        record.unlink()
    with pytest.raises(InputError, match=r"start.run: 'test' is a study without a finished run"):
        begin(Start(run="test"), out=tmp_path)
    with pytest.raises(InputError, match=r"start.run: 'decoder-.*' is not finished"):
        begin(Start(run=before.trajectory.runs[0].id), out=tmp_path)


def test_each_size_and_seed_begins_from_its_own(make_assembly, shards, folder, before):
    sizes = Size(width=16, depth=1), Size(width=24, depth=1)
    study, start = make_assembly(name="several", sizes=sizes, seeds=(0, 1)).study, Start(run="test")
    one = find_pretrained(start, folder)[0]
    sources = tuple(
        dataclasses.replace(one, run_id=t.runs[0].id, shape=t.shape, seed=t.seed)
        for t in from_shards(study, shards).plan
    )

    def plan(**changes):
        return from_shards(dataclasses.replace(study, start=start, **changes), shards, {}, sources).plan

    begun = [(t, cast(Pretrained, t.pretrained)) for t in plan()]
    found = [(t.shape.width, t.seed, source.shape.width, source.seed) for t, source in begun]
    assert found == [(16, 0, 16, 0), (16, 1, 16, 1), (24, 0, 24, 0), (24, 1, 24, 1)]
    assert len({t.recipe for t in plan()}) == 1  # all of one law
    with pytest.raises(InputError, match=r"several runs of 16x1x2 to 2,560 tokens, .*-s0-.*-s1-.*; name"):
        plan(seeds=(2,))

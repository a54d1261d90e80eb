"""What is seen of training: event files as TensorBoard and analysis read them, shares of peak, host time, profiles."""

import gzip
import json
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.reading import tensorboard_logs
from lmscale.cli import main
from lmscale.planning import accelerators
from lmscale.records import Curve
from lmscale.train import Interrupted, Training, train
from lmscale.training.telemetry import HostClock, memory_bytes, peak_of
from lmscale.watch.progress import Pace

TAGS = {"loss_nats/train", "grad_norm", "tokens_per_second", "share_of_peak", "memory_bytes", "learning_rate"}


class Killed(Exception):
    """Stands for a kill: nothing is saved."""


def kill_at(step: int):
    def report(progress) -> None:
        seen.append(progress.steps)
        if sum(seen) >= step:
            raise Killed

    seen: list[int] = []
    return report


@pytest.fixture
def scalars(monkeypatch):
    """scalars(folder) -> {tag: [(step, value)]}, as TensorBoard itself reads a folder."""
    compat = pytest.importorskip("tensorboard.compat")
    monkeypatch.setattr(compat, "notf", True, raising=False)  # its own readers, not TensorFlow's: the import takes 6 s
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder) -> dict[str, list[tuple[int, float]]]:
        found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        found.Reload()
        return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}

    return read


def agrees(scalars: dict[str, list[tuple[int, float]]], curve: list[dict]) -> bool:
    """Whether TensorBoard shows a curve's numbers (in float32, as event files hold them), each once and in order."""
    for tag, column in (("loss_nats/train", "train_loss_nats"), ("grad_norm", "grad_norm")):
        assert scalars[tag] == [(row["step"], float(np.float32(row[column]))) for row in curve]
    return all([step for step, _ in scalars[tag]] == [row["step"] for row in curve] for tag in TAGS)


def test_event_files_hold_the_curves(make_assembly, make_training, scalars):
    t = make_training(make_assembly(), logs=("tensorboard",))
    train(t)
    t.telemetry.close()
    trunk = t.workspace.trajectory(t.trajectory.id)
    shown = scalars(trunk)
    assert set(shown) == TAGS
    assert agrees(shown, Curve(trunk / "trunk.jsonl").read())
    rates = dict(shown["learning_rate"])
    assert rates[3] == pytest.approx(0.75 * t.trajectory.hyperparameters.learning_rate)  # the third of 4 warmup steps
    for run in t.trajectory.runs:
        folder = t.workspace.run(run.id)
        shown = scalars(folder)
        assert set(shown) == TAGS | {"loss_nats/heldout", "bits_per_byte/heldout"}
        assert agrees(shown, Curve(folder / "curve.jsonl").read())
        record = t.workspace.record(run.id)
        assert record is not None
        assert shown["loss_nats/heldout"] == [(run.steps, float(np.float32(record["row"]["loss_nats"])))]

    found = tensorboard_logs.read(t.workspace.root / "runs")
    assert not found.excluded
    rows = {row["run_id"]: row for row in found.frame.to_dict("records")}
    for run in t.trajectory.runs:
        last = Curve(t.workspace.run(run.id) / "curve.jsonl").read()[-1]
        row = rows[run.id]
        assert float(row["step"]) == run.steps
        assert float(row["loss_nats/train"]) == float(np.float32(last["train_loss_nats"]))


def test_a_resumed_curve_is_one_curve(make_assembly, make_training, scalars):
    """Stopped at step 9, killed at 18 after writing more than any checkpoint holds, then finished."""
    calls = iter(range(100))
    t = make_training(make_assembly(), logs=("tensorboard",), stop=lambda: next(calls) == 2)
    with pytest.raises(Interrupted):
        train(t)
    t.stop, t.report = (lambda: False), kill_at(9)
    with pytest.raises(Killed):
        train(t)
    trunk = t.workspace.trajectory(t.trajectory.id)
    assert Curve(trunk / "trunk.jsonl").read()[-1]["step"] > 9
    again = make_training(make_assembly(), logs=("tensorboard",))
    train(again)
    again.telemetry.close()
    t.telemetry.close()
    assert len(list(trunk.glob("*tfevents*"))) == 2
    assert agrees(scalars(trunk), Curve(trunk / "trunk.jsonl").read())
    for run in again.trajectory.runs:
        assert agrees(scalars(again.workspace.run(run.id)), Curve(again.workspace.run(run.id) / "curve.jsonl").read())


def test_logs_and_profiles_leave_the_numbers_alone(make_assembly, make_training, tmp_path, scalars):
    said: list[str] = []
    plain = make_training(make_assembly(), out=tmp_path / "plain")
    traced = make_training(make_assembly(), logs=("tensorboard",), profile=range(8, 10), say=said.append)
    for t in (plain, traced):
        train(t)
        t.telemetry.close()
    for run in plain.trajectory.runs:
        both = [(t.workspace.run(run.id) / "curve.jsonl").read_text() for t in (plain, traced)]
        assert both[0] == both[1]
        assert not list(plain.workspace.run(run.id).glob("*tfevents*"))

    folder = traced.workspace.trajectory(traced.trajectory.id) / "profile" / "steps-7-9"  # calls hold three steps
    assert [p.name for p in folder.parent.iterdir()] == ["steps-7-9"]
    assert any("steps 7 to 9" in line and str(folder) in line for line in said)
    (trace,) = folder.rglob("perfetto_trace.json.gz")
    with gzip.open(trace, "rt") as file:
        content = json.load(file)
    events = content["traceEvents"] if isinstance(content, dict) else content
    parts = [event.get("args", {}) for event in events]
    operations = Counter(a["hlo_op"] for a in parts if str(a.get("hlo_module", "")).startswith("jit__advance"))
    products = {name: count for name, count in operations.items() if name.startswith("dot")}
    assert products
    assert set(products.values()) == {3}  # each operation of the step, once in each of the call's three steps
    assert sum(count == 3 for count in operations.values()) > 20
    assert list(folder.rglob("*.xplane.pb"))


def test_steps_that_no_call_trains_are_said(make_assembly, make_training):
    said: list[str] = []
    t = make_training(make_assembly(tokens=(2560,)), profile=range(900, 902), say=said.append)
    train(t)
    t.telemetry.close()
    assert said == [f"profile: no call trained steps 900 to 901 of {t.trajectory.id}"]


def test_the_record_says_speed_memory_and_peak(make_assembly, make_training):
    t = make_training(make_assembly(tokens=(2560,)))
    train(t)
    found = t.workspace.records()[0]
    said, row = found["telemetry"], found["row"]
    assert said["tokens_per_second"] == pytest.approx(row["batch_tokens"] / row["step_seconds"], rel=1e-12)
    flops = row["flops"] / row["tokens"] * said["tokens_per_second"]
    assert said["share_of_peak"] == pytest.approx(flops / said["peak_flops_per_second"], rel=1e-9)
    assert 0 < said["share_of_peak"] < 1
    assert "measured" in said["peak_source"]
    assert said["memory_bytes"] > 8 * row["params"]
    assert 0 <= said["host_share"] <= 1


def test_devices_of_a_cpu_share_its_rate():
    devices = jax.devices()
    assert peak_of(devices, "float32") == peak_of(devices[:1], "float32")
    assert peak_of(devices, "float32").flops_per_second > 1e8


def test_accelerators_add_up():
    def device(kind: str) -> Any:
        return cast(Any, SimpleNamespace(device_kind=kind, platform="gpu", process_index=0))

    four = peak_of([device("NVIDIA H200")] * 4, "bfloat16")
    one = accelerators.find("NVIDIA H200")
    assert one is not None
    assert four.flops_per_second == 4 * one.bfloat16_flops
    assert four.source.startswith("4 x NVIDIA H200, bfloat16: ")
    assert peak_of([device("TPU v4")], "float32").flops_per_second == 275e12
    assert accelerators.find("cpu") is None


@pytest.mark.parametrize(
    ("kind", "units", "flops_per_cycle", "hertz"),
    [
        ("TPU v4", 8, 2 * 128**2, 1.05e9),  # matrix units of a chip: Jouppi et al. 2023 (arXiv:2304.01433), Table 4
        ("TPU v5 lite", 4, 2 * 128**2, 1.5e9),
        ("TPU v5p", 8, 2 * 128**2, 1.75e9),
        ("NVIDIA A100-SXM4-80GB", 108, 2048, 1.41e9),  # streaming multiprocessors: NVIDIA's whitepapers of each
        ("NVIDIA H100 80GB HBM3", 132, 4096, 1.83e9),
        ("NVIDIA H100 PCIe", 114, 4096, 1.62e9),
        ("NVIDIA H200", 132, 4096, 1.83e9),
        ("NVIDIA L4", 58, 1024, 2.04e9),
        ("Tesla V100-SXM2-32GB", 80, 128, 1.53e9),
    ],
)
def test_peaks_follow_from_units_and_clocks(kind, units, flops_per_cycle, hertz):
    found = accelerators.find(kind)
    assert found is not None
    assert found.bfloat16_flops == pytest.approx(units * flops_per_cycle * hertz, rel=0.005)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status is Linux's")
def test_memory_of_a_cpu_is_the_most_the_process_held():
    held = np.ones(2**25)  # 268 MB, touched
    found = memory_bytes(jax.devices())
    with open("/proc/self/status") as file:
        high_water = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    assert found == pytest.approx(high_water, rel=0.02)
    assert found > held.nbytes


def test_host_time_counts_only_while_no_call_is_in_flight():
    @jax.jit
    def busy(x, count):
        return jax.lax.fori_loop(0, count, lambda i, y: jnp.tanh(y @ x), x)

    x = jnp.ones((256, 256))
    clock = HostClock(shares_cores=True)

    def call(count: int) -> jax.Array:
        with clock.waiting():
            output = busy(x, count)
        clock.dispatched(output)
        return output

    def wait(output: jax.Array) -> None:
        with clock.waiting():
            output.block_until_ready()
        clock.seen()

    wait(call(1))
    assert clock.host_seconds == 0  # compilation is left out
    assert clock.share is None
    time.sleep(0.3)  # the device has nothing to do
    output = call(3000)  # for seconds
    idle = clock.host_seconds
    assert idle >= 0.3
    time.sleep(0.3)  # the device waits for nobody, and no core is taken from it
    wait(output)
    assert clock.host_seconds - idle < 0.1
    share = clock.share
    assert share is not None
    assert 0 < share < 1
    time.sleep(0.3)  # writing the last checkpoint
    assert clock.share is not None
    assert clock.share > share


def test_the_time_left_leaves_out_what_came_before_the_workers_trained():
    pace = Pace(1000.0)
    assert pace.left(0, 10.0, now=60.0) is None  # a minute of compiling says nothing
    assert pace.left(0, 110.0, now=70.0) == pytest.approx(89.0)  # 10 FLOPs a second
    assert pace.left(1, 120.0, now=71.0) is None  # another joins
    assert pace.left(0, 320.0, now=81.0) == pytest.approx(34.0)  # 20 a second


def test_wandb_offline(make_assembly, make_training, monkeypatch):
    wandb: Any = pytest.importorskip("wandb", reason="wandb is not installed: its log is not tested")
    monkeypatch.setenv("WANDB_MODE", "offline")
    t: Training = make_training(make_assembly(tokens=(2560,)), logs=("wandb",))
    train(t)
    t.telemetry.close()
    wandb.teardown()  # as at the end of a process: its service has then written all
    (run,) = t.trajectory.runs
    for name, folder, file in (
        (t.trajectory.id, t.workspace.trajectory(t.trajectory.id), "trunk.jsonl"),
        (run.id, t.workspace.run(run.id), "curve.jsonl"),
    ):
        (stored,) = t.workspace.root.glob(f"wandb/offline-run-*/run-{name}.wandb")
        curve = [(p["step"], p["train_loss_nats"]) for p in Curve(folder / file).read()]
        rows, summary = contents(stored)
        assert [(row["_step"], row["loss_nats/train"]) for row in rows] == curve
    record = t.workspace.records()[0]
    assert summary["loss_nats/heldout"] == record["row"]["loss_nats"]
    assert summary["steps"] == run.steps


def contents(path: Path) -> tuple[list[dict], dict]:
    """The rows and the summary of an offline run: records of wandb's protocol in LevelDB's log format after 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, rows, summary, parts = path.read_bytes(), 7, [], {}, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768  # blocks of 32 KiB; a head of 7 bytes is never split
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind not in (1, 4):  # a whole record, or the last part of one
            continue
        record: Any = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
        record.ParseFromString(parts)
        parts = b""
        if record.HasField("history"):
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
        if record.HasField("summary"):
            summary |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update}
    return rows, summary


def test_a_missing_package_is_said_before_training(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    study = Path(__file__).parents[2] / "experiments" / "quickstart.py"
    assert main(["sweep", str(study), "--telemetry", "wandb", "--out", str(tmp_path)]) == 2
    assert "telemetry: 'wandb' needs its package; pip install 'lmscale[wandb]'" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("steps", ["20", "23:20", "0:4", "a:b", "1:2:3", "-1:4"])
def test_bad_profiles(steps, capsys):
    assert main(["sweep", "quickstart", f"--profile={steps}"]) == 2
    assert f"profile: '{steps}' must be two steps" in capsys.readouterr().err

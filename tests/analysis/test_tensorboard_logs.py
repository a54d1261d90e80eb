"""TensorBoard: the CSVs of its page, and event files of TensorFlow and of TensorBoard's own protocol buffers."""

import csv
import struct

import pytest

from analysis.errors import InputError
from analysis.reading.tensorboard_logs import found
from analysis.table import read

SIZES = {"small": 1e7, "medium": 1e8, "large": 1e9}


def download(folder, run, tag, values, steps=None):
    """As TensorBoard's scalars_plugin writes it, under the name its page gives."""
    with (folder / f"run-{run}-tag-{tag}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Wall time", "Step", "Value"])
        writer.writerows((1.7e9 + i, steps[i] if steps else 10 * i, value) for i, value in enumerate(values))


@pytest.fixture
def downloads(tmp_path):
    for run, n in SIZES.items():
        download(tmp_path, run, "val_loss", [5.0, 4.0, 3 - n / 1e9])
        download(tmp_path, run, "params", [n])
        download(tmp_path, run, "tokens", [1e9, 2e9, 4e9])
    return tmp_path


def test_downloads(downloads):
    table = read(downloads)
    assert list(table.frame["run_id"]) == ["large", "medium", "small"]
    assert table.params.tolist() == [1e9, 1e8, 1e7]
    assert table.tokens.tolist() == [4e9] * 3
    assert table.loss_nats == pytest.approx([2.0, 2.9, 2.99])
    assert table.frame["step"].tolist() == [20] * 3
    assert read(downloads, columns={"tokens": "step*1e8"}).tokens.tolist() == [2e9] * 3


def test_the_last_value_is_that_of_the_highest_step(downloads):
    download(downloads, "small", "val_loss", [4.0, 3.5, 3.0, 3.25], steps=[0, 10, 20, 5])
    assert read(downloads, where={"run_id": "small"}).loss_nats.tolist() == [3.0]


def test_a_download_truncated_at_any_byte_is_listed_or_refused(downloads):
    path = downloads / "run-small-tag-val_loss.csv"
    download(downloads, "small", "val_loss", [4.0, 3.0])
    whole = path.read_bytes()
    complete = {3.0, 4.0}
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        try:
            table = read(downloads)
        except InputError:
            continue
        small = table.loss_nats[table.frame["run_id"] == "small"]
        assert set(small) <= complete
        assert len(small) == 1 or [e.row for e in table.excluded] == [3]
        if whole[cut - 1 : cut] != b"\n":
            assert len(small) == 0


def test_another_csv_among_downloads_is_refused(downloads):
    (downloads / "run-x-tag-y.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no CSV of TensorBoard"):
        read(downloads)


def framed(data):
    """A TFRecord, whose check sums tensorboard's own function makes."""
    crc = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow").masked_crc32c
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", crc(length)) + data + struct.pack("<I", crc(data))


@pytest.fixture
def events(tmp_path):
    """Event files as PyTorch's SummaryWriter lays them out: simple values, settings in a folder inside."""
    pytest.importorskip("tensorboard", reason="event files need the extra 'tensorboard'")
    from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    def at(run, scalars, settings=None, begun=1700000000, first=0):
        folder = tmp_path / run
        folder.mkdir(parents=True, exist_ok=True)
        records = [Event(wall_time=1.0, file_version="brain.Event:2")]
        records += [
            Event(wall_time=1.0, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
            for tag, values in scalars.items()
            for step, value in enumerate(values, first)
        ]
        if settings is not None:
            records.append(Event(wall_time=1.0, summary=hparams_pb(settings)))
        path = folder / f"events.out.tfevents.{begun}.host.1.0"
        path.write_bytes(b"".join(framed(record.SerializeToString()) for record in records))
        return path

    return at


def test_event_files_with_settings_inside(tmp_path, events):
    for run, n in SIZES.items():
        events(run, {"val/loss": [4.0, 3.0, 2.5], "train/loss": [4.0, 1.0]})
        events(f"{run}/1700000000.5", {"hparam/score": [1.0]}, {"N": n, "tokens": 4e9, "corpus": "c4", "tied": True})
    assert found(tmp_path)
    table = read(tmp_path)
    assert list(table.frame["run_id"]) == ["large", "medium", "small"]
    assert table.params.tolist() == [1e9, 1e8, 1e7]
    assert table.loss_nats.tolist() == [2.5] * 3
    assert table.frame.loc[0, ["corpus", "tied", "hparam/score", "step"]].tolist() == ["c4", "True", 1.0, 2.0]


def test_of_several_files_the_value_is_that_of_the_highest_step(tmp_path, events):
    """A run interrupted after step 2, begun again at step 1 and interrupted there."""
    events("run", {"loss": [4.0, 3.0, 2.5], "N": [1e7] * 3, "D": [1e9, 2e9, 3e9]})
    events("run", {"loss": [3.1], "N": [1e7], "D": [2e9]}, begun=1700000001, first=1)
    table = read(tmp_path)
    assert (table.loss_nats[0], table.tokens[0], table.frame["step"][0]) == (2.5, 3e9, 2)


def test_an_event_file_truncated_at_any_byte_or_flipped_is_listed(tmp_path, events):
    events("a", {"loss": [2.0], "N": [1e7]})
    path = events("b", {"loss": [2.0], "N": [1e8]})
    whole = path.read_bytes()
    for at in range(len(whole)):
        flipped = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        for content in (whole[:at], flipped)[: 1 + (at % 4 == 0)]:
            path.write_bytes(content)
            table = read(tmp_path, columns={"tokens": "1e9"})
            used = dict(zip(table.frame["run_id"], table.loss_nats, strict=True))
            assert used == {"a": 2.0}
            assert [e.row for e in table.excluded] == [2]


def test_event_files_of_tensorflow(tmp_path):
    pytest.importorskip("tensorboard", reason="event files need the extra 'tensorboard'")
    tensorflow = pytest.importorskip("tensorflow", reason="tf.summary, the writer of this test, is not installed")
    from tensorboard.plugins.hparams import api

    for run, n in SIZES.items():
        for part in ("train", "validation"):
            with tensorflow.summary.create_file_writer(str(tmp_path / run / part)).as_default():
                for step in range(3):
                    tensorflow.summary.scalar("epoch_loss", 3.0 - step / 2, step=step)
                    tensorflow.summary.histogram("weights", [1.0, 2.0, step], step=step)
        with tensorflow.summary.create_file_writer(str(tmp_path / run)).as_default():
            api.hparams({"n_params": n, "tokens": 10**9, "tokenizer": "bpe"})
    table = read(tmp_path, columns={"loss_nats": "validation/epoch_loss"})
    assert table.params.tolist() == [1e9, 1e8, 1e7]
    assert table.loss_nats.tolist() == [2.0] * 3
    assert table.frame["tokenizer"].tolist() == ["bpe"] * 3


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "events.out.tfevents.1").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(InputError, match=r"pip install 'lmscale\[tensorboard\]'"):
        read(tmp_path)


def test_too_large_a_log_is_refused(tmp_path):
    with (tmp_path / "events.out.tfevents.1").open("wb") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(InputError, match="10 GB of event files"):
        read(tmp_path)

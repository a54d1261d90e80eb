"""Kinds of file: one table in each of them; damage at every byte; bad values in every column; hostile content."""

import contextlib
import gzip
import io
import json
import resource
import time
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.errors import InputError
from analysis.reading import json_rows
from analysis.reading.formats import load
from analysis.table import from_frame, read

RUNS = pd.DataFrame(
    [
        (f"r{i}", n, d, 1.7 + 400 / n**0.34 + 400 / d**0.28, "c4")
        for i, (n, d) in enumerate((n, d) for n in (1e7, 1e8) for d in (1e9, 3e9))
    ],
    columns=["run_id", "N", "D", "loss", "corpus"],
)
KINDS = [
    "runs.csv",
    "runs.tsv",
    "runs.jsonl",
    "runs.ndjson",
    "runs.json",
    "runs.parquet",
    "runs.csv.gz",
    "runs.jsonl.gz",
]
COLUMNS = {"N": "params", "D": "tokens", "loss": "loss_nats"}
NUMBERS = ["run_id", "params", "tokens", "loss_nats"]


def write(frame, path):
    """The frame as its kind of file is written by pandas, or by json for the lines of it."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet files need the extra 'parquet'")
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(), path)
        return path
    if kind in ("csv", "tsv"):
        text = frame.to_csv(None, index=False, sep="," if kind == "csv" else "\t")
    elif kind == "json":
        text = json.dumps(frame.to_dict("records"))
    else:
        text = "".join(json.dumps(record) + "\n" for record in frame.to_dict("records"))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_the_same_table(tmp_path, kind):
    expected = from_frame(RUNS)
    table = read(write(RUNS, tmp_path / kind))
    for column in NUMBERS:
        assert list(table.frame[column]) == list(expected.frame[column])
    assert table.excluded == ()
    assert table.notes == expected.notes


@pytest.mark.parametrize(
    "kind", ["runs.csv", "runs.jsonl", "runs.json", "runs.parquet", "runs.csv.gz", "runs.jsonl.gz"]
)
def test_truncation_at_every_byte_never_gives_another_table(tmp_path, kind):
    runs = RUNS.iloc[:3, :4].assign(loss=[2.25, 3.125, 4.5])
    whole = write(runs, tmp_path / kind).read_bytes()
    clean = [tuple(row) for row in from_frame(runs).frame[NUMBERS].itertuples(index=False)]
    rows_read = set()
    for cut in range(len(whole) - 1 if kind.endswith(("json", "csv")) else len(whole)):
        path = tmp_path / kind
        path.write_bytes(whole[:cut])
        try:
            table = read(path)
        except InputError:
            continue
        used = [tuple(row) for row in table.frame[NUMBERS].itertuples(index=False)]
        assert used == clean[: len(used)]
        rows_read.add(len(used))
        if kind in ("runs.csv", "runs.jsonl"):
            # Every line that is there is used or listed; a line without its end may be either.
            lines = len(whole[:cut].splitlines()) - (kind == "runs.csv")
            assert len(used) + len(table.excluded) == lines
    assert rows_read == ({1, 2} if kind == "runs.csv" else {1, 2, 3} if kind == "runs.jsonl" else set())


def test_a_torn_line_of_json_is_named_and_the_others_kept(tmp_path):
    lines = [json.dumps(record) for record in RUNS.to_dict("records")]
    lines[1] = lines[1][:25]
    (tmp_path / "a.jsonl").write_text("\n".join([lines[0], "", *lines[1:]]))
    table = read(tmp_path / "a.jsonl")
    assert list(table.frame["run_id"]) == ["r0", "r2", "r3"]
    assert list(table.frame["csv_row"]) == [1, 4, 5]
    assert [(e.row, e.column) for e in table.excluded] == [(3, "line")]


BAD = [
    np.nan,
    np.inf,
    -np.inf,
    0,
    -3.0,
    "",
    "many",
    "1e999",
    "1,5",
    "10M",
    "0x10",
    "1_000",
    None,
    True,
    [1e9],
    {"x": 1},
]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["runs.csv", "runs.jsonl", "runs.json", "runs.parquet"]),
    row=st.integers(0, 3),
    column=st.sampled_from(sorted(COLUMNS)),
    bad=st.sampled_from(BAD),
)
def test_every_bad_value_in_every_column_is_left_out_and_named(tmp_path_factory, kind, row, column, bad):
    path = tmp_path_factory.mktemp("bad") / kind
    records = RUNS.to_dict("records")
    records[row][column] = bad
    if kind == "runs.parquet":
        pytest.importorskip("pyarrow", reason="Parquet files need the extra 'parquet'")
        if not isinstance(bad, float | int) or isinstance(bad, bool):  # a column of Parquet has one type
            records = [{k: str(v) for k, v in record.items()} for record in records]
        pd.DataFrame(records).to_parquet(path)
    elif kind == "runs.csv":
        pd.DataFrame(records).to_csv(path, index=False)
    else:
        text = json.dumps(records) if kind == "runs.json" else "\n".join(map(json.dumps, records)) + "\n"
        path.write_text(text)
    if isinstance(bad, dict) and kind.startswith("runs.json"):
        # {"x": 1} is the column N.x: the number is missing
        assert f"{column}.x" in read(path).frame
    table = read(path)
    assert list(table.frame["run_id"]) == [f"r{i}" for i in range(4) if i != row]
    first = 2 if kind == "runs.csv" else 1
    assert [(e.row, e.column) for e in table.excluded] == [(row + first, COLUMNS[column])]


@pytest.mark.parametrize("kind", ["runs.csv", "runs.jsonl", "runs.parquet"])
def test_mixed_units_duplicates_and_conflicts_in_every_kind(tmp_path, kind):
    path = tmp_path / kind
    millions = RUNS.copy()
    millions.loc[2, "N"] = 100.0
    assert [e.column for e in read(write(millions, path)).excluded] == ["params"]
    table = read(write(pd.concat([RUNS, RUNS.iloc[[1, 1]]]), path))
    assert len(table) == 4
    assert any("2 identical rows dropped" in note for note in table.notes)
    with pytest.raises(InputError, match="same run 'r1'"):
        read(write(pd.concat([RUNS, RUNS.iloc[[1]].assign(loss=2.5)]), path))


def test_nested_objects_lists_and_types(tmp_path):
    record = {
        "model": {"N": {"value": 1e8}, "arch": {"depth": 3}},
        "tags": [1, "a"],
        "D": 10**10,
        "ok": True,
        "loss": 2.5,
    }
    (tmp_path / "a.jsonl").write_text(
        "\ufeff" + json.dumps(record) + "\n" + json.dumps({**record, "loss": 2.75}) + "\n"
    )
    table = read(tmp_path / "a.jsonl", columns={"params": "model.N"})
    assert table.params.tolist() == [1e8, 1e8]
    row = table.frame.iloc[0]
    assert (row["model.arch.depth"], row["tags"], row["ok"]) == (3, '[1, "a"]', "True")
    large = {"run_id": 2**63 + 1, "N": 1e8, "D": 1e10, "loss": 2.5}
    (tmp_path / "b.jsonl").write_text(json.dumps(large) + "\n" + json.dumps({**large, "run_id": 2**63 + 2}))
    assert list(read(tmp_path / "b.jsonl").frame["run_id"]) == [str(2**63 + 1), str(2**63 + 2)]


def test_parquet_types(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet files need the extra 'parquet'")
    import pyarrow.parquet as pq

    columns = {
        "config": pa.array([{"N": 10**8, "kind": "a"}, {"N": 10**9, "kind": "b"}]),
        "D": pa.array([10**10, 10**11], pa.int64()),
        "loss": pa.array([2.5, None], pa.float32()),
        "list": pa.array([[1], [2, 3]]),
        "bytes": pa.array([b"x", b"y"]),
        "corpus": pa.array(["c4", "c4"]).dictionary_encode(),
        "when": pa.array([0, 1], pa.timestamp("s")),
        "kept": pa.array([True, False]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    table = read(tmp_path / "a.parquet")
    assert table.params.tolist() == [1e8]
    assert [(e.row, e.column) for e in table.excluded] == [(2, "loss_nats")]
    row = table.frame.iloc[0]
    assert (row["config.kind"], row["corpus"], row["kept"]) == ("a", "c4", "True")
    assert not {"list", "bytes"} & set(table.frame.columns)


def test_the_table_of_the_web_page_of_weights_and_biases(tmp_path):
    head = [
        "Name",
        "Agent",
        "State",
        "Notes",
        "User",
        "Tags",
        "Created",
        "Runtime",
        "Sweep",
        "n_params",
        "val/loss",
        "train/loss",
        "tokens",
    ]
    states = ["finished", "crashed", "finished", "running", "finished"]
    rows = [
        (
            f"run-{i}",
            "",
            state,
            "-",
            "me",
            "",
            "2024-03-01T10:00:00.000Z",
            3600,
            "",
            10**7 * (i + 1),
            3 - 0.1 * i,
            2,
            1e9,
        )
        for i, state in enumerate(states)
    ]
    lines = [",".join(f'"{cell}"' for cell in row) + "\n" for row in (head, *rows)]
    (tmp_path / "wandb.csv").write_text("".join(lines))
    table = read(tmp_path / "wandb.csv")
    assert table.params.tolist() == [1e7, 3e7, 5e7]
    assert table.loss_nats == pytest.approx([3.0, 2.8, 2.6])
    assert list(table.frame["status"]) == ["done"] * 3
    assert [(e.row, e.column, e.value) for e in table.excluded] == [(3, "status", "crashed"), (5, "status", "running")]


@pytest.mark.parametrize("done", ["finished", "done", "Completed"])
def test_a_state_is_a_status_whatever_word_says_done(tmp_path, done):
    RUNS.assign(State=[done, "failed", done, "running"]).to_csv(tmp_path / "a.csv", index=False)
    table = read(tmp_path / "a.csv")
    assert [(e.row, e.column) for e in table.excluded] == [(3, "status"), (5, "status")]


def test_a_state_that_is_a_country_is_no_status(tmp_path):
    RUNS.assign(State=["CA", "NY", "CA", "NY"]).to_csv(tmp_path / "a.csv", index=False)
    assert len(read(tmp_path / "a.csv")) == 4


@pytest.mark.parametrize("dump", [str, json.dumps], ids=["python", "json"])
def test_the_script_of_the_public_api_of_weights_and_biases(tmp_path, dump):
    config = [{"N": 1e7 * (i + 1), "opt": {"lr": 1e-3, "betas": [0.9, 0.95]}, "name": "it's"} for i in range(4)]
    summary = [{"loss": 3 - 0.1 * i, "tokens": 10**9, "_wandb": {"runtime": 5}} for i in range(4)]
    summary[2]["loss"] = float("nan")
    frame = pd.DataFrame(
        {"summary": list(map(dump, summary)), "config": list(map(dump, config)), "name": [f"r{i}" for i in range(4)]}
    )
    frame.loc[1, "config"] = "__import__('os').system('true')"
    frame.to_csv(tmp_path / "project.csv")
    table = read(tmp_path / "project.csv", columns={"params": "config.N"})
    assert table.params.tolist() == [1e7, 4e7]
    assert table.loss_nats == pytest.approx([3.0, 2.7])
    assert list(table.frame["run_id"]) == ["r0", "r3"]
    assert table.frame["config.opt.lr"].tolist() == [1e-3, 1e-3]
    assert [(e.row, e.column) for e in table.excluded] == [(3, "config"), (4, "loss_nats")]


HEAD = b"N,D,loss\n"
HOSTILE = {  # content, or the length of a file of zeros
    "sparse.csv": lambda: 10_000_000_000,
    "sparse.jsonl": lambda: 10_000_000_000,
    "sparse.parquet": lambda: 10_000_000_000,
    "zeros.csv": lambda: 390_000_000,
    "zeros.jsonl": lambda: 390_000_000,
    "long.csv": lambda: HEAD + b"1e7,1e9," + b"x" * 5_000_000,
    "quoted.csv": lambda: HEAD + b'1e7,1e9,"' + b"xxxxxxx\n" * 1_000_000,
    "wide.csv": lambda: b",".join(b"c%d" % i for i in range(100_000)),
    "cells.csv": lambda: b"," * 9_000 + (b"\n" + b"," * 9_000) * 100 + b"\n" * 61_000_000,
    "long.jsonl": lambda: b'{"N":"' + b"x" * 5_000_000 + b'"}',
    "digits.jsonl": lambda: b'{"N":' + b"9" * 900_000 + b"}\n",
    "deep.jsonl": lambda: b'{"a":' * 100_000,
    "deep.json": lambda: b"[" * 5_000_000,
    "deeper.json": lambda: b'[{"a":' * 1_000_000,
    "levels.jsonl": lambda: b'{"a":' * 100 + b"1" + b"}" * 100,
    "keys.jsonl": lambda: b"".join(b'{"k%d":1}\n' % i for i in range(12_000)),
    "twice.jsonl": lambda: b'{"N":1e7,"N":1e8,"D":1e9,"loss":2}\n',
    "bomb.csv.gz": lambda: gzip.compress(HEAD + b"0" * 100_000_000, 1),
    "cut.csv.gz": lambda: gzip.compress(HEAD + b"1e7,1e9,2.5\n" * 100)[:-9],
    "nest.csv": lambda: b"name,config,summary\n" + b'r,"{1:' + b"-" * 90_000 + b'1}",\nq,"{' + b"[" * 90_000 + b'",\n',
    "fake.parquet": lambda: b"PAR1" + b"\xff" * 1000 + b"PAR1",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once(tmp_path, name):
    path = tmp_path / name
    content = HOSTILE[name]()
    with path.open("wb") as file:
        file.truncate(content) if isinstance(content, int) else file.write(content)
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet files need the extra 'parquet'")
    peak, clock = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError) as caught:
        read(path)
    assert time.process_time() - clock < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 300_000  # kB
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9)), min_size=1, max_size=12))
def test_names_that_come_late_or_now_and_then_are_read_as_pandas_reads_them(records):
    frame, rows, _ = json_rows.read_lines(io.BytesIO("\n".join(map(json.dumps, records)).encode()), "a")
    assert rows == list(range(1, len(records) + 1))
    expected = pd.DataFrame(records, index=range(len(records)))
    pd.testing.assert_frame_equal(frame, expected, check_dtype=False, check_column_type=False)


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"torn\n"])
def test_a_bomb_of_json_lines_is_refused_by_its_size_unpacked(tmp_path, monkeypatch, line):
    monkeypatch.setattr(json_rows, "MAX_BYTES", 5_000)
    monkeypatch.setattr(json_rows, "MAX_CELLS", 1_000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(line * 6_000))
    with pytest.raises(InputError, match=r"has more than (0 MB|1,000 cells)"):
        read(path)


def test_a_bomb_of_parquet_is_refused_at_once(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet files need the extra 'parquet'")
    import pyarrow.parquet as pq

    word = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, np.int32)), pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"name": word}), tmp_path / "words.parquet")
    pq.write_table(pa.table({"N": np.ones(70_000_000, np.int8)}), tmp_path / "rows.parquet")
    clock = time.process_time()
    for name, why in (("words", "MB of text"), ("rows", "70,000,000 rows")):
        with pytest.raises(InputError, match=why):
            read(tmp_path / f"{name}.parquet")
    assert time.process_time() - clock < 2


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.parquet"]), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, name, content):
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    with contextlib.suppress(InputError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(path)


def test_a_million_rows_left_out_stay_small(tmp_path):
    count = 200_000
    frame = pd.DataFrame({"N": 1e8, "D": 1e10, "loss": np.where(np.arange(count) < 5, 2.5, np.nan)}, index=range(count))
    frame["run"] = [f"r{i}" for i in range(count)]
    clock = time.process_time()
    table = from_frame(frame)
    assert time.process_time() - clock < 5
    assert (len(table), len(table.excluded)) == (5, count - 5)
    assert [e.row for e in table.excluded[:2]] == [7, 8]
    assert table.excluded[-1].row == count + 1

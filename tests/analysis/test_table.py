"""Tables: aliases, bad rows, duplicates, conflicts, units, truncation."""

import contextlib

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.errors import InputError
from analysis.table import from_frame, read

ROWS = [(n, d, 1.7 + 400 / n**0.34 + 400 / d**0.28) for n in (1e7, 1e8, 1e9) for d in (1e9, 3e9, 1e10)]


def text(rows=ROWS, head="params,tokens,loss"):
    return head + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.fixture
def write(tmp_path):
    def at(content, name="runs.csv"):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return path

    return at


HEADS = [
    "N,D,val_loss",
    "n_params,Tokens,loss_nats",
    "param_count,train tokens,eval-loss",
    "config.n_params,config/D,summary.val/loss",
    "model/num_params,train/tokens_seen,eval/c4/loss",
    "hparams.N,Total Tokens,Validation Loss",
]


@pytest.mark.parametrize("head", HEADS)
def test_aliases(write, head):
    table = read(write(text(head=head)))
    assert len(table) == 9
    assert table.params[0] == 1e7
    assert table.loss_nats.dtype == float


def test_the_best_fitting_name_is_taken_and_equals_are_refused(write):
    rows = [(*row, 9.0) for row in ROWS]
    # a whole name before the last part of one; a last part of one letter is no sign
    table = read(write(text(rows, "N,D,val/loss,train/loss")))
    assert table.loss_nats.tolist() == [row[2] for row in ROWS]
    assert read(write(text(rows, "N,D,loss,optimizer.n"))).params[0] == 1e7
    for head in ("N,D,train/loss,test/c4/loss", "N,D,val_loss,eval_loss"):
        with pytest.raises(InputError, match=r"loss_nats: both .* could be it; choose with --columns loss_nats="):
            read(write(text(rows, head)))
    table = read(write(text(rows, "N,D,eval/c4/loss,x")))
    assert "loss_nats read from column 'eval/c4/loss'" in table.notes


@pytest.mark.parametrize("head", ["U", "data_unique", "Unique Tokens", "config.unique_tokens"])
def test_optional_columns(write, head):
    rows = [(*row, unique) for row, unique in zip(ROWS, ["1e9", "", "-3", "many", *["4e9"] * 5], strict=True)]
    table = read(write(text(rows, f"N,D,loss,{head}")))
    assert len(table) == 9
    assert table.unique_tokens is not None
    assert table.unique_tokens == pytest.approx([1e9, *[float("nan")] * 3, *[4e9] * 5], nan_ok=True)
    assert any(note.startswith("unique_tokens: 2 cells") and "'-3' in row 4" in note for note in table.notes)
    needed = table.needing("unique_tokens")
    assert len(needed) == 6
    assert [(e.row, e.column) for e in needed.excluded] == [(r, "unique_tokens") for r in (3, 4, 5)]
    assert table.excluded == ()
    assert read(write(text())).unique_tokens is None
    with pytest.raises(InputError, match="flops_budget: no row of the table tells it"):
        table.needing("flops_budget")


def test_a_bad_optional_cell_is_quoted_whole_with_its_row():
    frame = pd.DataFrame({"N": [1e7, 2e7], "D": [1e9, 2e9], "loss": [3.5, 3.3], "U": [1e9, -123456789.5]})
    assert any("the first '-123456789.5' in row 3" in note for note in from_frame(frame).notes)


def test_a_name_like_ours_that_is_not_meant_stays_under_another(write):
    """Even where the file has a column of that other name."""
    rows = [(*row, 7, "a", 8, "b") for row in ROWS]
    table = read(write(text(rows, "N,D,loss,params,params_as_given,csv_row,csv_row_as_given")), columns={"params": "N"})
    kept = table.frame.iloc[0]
    assert table.params[0] == 1e7
    assert kept[["params_as_given", "csv_row_as_given"]].tolist() == ["a", "b"]
    assert kept[["params_as_given_as_given", "csv_row_as_given_as_given"]].tolist() == [7, 8]
    with pytest.raises(InputError, match="column 'N' appears twice"):
        from_frame(pd.DataFrame([(*row, 1) for row in ROWS], columns=["N", "D", "loss", " N"]))


def test_tsv_and_folder_and_byte_order_mark(write, tmp_path):
    assert len(read(write(text().replace(",", "\t"), "a.tsv"))) == 9
    write("\ufeff" + text())
    assert len(read(tmp_path)) == 9


def test_columns_and_where(write):
    rows = [(*row, kind) for row in ROWS for kind in ("x", "y")]
    table = read(write(text(rows, "size,D,loss,kind")), columns={"params": "size"}, where={"kind": "y"})
    assert len(table) == 9
    with pytest.raises(InputError, match="where: kind=z keeps no row"):
        read(write(text(rows, "N,D,loss,kind")), where={"kind": "z"})


def test_a_missing_count_is_derived_and_said(write):
    rows = [(n, 6 * n * d, loss) for n, d, loss in ROWS]
    table = read(write(text(rows, "N,C,loss")))
    assert table.tokens == pytest.approx([d for _, d, _ in ROWS])
    assert any("tokens derived" in note for note in table.notes)
    assert "flops derived as C = 6ND" in read(write(text())).notes


def test_a_missing_column_names_what_was_found(write):
    with pytest.raises(InputError, match=r"loss_nats: no such column .* found params, tokens, los; .*--columns"):
        read(write(text(head="params,tokens,los")))


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf", "0", "-3", "", "many", "1e999", "1,5", "0x10", "1_000"])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_every_bad_value_in_every_column_is_left_out_and_named(write, column, bad):
    rows = [list(map(str, row)) for row in ROWS]
    rows[4][column] = f'"{bad}"'
    table = read(write(text(rows)))
    assert len(table) == 8
    (excluded,) = table.excluded
    assert (excluded.row, excluded.column) == (6, ("params", "tokens", "loss_nats")[column])


def test_identical_rows_are_counted_and_conflicts_refused(write):
    rows = [(f"r{i}", *row) for i, row in enumerate(ROWS)]
    table = read(write(text([*rows, rows[3]], "run_id,N,D,loss")))
    assert len(table) == 9
    assert any("1 identical rows dropped (rows 11)" in note for note in table.notes)
    with pytest.raises(InputError, match=r"rows 5, 11 give .* same run 'r3'"):
        read(write(text([*rows, (*rows[3][:3], 2.5)], "run_id,N,D,loss")))


def test_only_done_and_untouched_runs_enter(write):
    rows = [(*row, "done", 0) for row in ROWS]
    rows[0], rows[1] = (*ROWS[0], "failed", 0), (*ROWS[1], "done", 2)
    table = read(write(text(rows, "N,D,loss,status,interventions")))
    assert len(table) == 7
    assert [e.column for e in table.excluded] == ["status", "interventions"]


@pytest.mark.parametrize("column", ["family", "objective", "corpus", "tokenizer", "eval_set"])
def test_unlike_rows_are_not_pooled(write, column):
    rows = [(*row, "x" if i else "y") for i, row in enumerate(ROWS)]
    path = write(text(rows, f"N,D,loss,{column}"))
    with pytest.raises(InputError, match=f"{column}: 2 values .*--where {column}="):
        read(path)
    assert len(read(path, where={column: "x"})) == 8


def test_units(write):
    rows = [list(row) for row in ROWS]
    rows[2][0] = 10
    assert [e.row for e in read(write(text(rows))).excluded] == [4]
    with_flops = [(n, d, loss, 6 * n * d * (1e3 if i == 5 else 1)) for i, (n, d, loss) in enumerate(ROWS)]
    table = read(write(text(with_flops, "N,D,loss,C")))
    assert [(e.row, e.column) for e in table.excluded] == [(7, "flops")]
    with pytest.raises(InputError, match=r"flops: .*x 6ND"):
        read(write(text([(n, d, loss, 6e-15 * n * d) for n, d, loss in ROWS], "N,D,loss,C")))


def test_a_blank_cell_of_flops_6nd_says_nothing_of_units(write):
    rows = [(*row, 6 * row[0] * row[1], "" if i == 4 else 6 * row[0] * row[1]) for i, row in enumerate(ROWS)]
    assert len(read(write(text(rows, "N,D,loss,flops,flops_6nd")))) == 9


def test_int64_would_overflow(write):
    rows = [(10**12 + i, 10**14 + i, 2.0 + i) for i in range(3)]
    assert read(write(text(rows))).flops_6nd[0] == pytest.approx(6e26)


def test_trajectories(write):
    rows = [(f"t{i // 3}", *row) for i, row in enumerate(ROWS)]
    assert read(write(text(rows, "trajectory,N,D,loss"))).clustered
    assert read(write(text(rows, "run_name,N,D,loss"))).trajectory[:4] == ["t0", "t0", "t0", "t1"]
    assert not read(write(text())).clustered


def test_rows_without_a_name_are_runs_of_their_own(write):
    table = read(write(text([(*row, "") for row in ROWS], "N,D,loss,run")))
    assert not table.clustered
    assert len(set(table.trajectory)) == 9
    table = read(write(text([(*row, name) for row, name in zip(ROWS, "aab      ", strict=True)], "N,D,loss,run")))
    assert table.clustered
    assert len(set(table.trajectory)) == 8
    assert any(note.startswith("6 rows name no run_id") for note in table.notes)
    # two runs of one size and length without a name are replicas, not two losses of one run
    assert len(read(write(text([(1e7, 1e9, 3.5, ""), (1e7, 1e9, 3.4, "")], "N,D,loss,run")))) == 2


def test_truncation_at_every_byte_is_refused_or_listed(write):
    whole = text()
    clean = {tuple(f"{v:.12g}" for v in row) for row in ROWS}
    for cut in range(len(whole)):
        try:
            table = read(write(whole[:cut]))
        except InputError:
            continue
        used = zip(table.params, table.tokens, table.loss_nats, strict=True)
        assert {tuple(f"{v:.12g}" for v in row) for row in used} <= clean
        assert len(table) + len(table.excluded) == max(whole[:cut].count("\n") - 1 + (whole[cut - 1] != "\n"), 0)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "runs.csv"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(InputError):  # its message is one line by construction
        read(path)


def test_files_that_are_no_tables(tmp_path, write):
    for content in (b"", b"\xff\xfe\x00", b"N,D,loss\n"):
        path = tmp_path / "x.csv"
        path.write_bytes(content)
        with pytest.raises(InputError):
            read(path)
    with pytest.raises(InputError, match="not a file"):
        read(tmp_path / "none.csv")
    with pytest.raises(InputError, match="not a table"):
        read(write("N,D,loss\n1e7,1e9,2\n1e7,1e9,2,7\n"))
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate(10_000_000_000)
    with pytest.raises(InputError, match="MB"):
        read(tmp_path / "huge.csv")


def test_a_frame_of_numbers_reads_as_its_file_does():
    frame = pd.DataFrame(ROWS, columns=["N", "D", "loss"])
    assert from_frame(frame).params == pytest.approx(frame["N"])
    assert list(frame.columns) == ["N", "D", "loss"]

"""Approach 1: planted exponents from curves, coverage, what may not count as an optimum; curves as they are read."""

import numpy as np
import pandas as pd
import pytest
from planted_runs import LAW, curve_frame

from analysis.curves import describe, from_table, read_curves
from analysis.envelope import envelope
from analysis.errors import InputError
from analysis.table import from_frame, read

SIZES, TOKENS = np.geomspace(2e7, 2e9, 9), np.geomspace(2e8, 4e11, 24)
TRUE_A = LAW.exponents["a"]


def curves(*, sizes=SIZES, tokens=TOKENS, **options):
    return from_table(from_frame(curve_frame(sizes, tokens, **options)))


@pytest.mark.parametrize("count", [5, 9, 20])
def test_crossings_recover_the_planted_exponent(count):
    found = envelope(curves(sizes=np.geomspace(2e7, 2e9, count)), bootstrap=0)
    assert found.points.shape == (4, count - 1)
    assert found.frontier.params.exponent == pytest.approx(TRUE_A, abs=2e-3)
    assert found.frontier.tokens.exponent == pytest.approx(1 - TRUE_A, abs=2e-3)
    best, here = LAW.optimum(1e21), found.frontier.optimum(1e21)
    assert here.params == pytest.approx(float(best.params), rel=0.05)
    assert here.loss_nats == pytest.approx(float(best.loss_nats), rel=0.005)


def test_every_compute_of_the_grid_flattens_as_its_staircase_must():
    """Regressing K steps of equal width on their abscissa loses 1/K^2 of the slope; three inner sizes lose a ninth."""
    found = envelope(curves(sizes=np.geomspace(2e7, 2e9, 5)), estimator="points", bootstrap=0)
    assert len(np.unique(found.points[1])) == 3
    assert found.frontier.params.exponent == pytest.approx(TRUE_A * (1 - 1 / 9), abs=0.015)


def test_intervals_cover_the_planted_exponent():
    hits = []
    for seed in range(25):
        found = envelope(curves(noise=0.002, seed=seed), bootstrap=80, seed=seed)
        low, high = found.intervals["a"]
        hits.append(low <= TRUE_A <= high)
    assert sum(hits) >= 22


def test_ends_of_the_grid_of_sizes_are_no_optima():
    found = envelope(curves(), estimator="points", bootstrap=0)
    assert sorted(set(found.points[1])) == pytest.approx(SIZES[1:-1])
    assert found.size[[0, -1]] == pytest.approx(SIZES[[0, -1]])
    assert not found.inside[[0, -1]].any()
    short = curve_frame(SIZES, TOKENS)  # the two largest sizes stop early: beyond, the third largest is at the edge
    short = short.query("params < @SIZES[-2] or tokens < 2e9")
    cut = envelope(from_table(from_frame(short)), estimator="points", bootstrap=0)
    assert found.points[1].max() == pytest.approx(SIZES[-2])
    beyond = 6 * SIZES[-1] * 2e9
    assert np.isclose(cut.size[cut.flops > beyond], SIZES[-3]).any()
    assert not np.isclose(cut.points[1][cut.points[0] > beyond], SIZES[-3]).any()


def test_replicas_of_one_size_never_cross_each_other():
    frame = curve_frame(SIZES, TOKENS, noise=0.001)
    again = curve_frame(SIZES, TOKENS, noise=0.001, seed=1)
    both = pd.concat([frame, again.assign(trajectory="again" + again["trajectory"])])
    found = envelope(from_table(from_frame(both)), bootstrap=0)
    assert not set(found.points[1]) & set(SIZES)  # a crossing lies between two sizes
    assert found.frontier.params.exponent == pytest.approx(TRUE_A, abs=0.04)


def test_single_runs_of_few_sizes_are_joined_by_size():
    frame = curve_frame(SIZES, TOKENS)
    frame["trajectory"] = [f"run{i}" for i in range(len(frame))]
    joined = from_table(from_frame(frame))
    assert joined.joined == "size"
    assert envelope(joined, bootstrap=0).points == pytest.approx(envelope(curves(), bootstrap=0).points)


def test_scattered_single_runs_show_those_that_none_undercuts():
    rng = np.random.default_rng(0)
    n, d = np.exp(rng.uniform(np.log(2e7), np.log(4e9), 60)), np.exp(rng.uniform(np.log(2e8), np.log(4e11), 60))
    table = from_frame(pd.DataFrame({"params": n, "tokens": d, "loss": LAW.predict(n, d)}))
    found = envelope(from_table(table), bootstrap=100)
    flops, loss = 6 * n * d, LAW.predict(n, d)
    free = [i for i in range(60) if not np.any((flops <= flops[i]) & (loss < loss[i])) and n.min() < n[i] < n.max()]
    assert found.estimator == "runs"
    assert sorted(found.points[1]) == pytest.approx(sorted(n[free]))
    assert found.dominated == 60 - len(free)
    assert any(f"{len(free)} runs" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (curve_frame(SIZES[:2], TOKENS), "params: the curves have fewer than 3 sizes"),
        (curve_frame(SIZES, TOKENS[:1]), "tokens: all 9 runs have"),
        (curve_frame(SIZES[::2], TOKENS[-2:]), "curves: the envelope of 5 sizes"),
    ],
)
def test_curves_that_show_no_optimum_are_refused(frame, named):
    with pytest.raises(InputError, match=named):
        envelope(from_table(from_frame(frame)), bootstrap=0)


@pytest.mark.parametrize("option", [{"estimator": "best"}, {"compute": "exact"}, {"bootstrap": 1}])
def test_mistakes_in_options(option):
    with pytest.raises(InputError, match=next(iter(option))):
        envelope(curves(), **option)


@pytest.fixture
def folder(tmp_path):
    """runs.csv and curves.csv as lmscale exports them: branched trajectories, losses where the schedule has ended."""
    frame = curve_frame(SIZES[:4], TOKENS[::6])
    frame["run_id"] = [f"r{i}" for i in range(len(frame))]
    frame.to_csv(tmp_path / "runs.csv", index=False)
    lines = ["run_id,step,tokens,flops,loss_nats,decayed,train_loss_nats"]
    for run, n, d, loss in frame[["run_id", "params", "tokens", "loss"]].itertuples(index=False):
        lines += [
            f"{run},{k},{d * k / 4!r},{6 * n * d * k / 4!r},{loss if k == 4 else ''},{k == 4},9" for k in (1, 2, 4)
        ]
    (tmp_path / "curves.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_decayed_points_of_our_files_are_the_runs(folder):
    ours, runs = read_curves(folder), from_table(read(folder / "runs.csv"))
    assert ours.joined == "trajectory"
    assert not ours.warnings
    for one, other in zip(ours.curves, runs.curves, strict=True):
        assert (one.params, *one.tokens, *one.loss_nats) == pytest.approx(
            (other.params, *other.tokens, *other.loss_nats)
        )


def test_undecayed_points_are_taken_on_request_and_warned_of(folder):
    assert any("no held-out loss" in note for note in read_curves(folder, points="all").notes)
    text = (folder / "curves.csv").read_text().replace(",,False", ",4.5,False")
    (folder / "curves.csv").write_text(text)
    every = read_curves(folder, points="all")
    assert (len(every), len(read_curves(folder))) == (48, 16)
    assert every.joined == "run"
    assert "before the end of a schedule" in every.warnings[0]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("r0,4,", "r0,0.5,", "tokens: of run 'r0' do not grow from row 4 to row 2"),
        (",True", ",maybe", "decayed: row 4 has 'maybe'"),
        ("decayed", "finished", "decayed: no such column"),
    ],
)
def test_bad_curves_are_named(folder, old, new, named):
    text = (folder / "curves.csv").read_text().replace(old, new, 1).replace(",,False", ",4.5,False")
    (folder / "curves.csv").write_text(text)
    with pytest.raises(InputError, match=named):
        read_curves(folder, points="all")


def test_bad_losses_are_left_out_by_row(folder):
    lines = (folder / "curves.csv").read_text().splitlines()
    cells = lines[3].split(",")
    lines[3] = ",".join([*cells[:4], "nan", *cells[5:]])
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")
    (excluded,) = read_curves(folder).excluded
    assert (excluded.row, excluded.column) == (4, "loss_nats")


def test_cells_of_curves_are_read_as_those_of_tables(folder):
    """Spaces do not count; a file that ends inside a line does not give what is left of it for a loss."""
    path = folder / "curves.csv"
    whole = read_curves(folder)
    path.write_text(path.read_text().replace(",", " , "))
    assert [tuple(curve.loss_nats) for curve in read_curves(folder).curves] == [
        tuple(curve.loss_nats) for curve in whole.curves
    ]
    path.write_text(path.read_text() + "\n\n")
    assert read_curves(folder).notes == whole.notes
    text = path.read_text().replace(" ,  , False", " , 4.5 , False")
    path.write_text(text[: text.rindex("True") + 4])
    (excluded,) = read_curves(folder, points="all").excluded
    assert (excluded.row, excluded.column) == (49, "loss_nats")
    path.write_text('run_id,"step\n')
    with pytest.raises(InputError, match=r"curves: .* is not a table .*lmscale export"):
        read_curves(folder)


def test_sizes_are_named_once():
    frame = pd.concat([curve_frame(SIZES[:3], TOKENS).assign(seed=seed) for seed in (0, 1)])
    frame["trajectory"] += frame["seed"].astype(str)
    text = describe(from_table(from_frame(frame)))
    assert text.startswith("6 curves (one a trajectory, 3 sizes: " + ", ".join(f"{n:.3g}" for n in SIZES[:3]) + ")")


def test_missing_files_are_named(folder):
    (folder / "runs.csv").rename(folder / "elsewhere.csv")
    with pytest.raises(InputError, match=r"curves: .* holds no runs.csv"):
        read_curves(folder)
    (folder / "curves.csv").unlink()
    with pytest.raises(InputError, match=r"curves: .* holds no curves.csv"):
        read_curves(folder)


def test_undecayed_rows_of_a_long_table_are_left_out():
    frame = curve_frame(SIZES, TOKENS)
    frame["decayed"] = ["yes" if d > 1e10 else "no" for d in frame["tokens"]]
    table = from_frame(frame)
    assert len(from_table(table)) == list(frame["decayed"]).count("yes")
    assert len(from_table(table, points="all")) == len(frame)


def test_gemstones_run_and_say_that_they_tell_little(reference):
    found = envelope(
        read_curves(reference / "gemstones_cool_end.csv", columns={"trajectory": "run_name"}), bootstrap=200
    )
    assert len(found.curves.curves) == 20
    assert found.intervals["a"][0] < 0.5 < found.intervals["a"][1]
    assert found.warnings


def test_points_and_short_curves_mix():
    """Seven runs, one size with two points: an envelope of points."""
    sizes = [1e7, 2e7, 4e7, 8e7, 1.6e8, 3.2e8, 1e7]
    frame = pd.DataFrame({"params": sizes, "tokens": [1e9, 3e9, 2e9, 5e9, 4e9, 9e9, 4e9]})
    frame["loss_nats"] = 1.8 + 480 / frame["params"] ** 0.35 + 2085 / frame["tokens"] ** 0.36
    found = envelope(from_table(from_frame(frame)), bootstrap=0)
    assert found.estimator == "runs"
    assert 2 <= found.points.shape[1] <= 7

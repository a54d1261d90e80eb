"""Coverage of simulated studies, in short; `python -m analysis.coverage` is the long form."""

from itertools import product

import numpy as np
import pytest

from analysis.audit import audit
from analysis.coverage import (
    BATCH,
    DESIGNS,
    NOISES,
    QUANTITIES,
    SHARED,
    Cell,
    cell,
    failures,
    main,
    missing,
    pooled,
    report,
    simulate,
)
from analysis.laws import flops_6nd


def given(share, design="grid 5x5", studies=100):
    covered = np.zeros((studies, len(QUANTITIES)))
    covered[: round(share * studies)] = 1.0
    return Cell(design=design, noise=0.004, covered=covered, widths=np.ones_like(covered))


def test_simulated_errors_are_as_said():
    design = DESIGNS["branched 5x4"]
    assert design.trajectory is not None
    tables = [simulate(design, 0.01, seed) for seed in range(60)]
    expected = np.log(design.law.predict(design.params, design.tokens))
    errors = np.array([np.log(table.loss_nats) - expected for table, _ in tables])
    assert errors.std() == pytest.approx(0.01, rel=0.04)
    assert np.std([error for _, error in tables]) == pytest.approx(0.01, rel=0.25)
    pairs = np.corrcoef(errors, rowvar=False)[design.trajectory[:, None] == design.trajectory]
    assert pairs[pairs < 0.999].mean() == pytest.approx(SHARED, abs=0.08)


def test_what_is_not_good_enough_is_named():
    assert failures([given(0.95)]) == []
    assert pooled([given(0.92), given(0.98)])["N*"] == pytest.approx(0.95)
    assert any("L0 is covered in 88.0 % only" in line for line in failures([given(0.88), given(1.0)]))
    assert any("outside 93 to 97" in line for line in failures([given(0.99)]))
    assert "least: 88.0 % for L0 of b" in report([given(0.95), given(0.88, "b")])


def test_an_interrupted_soak_goes_on_where_it_stopped(tmp_path, capsys):
    file = tmp_path / "soak.csv"
    options = ["--studies", "2", "--bootstrap", "20", "--jobs", "1", "--designs", "branched 4x3", "--file", str(file)]
    main(options)
    whole, said = file.read_text(), capsys.readouterr().out
    file.write_text(whole[:-3])
    main(options)
    assert sorted(file.read_text().splitlines()) == sorted(whole.splitlines())
    assert capsys.readouterr().out == said


def test_cells_take_turns():
    """Wherever a soak is interrupted, no cell is ahead of another by more than a batch; what is stored is left out."""
    names = ["grid 5x5", "grid 8x8"]
    stored = {("grid 8x8", NOISES[0]): {seed: [] for seed in range(BATCH + 3)}}
    counts = {cell: len(stored.get(cell, ())) for cell in product(names, NOISES)}
    for name, noise, seeds in missing(stored, 110, names):
        assert not {*seeds} & {*stored.get((name, noise), ())}
        assert counts[name, noise] - min(counts.values()) <= 3
        counts[name, noise] += len(seeds)
    assert set(counts.values()) == {110}


@pytest.mark.parametrize("name", ["grid 5x5", "branched 4x3"])
def test_intervals_cover(name):
    """Nominal 95 %, here of 14 studies x 10 quantities that agree much with each other."""
    result = cell(DESIGNS[name], 0.004, seeds=range(14), bootstrap=99)
    assert result.coverage.mean() >= 0.88
    assert result.coverage.min() >= 0.75


def test_widths_are_those_of_the_linearised_theory():
    """Student's t with the 20 degrees of freedom that 25 rows leave to 5 parameters."""
    design, noise = DESIGNS["grid 5x5"], 0.001
    result = cell(design, noise, seeds=range(10), bootstrap=99)
    budget = 10 * float(flops_6nd(design.params, design.tokens).max())
    expected = audit(design.params, design.tokens, design.law, residual_sd=noise, flops=budget)
    width = float(np.median(result.widths[:, QUANTITIES.index("N*")]))
    assert np.log1p(width) == pytest.approx(2 * 2.086 * expected.sd_log_params, rel=0.25)

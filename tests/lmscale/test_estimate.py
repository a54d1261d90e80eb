"""What a plan says it costs: branching by its formula, time by peak, bytes on the disk by the folders themselves."""

import math

import pytest

from lmscale.cli import main
from lmscale.config import PowerRule, Size
from lmscale.planning.accelerators import find, find_named
from lmscale.planning.disk import disk_bytes, state_bytes
from lmscale.planning.estimate import Cost, Peak, by_peak, seconds_to_end
from lmscale.planning.order import in_order
from lmscale.planning.plan_table import totals
from lmscale.planning.replicas import make_stacks
from lmscale.train import train
from lmscale.watch.pacing import duration


def test_branching_costs_what_the_formula_says(make_assembly):
    """f + (1 - f) D_max / sum of D: 0.457 for seven counts sqrt(2) apart, a fifth of each a cooldown."""
    counts = [round(500 * math.sqrt(2) ** i) * 5 for i in range(7)]  # steps, of which a fifth is whole
    recipe = {"cooldown_fraction": 0.2, "warmup_tokens": 128}
    assembly = make_assembly(tokens=tuple(128 * c for c in counts), recipe=recipe, corpus=repeated(make_assembly))
    found = totals(assembly)
    formula = 0.2 + 0.8 * max(counts) / sum(counts)
    assert found["flops"] / found["flops_unbranched"] == pytest.approx(formula, rel=1e-12)
    assert formula == pytest.approx(0.2 + 0.8 * (1 - 2**-0.5) / (1 - 2**-3.5), rel=1e-3)
    assert formula < 0.48


def repeated(make_assembly):
    from dataclasses import replace

    return replace(make_assembly().study.corpus, allow_repeats=True)


def test_time_by_peak_is_flops_over_it(make_assembly):
    assembly = make_assembly(tokens=(128 * 20,))
    name, device = find_named("h200")
    assert (name, device) == ("NVIDIA H200", find("NVIDIA H200"))
    found = by_peak(assembly, Peak(name=name, device=device, utilisation=0.25), workers=1)
    (t,) = assembly.plan
    scored = assembly.held_out.weights.size  # padding goes through the model as well
    flops = t.shape.train_flops(t.runs[0].tokens, 16) + t.shape.forward_flops_per_token(16) * scored
    assert found.costs[t.id].run_seconds(t, t.runs[0]) == pytest.approx(flops / (0.25 * device.bfloat16_flops))
    assert "25% of 990 TFLOP/s (bfloat16" in found.source or "25% of 989 TFLOP/s (bfloat16" in found.source


def test_the_end_is_that_of_the_last_worker(make_assembly):
    """Two sizes of one run each: alone they take turns, two workers take one each, and compile it."""
    assembly = make_assembly(sizes=(Size(width=16, depth=1), Size(width=32, depth=1)), tokens=(128 * 20,))
    stacks = make_stacks(assembly.plan, None, accelerator=False)
    costs = {t.id: cost(step=0.1 * i) for i, t in enumerate(assembly.plan, 1)}
    alone, together = (seconds_to_end(in_order(stacks, None, w), costs, w) for w in (1, 2))
    assert alone - together == pytest.approx(20 * 0.1 + 7 + 3)
    assert together == pytest.approx(6 + 20 * 0.2 + 7 + 3)


def cost(step: float) -> Cost:
    return Cost(compile_seconds=7.0, step_seconds=step, evaluation_seconds=3.0, checkpoint_seconds=0.0)


def test_disk_bytes_are_those_of_the_folders(make_assembly, make_training):
    sizes = (Size(width=64, depth=1),)
    assembly = make_assembly(sizes=sizes, recipe={"batch_tokens": PowerRule(value=128)})
    t = make_training(assembly)
    train(t)
    folders = [t.workspace.trajectory(t.trajectory.id) / "checkpoints"]
    folders += [t.workspace.run(run.id) for run in t.trajectory.runs]
    files = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    kept = disk_bytes(assembly.plan, workers=1).kept
    assert kept == 12 * t.trajectory.shape.params * 2 + 4 * t.trajectory.shape.params * 2
    assert sum(p.stat().st_size for p in files) == pytest.approx(kept, rel=0.1)
    assert disk_bytes(assembly.plan, workers=3).most == kept + 2 * state_bytes(t.trajectory)


def test_fixed_schedules_leave_final_parameters_alone(make_assembly):
    plan = make_assembly(recipe={"schedule": "cosine"}).plan
    assert disk_bytes(plan, workers=1).kept == 2 * 4 * plan[0].shape.params


def test_a_plan_for_devices_that_are_not_here(study, capsys):
    asked = ["plan", str(study), "--out", str(study.parent / "out")]
    capsys.readouterr()
    assert main([*asked, "--device", "H200", "--utilisation", "0.2", "--workers", "4"]) == 0
    printed = capsys.readouterr().out
    assert "on 4 x NVIDIA H200, if steps reach 20% of" in printed
    assert "of 141 GB" in printed
    assert "disk: " in printed
    for bad, words in (
        (["--device", "H100"], "'H100' may be several"),
        (["--device", "abacus"], "'abacus' is no accelerator known"),
        (["--device", "H200", "--utilisation", "40"], "more than the whole peak"),
        (["--utilisation", "0.4"], "name it with --device"),
    ):
        assert main([*asked, *bad]) == 2
        line = capsys.readouterr().err.strip()
        assert words in line
        assert "\n" not in line


def test_durations_in_words():
    shown = [duration(seconds) for seconds in (0.4, 89, 90, 5400, 129600)]
    assert shown == ["0 s", "89 s", "1.5 min", "1.5 h", "1.5 days"]

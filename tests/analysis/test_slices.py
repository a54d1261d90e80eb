"""Groups of documents: planted laws found again, groups that diverge told from others, tables from elsewhere."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.comparing.gaps import LEVEL
from analysis.comparing.slices import POWER, fit_slices, frontier_exponent
from analysis.errors import InputError
from analysis.reading.scores import read_scores
from analysis.table import read
from analysis.words.slice_text import loss_by_group, slices_json, slices_text
from lmscale.cli import main


def slower(law, share):
    """Exponents lower by a share, equal to `law` at the least run of the fixture's grid."""
    made = replace(law, alpha=law.alpha * (1 - share), beta=law.beta * (1 - share))
    return replace(made, A=made.A * 2e4 ** (made.alpha - law.alpha), B=made.B * 5e5 ** (made.beta - law.beta))


def times(law, factor):
    return replace(law, A=law.A * factor, B=law.B * factor, L0=law.L0 * factor)


@pytest.fixture
def folder(tmp_path, branched_frame):
    """folder(laws by group, own noise): runs.csv, and a scores.csv as from elsewhere with the least of columns."""

    def make(laws, own=0.0, documents=40, seed=0, **design):
        runs = branched_frame(row=0.002, trajectory=0.001, seed=seed, **design)
        rng, rows = np.random.default_rng(seed + 1), []
        truth = {}
        for name, law in laws.items():
            truth[name] = law.predict(runs["params"], runs["tokens"]) * np.exp(own * rng.normal(size=len(runs)))
            for run, loss in zip(runs["run_id"], truth[name], strict=True):
                rows.append((run, "loss_nats", loss, f"source={name}"))
                rows.append((run, "documents", documents, f"source={name}"))
        runs.to_csv(tmp_path / "runs.csv", index=False)
        scores = pd.DataFrame(rows, columns=["run_id", "metric", "value", "slice"])
        scores.to_csv(tmp_path / "scores.csv", index=False)
        return tmp_path

    return make


def sliced(folder, **options):
    return fit_slices(read(folder), read_scores(folder), "source", **{"bootstrap": 0, **options})


def test_every_group_has_its_planted_law(folder, planted):
    laws = {"web": planted, "code": times(planted, 0.6), "maths": slower(planted, 0.2)}
    result = sliced(folder(laws))
    assert [group.name for group in result.groups][-1] == "source=code"  # of the lowest loss
    for group in result.groups:
        law = laws[group.name.removeprefix("source=")]
        assert group.form == "chinchilla"
        assert group.fit is not None
        assert group.exponent == pytest.approx(float(frontier_exponent(law)), rel=1e-3)
        assert group.exponent == pytest.approx(law.alpha * law.beta / (law.alpha + law.beta), rel=1e-3)
        assert group.smallest == pytest.approx(float(law.predict(2e4, 5e5)), rel=1e-6)
        assert group.largest == pytest.approx(float(law.predict(4.7e5, 2e6)), rel=1e-6)
        assert group.documents == 40


def test_intervals_hold_the_planted_exponent(folder, planted):
    (group,) = sliced(folder({"web": planted}, own=0.002), bootstrap=200).groups
    assert group.interval is not None
    assert group.interval[0] < float(frontier_exponent(planted)) < group.interval[1]


def test_groups_that_diverge_are_told(folder, planted):
    laws = {"web": planted, "books": times(planted, 0.9), "maths": slower(planted, 0.2)}
    result = sliced(folder(laws, own=0.001))
    widening = {(gap.first, gap.second) for gap in result.gaps if gap.widens}
    assert widening == {("source=maths", "source=web"), ("source=maths", "source=books")}
    assert sum("falls behind" in warning for warning in result.warnings) == 2
    (gap,) = [g for g in result.gaps if (g.first, g.second) == ("source=maths", "source=web")]
    ends = [float(laws["maths"].predict(n, d) - planted.predict(n, d)) for n, d in ((2e4, 5e5), (4.7e5, 2e6))]
    assert gap.smallest_nats < gap.largest_nats
    assert gap.largest_nats == pytest.approx(ends[1], abs=0.05)
    assert gap.p_adjusted < LEVEL


@pytest.mark.parametrize("seed", range(4))
def test_groups_in_proportion_or_apart_by_a_constant_do_not_diverge(folder, planted, seed):
    laws = {"web": planted, "code": times(planted, 0.6), "maths": replace(planted, L0=1.6)}
    assert not any(gap.widens for gap in sliced(folder(laws, own=0.001, seed=seed)).gaps)


def test_a_design_that_tells_no_law_has_a_power_law(folder, planted):
    """Six sizes at one token count: loss against compute alone, whose slope is exact where the loss is a power."""
    power = replace(planted, A=3.0, alpha=0.1, B=1e-12, L0=0.0)
    result = sliced(folder({"web": power}, sizes=np.geomspace(2e4, 2e6, 8), tokens=(1e6,)))
    (group,) = result.groups
    assert group.form == POWER
    assert group.fit is None
    assert group.exponent == pytest.approx(0.1, rel=1e-6)
    assert group.why
    assert group.why in slices_text(result)


def test_too_small_a_group_is_left_out_and_said(folder, planted):
    place = folder({"web": planted, "rare": planted})
    scores = pd.read_csv(place / "scores.csv")
    scores.loc[(scores["slice"] == "source=rare") & (scores["metric"] == "documents"), "value"] = 2
    scores.to_csv(place / "scores.csv", index=False)
    result = sliced(place)
    assert [group.name for group in result.groups] == ["source=web"]
    assert "source=rare has 2 documents in the evaluation set, fewer than 5" in result.warnings[0]
    with pytest.raises(InputError, match=r"slice: source=rare has 2 documents .*; score more text"):
        sliced(place, values=["rare"])


def test_groups_by_the_command_line(folder, planted, capsys):
    place = folder({"web": planted, "maths": slower(planted, 0.2)}, own=0.001)
    assert main(["fit", str(place), "--slice", "source", "--bootstrap", "50", "--json", str(place / "fit.json")]) == 0
    shown = capsys.readouterr().out
    assert "warning: source=maths falls behind source=web as models grow" in shown
    answer = json.loads((place / "fit.json").read_text())
    assert answer["slice"] == "source"
    assert answer["level"] == LEVEL
    assert {group["group"] for group in answer["groups"]} == {"source=web", "source=maths"}
    assert answer["gaps"][0]["widens"] is True
    assert main(["plot", str(place), "--slice", "source", "--bootstrap", "0"]) == 0
    assert (place / "figures" / "loss_by_source.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_shows_every_group(folder, planted):
    result = sliced(folder({"web": planted, "maths": slower(planted, 0.2)}))
    (axes,) = loss_by_group(result).axes
    labels = [str(each.get_label()) for each in axes.get_lines()]
    assert sum("source=" in label for label in labels) == 2
    assert slices_json(result)["groups"][0]["form"] == "chinchilla"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slice", "lang"], "slice: 'lang' was not kept of the documents scored in "),
        (["--slice", "lang"], "those kept are source; name one of them"),
        (["--slice", "source=wiki"], "slice: source=wiki is no group; found web; name one of them"),
        (["--slice", "source="], "slice: 'source=' is neither a field such as source nor groups"),
        (["--slice", "source", "--task", "books"], "task: 'books' has no such scores in "),
        (["--slice", "source", "--by", "seed"], "slice: --slice answers for groups of documents and takes no --by"),
        (["--task", "books"], "task: 'books' chooses among evaluation sets of --slice; add --slice FIELD"),
        (["--slice", "source", "--law", "broken"], "law: 'broken' has no one exponent"),
        (["--slice", "source", "--where", "params<3e4"], "slice: source=web has runs of one compute, or of fewer than"),
        (["--slice", "source", "--where", "tokens<6e5", "params<1e5"], "slice: source=web has a loss in 2 runs, fewer"),
    ],
)
def test_bad_questions(folder, planted, capsys, arguments, words):
    if arguments[-2:] == ["tokens<6e5", "params<1e5"]:
        arguments = [*arguments[:-1], "--where", arguments[-1]]
    assert main(["fit", str(folder({"web": planted})), *arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert words in line


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda frame: frame.drop(columns="slice"), "has no column 'slice'"),
        (lambda frame: frame.assign(slice="web"), "slice 'web' is not FIELD=VALUE"),
        (lambda frame: frame.assign(value="much"), "has value 'much', no number; mend it"),
        (lambda frame: pd.concat([frame, frame.head(1)]), "again; keep one"),
    ],
)
def test_bad_scores(folder, planted, damage, words):
    place = folder({"web": planted})
    damage(pd.read_csv(place / "scores.csv")).to_csv(place / "scores.csv", index=False)
    with pytest.raises(InputError, match="scores: ") as caught:
        read_scores(place)
    assert words in str(caught.value)


def test_no_scores_at_all(branched_frame, tmp_path, capsys):
    branched_frame().to_csv(tmp_path / "runs.csv", index=False)
    assert main(["fit", str(tmp_path), "--slice", "source"]) == 2
    assert "there is no scores.csv beside" in capsys.readouterr().err

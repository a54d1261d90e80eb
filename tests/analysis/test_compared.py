"""Groups side by side: units, means, the best of each, loss by context; from tables whose numbers are planted."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from analysis.comparing.compared import BITS, PSEUDO, compare, compared_text
from analysis.pictures.compared_plots import contexts, losses
from analysis.table import read
from lmscale.cli import main

SPANS = {"1": 5.0, "2": 4.0, "3-4": 3.0, "5-8": 2.5}  # bits a token by context


def planted(params: float, tokens: float) -> float:
    return 1.0 + (1e5 / params) ** 0.3 + (1e6 / tokens) ** 0.2


@pytest.fixture
def folder(tmp_path):
    """A decoder (two seeds), an n-gram whose parameters grow, a masked encoder, and spans."""
    runs, scores = [], []
    for family, objective in (("decoder", "causal"), ("ngram", "causal"), ("encoder", "masked"), ("encdec", "spans")):
        for size in (1, 2, 4):
            for tokens in (1e6, 2e6):
                for seed in (0, 1) if family == "decoder" else (0,):
                    params = 1e5 * size * (tokens / 1e6 if family == "ngram" else 1)
                    nats = planted(params, tokens) + 0.1 * seed
                    bits = nats / math.log(2) if objective == "causal" else None
                    run = f"{family}-{size}-{tokens:.0f}-{seed}"
                    order = size if family == "ngram" else None
                    runs.append((run, family, objective, params, order, tokens, nats, 0.01, bits, "set"))
                    if objective == "masked":
                        scores.append((run, "pseudo_likelihood", "pseudo_bits_per_byte", nats / 2, 0.02, "p", ""))
                    if objective == "causal":
                        for name, value in SPANS.items():
                            value = (value + (family == "ngram") * float(name[-1]) / 10 + seed) * math.log(2)
                            scores.append((run, "heldout", "loss_nats", value, 0.01, "set", f"context={name}"))
                            scores.append((run, "heldout", "tokens", 100, None, "set", f"context={name}"))
    names = ["run_id", "family", "objective", "params", "order", "tokens", "loss_nats", "loss_stderr", "bits_per_byte"]
    pd.DataFrame(runs, columns=[*names, "eval_set"]).to_csv(tmp_path / "runs.csv", index=False)
    names = ["run_id", "task", "metric", "value", "stderr", "eval_set", "slice"]
    pd.DataFrame(scores, columns=names).to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path


@pytest.fixture
def found(folder):
    return compare(folder, read(folder, by="family"), "family")


def test_each_group_is_in_its_unit(found):
    spans = "nats per token scored, spans"
    assert found.units == {"decoder": BITS, "ngram": BITS, "encoder": PSEUDO, "encdec": spans}
    best = {group: found.best(group) for group in found.groups}
    at = {"decoder": 4e5, "ngram": 8e5, "encoder": 4e5, "encdec": 4e5}
    assert {group: point.params for group, point in best.items()} == at
    nats = planted(4e5, 2e6)
    assert best["decoder"].loss == pytest.approx((nats + 0.05) / math.log(2))  # of two seeds
    assert best["decoder"].stderr == pytest.approx(0.01 / math.log(2))
    assert best["encoder"].loss == pytest.approx(nats / 2)
    assert best["encoder"].stderr == pytest.approx(0.02)
    assert best["encdec"].loss == pytest.approx(nats)


def test_an_n_gram_is_one_size_however_many_counts_it_stores(found):
    sizes = {point.size for point in found.points if point.group == "ngram"}
    assert sizes == {"order 1", "order 2", "order 4"}
    assert len([p for p in found.points if p.group == "decoder"]) == 6


def test_loss_by_context_is_that_of_the_best_of_causal_groups(found):
    assert [c.best.group for c in found.contexts] == ["decoder", "ngram"]
    decoder, ngram = found.contexts
    assert decoder.high.tolist() == [1, 2, 4, 8]
    assert decoder.low.tolist() == [1, 2, 3, 5]
    np.testing.assert_allclose(decoder.bits, np.array([*SPANS.values()]) + 0.5, rtol=1e-12)
    np.testing.assert_allclose(ngram.bits, [5.1, 4.2, 3.4, 3.3], rtol=1e-12)
    np.testing.assert_allclose(ngram.stderr, 0.01 / math.log(2), rtol=1e-12)
    text = compared_text(found)
    assert "bits a token by tokens of context, best size at 2 M tokens:" in text
    assert "5-8" in text
    assert "3.3000 +- 0.0144" in text


def test_groups_of_different_lengths_meet_at_the_most_tokens_of_both(folder):
    runs = pd.read_csv(folder / "runs.csv")
    runs[(runs["family"] != "decoder") | (runs["tokens"] < 2e6)].to_csv(folder / "runs.csv", index=False)
    table = read(folder, by="family")
    decoder, ngram = compare(folder, table, "family").contexts
    assert (decoder.best.tokens, ngram.best.tokens) == (1e6, 1e6)


def test_figures_share_a_panel_among_groups_of_one_unit(found):
    figure = losses(found)
    assert [axes.get_ylabel().replace("\n", " ") for axes in figure.axes[::2]] == list(
        dict.fromkeys(found.units.values())
    )
    assert [len(axes.containers) for axes in figure.axes[:2]] == [4, 6]  # two groups: of two counts, of three sizes
    assert [len(axes.containers) for axes in contexts(found).axes] == [2]


def test_the_command(folder, capsys):
    answer = folder / "answer.json"
    assert main(["plot", str(folder), "--by", "family", "--json", str(answer)]) == 0
    said = json.loads(answer.read_text())
    assert [point["group"] for point in said["points"]].count("ngram") == 6
    assert {path.name for path in (folder / "figures").iterdir()} == {"loss_by_family.png", "context_by_family.png"}
    assert "order 4" in capsys.readouterr().out


def test_a_table_without_scores_has_losses_alone(folder):
    (folder / "scores.csv").unlink()
    result = compare(folder, read(folder, by="family"), "family")
    assert result.contexts == ()
    assert result.units["encoder"] == "nats per token scored, masked"
    assert compared_text(result).splitlines()[-1].endswith("spans")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--by", "nothing"], "by: 'nothing' names no column"),
        (["--by", "eval_set", "--where", "family=decoder"], "by: eval_set has one value"),
        (["--by", "objective"], "family: 2 values"),
        (["--by", "family", "--recall"], "--by and --recall are figures of their own"),
        (["--by", "family", "--slice", "context"], "takes no --by"),
    ],
)
def test_what_is_refused(folder, capsys, given, words):
    assert main(["plot", str(folder), *given]) == 2
    assert words in capsys.readouterr().err

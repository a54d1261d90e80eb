"""Greedy output token by token against the logits themselves; its scores against sacrebleu's and the definition."""

import sys
from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest

from analysis.errors import InputError
from analysis.solving.proportions import wilson
from lmscale import evaluate
from lmscale.config import Bilingual, Corpus, EvalSet, Family, FamilyGrid, MeshConfig, PowerRule, Recipe, Size, Study
from lmscale.data.prepare import ensure_prepared
from lmscale.data.shards import Shards, open_shards
from lmscale.mesh import make_mesh
from lmscale.planning.assemble import Assembly, from_shards
from lmscale.planning.plan_table import as_json, as_text
from lmscale.scoring.translation import corpus_chrf, translations
from lmscale.step import Step
from lmscale.train import train

PAIRS = Bilingual(nouns=9, adjectives=5, verbs=4, sentences=600, unseen=0.2)
TAB, END, OFFSET = 9 + 3, 1, 3


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> dict[str, Shards]:
    folder, found = tmp_path_factory.mktemp("pairs"), {}
    for kind in ("seen", "unseen"):
        corpus = Corpus(task="bilingual", bilingual=replace(PAIRS, combinations=kind), heldout=0.2)
        (part,) = ensure_prepared(corpus, folder, echo=print)
        found[kind] = open_shards(part.folder)
    return found


def assemble(prepared: dict[str, Shards], family: Family, **changes) -> Assembly:
    recipe = {"sequence": 72, "batch_tokens": PowerRule(value=288), "warmup_tokens": 576, "cooldown_steps_min": 2}
    settings = {
        "sizes": (Size(width=16, depth=1),),
        "tokens": (288 * 5,),
        "eval_tokens": 72 * 16,
        "eval_sets": (EvalSet(name="unseen", corpus=Corpus(task="bilingual"), tokens=72 * 16),),
        "corpus": Corpus(task="bilingual", heldout=0.2),
    } | changes
    study = Study(name="t", family=family, objective="pairs", recipe=Recipe(**recipe), **settings)
    return from_shards(study, prepared["seen"], {"unseen": prepared["unseen"]})


@pytest.fixture(autouse=True)
def few_rows_a_call(monkeypatch):
    """A call is padded to as many."""
    monkeypatch.setattr(evaluate, "ROWS", 8)


@pytest.fixture(scope="module", params=["encoder_decoder", "decoder"])
def model(prepared, request):
    """A step, parameters for which some outputs end and others do not, pairs, and what a literal loop makes of them."""
    assembly = assemble(prepared, request.param)
    step = Step(assembly.plan[0], make_mesh(MeshConfig()), microbatches=1, steps_per_dispatch=1)
    first = step.init(1).params  # which writes one token for ever
    params = jax.tree.map(lambda x: 4 * x, first) | {"embedding": first["embedding"].at[END].multiply(2)}
    asked = translations(assembly.headline, TAB, 8)
    return step, params, asked, literal(step, params, asked)


def literal(step: Step, params, asked) -> list[list[int]]:
    """One token at a time, over whatever stands after it."""
    random, logits = np.random.default_rng(0), jax.jit(lambda p, rows: step.apply(p, step.objective(rows)))
    rows = [row[: row.index(TAB) + 1] for row in asked.windows.tokens.tolist()]
    given, width = [len(row) for row in rows], asked.windows.tokens.shape[1]

    def ended(row: int) -> bool:
        return len(rows[row]) == width or rows[row][given[row] :][-1:] == [END]

    while not all(ended(row) for row in range(len(rows))):
        junk = random.integers(2, 259, (len(rows), width))
        windows = np.array([[*row, *rest[len(row) :]] for row, rest in zip(rows, junk, strict=True)], np.int32)
        found = np.asarray(logits(params, windows))
        for row in range(len(rows)):
            if not ended(row):
                rows[row].append(int(found[row, len(rows[row]) - 1].argmax()))
    return [row[count:] for row, count in zip(rows, given, strict=True)]


def text(tokens) -> str:
    return bytes(token - OFFSET for token in tokens if token in range(OFFSET, OFFSET + 256)).decode(errors="replace")


def targets(asked) -> list[list[int]]:
    rows = [row[row.index(TAB) + 1 :] for row in asked.windows.tokens.tolist()]
    return [row[: row.index(END) + 1] for row in rows]


def values(scores) -> dict[str, float]:
    return {score.metric: score.value for score in scores}


def test_greedy_output_is_that_of_a_literal_loop(model):
    step, params, asked, expected = model
    ends = [row[-1] == END for row in expected]
    assert 0 < sum(ends) < len(ends)  # both ways of coming to an end
    start = np.where(np.pad(asked.given, ((0, 0), (1, 0)), constant_values=1) > 0, asked.windows.tokens, 0)
    found = np.asarray(step.written(params, start, asked.given)[0])
    for row, given, tokens in zip(found, asked.given, expected, strict=True):
        count = int(given.sum())
        assert row[count : count + len(tokens)].tolist() == tokens
        assert not row[count + len(tokens) :].any()


def test_scores_are_those_of_the_texts(model):
    from sacrebleu.metrics.chrf import CHRF

    step, params, asked, written = model
    right = targets(asked)
    scores = asked.measure(step, params)
    found = values(scores)
    theirs = CHRF().corpus_score([text(row) for row in written], [[text(row) for row in right]]).score
    assert found["chrf"] == pytest.approx(theirs, rel=1e-12)
    assert found["exact"] == np.mean([a == b for a, b in zip(written, right, strict=True)]) == 0
    assert found["pairs"] == len(right) == len(asked.windows.tokens)
    assert {score.metric: score.stderr for score in scores}["chrf"] > 0
    assert (found["exact_low"], found["exact_high"]) == wilson(0, len(right))


def test_what_a_model_writes_is_an_exact_match_with_itself(model):
    """Of the outputs that end; the first is then asked for something else."""
    step, params, asked, written = model
    tokens, kept = asked.windows.tokens.copy(), []
    for row, output in enumerate(written):
        if output[-1] == END:
            first = int(asked.given[row].sum()) + 1
            tokens[row, first:] = 0
            tokens[row, first : first + len(output)] = output
            kept.append(row)
    some = replace(asked, given=asked.given[kept], windows=replace(asked.windows, tokens=tokens[kept]))
    found = values(some.measure(step, params))
    assert found["exact"] == 1
    assert found["chrf"] == pytest.approx(100)
    assert (found["exact_low"], found["exact_high"]) == wilson(len(kept), len(kept))
    tokens[kept[0], int(asked.given[kept[0]].sum()) + 1] = 100
    some = replace(some, windows=replace(asked.windows, tokens=tokens[kept]))
    assert values(some.measure(step, params))["exact"] == pytest.approx(1 - 1 / len(kept))


def definition(written: list[str], asked: list[str]) -> float:
    """chrF after Popovic 2015, eq. 1, of a corpus: character 1- to 6-grams without spaces, recall twice as important,
    the mean over the orders that both sides have.
    """

    def grams(text: str, order: int) -> Counter:
        text = "".join(text.split())
        return Counter(text[i : i + order] for i in range(len(text) - order + 1))

    precision, recall = [], []
    for order in range(1, 7):
        sides = [(grams(a, order), grams(b, order)) for a, b in zip(written, asked, strict=True)]
        mine, theirs = sum(a.total() for a, _ in sides), sum(b.total() for _, b in sides)
        if mine and theirs:
            both = sum((a & b).total() for a, b in sides)
            precision.append(both / mine)
            recall.append(both / theirs)
    p, r = np.mean(precision), np.mean(recall)
    return float(100 * 5 * p * r / (4 * p + r))


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        (["rozose zivatutu rozarovi"], ["rozose zivatutu rozarovi"]),
        (["rozose zivatutu rozarovi", "zoferefo"], ["rozose zivatu rozarovi", "zohewu titotutu zoferefo"]),
        (["ab cd e", "abab fefefe"], ["abc de ef", "ba fefaef"]),
    ],
)
def test_chrf_is_its_definition(written, asked):
    score, stderr = corpus_chrf(written, asked)
    assert score == pytest.approx(definition(written, asked), rel=1e-9)
    assert (stderr is None) == (len(written) == 1)


def test_the_error_of_chrf_is_that_of_other_samples():
    """Against the spread over samples drawn anew; some of these have chrF 0 in some texts."""
    random = np.random.default_rng(0)

    def sample() -> tuple[float, float]:
        asked = ["".join(random.choice(list("abcd"), 12)) for _ in range(32)]
        written = [text if random.random() < 0.3 else "xyz" * random.integers(1, 6) for text in asked]
        score, stderr = corpus_chrf(written, asked)
        assert stderr is not None
        return score, stderr

    scores, errors = np.array([sample() for _ in range(25)]).T
    assert 0.6 < errors.mean() / scores.std(ddof=1) < 1.6


def test_the_sample_is_fixed_and_grows(prepared):
    assembly = assemble(prepared, "decoder")
    few, all_of_them = translations(assembly.headline, TAB, 5), translations(assembly.headline, TAB)
    assert [len(each.windows.tokens) for each in (few, all_of_them)] == [5, len(assembly.held_out.tokens)]
    width = few.windows.tokens.shape[1]
    sources = [row[: row.tolist().index(TAB) + 1].tolist() for row in all_of_them.windows.tokens]
    assert sources[:5] == [row[: row.tolist().index(TAB) + 1].tolist() for row in few.windows.tokens]
    assert len({tuple(source) for source in sources}) == len(sources)
    assert width <= 73
    assert few.label.startswith(f"{assembly.headline.label}-5")
    assert few.file_name != all_of_them.file_name


def test_every_run_is_scored_on_every_set(prepared, make_training):
    assembly = assemble(prepared, "decoder")
    t = make_training(assembly)
    train(t)
    (run,) = t.trajectory.runs
    rows = {(row["task"], row["metric"]): row["value"] for row in t.workspace.scores(run.id)}
    for name, count in (("heldout", len(assembly.held_out.tokens)), ("unseen", None)):
        task = f"{name}-translated"
        assert 0 <= rows[task, "exact_low"] <= rows[task, "exact"] <= rows[task, "exact_high"] <= 1
        assert 0 <= rows[task, "chrf"] <= 100
        assert rows[task, "pairs"] == count or count is None
    assert rows["unseen", "loss_nats"] > 0


def test_eight_devices_write_what_one_writes(prepared, eight):
    assembly = assemble(prepared, "encoder_decoder")
    asked, outputs = translations(assembly.headline, TAB, 8), []
    for config in (MeshConfig(), eight):
        step = Step(assembly.plan[0], make_mesh(config), microbatches=1, steps_per_dispatch=1)
        params = step.init(3).params
        few = asked.windows.tokens[:, :49], asked.given[:, :48]
        outputs.append(np.asarray(step.written(params, *few)[0]))
    np.testing.assert_array_equal(*outputs)


def test_what_cannot_be_scored_is_said_in_one_line(prepared, make_assembly, monkeypatch):
    with pytest.raises(InputError) as caught:
        translations(make_assembly().headline, TAB)  # no pairs
    line = "recipe.sequence: 16 tokens of 'heldout' do not hold a whole pair, a source, a tab and a target; raise it"
    assert str(caught.value).startswith(line)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(InputError) as caught:
        assemble(prepared, "decoder")
    assert str(caught.value) == "objective: 'pairs' is scored by sacrebleu; pip install 'lmscale[translation]'"


def test_the_plan_counts_pairs_and_both_families(prepared):
    sizes = (Size(width=16, depth=1),)
    further = (FamilyGrid(family="decoder", objective="pairs", sizes=sizes),)
    assembly = assemble(prepared, "encoder_decoder", further=further, allow_collinear=True)
    assert [t.family for t in assembly.plan] == ["decoder", "encoder_decoder"]
    pairs = assembly.extra_sets[-1].scored
    assert f"evaluated on unseen-translated: {pairs:,} pairs\n" in as_text(assembly, None, None, 1)
    assert as_json(assembly, None, None, 1)["eval_sets"][-1] == {
        "name": "unseen-translated", "pairs": pairs, "headline": False
    }  # fmt: skip

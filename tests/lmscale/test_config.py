"""A configuration holds what its annotations say, or is refused in one line."""

import random

import pytest

from analysis.errors import InputError
from lmscale.config import Corpus, EvalSet, MeshConfig, PowerRule, Recipe, Size, Study
from lmscale.study.studies import fields, override


def study(**changes) -> Study:
    return Study(**{"name": "x", "sizes": [Size(width=64)], "tokens": (1e6,)} | changes)


def test_numbers_and_lists_become_what_is_annotated():
    made = study(tokens=[1e6, 2e6], eval_tokens=1e5)
    assert made.tokens == (1_000_000, 2_000_000)
    assert [type(value) for value in (made.tokens, made.tokens[0], made.eval_tokens)] == [tuple, int, int]
    assert made == study(tokens=(1_000_000, 2_000_000), eval_tokens=100_000)


def test_no_name_leads_out_of_its_folder(tmp_path):
    """10,000 names, of letters that shells, paths and terminals take for something else."""
    randomly, taken, said, corpus = random.Random(0), 0, set(), Corpus()
    for _ in range(10_000):
        letters = randomly.choice(("ab0._-", "ab0._-/", "aZ.~/\\ \0\n\x1b[31m*?$`;|\u00e9\u6f22\u202e"))
        name = "".join(randomly.choices(letters, k=randomly.randrange(70)))
        for make in (lambda name=name: study(name=name), lambda name=name: EvalSet(name=name, corpus=corpus)):
            try:
                made = make()
            except InputError as error:
                said.add(str(error))
                continue
            taken += 1
            assert (tmp_path / made.name).resolve().parent == tmp_path.resolve()
            assert made.name.isascii()
            assert len(made.name) <= 64
    assert all("name: " in line and line.isprintable() for line in said)
    assert 1000 < taken < 10_000


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Recipe(schedule="wds"), "recipe.schedule: 'wds' is not wsd or cosine"),  # type: ignore[arg-type]
        (lambda: Size(width=96.5), "size.width: 96.5 is not a whole number"),  # type: ignore[arg-type]
        (lambda: study(tied_embeddings="no"), "tied_embeddings: 'no' is not true or false"),
        (lambda: study(family="rnn"), "family: 'rnn' is not decoder"),
        (lambda: study(corpus=None), "corpus: None is not a Corpus"),
        (lambda: Recipe(clip_norm=float("inf")), "recipe.clip_norm: inf is not a number"),
        (lambda: Recipe(sequence=True), "recipe.sequence: True is not a whole number"),
        (lambda: Corpus(files="books/*.txt"), "corpus.files: 'books/*.txt' is not text, one or more"),  # type: ignore[arg-type]
        (lambda: MeshConfig(data=0), "mesh.data: 0 must be at least 1"),
        (lambda: MeshConfig(data=100_000), "mesh: '100000,1,1' takes more than 16,384 devices"),
        (lambda: study(steps_per_dispatch=20_000_000), "steps_per_dispatch: 20000000 must lie between 1 and 4096"),
        (lambda: PowerRule(value=1.0, params=1e-300, exponent=2)(1e9), "rule: '1 * (N / 1e-300)^2' gives inf"),
        (lambda: Recipe(batch_tokens=PowerRule(value=1e13)).resolve(10**6), "recipe.batch_tokens: '1e+13' exceeds"),
        (lambda: study(name="../up"), "name: '../up' must be lower-case"),
    ],
)
def test_anything_else_is_refused(make, words):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(words)


def test_overrides_are_applied_together_and_keep_the_rest():
    base = study(recipe=Recipe(learning_rate=PowerRule(value=1e-2, params=1e5, exponent=-0.5)))
    made = override(
        base,
        [
            "--eval-tokens",
            "2e5",
            "--recipe.sequence=8192",
            "--recipe.learning-rate.exponent",
            "-0.3",
            "--tokens",
            "1e6,2e6",
        ],
    )
    assert (made.eval_tokens, made.recipe.sequence, made.tokens) == (200_000, 8192, (1_000_000, 2_000_000))
    assert made.recipe.learning_rate == PowerRule(value=1e-2, params=1e5, exponent=-0.3)
    assert override(base, ["--corpus.files", "a, b.txt", "c.txt"]).corpus.files == ("a, b.txt", "c.txt")
    assert override(base, ["--sizes", "64x2", "96x4x8", "--flops-max", "none"]).sizes == (
        Size(width=64, depth=2),
        Size(width=96, depth=4, heads=8),
    )


def test_a_rules_error_names_the_rule():
    with pytest.raises(InputError, match=r"^recipe\.learning_rate\.value: -1\.0 must be"):
        override(study(), ["--recipe.learning-rate.value", "-1"])


def test_the_help_shows_real_defaults():
    rows = {name: default for name, _, default in fields()}
    assert rows["recipe.learning-rate.value"] == "0.0047"
    assert rows["recipe.schedule"] == "wsd"
    assert rows["sizes"] == ""

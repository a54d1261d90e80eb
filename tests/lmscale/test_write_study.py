"""A study written to a file is the study that is read from it."""

from pathlib import Path

import pytest

from analysis.errors import InputError
from lmscale.config import Chosen, Corpus, EvalSet, ExecutorConfig, MeshConfig, PowerRule, Recipe, Size, Study
from lmscale.study.studies import load_study, override
from lmscale.study.write_study import study_text, write_study

SIZES = (Size(width=32, depth=2), Size(width=48, depth=2, heads=2), Size(width=64))
STUDIES = (
    Study(name="plain", sizes=SIZES, tokens=(1_000_000,)),
    Study(
        name="full",
        sizes=SIZES,
        flops_budgets=(4.8e12, 1 / 3, 1e40),
        only=(Chosen(size=SIZES[0], count=4.8e12), Chosen(size=SIZES[2], count=1 / 3)),
        seeds=(0, 3),
        corpus=Corpus(files=("a'b.txt", 'c"d.txt', "e\\f \N{GREEK SMALL LETTER ALPHA}.txt"), heldout=0.1),
        recipe=Recipe(learning_rate=PowerRule(value=4.9e-3, params=1e5, exponent=-0.5), schedule="cosine"),
        eval_sets=(EvalSet(name="other", corpus=Corpus(files=("x.txt",))),),
        mesh=MeshConfig(data=2),
        executor=ExecutorConfig(name="slurm", sbatch={"constraint": "a100"}),
        telemetry=(),
        tied_embeddings=False,
    ),
)


@pytest.mark.parametrize("study", STUDIES, ids=lambda s: s.name)
@pytest.mark.parametrize("about", ["One line.", 'Quotes """ and \\ and "', "Two\n\nlines."])
def test_what_is_written_is_read_back(study, about, tmp_path):
    write_study(tmp_path / "next.py", study, about)
    assert load_study(str(tmp_path / "next.py")) == study
    scope: dict = {}
    exec((tmp_path / "next.py").read_text(), scope)
    assert scope["__doc__"].strip() == about


def test_the_studies_of_the_project_too(tmp_path):
    for path in sorted((Path(__file__).parents[2] / "experiments").glob("*.py")):
        text = study_text(study := load_study(str(path)), "As it was.")
        (tmp_path / path.name).write_text(text)
        assert load_study(str(tmp_path / path.name)) == study
        assert max(map(len, text.splitlines())) <= 120


def test_files_that_are_not_written(tmp_path):
    (tmp_path / "there.py").write_text("mine")
    for path, words in (("next.txt", "end it in .py"), ("there.py", "is there already"), ("there.py/x.py", "cannot")):
        with pytest.raises(InputError, match=f"^write: .*{words}"):
            write_study(tmp_path / path, STUDIES[0], "x")
    assert (tmp_path / "there.py").read_text() == "mine"


def test_only_says_which_cells(tmp_path):
    study = override(STUDIES[0], ["--tokens", "1e6", "2e6", "--only", "32x2:1e6", "64:2e6"])
    assert study.only == (Chosen(size=SIZES[0], count=1e6), Chosen(size=SIZES[2], count=2e6))
    for words, wrong in (("32x3:1e6", "none of the study's sizes"), ("64:3e6", "is none of tokens"), ("64", "is not")):
        with pytest.raises(InputError, match=f"^only: .*{wrong}"):
            override(study, ["--only", words])

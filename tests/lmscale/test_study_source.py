"""A study written as Python is the same study when it is run."""

import ast
from pathlib import Path

import pytest

from lmscale.config import Corpus, EvalSet, PowerRule, Recipe, Size, Study
from lmscale.studies import load_study
from lmscale.study_source import study_source

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("*.py"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_the_studies_here_come_back_whole(path, tmp_path):
    study = load_study(str(path))
    (tmp_path / "again.py").write_text(study_source(study, "Again."))
    assert load_study(str(tmp_path / "again.py")) == study


def test_only_what_is_no_default_is_written():
    study = Study(
        name="small",
        sizes=(Size(width=64, depth=2),),
        tokens=(1_000_000,),
        corpus=Corpus(files=("a 'quoted' file.txt",)),
        recipe=Recipe(learning_rate=PowerRule(value=1e-3)),
        eval_sets=(EvalSet(name="other", corpus=Corpus(files=("b.txt",)), tokens=4096),),
    )
    source = study_source(study, 'It\'s """quoted""" and has a \\ in it.')
    assert "sequence" not in source
    assert source.startswith('"""It\'s')
    assert ast.get_docstring(ast.parse(source)) == "It's '''quoted''' and has a \\ in it."
    names: dict = {}
    exec(compile(source, "small.py", "exec"), names)
    assert names["STUDY"] == study
